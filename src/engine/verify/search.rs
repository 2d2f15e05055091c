//! `--bisect`: for each path of a step that differs, the variations that it takes.
//!
//! Paths of one step can differ for different reasons. The smallest set that makes any of them differ is
//! looked for first; the paths that differ with it are explained. For those that do not, the search goes on.

use std::collections::BTreeSet;

use super::bisect::minimise;
use super::report::Bisect;
use super::round::Job;
use super::variation::{Machine, Variation};
use super::{Kept, Progress, Reference, VerifyRequest};
use crate::digest::LayerId;
use crate::engine::Session;
use crate::error::{Error, Result};
use crate::layer::{Aspects, Manifest, compare};
use crate::store::read_layer;

/// Sets that are looked for at most: each takes some builds.
const MOST: usize = 5;

/// What stands for the paths of a step that failed.
const FAILED: &str = "(the step failed)";

/// A search in one step.
pub struct Search<'a> {
    pub session: &'a Session,
    pub request: &'a VerifyRequest,
    pub job: Job<'a>,
    pub machine: &'a Machine,
    pub reference: &'a Reference,
    /// Of the round in which the step differs.
    pub turn: usize,
    pub step: &'a str,
}

/// What differs with a set of variations.
type Tried = Vec<(Vec<Variation>, BTreeSet<String>)>;

impl Search<'_> {
    /// Searches below the set `on`, with which the step came out as in `built`.
    pub fn run(
        &self,
        on: &[Variation],
        built: &Kept,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Vec<Bisect>> {
        let wanted = self.manifest(None)?;
        let mut left = self.differing(&wanted, Some(built))?;
        let mut tried: Tried = Vec::new();
        let mut found = Vec::new();
        while !left.is_empty() && found.len() < MOST {
            let before = tried.len();
            let variations = minimise(on, &mut |set| {
                if let Some((_, paths)) = tried.iter().find(|(known, _)| known == set) {
                    return Ok(!paths.is_disjoint(&left));
                }
                let paths = self.try_with(set, &wanted)?;
                let differs = !paths.is_disjoint(&left);
                progress(Progress::Tried(set, differs));
                tried.push((set.to_vec(), paths));
                Ok(differs)
            })?;
            let with = tried.iter().find(|(set, _)| *set == variations).map(|(_, paths)| paths.clone());
            // The whole set was never tried alone: all that is left takes it.
            let paths: Vec<String> =
                with.unwrap_or_else(|| left.clone()).intersection(&left).cloned().collect();
            if paths.is_empty() {
                break;
            }
            left.retain(|path| !paths.contains(path));
            let builds = tried.len() - before;
            found.push(Bisect { step: self.step.to_string(), variations, paths, builds });
        }
        Ok(found)
    }

    fn try_with(&self, set: &[Variation], wanted: &Manifest) -> Result<BTreeSet<String>> {
        // A step of another recipe cannot be named as the end of a build.
        let until = if self.step.contains(':') { self.job.until } else { Some(self.step) };
        let job = Job { until, ..self.job };
        let mut kept = Vec::new();
        let built = self.session.round(self.request, &job, set, self.turn, self.machine, &mut kept).map(drop);
        let paths = built.and_then(|()| self.differing(wanted, kept.first()));
        let removed: Result<Vec<()>> = kept.into_iter().map(|kept| kept.area.remove_early()).collect();
        removed.and(paths)
    }

    /// The paths that a build has otherwise than the reference, as the manifests say.
    fn differing(&self, wanted: &Manifest, built: Option<&Kept>) -> Result<BTreeSet<String>> {
        if built.is_none_or(|built| built.outcome.layer(self.step).is_none()) {
            return Ok(BTreeSet::from([FAILED.to_string()]));
        }
        let differences = compare(wanted, &self.manifest(built)?, Aspects::ALL);
        Ok(differences.into_iter().map(|difference| difference.path.to_string()).collect())
    }

    /// The manifest of the step's layer in a build, or in the reference.
    fn manifest(&self, built: Option<&Kept>) -> Result<Manifest> {
        let stored = || self.reference.store.as_deref().unwrap_or(self.session.store().root());
        let (root, layer) = match built {
            Some(built) => (built.area.store(), built.outcome.layer(self.step)),
            None => (stored(), self.reference.layer(self.step)),
        };
        let gone = || Error::machine(format!("the layer of step `{}` has gone from a store", self.step));
        let read = |layer: LayerId| read_layer(root, &layer).map(|found| found.map(|(manifest, _)| manifest));
        layer.map(read).transpose()?.flatten().ok_or_else(gone)
    }
}
