//! Earlier builds, planned again from what was kept of their recipes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::pins::{Pinner, Pinning};
use super::plan::{Plan, Work};
use super::planner::{plan, plan_image, plan_kept};
use super::{Observer, Request, Session, What};
use crate::digest::{ContentDigest, LayerId};
use crate::error::{Error, Result};
use crate::recipe::{self, Recipe};
use crate::store::{Definition, KeptRecipe, RootRecord, Store};

/// What was kept of an earlier build, with the texts.
pub struct Kept {
    build: RootRecord,
    recipes: Vec<(KeptRecipe, String)>,
}

impl Kept {
    /// The recipe that was built.
    pub fn path(&self) -> &Path {
        &self.build.recipe
    }

    /// Its arguments.
    pub fn args(&self) -> &BTreeMap<String, String> {
        &self.build.args
    }

    /// A recipe by the path that another one has for it.
    pub fn recipe(&self, path: &Path, args: &BTreeMap<String, String>) -> Result<Recipe> {
        let known = self.recipes.iter().find(|(kept, _)| kept.path == path || kept.names.contains(path));
        let (kept, text) = known.ok_or_else(|| {
            Error::machine(format!("{} does not know the recipe `{}`", called(&self.build), path.display()))
                .hint("build the recipe as it is now")
        })?;
        recipe::load_kept(text, &kept.path, args).map_err(|error| {
            error.within(format!("this isolith does not take the recipe of {} any more", called(&self.build)))
        })
    }

    /// The layer that was made of files of this machine.
    pub fn local(&self, recipe: &Path, name: &str) -> Option<LayerId> {
        let (kept, _) = self.recipes.iter().find(|(kept, _)| kept.path == recipe)?;
        kept.local.get(name).copied()
    }

    /// Gets the texts of an earlier build, and those of its lock files.
    fn read(store: &Store, build: RootRecord) -> Result<(Kept, BTreeMap<PathBuf, String>)> {
        let Some(definition) = &build.definition else {
            return Err(Error::usage(format!("nothing was kept of the recipe of {}", called(&build)))
                .hint("only builds of recipe files can be built again"));
        };
        let text = |digest: &ContentDigest| {
            store.text(digest).ok_or_else(|| {
                Error::usage(format!("a text that {} was made from is lost", called(&build)))
                    .hint("build the recipe as it is now; `isolith store fsck` looks the store over")
            })
        };
        let (mut recipes, mut locks) = (Vec::new(), BTreeMap::new());
        for kept in &definition.recipes {
            if let Some(lock) = &kept.lock {
                locks.insert(kept.path.clone(), text(lock)?);
            }
            recipes.push((kept.clone(), text(&kept.text)?));
        }
        Ok((Kept { build, recipes }, locks))
    }

    /// Refuses a plan that is not the one of the build: something that nothing pins has changed since.
    fn check(&self, plan: &Plan) -> Result<()> {
        let was = self.build.definition.as_ref().map(|definition| definition.plan);
        if was == Some(plan_digest(plan)) {
            return Ok(());
        }
        let planned = plan.root().steps.iter().map(|node| plan.nodes[*node].key);
        let first = self.build.steps.iter().zip(planned).find(|(step, key)| step.definition != *key);
        let which = first.map_or("it".to_string(), |(step, _)| format!("step `{}`", step.name));
        Err(Error::usage(format!("{which} of {} would not see what it saw then", called(&self.build)))
            .because("a base of this machine (`host`, `tar` or an image file) or isolith itself has changed")
            .hint("put it back as it was, or build the recipe as it is now"))
    }
}

/// What a build is called in messages.
pub fn called(build: &RootRecord) -> String {
    format!("build {} of `{}`", build.number, build.recipe.display())
}

/// What is kept of the recipes of a plan, and the texts that says.
pub fn definition(plan: &Plan) -> (Definition, Vec<&str>) {
    let (mut recipes, mut texts) = (Vec::new(), Vec::new());
    // The packages of a Debian base are steps of a recipe that nobody wrote.
    for planned in plan.recipes.iter().filter(|planned| !planned.recipe.text.is_empty()) {
        let local = planned.inputs.iter().filter_map(|(name, node)| match plan.nodes[*node].work {
            Work::Input { id, .. } | Work::Kept { id, .. } => Some((name.clone(), id)),
            _ => None,
        });
        let text = &*planned.recipe.text;
        texts.extend(std::iter::once(text).chain(planned.lock.as_deref()));
        recipes.push(KeptRecipe {
            path: planned.recipe.path.clone(),
            names: planned.names.clone(),
            text: ContentDigest::of(text.as_bytes()),
            lock: planned.lock.as_ref().map(|lock| ContentDigest::of(lock.as_bytes())),
            local: local.collect(),
        });
    }
    (Definition { plan: plan_digest(plan), recipes }, texts)
}

/// Of the keys of all that the recipe leaves.
fn plan_digest(plan: &Plan) -> ContentDigest {
    let root = plan.root();
    let nodes = root
        .finished
        .nodes()
        .into_iter()
        .chain(root.steps.iter().copied())
        .chain(root.outputs.values().copied());
    let keys: String = nodes.map(|node| plan.nodes[node].key.to_hex()).collect();
    ContentDigest::of(keys.as_bytes())
}

impl Session {
    /// The plan of what a request is about.
    pub(super) fn plan(
        &self,
        request: &Request,
        pinning: Pinning<'_>,
        observer: &dyn Observer,
    ) -> Result<Plan> {
        let pinner = self.pinner(pinning, observer);
        match &request.what {
            What::Recipe => plan(&pinner, &request.recipe, &request.args),
            What::Image(base) => plan_image(&Pinner { locks: Some(BTreeMap::new()), ..pinner }, base),
            What::Earlier(name) => {
                if !request.args.is_empty() {
                    return Err(Error::usage("an earlier build has the arguments that it had")
                        .hint("leave `--set` away, or build the recipe as it is now"));
                }
                let build = self.earlier(&request.recipe, name)?;
                let (kept, locks) = Kept::read(&self.store, build)?;
                let plan = plan_kept(&Pinner { locks: Some(locks), ..pinner }, &kept)?;
                kept.check(&plan)?;
                Ok(plan)
            }
        }
    }
}
