//! What recipes produced: where `explain` looks for an earlier action, what can be named and built again, and what
//! garbage collection starts from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::kept;
use super::plan::Plan;
use super::state::Knowledge;
use super::{BuildName, Session};
use crate::digest::{ActionKey, LayerId};
use crate::error::{Error, Result};
use crate::store::{Presence, RootRecord, RootStep, Store, Tag};

/// The path of a recipe as it is recorded, which is text.
pub fn name(recipe: &Path) -> PathBuf {
    PathBuf::from(recipe.to_string_lossy().into_owned())
}

/// Records a finished build of the recipe that was asked for, and of those it uses.
pub fn record(
    store: &Store,
    plan: &Plan,
    knowledge: &Knowledge,
    stack: &[LayerId],
    outputs: &BTreeMap<String, LayerId>,
) -> Result<()> {
    let finished = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    for (index, planned) in plan.recipes.iter().enumerate() {
        let is_root = index + 1 == plan.recipes.len();
        let steps: Vec<RootStep> = planned
            .steps
            .iter()
            .zip(&planned.recipe.steps)
            .map(|(node, step)| RootStep {
                name: step.name.clone(),
                action: knowledge.get(*node).and_then(|known| known.action),
                definition: plan.nodes[*node].key,
                layer: knowledge.get(*node).map(|known| known.layer),
            })
            .collect();
        if steps.iter().any(|step| step.layer.is_none()) {
            continue; // A recipe that was not needed to its end has nothing new to say.
        }
        let layer_of = |node: &usize| knowledge.get(*node).map(|known| known.layer).into_iter().collect();
        let mut inputs: BTreeMap<String, Vec<LayerId>> =
            planned.inputs.iter().map(|(name, node)| (name.clone(), layer_of(node))).collect();
        inputs.retain(|_, layers| !layers.is_empty());
        // The locals of every recipe count for the one that is built; an image has no recipe to keep.
        let kept = (is_root && !planned.recipe.text.is_empty()).then(|| kept::definition(plan));
        let (definition, texts) = kept.unzip();
        let root = RootRecord {
            number: 0,
            given: 0,
            definition,
            recipe: name(&planned.recipe.path),
            name: planned.recipe.name.clone(),
            args: planned.recipe.args.clone(),
            finished,
            steps,
            inputs,
            stack: if is_root { stack.to_vec() } else { Vec::new() },
            outputs: if is_root { outputs.clone() } else { BTreeMap::new() },
        };
        store.push_root(&root, &texts.unwrap_or_default())?;
    }
    Ok(())
}

/// An earlier build as `history` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Past {
    /// Which one of its recipe's it is.
    pub number: u64,
    /// The recipe.
    pub recipe: PathBuf,
    /// When it ended, in seconds since 1970.
    pub finished: i64,
    /// Its tags.
    pub tags: Vec<String>,
    /// The arguments.
    pub args: BTreeMap<String, String>,
    /// The steps with the keys of their actions.
    pub steps: BTreeMap<String, Option<ActionKey>>,
    /// The finished stack, lowest first.
    pub stack: Vec<LayerId>,
    /// The layer of each output.
    pub outputs: BTreeMap<String, LayerId>,
    /// What is not as it was in the build before; of the first one nothing.
    pub changed: Vec<String>,
    /// Layers of the stack and the outputs that are gone from the store.
    pub missing: usize,
}

impl Session {
    /// The builds of a recipe, newest first.
    pub fn history(&self, recipe: &Path) -> Result<Vec<Past>> {
        let builds = self.builds(recipe)?;
        let tags = self.store.tags()?;
        let shown = builds.iter().enumerate().map(|(at, build)| {
            let layers = build.stack.iter().chain(build.outputs.values());
            Past {
                number: build.number,
                recipe: build.recipe.clone(),
                finished: build.finished,
                tags: tags.iter().filter(|tag| is(&tag.build, build)).map(|tag| tag.name.clone()).collect(),
                args: build.args.clone(),
                steps: build.steps.iter().map(|step| (step.name.clone(), step.action)).collect(),
                stack: build.stack.clone(),
                outputs: build.outputs.clone(),
                changed: builds.get(at + 1).map(|before| changes(before, build)).unwrap_or_default(),
                missing: layers.filter(|id| self.store.presence(id) == Presence::Missing).count(),
            }
        });
        Ok(shown.collect())
    }

    /// Gives a name to a build: the newest one of the recipe, or the one that is named. Gives the build, and the one
    /// that had the name before.
    pub fn tag(
        &self,
        recipe: &Path,
        build: Option<&BuildName>,
        tag: &str,
    ) -> Result<(RootRecord, Option<RootRecord>)> {
        let build = match build {
            Some(name) => self.earlier(recipe, name)?,
            None => self.builds(recipe)?.swap_remove(0),
        };
        let before = self.store.put_tag(&Tag { name: tag.to_string(), build: build.clone() })?;
        Ok((build, before))
    }

    /// The build that has a tag.
    ///
    /// # Errors
    /// Class `Usage`, with the tags that there are, when no build has it.
    pub fn tagged(&self, tag: &str) -> Result<RootRecord> {
        self.store.tag(tag)?.ok_or_else(|| no_tag(&self.store, tag))
    }

    /// An earlier build.
    ///
    /// # Errors
    /// Class `Usage`, with those that there are, when it is none.
    pub(super) fn earlier(&self, recipe: &Path, name: &BuildName) -> Result<RootRecord> {
        match name {
            BuildName::Tag(tag) => self.tagged(tag),
            BuildName::Number(number) => {
                let builds = self.builds(recipe)?;
                let numbers: Vec<String> = builds.iter().map(|build| build.number.to_string()).collect();
                builds.into_iter().find(|build| build.number == *number).ok_or_else(|| {
                    Error::usage(format!("build {number} of `{}` is not known", recipe.display()))
                        .hint(format!("those that are: {}", numbers.join(", ")))
                })
            }
        }
    }

    /// The builds of a recipe, newest first; at least one.
    fn builds(&self, recipe: &Path) -> Result<Vec<RootRecord>> {
        // What is built of a file that is gone can still be named.
        let real = recipe.canonicalize().or_else(|_| std::path::absolute(recipe));
        let real = real.map_err(|why| Error::io("find", recipe, why))?;
        let mut builds = self.store.roots(&name(&real))?;
        builds.retain(|build| build.is_whole());
        match builds.is_empty() {
            false => Ok(builds),
            true => Err(Error::usage(format!("nothing is known of a build of `{}`", recipe.display()))
                .because(format!("the store is `{}`", self.store.root().display()))
                .hint(format!("build it: isolith build {}", recipe.display()))),
        }
    }
}

/// The error for a tag that is none.
fn no_tag(store: &Store, tag: &str) -> Error {
    let tags = store.tags().unwrap_or_default();
    let names: Vec<&str> = tags.iter().map(|tag| tag.name.as_str()).collect();
    Error::usage(format!("no build has the tag `{tag}`")).hint(match names.is_empty() {
        true => "`isolith tag RECIPE TAG` gives one to the newest build".to_string(),
        false => format!("the tags are {}", names.join(", ")),
    })
}

/// Whether a tag stands for this build.
fn is(tagged: &RootRecord, build: &RootRecord) -> bool {
    tagged.recipe == build.recipe && tagged.number == build.number
}

/// What is not as it was.
fn changes(before: &RootRecord, build: &RootRecord) -> Vec<String> {
    let mut changes = Vec::new();
    if before.args != build.args {
        let names: BTreeSet<&String> = before.args.keys().chain(build.args.keys()).collect();
        let names = names.into_iter().filter(|name| before.args.get(*name) != build.args.get(*name));
        changes.extend(names.map(|name| format!("argument {name}")));
    }
    let names: BTreeSet<&String> = before.inputs.keys().chain(build.inputs.keys()).collect();
    let inputs = names.into_iter().filter(|name| before.inputs.get(*name) != build.inputs.get(*name));
    changes.extend(inputs.cloned());
    let step = |build: &RootRecord, name: &str| {
        build.steps.iter().find(|step| step.name == name).map(|step| (step.action, step.layer))
    };
    let mut names: Vec<&String> = build.steps.iter().map(|step| &step.name).collect();
    names.extend(before.steps.iter().map(|step| &step.name).filter(|name| step(build, name).is_none()));
    for name in names {
        match (step(before, name), step(build, name)) {
            (None, _) => changes.push(format!("step {name} is new")),
            (_, None) => changes.push(format!("step {name} is gone")),
            (Some((_, was)), Some((_, is))) if was != is => changes.push(format!("step {name}")),
            (Some((was, _)), Some((is, _))) if was != is => {
                changes.push(format!("step {name} (the same layer by another action)"));
            }
            _ => {}
        }
    }
    let names: BTreeSet<&String> = before.outputs.keys().chain(build.outputs.keys()).collect();
    let outputs = names.into_iter().filter(|name| before.outputs.get(*name) != build.outputs.get(*name));
    changes.extend(outputs.map(|name| format!("output {name}")));
    changes
}
