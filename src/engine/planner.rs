//! From recipe files to a [`Plan`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::kept::Kept;
use super::pins::{Pinner, Pins};
use super::plan::{Fetch, From, Node, NodeId, Plan, Planned, Stack, StepNode, Work};
use crate::base::fingerprint;
use crate::digest::{ContentDigest, DefinitionKey};
use crate::error::{Error, Result};
use crate::key::{ActionDocument, CONTRACT, Definition, HostView, MountDoc, UserDoc};
use crate::layer::Kind;
use crate::oci::image::config::RunConfig;
use crate::path::GuestPath;
use crate::recipe::{self, Base, ImageBase, Mount, Origin, Recipe, Source, Step};
use crate::source::{Lay, Modes, Scan, StatCache, scan, sha256_file};
use crate::store::Store;

/// Loads a recipe and every recipe it uses, looks at their inputs, and names every layer.
///
/// Reads local inputs, but writes nothing except the stat cache; pins that are missing, and whether they are found
/// out and written, are the business of `pinner`.
pub fn plan(pinner: &Pinner, path: &Path, args: &BTreeMap<String, String>) -> Result<Plan> {
    let mut planner = Planner::new(pinner, None);
    planner.recipe(path, args, true)?;
    Ok(planner.done())
}

/// The plan of a recipe that is nothing but an image.
pub fn plan_image(pinner: &Pinner, base: &ImageBase) -> Result<Plan> {
    let mut planner = Planner::new(pinner, None);
    let planned = planner.planned(Recipe::of_image(base.clone()), true)?;
    planner.recipes.push(planned);
    Ok(planner.done())
}

/// The plan of an earlier build, of what was kept of it.
pub fn plan_kept(pinner: &Pinner, kept: &Kept) -> Result<Plan> {
    let mut planner = Planner::new(pinner, Some(kept));
    planner.recipe(kept.path(), kept.args(), true)?;
    Ok(planner.done())
}

pub(super) struct Planner<'a> {
    store: &'a Store,
    pub(super) pinner: &'a Pinner<'a>,
    /// In place of files of this machine.
    kept: Option<&'a Kept>,
    pub(super) nodes: Vec<Node>,
    pub(super) recipes: Vec<Planned>,
    /// The recipes being loaded, outermost first, to find cycles.
    open: Vec<PathBuf>,
    /// Nodes that several recipes have in common.
    shared: HashMap<DefinitionKey, NodeId>,
    /// What steps are called.
    names: HashSet<String>,
}

/// What the steps of a recipe start from.
#[derive(Default)]
struct Ground {
    /// The finished stack of another recipe.
    below: Option<Arc<Stack>>,
    /// A layer.
    layer: Option<NodeId>,
    /// A view of this machine.
    host: Option<HostView>,
    /// What containers of an image run.
    run: Option<RunConfig>,
    /// What nodes of it are called in messages.
    named: Vec<(String, NodeId)>,
}

impl<'a> Planner<'a> {
    fn new(pinner: &'a Pinner<'a>, kept: Option<&'a Kept>) -> Self {
        Planner {
            store: pinner.store,
            pinner,
            kept,
            nodes: Vec::new(),
            recipes: Vec::new(),
            open: Vec::new(),
            shared: HashMap::new(),
            names: HashSet::new(),
        }
    }

    fn done(self) -> Plan {
        Plan { nodes: self.nodes, recipes: self.recipes }
    }

    /// Plans a recipe, or finds it among those already planned.
    fn recipe(&mut self, path: &Path, args: &BTreeMap<String, String>, is_root: bool) -> Result<usize> {
        let at = self.recipe_at(path, args, is_root)?;
        self.recipes[at].names.insert(path.to_path_buf());
        Ok(at)
    }

    fn recipe_at(&mut self, path: &Path, args: &BTreeMap<String, String>, is_root: bool) -> Result<usize> {
        let recipe = match self.kept {
            Some(kept) => kept.recipe(path, args)?,
            None => recipe::load(path, args)?,
        };
        if let Some(at) = self.open.iter().position(|open| *open == recipe.path) {
            let mut cycle: Vec<_> = self.open[at..].iter().map(|p| p.display().to_string()).collect();
            cycle.push(recipe.path.display().to_string());
            return Err(Error::recipe(format!("recipes use each other in a circle: {}", cycle.join(" -> ")))
                .hint("move what both need into a recipe of its own"));
        }
        if let Some(known) = self.recipes.iter().position(|p| p.recipe.path == recipe.path) {
            return Ok(known);
        }
        self.open.push(recipe.path.clone());
        let planned = self.planned(recipe, is_root)?;
        self.open.pop();
        self.recipes.push(planned);
        Ok(self.recipes.len() - 1)
    }

    fn planned(&mut self, recipe: Recipe, is_root: bool) -> Result<Planned> {
        let mut inputs = BTreeMap::new();
        let pins = self.pinner.pins(&recipe)?;
        let Ground { below, layer: base, host, run, named } = self.base(&recipe, &pins)?;
        inputs.extend(named);
        if let Some(base) = base {
            inputs.insert("base".to_string(), base);
        }
        let mut by_dep = BTreeMap::new();
        for (name, dep) in &recipe.deps {
            let from = self.recipe(&dep.recipe, &BTreeMap::new(), false)?;
            let node = *self.recipes[from].outputs.get(&dep.output).ok_or_else(|| {
                let known: Vec<_> = self.recipes[from].outputs.keys().map(|o| format!("`{o}`")).collect();
                Error::recipe(format!(
                    "`{}` has no output `{}`, which deps.{name} of `{}` asks for",
                    dep.recipe.display(),
                    dep.output,
                    recipe.path.display()
                ))
                .hint(match known.len() {
                    0 => format!("add `[outputs.{}]` to it", dep.output),
                    _ => format!("its outputs are {}", known.join(", ")),
                })
            })?;
            inputs.insert(format!("dep {name}"), node);
            by_dep.insert(name.clone(), node);
        }
        let mut by_source = BTreeMap::new();
        for (name, source) in &recipe.sources {
            let node = self.source(&recipe, name, source, &pins)?;
            inputs.insert(format!("source {name}"), node);
            by_source.insert(name.clone(), node);
        }
        let index = self.recipes.len();
        let inputs_of = |step: &Step| -> Vec<NodeId> {
            let deps = step.deps.iter().map(|name| by_dep[name]);
            base.into_iter().chain(deps).chain(step.sources.iter().map(|name| by_source[name])).collect()
        };
        let order = recipe.order();
        let mut nodes: Vec<Option<NodeId>> = vec![None; recipe.steps.len()];
        let mut before: Vec<Vec<usize>> = vec![Vec::new(); recipe.steps.len()];
        for &at in &order {
            let step = &recipe.steps[at];
            before[at] = recipe.before(at, &order);
            let after: Vec<NodeId> = before[at].iter().filter_map(|b| nodes[*b]).collect();
            let stack =
                Arc::new(Stack { below: below.clone(), inputs: inputs_of(step), steps: after.clone() });
            let keys = self.keys(&stack);
            let document = document(step, host.clone(), keys, recipe.epoch);
            let definition = Definition::Step { document: Box::new(document.clone()) };
            let work =
                Work::Step(Box::new(StepNode { recipe: index, step: step.clone(), document, stack, after }));
            nodes[at] = Some(self.node(Plan::step_name(&recipe, &step.name, is_root), definition, work));
        }
        let steps: Vec<NodeId> = nodes.iter().flatten().copied().collect();
        let last: Vec<usize> =
            (0..recipe.steps.len()).filter(|at| !recipe.steps.iter().any(|s| s.after.contains(at))).collect();
        let mut left: Vec<NodeId> = last.iter().flat_map(|at| inputs_of(&recipe.steps[*at])).collect();
        if recipe.steps.is_empty() {
            left =
                base.into_iter().chain(by_dep.values().copied()).chain(by_source.values().copied()).collect();
        }
        let mut seen = std::collections::HashSet::new();
        left.retain(|node| seen.insert(*node));
        let in_order: Vec<NodeId> = order.iter().filter_map(|at| nodes[*at]).collect();
        let finished = Arc::new(Stack { below, inputs: left, steps: in_order });
        let mut outputs = BTreeMap::new();
        for (name, output) in &recipe.outputs {
            let definition = Definition::Output { from: output.from.clone(), stack: self.keys(&finished) };
            let work =
                Work::Output { from: output.from.clone(), stack: finished.clone(), epoch: recipe.epoch };
            let called =
                if is_root { format!("output {name}") } else { format!("output {}:{name}", recipe.name) };
            outputs.insert(name.clone(), self.node(called, definition, work));
        }
        let (lock, names) = (pins.lock, BTreeSet::new());
        Ok(Planned { recipe, lock, names, run, host, inputs, steps, finished, outputs })
    }

    /// What the steps of a recipe start from.
    fn base(&mut self, recipe: &Recipe, pins: &Pins) -> Result<Ground> {
        Ok(match &recipe.base {
            Base::Scratch => Ground::default(),
            Base::Host { paths } => Ground { host: Some(fingerprint(paths)?), ..Ground::default() },
            Base::Dir { .. } if self.kept.is_some() => {
                Ground { layer: Some(self.kept_input(recipe, "base")?), ..Ground::default() }
            }
            Base::Dir { path } => {
                let scan = self.scan(path, &GuestPath::root(), &[], Modes::Kept, recipe.epoch)?;
                Ground { layer: Some(self.input("base".to_string(), scan)), ..Ground::default() }
            }
            Base::Image(base) => {
                let (below, named, run) = self.image(base, pins.image())?;
                Ground { below: Some(below), named, run: Some(run), ..Ground::default() }
            }
            Base::Debian(_) => {
                let below = self.debian(recipe, pins.debian()?);
                Ground { below: Some(below), ..Ground::default() }
            }
            Base::Fetched(remote) => {
                let pin = pins.base()?.clone();
                let what = format!("the base of `{}`", recipe.path.display());
                let definition = Definition::FetchedTar { archive: pin.clone() };
                let fetch = Fetch { what, from: From::Base(remote.clone(), pin) };
                let layer = self.node("base".to_string(), definition, Work::Fetch(Box::new(fetch)));
                Ground { layer: Some(layer), ..Ground::default() }
            }
            Base::Tar { path, sha256, line } => {
                let archive = self.archive(path)?;
                if let Some(wanted) = sha256 {
                    self.check_sha256(path, archive, wanted, &recipe.path)?;
                }
                let what = format!("the base of `{}`, line {line}", recipe.path.display());
                let work = Work::Tar { what, path: path.clone(), digest: archive };
                let layer = self.node("base".to_string(), Definition::Tar { archive }, work);
                Ground { layer: Some(layer), ..Ground::default() }
            }
            Base::Recipe { path } => {
                let from = self.recipe(path, &BTreeMap::new(), false)?;
                let from = &self.recipes[from];
                let (below, host) = (Some(from.finished.clone()), from.host.clone());
                Ground { below, host, run: from.run.clone(), ..Ground::default() }
            }
        })
    }

    /// The layer of a source.
    fn source(&mut self, recipe: &Recipe, name: &str, source: &Source, pins: &Pins) -> Result<NodeId> {
        let lay = Lay { at: source.unpack.clone(), exclude: source.exclude.clone(), epoch: recipe.epoch };
        let (definition, from) = match &source.origin {
            Origin::Path(_) if self.kept.is_some() => {
                return self.kept_input(recipe, &format!("source {name}"));
            }
            Origin::Path(path) => {
                let scan =
                    self.scan(path, &source.unpack, &source.exclude, Modes::Normalised, recipe.epoch)?;
                return Ok(self.input(format!("source {name}"), scan));
            }
            Origin::Archive { remote, strip } => {
                let (pin, strip) = (pins.file(name)?.clone(), *strip);
                let definition = Definition::Unpack { archive: pin.clone(), strip, lay: lay.clone() };
                (definition, From::Archive(remote.clone(), pin, strip, lay))
            }
            Origin::File(remote) => {
                let pin = pins.file(name)?.clone();
                let definition = Definition::File { file: pin.clone(), lay: lay.clone() };
                (definition, From::File(remote.clone(), pin, lay))
            }
            Origin::Debian(_) => {
                let package = pins.source_package(name)?.clone();
                let files = package.files.iter().map(|file| (file.name().to_string(), file.sha256.clone()));
                let definition = Definition::SourcePackage { files: files.collect(), lay: lay.clone() };
                (definition, From::SourcePackage(package, lay))
            }
            Origin::Git(git) => {
                let commit = pins.commit(name)?.to_string();
                let (submodules, lay) = (git.submodules, lay);
                let definition = Definition::Git { commit: commit.clone(), submodules, lay: lay.clone() };
                (definition, From::Git(git.clone(), commit, lay))
            }
        };
        let what = format!("source `{name}` of `{}`", recipe.path.display());
        let work = Work::Fetch(Box::new(Fetch { what, from }));
        Ok(self.node(format!("source {name}"), definition, work))
    }

    /// What was made of files of this machine.
    fn kept_input(&mut self, recipe: &Recipe, name: &str) -> Result<NodeId> {
        let id = self.kept.and_then(|kept| kept.local(&recipe.path, name));
        let what = format!("{name} of `{}`", recipe.path.display());
        let id = id.ok_or_else(|| Error::machine(format!("nothing was kept of {what}")))?;
        Ok(self.node(name.to_string(), Definition::Layer { id }, Work::Kept { id, what }))
    }

    fn scan(
        &self,
        path: &Path,
        at: &GuestPath,
        exclude: &[String],
        modes: Modes,
        epoch: i64,
    ) -> Result<Scan> {
        let key = blake3::hash(
            [path.as_os_str().as_encoded_bytes(), exclude.join("\n").as_bytes()].join(&0).as_slice(),
        );
        let key = key.to_hex().to_string();
        let known: StatCache = self.store.get_note("stat", &key).unwrap_or_default();
        let scan = scan(path, at, exclude, modes, epoch, &known)?;
        if let Some(learned) = &scan.cache {
            self.store.put_note("stat", &key, learned)?;
        }
        Ok(scan)
    }

    /// The digest of an archive, read only when it is not the one seen last.
    fn archive(&self, path: &Path) -> Result<ContentDigest> {
        let at = GuestPath::root().join("archive");
        let scan = self.scan(path, &at, &[], Modes::Kept, 0)?;
        match scan.manifest.get(&at).map(|entry| &entry.kind) {
            Some(Kind::File { digest, .. }) => Ok(*digest),
            _ => Err(Error::recipe(format!("`{}` is not a file", path.display()))
                .hint("`base.tar` takes an archive; for a directory use `base.dir`")),
        }
    }

    fn check_sha256(&self, path: &Path, archive: ContentDigest, wanted: &str, recipe: &Path) -> Result<()> {
        let found = match self.store.get_note("sha256", &archive.to_hex()) {
            Some(found) => found,
            None => {
                let found = sha256_file(path, archive)?;
                self.store.put_note("sha256", &archive.to_hex(), &found)?;
                found
            }
        };
        if found == wanted {
            return Ok(());
        }
        Err(Error::recipe(format!(
            "`{}` is not the archive that `{}` pins",
            path.display(),
            recipe.display()
        ))
        .because(format!("sha256 expected {wanted}, got {found}"))
        .hint("fetch the pinned archive again, or change `sha256` if the new one is meant"))
    }

    fn input(&mut self, name: String, scan: Scan) -> NodeId {
        let id = scan.manifest.id();
        let work = Work::Input { id, manifest: Arc::new(scan.manifest), files: scan.files };
        self.node(name, Definition::Layer { id }, work)
    }

    /// The node with this definition, made unless another recipe has it.
    pub(super) fn shared(&mut self, name: String, definition: Definition, work: Work) -> NodeId {
        let key = definition.key();
        if let Some(node) = self.shared.get(&key) {
            return *node;
        }
        let node = self.node(name, definition, work);
        self.shared.insert(key, node);
        node
    }

    fn node(&mut self, name: String, definition: Definition, work: Work) -> NodeId {
        let name = match work {
            Work::Step(_) => self.unused(name),
            _ => name,
        };
        self.nodes.push(Node { name, key: definition.key(), definition, work });
        self.nodes.len() - 1
    }

    /// A name that no other step has: `verify` and records of builds tell steps apart by it, and recipes may be called
    /// alike.
    fn unused(&mut self, name: String) -> String {
        let numbered = (2..).map(|n| format!("{name} ({n})"));
        let mut names = std::iter::once(name.clone()).chain(numbered);
        names.find(|name| self.names.insert(name.clone())).unwrap_or(name)
    }

    /// Whether a step is called that.
    pub(super) fn is_step(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub(super) fn keys(&self, stack: &Stack) -> Vec<String> {
        stack.nodes().into_iter().map(|node| self.nodes[node].key.to_hex()).collect()
    }
}

/// Everything the step can see, with `stack` in the terms of the caller.
pub fn document(step: &Step, host: Option<HostView>, stack: Vec<String>, epoch: i64) -> ActionDocument {
    let mut env: BTreeMap<String, String> = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("LANG", "C.UTF-8"),
        ("TZ", "UTC"),
        ("TERM", "dumb"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_string(), value.to_string()))
    .collect();
    env.insert("SOURCE_DATE_EPOCH".to_string(), epoch.to_string());
    if step.uid == 0 {
        env.insert("HOME".to_string(), "/root".to_string());
    }
    env.extend(step.env.clone());
    let mounts = step.mounts.iter().map(|mount| match mount.clone() {
        Mount::Cache { at, id } => MountDoc::Cache { at, id },
        Mount::Tmpfs { at } => MountDoc::Tmpfs { at },
        Mount::Secret { at, name } => MountDoc::Secret { at, name },
    });
    ActionDocument {
        contract: CONTRACT,
        arch: std::env::consts::ARCH.to_string(),
        host,
        stack,
        argv: step.argv.clone(),
        env,
        cwd: step.cwd.clone(),
        user: UserDoc { uid: step.uid, gid: step.gid },
        network: step.network,
        mounts: mounts.collect(),
        epoch,
    }
}
