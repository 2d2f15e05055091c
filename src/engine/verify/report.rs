//! What `verify` found out: data, for `ui` to draw and for machines to read.

use serde::Serialize;

use super::cause::Cause;
use super::variation::Variation;
use crate::digest::LayerId;
use crate::engine::PathDifference;

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub struct Verification {
    /// Name of the recipe.
    pub recipe: String,
    /// Where it ended, if not with the last step.
    pub step: Option<String>,
    /// No step differed in any round.
    pub identical: bool,
    /// The reference came from the store; else the first round is the reference.
    pub stored_reference: bool,
    /// Every variation, and what became of it.
    pub variations: Vec<Choice>,
    /// The rounds that were built.
    pub rounds: Vec<Round>,
    /// Every step, in plan order.
    pub steps: Vec<Step>,
    /// What `--bisect` found of the first step that differs.
    pub bisect: Vec<Bisect>,
}

/// A variation and whether it was on.
#[derive(Debug, Clone, Serialize)]
pub struct Choice {
    /// Which.
    pub name: Variation,
    /// What it changes.
    pub what: &'static str,
    /// It was on in the varied rounds.
    pub applied: bool,
    /// Why it was not.
    pub why_not: Option<String>,
}

/// A build of the whole recipe.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Counted from 1.
    pub number: usize,
    /// What was changed; nothing in a round that is the reference.
    pub variations: Vec<Variation>,
    /// Steps whose layer is not that of the reference.
    pub differing: Vec<String>,
    /// The step that failed, if one did.
    pub failed: Option<String>,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
}

/// A step and what became of it in all rounds.
#[derive(Debug, Serialize)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Its layer in the reference.
    pub reference: LayerId,
    /// The first round in which it was another, and that layer; none there when it failed or was not reached.
    pub other: Option<(usize, Option<LayerId>)>,
    /// A step below it that differs, so that this one had another input.
    pub below: Option<String>,
    /// The last lines of the log, where it failed.
    pub log: Vec<String>,
    /// What differs, path by path.
    pub paths: Vec<Path>,
    /// How many more paths differ.
    pub more_paths: usize,
    /// Where diffoscope's page is, relative to the report.
    pub diffoscope: Option<String>,
}

impl Step {
    /// Whether it was the same in every round.
    pub fn is_identical(&self) -> bool {
        self.other.is_none()
    }
}

/// A path that differs, and what it is likely to come from.
#[derive(Debug, Serialize)]
pub struct Path {
    /// What differs; `a` and the first are the reference.
    #[serde(flatten)]
    pub difference: PathDifference,
    /// Likely causes, the likeliest first.
    pub causes: Vec<Cause>,
}

/// The smallest set of variations that makes some paths of a step differ.
#[derive(Debug, Clone, Serialize)]
pub struct Bisect {
    /// The first step that differs.
    pub step: String,
    /// The variations; none: the paths differ under the same conditions too.
    pub variations: Vec<Variation>,
    /// The paths that differ then and were not explained by a set before.
    pub paths: Vec<String>,
    /// How many more builds it took.
    pub builds: usize,
}
