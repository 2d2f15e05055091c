//! What the engine tells while it works. It prints nothing; `ui` draws these.

use serde::{Deserialize, Serialize};

use super::RemoteReport;
use crate::digest::{ActionKey, LayerId};

/// How a step's layer was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeKind {
    /// It ran here.
    Executed,
    /// Its DefinitionKey was known.
    Hit,
    /// Its ActionKey was known, after something below had run again.
    CutoffHit,
    /// A remote knew it.
    RemoteHit,
    /// It ran and failed.
    Failed,
}

/// What became of a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepReport {
    /// `step`, or `recipe:step` for a step of another recipe.
    pub name: String,
    /// How its layer was come by.
    pub outcome: OutcomeKind,
    /// Its action key.
    pub key: ActionKey,
    /// What it yielded; none when it failed.
    pub layer: Option<LayerId>,
    /// From start to committed layer; 0 for hits.
    pub wall_ms: u64,
    /// For hits: what making it took, where it was made.
    pub saved_ms: u64,
    /// The remote that it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
}

/// Something happened. As JSON, one a line, `event` names which.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The graph is known.
    Planned {
        /// The steps to come by, in order.
        steps: Vec<String>,
    },
    /// A step starts to run.
    Started {
        /// Which.
        step: String,
        /// Its action key.
        key: ActionKey,
        /// Why no earlier result could stand in: the differences to the nearest earlier action.
        why: Vec<String>,
    },
    /// Another isolith process is running the same action; this one waits for it.
    Waiting {
        /// Which.
        step: String,
    },
    /// Something is being fetched; a few times a second, and once more when it is done.
    Fetching {
        /// What it is for: ``source `src` ``.
        what: String,
        /// From where.
        url: String,
        /// Bytes that are there.
        bytes: u64,
        /// How many there will be, if that is known.
        total: Option<u64>,
        /// Bytes a second, so far.
        rate: u64,
        /// All is there.
        done: bool,
    },
    /// The tag of an image was looked up.
    Resolved {
        /// The image as it was asked for.
        image: String,
        /// What the tag stands for now.
        digest: String,
    },
    /// A layer is being compressed; now and then, and once more when it is done.
    Packing {
        /// How it came to be: `step compile`.
        what: String,
        /// Compressed bytes so far.
        bytes: u64,
        /// All is there.
        done: bool,
    },
    /// Something is being uploaded; a few times a second, and once more when it is done.
    Uploading {
        /// What it is: `step compile`.
        what: String,
        /// To where.
        url: String,
        /// Bytes that are there.
        bytes: u64,
        /// How many there will be.
        total: u64,
        /// Bytes a second, so far.
        rate: u64,
        /// All is there.
        done: bool,
    },
    /// A line of a step's log.
    Log {
        /// Which.
        step: String,
        /// Without the newline; bytes that are not UTF-8 are replaced.
        line: String,
    },
    /// A step is done, one way or another.
    Step(StepReport),
    /// Something the user should know.
    Warning {
        /// What.
        message: String,
    },
    /// An output was written.
    Exported {
        /// Name of the output; none for the whole stack.
        output: Option<String>,
        /// Where to.
        to: String,
        /// The digest of an image.
        #[serde(skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
    },
    /// The build is over. Always the last event.
    Finished {
        /// `ok` or `failed`.
        status: &'static str,
        /// Wall time of the whole build.
        wall_ms: u64,
        /// Every step, in plan order; those never reached are missing.
        steps: Vec<StepReport>,
        /// The finished stack, lowest first.
        stack: Vec<LayerId>,
        /// What each remote did; none that was not asked.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        remotes: Vec<RemoteReport>,
    },
}

/// Where events go. Called from many threads.
pub trait Observer: Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}
