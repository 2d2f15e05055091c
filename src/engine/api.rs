//! What a caller asks of the engine, and what it gets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::pins::Pinning;
use super::{ImageTarget, Made, RemoteReport, StepReport};
use crate::digest::{ActionKey, LayerId};
use crate::recipe::{ImageBase, Recipe};
use crate::sandbox::{Conditions, Status};

/// One build, or a part of one.
#[derive(Debug, Clone)]
pub struct Request {
    /// The recipe file; of what is none, what to call it.
    pub recipe: PathBuf,
    /// What is built.
    pub what: What,
    /// `--set` values.
    pub args: BTreeMap<String, String>,
    /// Steps that may run at once; at least 1.
    pub jobs: usize,
    /// Which cached results may be used.
    pub cache: CachePolicy,
    /// A step that would have to run is an error instead (class `Difference`).
    pub fail_on_miss: bool,
    /// Values of secrets, by name.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// An input that neither the recipe nor its lock file pins is an error (class `Recipe`) instead of being
    /// pinned now.
    pub locked: bool,
    /// Stop when this step (of the recipe itself) and what it needs are there.
    pub until: Option<String>,
    /// What of the result has to be in the store in the end. Without remotes all of it is; what only a remote has is
    /// not brought here unless something wants to see it.
    pub wanted: Wanted,
    /// What `verify` changes about the sandboxes; the default is the contract. What runs under other conditions
    /// is not recorded as a result.
    pub conditions: Conditions,
}

impl Request {
    /// What is done about inputs that nothing pins.
    pub(super) fn pinning(&self) -> Pinning<'static> {
        if self.locked { Pinning::Required } else { Pinning::Missing }
    }

    /// Whether it is about a build that is in the history already.
    pub(super) fn is_earlier(&self) -> bool {
        matches!(self.what, What::Earlier(_))
    }
}

/// What of a finished build is going to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Wanted {
    /// Nothing: it is enough to know it.
    #[default]
    Nothing,
    /// The outputs that an export takes when none is named; of a recipe without outputs, the stack.
    Outputs,
    /// One output.
    Output(String),
    /// The finished stack.
    Stack,
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum What {
    /// The recipe as its file is now.
    #[default]
    Recipe,
    /// An image, and nothing on top.
    Image(ImageBase),
    /// An earlier build, from what was kept of its recipe.
    Earlier(BuildName),
}

/// How an earlier build is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildName {
    /// By its number among those of the recipe of the request: `recipe.toml@3`.
    Number(u64),
    /// By a tag: `@v1`.
    Tag(String),
}

/// Which cached results may be used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CachePolicy {
    /// All.
    #[default]
    Use,
    /// None: every step of the recipe runs.
    Ignore,
    /// None for this step and all that come after it.
    IgnoreFrom(String),
}

/// A finished build.
#[derive(Debug)]
pub struct Built {
    /// The recipe that was built.
    pub recipe: Recipe,
    /// Every step that was reached, in plan order.
    pub steps: Vec<StepReport>,
    /// The finished stack, lowest first; empty when the build failed.
    pub stack: Vec<LayerId>,
    /// The layer of each output; empty when the build failed.
    pub outputs: BTreeMap<String, LayerId>,
    /// How the layers of the stack came to be, lowest first; empty when the build failed.
    pub made: Vec<Made>,
    /// How the layer of each output came to be; empty when the build failed.
    pub made_outputs: BTreeMap<String, Made>,
    /// The step that failed, if one did.
    pub failure: Option<Failure>,
    /// What each remote did; none that was not asked.
    pub remotes: Vec<RemoteReport>,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
}

/// A step that ran and failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What it is called in this build.
    pub step: String,
    /// Its name in its own recipe.
    pub name: String,
    /// The recipe file it is in.
    pub recipe: PathBuf,
    /// Its action key.
    pub key: ActionKey,
    /// How its command ended.
    pub status: Status,
    /// The limit that ended it, if one did.
    pub limit: Option<&'static str>,
    /// The whole log (zstd).
    pub log: PathBuf,
    /// The last lines of it, at most 30.
    pub tail: Vec<String>,
}

/// Why a step would hit or miss.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The step.
    pub step: String,
    /// `hit`, `cutoff-hit`, `miss`, or `unknown` when a step below has to run first.
    pub verdict: Verdict,
    /// Its action key, when it can be known without running anything.
    pub key: Option<ActionKey>,
    /// The earlier action it was compared with.
    pub nearest: Option<ActionKey>,
    /// Every difference to that one, most telling first.
    pub reasons: Vec<String>,
}

/// What a look-up would say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Known by its DefinitionKey.
    Hit,
    /// Known by its ActionKey only.
    CutoffHit,
    /// It would run.
    Miss,
    /// A step below has to run before anyone can say.
    Unknown,
}

/// Where an export goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A directory; files are owned by the caller.
    Dir(PathBuf),
    /// A tar archive, deterministic, with the owners of the sandbox.
    Tar(PathBuf),
    /// A container image.
    Image(ImageTarget),
}

/// Which state `shell` opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// What the step would start from.
    Before,
    /// What the step left, whether it failed or not.
    After,
}
