//! From the layers of all rounds to what differs in each step.

use std::collections::HashSet;
use std::os::unix::fs::DirEntryExt;
use std::path::Path as HostPath;
use std::sync::Arc;

use super::cause::{self, Clues};
use super::report::{Bisect, Path, Step};
use super::variation::Variation;
use super::{Kept, Reference, diffoscope};
use crate::digest::LayerId;
use crate::engine::diff::{Tree, differences};
use crate::engine::plan::Plan;
use crate::error::{Error, Result};
use crate::layer::IdShift;
use crate::store::{Store, read_layer};

/// Paths of one step that are looked into.
const MOST_PATHS: usize = 300;

/// What is known beside the layers.
pub struct Known<'a> {
    /// What was varied.
    pub on: &'a [Variation],
    /// The smallest sets of variations that make paths of a step differ.
    pub bisect: &'a [Bisect],
    /// Cpus of this machine.
    pub cpus: usize,
}

/// Every step, where none differs.
pub fn identical(reference: &Reference) -> Vec<Step> {
    reference.steps.iter().map(|(name, layer)| same(name, *layer)).collect()
}

fn same(name: &str, reference: LayerId) -> Step {
    let name = name.to_string();
    Step {
        name,
        reference,
        other: None,
        below: None,
        log: vec![],
        paths: vec![],
        more_paths: 0,
        diffoscope: None,
    }
}

/// Every step with what differs in it; each is compared with the first round in which it differs.
pub fn steps(
    store: &Store,
    ids: IdShift,
    planned: &Plan,
    reference: &Reference,
    rounds: &[(usize, &Kept)],
    known: &Known<'_>,
    report: Option<&HostPath>,
) -> Result<Vec<Step>> {
    let mut out = Vec::new();
    let mut differing: HashSet<&str> = HashSet::new();
    for (name, layer) in &reference.steps {
        let other = rounds.iter().find(|(_, kept)| kept.outcome.layer(name) != Some(*layer));
        let Some((number, kept)) = other else {
            out.push(same(name, *layer));
            continue;
        };
        let found = kept.outcome.layer(name);
        let below = below(planned, name, &differing);
        differing.insert(name);
        let mut step = Step { other: Some((*number, found)), below, ..same(name, *layer) };
        if let Some((failed, tail)) = &kept.outcome.failure
            && failed == name
        {
            step.log.clone_from(tail);
        }
        if let Some(found) = found {
            let one = match &reference.store {
                None => stored(store, ids, layer)?,
                Some(root) => tree(root, layer)?,
            };
            let other = tree(kept.area.store(), &found)?;
            if let Some(dir) = report {
                step.diffoscope = diffoscope::page(dir, name, one.1.as_path(), other.1.as_path());
            }
            let (found, more) = differences(&one.0, &other.0, MOST_PATHS)?;
            step.more_paths = more;
            let (left, right) = (inodes(&one.1), inodes(&other.1));
            let clues = Clues {
                on: known.on,
                smallest: &|path| {
                    let mut sets = known.bisect.iter().filter(|found| found.step == *name);
                    sets.find(|found| found.paths.iter().any(|p| p == path))
                        .map(|found| &found.variations[..])
                },
                cpus: known.cpus,
                inodes: &|a, b| left.contains(&a) && right.contains(&b),
            };
            let causes = cause::of_step(&found, &clues);
            step.paths = found
                .into_iter()
                .zip(causes)
                .map(|(difference, causes)| Path { difference, causes })
                .collect();
        }
        out.push(step);
    }
    Ok(out)
}

/// A step among those that `name` is built on that differs.
fn below(planned: &Plan, name: &str, differing: &HashSet<&str>) -> Option<String> {
    let node = planned.nodes.iter().position(|node| node.name == name)?;
    let mut needs = planned.needs(node).into_iter();
    needs
        .find(|need| differing.contains(planned.nodes[*need].name.as_str()))
        .map(|n| planned.nodes[n].name.clone())
}

type Found = (Tree, std::path::PathBuf);

fn stored(store: &Store, ids: IdShift, layer: &LayerId) -> Result<Found> {
    if !store.ready(layer, ids)? {
        return Err(Error::machine(format!("layer {layer:#} has gone from the store"))
            .hint("build again: what is lost is made anew"));
    }
    tree(store.root(), layer)
}

fn tree(root: &HostPath, layer: &LayerId) -> Result<Found> {
    let (manifest, fs) = read_layer(root, layer)?
        .ok_or_else(|| Error::machine(format!("a round has not left the layer {layer:#}")))?;
    Ok((Tree::layer(Arc::new(manifest), fs.clone()), fs))
}

/// The inode numbers of a tree, which are those that the step saw.
fn inodes(root: &HostPath) -> HashSet<u64> {
    const MOST: usize = 100_000;
    let mut found = HashSet::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            found.insert(entry.ino());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
            if found.len() > MOST {
                return found;
            }
        }
    }
    found
}
