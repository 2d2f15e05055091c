//! What the last build of a recipe did, for `ci summary`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Built, RemoteReport, Session, StepReport};
use crate::error::{Error, Result};

/// The kind of the notes.
const NOTES: &str = "reports";

/// What a build did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BuildReport {
    /// Name of the recipe.
    pub recipe: String,
    /// The step that failed, if one did.
    pub failed: Option<String>,
    /// Every step that was reached, in plan order.
    pub steps: Vec<StepReport>,
    /// What each remote did.
    pub remotes: Vec<RemoteReport>,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
}

impl Session {
    /// Keeps what a build did, in place of what the one before it did.
    pub fn keep_report(&self, built: &Built) -> Result<()> {
        let report = BuildReport {
            recipe: built.recipe.name.clone(),
            failed: built.failure.as_ref().map(|failure| failure.step.clone()),
            steps: built.steps.clone(),
            remotes: built.remotes.clone(),
            wall_ms: built.wall_ms,
        };
        self.store.put_note(NOTES, &name(&built.recipe.path), &report)
    }

    /// What the last build of this recipe did that was kept.
    ///
    /// # Errors
    /// None was (class `Usage`).
    pub fn report(&self, recipe: &Path) -> Result<BuildReport> {
        let path = std::path::absolute(recipe).unwrap_or_else(|_| recipe.to_path_buf());
        let mut names = vec![name(&path)];
        names.extend(path.canonicalize().ok().map(|path| name(&path)));
        names.iter().find_map(|name| self.store.get_note(NOTES, name)).ok_or_else(|| {
            Error::usage(format!("nothing is known of a build of `{}`", recipe.display())).hint(
                "build it first: what a build did is kept where it uses a remote or the variable CI is set",
            )
        })
    }
}

fn name(path: &Path) -> String {
    PathBuf::from(path).to_string_lossy().into_owned()
}
