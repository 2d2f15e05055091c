//! Records: what a writer says that keys came to (docs/format.md, "Records").

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::{Envelope, PREDICATE_TYPE, PublicKey, Resource, STATEMENT_TYPE, Statement};
use crate::digest::{ActionKey, DefinitionKey, LayerId};
use crate::layer::Manifest;
use crate::remote::{Blob, RecordKey, Subject};

const LAYER: &str = "isolithLayer";
const PLAN: &str = "isolithPlan";
const SHA256: &str = "sha256";
const SIZE: &str = "dev.isolith.size";
const WALL: &str = "dev.isolith.wall-ms";
const ACTION: &str = "dev.isolith.action";

/// A layer is not larger than this when it travels: 2^53 bytes, which JSON keeps exactly.
const MOST_SIZE: u64 = 1 << 53;

/// What a definition or an action came to, as somebody says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The layer.
    pub layer: LayerId,
    /// The layer in travelling form; none for the empty one.
    pub blob: Option<Blob>,
    /// The action that made it, for a step.
    pub action: Option<ActionKey>,
    /// What making it took, in milliseconds.
    pub wall_ms: u64,
}

/// Why a record does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What should have been there.
    pub expected: String,
    /// What was.
    pub got: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, got {}", self.expected, self.got)
    }
}

impl Claim {
    /// The claim as a subject of a statement: about the record key's subject `about`.
    pub fn resource(&self, about: &Subject) -> Resource {
        let mut resource = Resource::new(about.to_string(), LAYER, self.layer.to_hex());
        let mut note = |name: &str, value: Value| resource.annotations.insert(name.to_string(), value);
        note(WALL, self.wall_ms.into());
        if let Some(action) = &self.action {
            note(ACTION, action.to_hex().into());
        }
        if let Some(blob) = &self.blob {
            note(SIZE, blob.size.into());
            let hex = blob.digest.as_ref().trim_start_matches("sha256:");
            resource.digest.insert(SHA256.to_string(), hex.to_string());
        }
        resource
    }

    /// The subject of a statement about a whole plan that goes in front of its claims.
    pub fn plan(about: &Subject) -> Resource {
        Resource::new(about.to_string(), PLAN, about.hex())
    }

    fn read(resource: &Resource) -> Result<Claim, Refused> {
        let digest = |name: &str| resource.digest.get(name).map(String::as_str).unwrap_or_default();
        let wrong = |what: &str, got: &str| refused(format!("{what} in {}", resource.name), quoted(got));
        let layer: LayerId = digest(LAYER).parse().map_err(|_| wrong("a layer", digest(LAYER)))?;
        let number =
            |name: &str| resource.annotations.get(name).and_then(Value::as_u64).filter(|n| *n <= MOST_SIZE);
        let action = match resource.annotations.get(ACTION) {
            None => None,
            Some(value) => {
                let text = value.as_str().unwrap_or_default();
                Some(text.parse().map_err(|_| wrong("an action key", text))?)
            }
        };
        let blob = if layer == Manifest::empty_id() {
            None
        } else {
            let text = digest(SHA256);
            let plain = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            let digest = format!("sha256:{text}").parse().ok().filter(|_| plain);
            let digest = digest.ok_or_else(|| wrong("a SHA-256", text))?;
            let size = number(SIZE).ok_or_else(|| wrong("a size", "none"))?;
            Some(Blob { digest, size })
        };
        Ok(Claim { layer, blob, action, wall_ms: number(WALL).unwrap_or(0) })
    }
}

/// Reads the record `name`, which the holder of `key` is said to have written. For a definition or an action there is
/// one claim; a plan's record has claims of any of its definitions.
///
/// # Errors
/// It is not signed by `key`, not about `name`, or not as a record has to be.
pub fn read(bytes: &[u8], name: &RecordKey, key: &PublicKey) -> Result<BTreeMap<Subject, Claim>, Refused> {
    debug_assert_eq!(name.writer, key.writer());
    let envelope = Envelope::read(bytes).map_err(|why| refused("a signed record", why))?;
    let payload = envelope
        .verified(key)
        .ok_or_else(|| refused(format!("a signature of {key}"), "none of that key over these bytes"))?;
    let statement: Statement = serde_json::from_slice(payload)
        .map_err(|why| refused("an in-toto statement", format!("another form: {why}")))?;
    for (wanted, got) in [(STATEMENT_TYPE, &statement.kind), (PREDICATE_TYPE, &statement.predicate_type)] {
        if wanted != got {
            return Err(refused(wanted, quoted(got)));
        }
    }
    let about = name.subject.to_string();
    let own = statement.subject.iter().filter(|resource| resource.name == about).collect::<Vec<_>>();
    let [own] = own[..] else {
        let names = statement.subject.iter().take(2).map(|resource| quoted(&resource.name));
        return Err(refused(
            format!("a record about {about}"),
            match own.len() {
                0 => format!("one about {}", names.collect::<Vec<_>>().join(" and ")),
                n => format!("one that is about it {n} times"),
            },
        ));
    };
    if !matches!(name.subject, Subject::Plan(_)) {
        return Ok(BTreeMap::from([(name.subject, Claim::read(own)?)]));
    }
    let mut claims = BTreeMap::new();
    for resource in statement.subject.iter().filter(|resource| resource.name != about) {
        let definition = resource.name.strip_prefix("def-").and_then(|hex| hex.parse::<DefinitionKey>().ok());
        let definition =
            definition.ok_or_else(|| refused("the name of a definition", quoted(&resource.name)))?;
        if claims.insert(Subject::Definition(definition), Claim::read(resource)?).is_some() {
            return Err(refused(format!("one claim about {}", resource.name), "two"));
        }
    }
    Ok(claims)
}

/// The blobs that a record refers to, whoever wrote it; none when it cannot be read.
pub(super) fn refers(bytes: &[u8]) -> Option<Vec<Blob>> {
    let envelope = Envelope::read(bytes).ok()?;
    let statement: Statement = serde_json::from_slice(envelope.unverified()).ok()?;
    let claims = statement.subject.iter().filter(|resource| resource.digest.contains_key(LAYER));
    claims
        .map(|resource| Claim::read(resource).map(|claim| claim.blob).ok())
        .collect::<Option<Vec<_>>>()
        .map(|blobs| blobs.into_iter().flatten().collect())
}

fn refused(expected: impl Into<String>, got: impl fmt::Display) -> Refused {
    Refused { expected: expected.into(), got: got.to_string() }
}

/// Text of somebody else's for a message: short, and without what a terminal would act on.
fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(100).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("`{}`", short.escape_debug())
}

#[cfg(test)]
mod tests;
