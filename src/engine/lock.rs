//! `lock`: finds out what the inputs of a recipe are now, and writes it down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::pins::{LockChange, Pinning};
use super::{Observer, Session};
use crate::error::{Error, Result};
use crate::recipe::{self, Base, Lock, Recipe};

/// What became of one lock file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LockReport {
    /// The lock file.
    pub path: PathBuf,
    /// What changed in it.
    pub changes: Vec<LockChange>,
}

impl Session {
    /// Pins what a recipe, and the recipes it uses, leave open. What is pinned already stays as it is, unless
    /// `update` is given: then the recipe that is named finds out anew what these inputs of it are (all, when the
    /// list is empty).
    ///
    /// # Errors
    /// Class `Usage` for a name that the recipe does not have; whatever fetching gives.
    pub fn lock(
        &mut self,
        path: &Path,
        args: &BTreeMap<String, String>,
        update: Option<&[String]>,
        observer: &dyn Observer,
    ) -> Result<Vec<LockReport>> {
        let mut reports = Vec::new();
        let mut seen = Vec::new();
        let mut open = vec![(path.to_path_buf(), args.clone())];
        while let Some((path, args)) = open.pop() {
            let recipe = recipe::load(&path, &args)?;
            if seen.contains(&recipe.path) {
                continue;
            }
            let is_root = seen.is_empty();
            seen.push(recipe.path.clone());
            let nothing = [NOTHING.to_string()];
            let pinning = match update {
                Some(names) if is_root => {
                    check_names(&recipe, names)?;
                    Pinning::Anew(names)
                }
                // Not anew, but entries that nothing needs go.
                _ => Pinning::Anew(&nothing),
            };
            let (_, changes) = self.pinner(pinning, observer).pins_and_changes(&recipe)?;
            reports.push(LockReport { path: Lock::path_of(&recipe.path), changes });
            let below = match recipe.base {
                Base::Recipe { path } => Some(path),
                _ => None,
            };
            let used = below.into_iter().chain(recipe.deps.into_values().map(|dep| dep.recipe));
            open.extend(used.map(|path| (path, BTreeMap::new())));
        }
        Ok(reports)
    }
}

/// The name of no input.
const NOTHING: &str = "/";

fn check_names(recipe: &Recipe, names: &[String]) -> Result<()> {
    let is_known = |name: &str| name == "base" || recipe.sources.contains_key(name);
    let Some(wrong) = names.iter().find(|name| !is_known(name)) else { return Ok(()) };
    let known: Vec<String> = recipe.sources.keys().map(|name| format!("`{name}`")).collect();
    let known =
        if known.is_empty() { "it has none".to_string() } else { format!("it has {}", known.join(", ")) };
    Err(Error::usage(format!("`{}` has no source `{wrong}` to update", recipe.path.display())).hint(known))
}
