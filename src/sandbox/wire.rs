//! What the processes of a sandbox tell each other.

use serde::{Deserialize, Serialize};

use super::{Bind, SandboxSpec, Status, Usage};
use crate::error::Error;
use crate::key::Network;
use crate::path::GuestPath;

/// What isolith asks of the executor: the parts of a spec that it has to know. The whole spec comes with it
/// in a memory file, which goes on to the init unread.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    /// The command keeps its standard input and may keep a terminal; no other request will follow soon.
    pub(super) extras: bool,
    /// What is shown of the machine beside base `host`.
    pub(super) binds: Vec<Bind>,
    /// Which descriptors come behind the five that every request has.
    pub(super) more: More,
    /// User inside the sandbox.
    pub(super) uid: u32,
    /// Group inside the sandbox.
    pub(super) gid: u32,
    /// Which network it sees.
    pub(super) network: Network,
    /// Paths of base `host`.
    pub(super) host: Vec<GuestPath>,
}

impl Request {
    /// Of this spec.
    pub(super) fn new(spec: &SandboxSpec, more: More) -> Self {
        let action = &spec.action;
        Self {
            extras: spec.extras.is_some(),
            binds: spec.extras.as_ref().map(|extras| extras.binds.clone()).unwrap_or_default(),
            more,
            uid: action.user.uid,
            gid: action.user.gid,
            network: action.network,
            host: action.host.as_ref().map(|host| host.paths.clone()).unwrap_or_default(),
        }
    }
}

/// Descriptors that some requests have, in this order.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct More {
    /// A byte comes there when the init is in its cgroup.
    pub(super) hold: bool,
    /// The init sends its network namespace there.
    pub(super) network: bool,
}

/// What the executor tells an init beside the spec. Mounts of the machine follow as descriptors, in the order
/// of `view`, then of the binds.
#[derive(Serialize, Deserialize)]
pub(super) struct Assignment {
    /// The places of base `host` and what is there.
    pub(super) view: Vec<(GuestPath, Part)>,
    /// The machine's /etc/resolv.conf, for network `host`.
    pub(super) resolv: Option<Vec<u8>>,
    /// How many binds there are.
    pub(super) binds: usize,
    /// Descriptors that came with the request.
    pub(super) more: More,
}

/// One path of base `host`.
#[derive(Serialize, Deserialize)]
pub(super) enum Part {
    /// A directory.
    Dir,
    /// Another file.
    File,
    /// A symlink and its target.
    Link(Vec<u8>),
}

/// What the executor answers to a request. The init's pidfd comes with `Started`.
#[derive(Serialize, Deserialize)]
pub(super) enum Reply {
    /// The executor has its own mounts and takes requests.
    Ready,
    /// The init runs.
    Started {
        /// Its process id, as isolith sees it.
        pid: i32,
    },
    /// It does not.
    Failed(Failure),
}

/// What an init says last.
#[derive(Serialize, Deserialize)]
pub(super) enum Report {
    /// The command has ended and nothing is left running.
    Done {
        /// How it ended.
        status: Status,
        /// What it all took.
        usage: Usage,
        /// It has to be run again, watched closely.
        again: bool,
    },
    /// The sandbox could not be set up; the command has not run.
    Failed(Failure),
}

/// An [`Error`] on its way between processes.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Failure {
    what: String,
    why: Vec<String>,
    hint: Option<String>,
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self { what: e.what().to_string(), why: e.causes(), hint: e.hint_text().map(str::to_string) }
    }
}

impl From<Failure> for Error {
    fn from(f: Failure) -> Self {
        let mut error = Error::machine(f.what);
        if !f.why.is_empty() {
            error = error.because(f.why.join(": "));
        }
        match f.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// A message in its form on the wire.
pub(super) fn encode(message: &impl Serialize) -> Vec<u8> {
    // These types hold nothing that JSON cannot.
    serde_json::to_vec(message).unwrap_or_default()
}

/// A message from the wire.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::machine("a message of the executor is damaged").because(e))
}
