//! What is said: an in-toto Statement v1 (<https://github.com/in-toto/attestation>, `spec/v1`) with a SLSA provenance
//! v1 predicate (<https://slsa.dev/spec/v1.0/provenance>).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `_type` of a statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// `predicateType` of a provenance.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// `buildType` of what isolith builds (docs/format.md, "Provenance").
pub const BUILD_TYPE: &str = "https://isolith.dev/build/v1";

/// A statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statement {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// What it is about.
    pub subject: Vec<Resource>,
    /// [`PREDICATE_TYPE`].
    pub predicate_type: String,
    /// What is said of it.
    pub predicate: Provenance,
}

impl Statement {
    /// A statement of provenance.
    pub fn new(subject: Vec<Resource>, predicate: Provenance) -> Statement {
        Statement {
            kind: STATEMENT_TYPE.to_string(),
            subject,
            predicate_type: PREDICATE_TYPE.to_string(),
            predicate,
        }
    }
}

/// A thing with its digests (`ResourceDescriptor`).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resource {
    /// What it is called.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Its digests, by algorithm, in hex.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// What else there is to say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, Value>,
}

impl Resource {
    /// A thing with one digest.
    pub fn new(name: impl Into<String>, algorithm: &str, digest: impl Into<String>) -> Resource {
        let digest = BTreeMap::from([(algorithm.to_string(), digest.into())]);
        Resource { name: name.into(), digest, ..Resource::default() }
    }
}

/// How something was built. Fields that are not known here are left out of account.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// What was to be built.
    pub build_definition: BuildDefinition,
    /// How it was.
    pub run_details: RunDetails,
}

/// `buildDefinition`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildDefinition {
    /// [`BUILD_TYPE`].
    pub build_type: String,
    /// What the caller said: recipe, step, arguments.
    #[serde(default)]
    pub external_parameters: BTreeMap<String, Value>,
    /// What isolith added: sandbox contract, keys.
    #[serde(default)]
    pub internal_parameters: BTreeMap<String, Value>,
    /// What it was made of.
    #[serde(default)]
    pub resolved_dependencies: Vec<Resource>,
}

/// `runDetails`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunDetails {
    /// Who built it.
    pub builder: Builder,
    /// When.
    #[serde(default)]
    pub metadata: Metadata,
}

/// `builder`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Builder {
    /// The signing key as a URI.
    pub id: String,
    /// Versions of what built it.
    #[serde(default)]
    pub version: BTreeMap<String, String>,
}

/// `metadata`; times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_on: Option<String>,
    /// When it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_on: Option<String>,
}
