//! Two trees side by side: layers, steps, outputs, finished stacks, directories, archives.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::inspect::{self, Content};
use super::kept::called;
use super::pins::Pinning;
use super::planner::plan;
use super::session::Silent;
use super::stack::{Resolver, manifest, view};
use super::state::{Knowledge, look_up};
use super::{BuildName, Session, demand};
use crate::digest::LayerId;
use crate::error::{Class, Error, Result};
use crate::layer::{Aspects, Change, Difference, Entry, Manifest, compare, decompress, flatten, unpack};
use crate::path::GuestPath;
use crate::source::{Modes, StatCache, scan};
use crate::store::{Presence, RootRecord, Scratch};

/// One side of a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A layer by its id, or by the beginning of it.
    Layer(String),
    /// The layer of a step.
    Step(PathBuf, String),
    /// An output.
    Output(PathBuf, String),
    /// The finished stack of a recipe, as one tree.
    Stack(PathBuf),
    /// Of an earlier build of a recipe.
    Earlier(PathBuf, BuildName, Part),
    /// A directory of this machine. Owners, times and extended attributes do not count then.
    Dir(PathBuf),
    /// A tar archive, plain or compressed.
    Tar(PathBuf),
}

/// A part of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The finished stack, as one tree.
    Stack,
    /// The layer of a step.
    Step(String),
    /// An output.
    Output(String),
}

impl Subject {
    /// The file or directory of this machine that it is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            // The file of a recipe that was built may be gone.
            Subject::Layer(_) | Subject::Earlier(..) => None,
            Subject::Step(path, _) | Subject::Output(path, _) => Some(path),
            Subject::Stack(path) | Subject::Dir(path) | Subject::Tar(path) => Some(path),
        }
    }
}

/// What differs between two trees.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The manifest of each, in the order asked for.
    pub ids: [LayerId; 2],
    /// Every path that differs.
    pub differences: Vec<PathDifference>,
}

/// A path that differs, with a look into its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathDifference {
    /// Where, and what the manifests say.
    #[serde(flatten)]
    pub difference: Difference,
    /// What differs in the bytes, for files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

/// Where the bytes of a file entry are.
type BytesOf = dyn Fn(&Entry) -> Option<PathBuf>;

/// A tree with access to the bytes of its files.
pub struct Tree {
    /// What is in it.
    pub manifest: Arc<Manifest>,
    /// What counts of it.
    pub aspects: Aspects,
    content: Box<BytesOf>,
    /// Removed with the tree.
    _scratch: Option<Scratch>,
}

impl Tree {
    /// A layer whose file tree is at `fs`.
    pub fn layer(manifest: Arc<Manifest>, fs: PathBuf) -> Tree {
        let content = move |entry: &Entry| Some(fs.join(entry.path.as_relative()));
        Tree { manifest, aspects: Aspects::ALL, content: Box::new(content), _scratch: None }
    }
}

/// Everything that differs between two trees, and how many paths are left out beyond the first `most`. This process
/// must have the ids of its sandboxes where layers are read.
pub fn differences(a: &Tree, b: &Tree, most: usize) -> Result<(Vec<PathDifference>, usize)> {
    let mut found = compare(&a.manifest, &b.manifest, a.aspects.and(b.aspects));
    let more = found.len().saturating_sub(most);
    found.truncate(most);
    let look = |difference: Difference| {
        let content = match difference.changes.iter().any(|change| matches!(change, Change::Content { .. })) {
            true => bytes(a, b, &difference.path)?,
            false => None,
        };
        Ok(PathDifference { difference, content })
    };
    Ok((found.into_iter().map(look).collect::<Result<_>>()?, more))
}

fn bytes(a: &Tree, b: &Tree, path: &GuestPath) -> Result<Option<Content>> {
    let file = |tree: &Tree| {
        let entry = tree.manifest.get(path)?;
        (tree.content)(tree.manifest.node(entry))
    };
    match (file(a), file(b)) {
        (Some(a), Some(b)) => inspect::files(&a, &b),
        _ => Ok(None),
    }
}

impl Session {
    /// Compares two trees. Recipes are not built: their results have to be in the store. `args` are the
    /// `--set` values for all recipes that are named.
    ///
    /// # Errors
    /// A side that is not there (class `Usage`).
    pub fn diff(&mut self, sides: [&Subject; 2], args: &BTreeMap<String, String>) -> Result<Comparison> {
        let [a, b] = sides;
        let (a, b) = (self.tree(a, args)?, self.tree(b, args)?);
        let (differences, _) = differences(&a, &b, usize::MAX)?;
        Ok(Comparison { ids: [a.manifest.id(), b.manifest.id()], differences })
    }

    fn tree(&mut self, subject: &Subject, args: &BTreeMap<String, String>) -> Result<Tree> {
        match subject {
            Subject::Dir(dir) => self::dir(dir),
            Subject::Tar(file) => self.tar(file),
            Subject::Layer(prefix) => {
                let id = self.store.find_layer(prefix).map_err(|e| {
                    e.within(format!("`{prefix}` is neither a file, nor a directory, nor a layer"))
                })?;
                self.layer(&id)
            }
            Subject::Step(recipe, name) => {
                let planned = plan(&self.pinner(Pinning::Required, &Silent), recipe, args)?;
                let node = planned.find_step(name)?;
                let known = look_up(&self.store, &planned, node)?;
                let known = known.ok_or_else(|| not_built(recipe, &format!("step `{name}`")))?;
                self.layer(&known.layer)
            }
            Subject::Output(recipe, name) => {
                let planned = plan(&self.pinner(Pinning::Required, &Silent), recipe, args)?;
                let outputs = &planned.root().outputs;
                let node = *outputs.get(name).ok_or_else(|| {
                    let names: Vec<_> = outputs.keys().map(|name| format!("`{name}`")).collect();
                    Error::usage(format!("`{}` has no output `{name}`", recipe.display()))
                        .hint(format!("its outputs: {}", names.join(", ")))
                })?;
                let known = look_up(&self.store, &planned, node)?;
                let known = known.ok_or_else(|| not_built(recipe, &format!("output `{name}`")))?;
                self.layer(&known.layer)
            }
            Subject::Stack(recipe) => self.stack(recipe, args),
            Subject::Earlier(recipe, name, part) => {
                let build = self.earlier(recipe, name)?;
                match part {
                    Part::Stack => {
                        self.flat(&build.stack, &|layer| gone(&build, &format!("layer {layer:#}")))
                    }
                    Part::Step(step) => {
                        let known = build.steps.iter().find(|known| known.name == *step);
                        self.layer_of(&build, known.and_then(|known| known.layer), &format!("step `{step}`"))
                    }
                    Part::Output(output) => {
                        let layer = build.outputs.get(output).copied();
                        self.layer_of(&build, layer, &format!("output `{output}`"))
                    }
                }
            }
        }
    }

    fn layer(&mut self, id: &LayerId) -> Result<Tree> {
        let ids = self.enter_ids()?;
        if !self.store.ready(id, ids)? {
            return Err(Error::machine(format!("layer {id:#} has gone from the store"))
                .hint("build again: what is lost is made anew"));
        }
        Ok(Tree::layer(manifest(&self.store, id)?, self.store.layer_fs(id)))
    }

    fn stack(&mut self, recipe: &Path, args: &BTreeMap<String, String>) -> Result<Tree> {
        let planned = plan(&self.pinner(Pinning::Required, &Silent), recipe, args)?;
        let knowledge = Knowledge::new(&planned);
        for node in demand::goals(&planned, None) {
            if knowledge.get(node).is_none() {
                let name = &planned.nodes[node].name;
                let known = look_up(&self.store, &planned, node)?;
                knowledge.set(node, known.ok_or_else(|| not_built(recipe, &format!("`{name}`")))?);
            }
        }
        self.enter_ids()?;
        let resolver = Resolver { plan: &planned, knowledge: &knowledge, store: &self.store, ids: None };
        let layers = resolver.layers(&planned.root().finished)?;
        self.flat(&layers, &|layer| not_built(recipe, &format!("layer {layer:#}")))
    }

    /// A part of an earlier build.
    fn layer_of(&mut self, build: &RootRecord, layer: Option<LayerId>, what: &str) -> Result<Tree> {
        let layer = layer.ok_or_else(|| {
            let steps = build.steps.iter().map(|step| format!("step `{}`", step.name));
            let parts = steps.chain(build.outputs.keys().map(|name| format!("output `{name}`")));
            Error::usage(format!("{} has no {what}", called(build)))
                .hint(format!("it has {}", parts.collect::<Vec<_>>().join(", ")))
        })?;
        match self.store.presence(&layer) {
            Presence::Missing => Err(gone(build, what)),
            _ => self.layer(&layer),
        }
    }

    /// Several layers as one tree; `lost` is the error for one that is not there.
    fn flat(&mut self, layers: &[LayerId], lost: &dyn Fn(&LayerId) -> Error) -> Result<Tree> {
        let ids = self.enter_ids()?;
        for layer in layers {
            if !self.store.ready(layer, ids)? {
                return Err(lost(layer));
            }
        }
        let (manifest, sources) = flatten(&view(&self.store, layers, |_| None)?, &GuestPath::root(), 1)?;
        let roots: Vec<PathBuf> = layers.iter().map(|layer| self.store.layer_fs(layer)).collect();
        let content = move |entry: &Entry| {
            let source = sources.get(&entry.path)?;
            Some(roots[source.layer].join(source.path.as_relative()))
        };
        let manifest = Arc::new(manifest);
        Ok(Tree { manifest, aspects: Aspects::ALL, content: Box::new(content), _scratch: None })
    }

    fn tar(&mut self, file: &Path) -> Result<Tree> {
        let ids = self.enter_ids()?;
        let scratch = self.store.scratch()?;
        let tree = scratch.tree()?;
        let open = File::open(file).map_err(|e| Error::io("read", file, e))?;
        let unpacked = unpack(decompress(open)?, &tree, ids).map_err(|e| {
            let class = if e.class() == Class::Recipe { Class::Usage } else { e.class() };
            e.within(format!("cannot unpack `{}`", file.display())).class_as(class)
        });
        let manifest = Arc::new(unpacked?);
        Ok(Tree { _scratch: Some(scratch), ..Tree::layer(manifest, tree) })
    }
}

fn dir(dir: &Path) -> Result<Tree> {
    let found = scan(dir, &GuestPath::root(), &[], Modes::Kept, 1, &StatCache::default())?;
    let files = found.files;
    let content = move |entry: &Entry| files.get(&entry.path).cloned();
    let manifest = Arc::new(found.manifest);
    Ok(Tree { manifest, aspects: Aspects::PLAIN, content: Box::new(content), _scratch: None })
}

fn gone(build: &RootRecord, what: &str) -> Error {
    Error::usage(format!("{what} of {} is gone from the store", called(build)))
        .hint("build it again: isolith build RECIPE@NUMBER")
}

fn not_built(recipe: &Path, what: &str) -> Error {
    Error::usage(format!("{what} of `{}` is not in the store", recipe.display()))
        .hint(format!("build it first: isolith build {}", recipe.display()))
}
