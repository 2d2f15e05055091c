//! Everything a step can see, as one document. The sandbox is built from it and from nothing else, so
//! what is not in the document cannot reach a step (docs/design/keys.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::canonical_json;
use crate::digest::ActionKey;
use crate::path::GuestPath;

/// The version of the sandbox contract (docs/contract.md). It is part of every key; a change of anything
/// that a step can see takes a new one.
pub const CONTRACT: u32 = 1;

/// The document of a step. Its canonical JSON (keys sorted, no white space) is what keys are made of.
///
/// In an action document `stack` holds layer ids; in a definition document each is replaced by what
/// makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionDocument {
    /// Version of the sandbox contract.
    pub contract: u32,
    /// Machine architecture, as in `x86_64`.
    pub arch: String,
    /// The read-only view of this machine below the stack, for base `host`.
    pub host: Option<HostView>,
    /// The stack, lowest first: layer ids (or definition keys in a definition document).
    pub stack: Vec<String>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment, complete but for HOME (when not set here) and JOBS.
    pub env: BTreeMap<String, String>,
    /// Working directory; it is made if the stack does not have it.
    pub cwd: GuestPath,
    /// Who runs it.
    pub user: UserDoc,
    /// What network it sees.
    pub network: Network,
    /// What is mounted over the stack, sorted by place.
    pub mounts: Vec<MountDoc>,
    /// SOURCE_DATE_EPOCH, and the mtime of all that the step writes.
    pub epoch: i64,
}

impl ActionDocument {
    /// The key of the action: a digest of the document's canonical JSON.
    pub fn key(&self) -> ActionKey {
        ActionKey::of_document(&canonical_json(self))
    }
}

/// The `host` base: directories of this machine, read-only, at their own paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostView {
    /// The paths that are shown, sorted; a symlink is shown as a symlink.
    pub paths: Vec<GuestPath>,
    /// Digest over what lies there.
    pub fingerprint: String,
}

/// Numeric user and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserDoc {
    /// User id inside the sandbox.
    pub uid: u32,
    /// Group id inside the sandbox.
    pub gid: u32,
}

/// Which network a step sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A loopback and nothing else.
    None,
    /// The machine's own.
    Host,
}

/// One mount, by name and place; never by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum MountDoc {
    /// A directory that outlives the step and is not part of the layer.
    Cache {
        /// Where.
        at: GuestPath,
        /// Which; steps that give the same id share it.
        id: String,
    },
    /// An empty private directory in memory.
    Tmpfs {
        /// Where.
        at: GuestPath,
    },
    /// A file with a secret in it.
    Secret {
        /// Where.
        at: GuestPath,
        /// Its name, never its value.
        name: String,
    },
}
