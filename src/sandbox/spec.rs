//! What the executor needs to run one sandbox: the action document, and where its parts are found on
//! this machine. Nothing a step can see comes from anywhere else.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Conditions;
use crate::digest::LayerId;
use crate::key::ActionDocument;
use crate::layer::StackOwners;
use crate::path::GuestPath;

/// One sandbox, ready to start. Plain data: it crosses a socket to the executor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// What the step sees.
    pub action: ActionDocument,
    /// Layers to mount, lowest first: the action's stack, where a long one may have been squashed.
    pub layers: Vec<LayerId>,
    /// A directory relative to the store root that is stacked on top of `layers` read-only: the state
    /// a failed step left, for `shell`.
    pub on_top: Option<String>,
    /// Directories that must exist in the lowest place of the stack so that whiteouts of layers above,
    /// which hide nothing here, stay invisible.
    pub hidden_dirs: Vec<Vec<u8>>,
    /// Who owns what of the stack, for a sandbox with one id only; nothing otherwise.
    pub owners: StackOwners,
    /// Name of the run directory below the store's `tmp/`; it holds `upper/` and `work/`.
    pub run: String,
    /// Where the cache mounts of the action are: directory relative to the store root, one a cache mount.
    pub caches: Vec<CacheMount>,
    /// The content of the secrets of the action.
    pub secrets: Vec<SecretMount>,
    /// Number of usable cpus, given to the step as JOBS.
    pub jobs: u32,
    /// What the step may use up. Not visible to it, so not in the document.
    pub limits: Limits,
    /// With one id only: watch every `chmod`. Otherwise those are left to the kernel that may only take a setgid
    /// bit away, and a step in which one did that to a directory that hands its group down is to be run again.
    pub closely: bool,
    /// What a person asked for beyond the contract; none for a step.
    #[serde(default)]
    pub extras: Option<Extras>,
    /// What `verify` changes; the default is the contract.
    #[serde(default)]
    pub conditions: Conditions,
}

impl SandboxSpec {
    /// True for the sandbox of a step as the contract has it: only what such a one gave may be recorded as a result.
    pub fn is_contract(&self) -> bool {
        self.extras.is_none() && self.on_top.is_none() && self.conditions.are_normal()
    }
}

/// What a sandbox that a person asked for (`shell`, `run`) has beyond the contract of steps. With it the command
/// gets its standard input, which becomes its controlling terminal if it is one, and signals sent to the sandbox's
/// init are passed on to it. Nothing that ran with extras is anybody's result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extras {
    /// Laid over the document's environment.
    pub env: Vec<(String, String)>,
    /// What is shown of the machine, in this order.
    pub binds: Vec<Bind>,
    /// The root cannot be written to; `/tmp` and its like can.
    pub read_only: bool,
    /// Ports of the sandbox's loopback are published, so its network namespace is handed out.
    pub ports: bool,
}

/// A directory or file of this machine, shown in a sandbox. Neither set-user-id bits nor devices work there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Where it is: absolute, symlinks resolved.
    pub host: PathBuf,
    /// Where the command sees it.
    pub at: GuestPath,
    /// It cannot be written to.
    pub read_only: bool,
}

/// Where a cache mount is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CacheMount {
    /// Where the step sees it.
    pub at: GuestPath,
    /// Directory, relative to the store root.
    pub dir: String,
}

/// A secret with its value. Not `Debug`-printed anywhere.
#[derive(Clone, Serialize, Deserialize)]
pub struct SecretMount {
    /// Where the step sees it.
    pub at: GuestPath,
    /// The bytes of the file.
    pub value: Vec<u8>,
}

impl std::fmt::Debug for SecretMount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretMount {{ at: {:?}, value: … }}", self.at)
    }
}

/// What a step may use up; `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processor time, in cpus (1.5 is one and a half).
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Wall time in seconds.
    pub time: Option<u64>,
    /// Bytes in the writable layer.
    pub disk: Option<u64>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It exited with this code.
    Exited(i32),
    /// A signal ended it.
    Signaled(i32),
}

/// What a sandbox used, over all its processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// User processor time in microseconds.
    pub user_us: u64,
    /// System processor time in microseconds.
    pub system_us: u64,
    /// Largest resident set of one process, in bytes.
    pub max_rss: u64,
}

/// What became of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How the command ended.
    pub status: Status,
    /// What it used.
    pub usage: Usage,
    /// The limit that ended it (`time`, `memory`, `pids`, `disk`), if one did.
    pub limit: Option<&'static str>,
    /// Owners that it saw or left may be wrong: it has to be run again, with [`SandboxSpec::closely`].
    pub again: bool,
}
