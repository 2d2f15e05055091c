//! One node of a plan, made: an input copied in, an archive unpacked, a subtree taken, a command run.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::log::Capture;
use super::plan::{Fetch, From, NodeId, Plan, StepNode, Work};
use super::redact::Redactor;
use super::shown::Shown;
use super::stack::{Resolver, copy_of, mountable};
use super::state::{Knowledge, Known};
use super::workshop::Workshop;
use super::{CachePolicy, Event, Failure, OutcomeKind};
use crate::base::{debian, import_tar};
use crate::digest::{ActionKey, LayerId};
use crate::error::{Class, Error, Result};
use crate::key::{ActionDocument, MountDoc};
use crate::layer::{IdShift, StackOwners, View, commit_unless, prepare_upper};
use crate::sandbox::{self, CacheMount, Conditions, SandboxSpec, SecretMount, Status, cgroup};
use crate::source::git::Fetcher;
use crate::source::import;
use crate::store::{ActionRecord, DefinitionRecord, Presence, Store};

/// A step that has to run.
struct Run<'a> {
    node: NodeId,
    step: &'a StepNode,
    action: ActionDocument,
    key: ActionKey,
    /// Of its stack.
    layers: Vec<LayerId>,
    began: Instant,
}

/// How a node ended.
pub enum Made {
    /// Its layer is there.
    Layer(Known),
    /// Its command failed.
    Failed(Known, Box<Failure>),
}

impl Workshop<'_> {
    /// Makes the layer of a node whose needs are all known.
    pub fn make(&self, node: NodeId) -> Result<Made> {
        let began = Instant::now();
        let layer = match &self.plan.nodes[node].work {
            Work::Input { id, .. } | Work::Kept { id, .. } => *id,
            Work::Tar { what, path, digest } => import_tar(self.store, path, *digest, self.ids)
                .map_err(|e| e.within(format!("cannot lay in {what}")))?,
            Work::Fetch(fetch) => self.lay_in(fetch)?,
            Work::ImageLayer(from) => self.image_layer(from)?,
            Work::ImageTop { layers } => self.image_top(layers)?,
            Work::Directories(shared) => self.resolver().directories(shared)?,
            Work::Output { from, stack, epoch } => {
                let layers = self.resolver().layers(stack)?;
                self.fetch(&stack.nodes())?;
                copy_of(self.store, &layers, from, *epoch, self.ids)
                    .map_err(|e| e.within(format!("cannot make {}", self.plan.nodes[node].name)))?
            }
            Work::Step(step) => return self.step(node, step, began),
        };
        let known = Known::made(layer, None, began.elapsed().as_millis() as u64);
        self.define(node, &known)?;
        Ok(Made::Layer(known))
    }

    /// Fetches what is not in the store yet, and makes a layer of it.
    fn lay_in(&self, fetch: &Fetch) -> Result<LayerId> {
        let Fetch { what, from } = fetch;
        let (store, limits, ids) = (self.store, self.unpack, self.ids);
        match from {
            From::Packages(packages) => {
                let open = |package: &debian::Package| self.pinner.package(package);
                return debian::lay_all(store, packages, &open, limits, ids);
            }
            From::Package(package) => {
                return debian::lay_one(store, package, self.pinner.package(package)?, limits, ids);
            }
            From::Base(remote, pin) => {
                let blob = self.pinner.blob(what, remote, pin)?;
                import_tar(store, &store.blob_path(&blob), blob, ids)
            }
            From::Archive(remote, pin, strip, lay) => {
                lay.archive(store, self.pinner.open(what, remote, pin)?, *strip, limits, ids)
            }
            From::File(remote, pin, lay) => lay.file(store, self.pinner.open(what, remote, pin)?, ids),
            From::SourcePackage(package, lay) => {
                let open = |file: &debian::SourceFile| self.pinner.source_file(package, file);
                debian::lay_source(store, package, &open, lay, limits, ids)
            }
            From::Git(git, commit, lay) => {
                let watch = self.pinner.watch(what);
                let fetcher = Fetcher { store, access: self.pinner.access, watch: &watch, what, limits };
                lay.git(&fetcher, &git.url, commit, git.submodules, ids)
            }
        }
        .map_err(|error| error.within(format!("cannot unpack {what}")))
    }

    /// What resolves stacks here, allowed to write.
    pub fn resolver(&self) -> Resolver<'_> {
        Resolver { plan: self.plan, knowledge: self.knowledge, store: self.store, ids: Some(self.ids) }
    }

    /// Copies in the inputs among `nodes` that the store does not have.
    pub fn fetch(&self, nodes: &[NodeId]) -> Result<()> {
        fetch(self.store, self.plan, self.knowledge, self.ids, &self.importing, nodes)
    }

    fn step(&self, node: NodeId, step: &StepNode, began: Instant) -> Result<Made> {
        let layers = self.resolver().layers(&step.stack)?;
        let action =
            ActionDocument { stack: layers.iter().map(LayerId::to_hex).collect(), ..step.document.clone() };
        let key = action.key();
        let name = &self.plan.nodes[node].name;
        let may_use = self.may_use_cache(node);
        if may_use && let Some(known) = self.known_action(&key)? {
            return self.cutoff(node, known);
        }
        if may_use && let Some(known) = self.shared_action(node, &action)? {
            return Ok(Made::Layer(known));
        }
        if self.request.fail_on_miss {
            return Err(self.miss(node, name, &action));
        }
        let mut waited = false;
        let _lock = self.store.lock_action(
            &key,
            || {
                waited = true;
                self.observer.event(Event::Waiting { step: name.clone() });
            },
            || self.stop.load(Ordering::Relaxed),
        )?;
        if may_use || waited {
            // Whoever held the lock may have made it in the meantime.
            if let Some(known) = self.known_action(&key)? {
                return self.cutoff(node, known);
            }
        }
        self.fetch(&step.stack.nodes())?;
        let why = match may_use {
            true => (self.reasons)(node, &action),
            false => vec!["cached results are not asked for".to_string()],
        };
        self.observer.event(Event::Started { step: name.clone(), key, why });
        let run = Run { node, step, action, key, layers, began };
        let mut shown = Shown::default();
        match self.run(&run, false, &mut shown)? {
            Some(made) => Ok(made),
            None => {
                let message = format!(
                    "step `{name}` runs again, watched more closely: it took a setgid bit away from a directory"
                );
                self.observer.event(Event::Warning { message });
                shown.again();
                self.run(&run, true, &mut shown)?
                    .ok_or_else(|| Error::machine(format!("step `{name}` cannot be watched")))
            }
        }
    }

    fn miss(&self, node: NodeId, name: &str, action: &ActionDocument) -> Error {
        let reasons = (self.reasons)(node, action);
        let error = Error::new(
            Class::Difference,
            format!("step `{name}` would have to run, and --fail-on-miss is set"),
        )
        .hint(format!("`isolith explain {}` says why", self.request.recipe.display()));
        match reasons.is_empty() {
            true => error,
            false => error.because(reasons.join("; ")),
        }
    }

    fn may_use_cache(&self, node: NodeId) -> bool {
        may_use_cache(self.plan, &self.request.cache, node)
    }

    fn known_action(&self, key: &ActionKey) -> Result<Option<Known>> {
        let Some(record) = self.store.action(key)? else { return Ok(None) };
        if self.store.presence(&record.layer) == Presence::Missing {
            return Ok(None);
        }
        if !self.knowledge.is_ready(self.store, &record.layer, self.ids)? {
            return Ok(None);
        }
        let hit = Known::hit(record.layer, Some(*key), OutcomeKind::CutoffHit);
        Ok(Some(Known { saved_ms: record.wall_ms, remote: record.from, ..hit }))
    }

    fn cutoff(&self, node: NodeId, known: Known) -> Result<Made> {
        self.define(node, &known)?;
        Ok(Made::Layer(known))
    }

    /// Records what a definition has turned out to make.
    pub(super) fn define(&self, node: NodeId, known: &Known) -> Result<()> {
        if !self.request.conditions.are_normal() {
            return Ok(());
        }
        self.store.put_definition(&self.plan.nodes[node].key, &self.definition(node, known)?)
    }

    fn definition(&self, node: NodeId, known: &Known) -> Result<DefinitionRecord> {
        let document = serde_json::to_value(&self.plan.nodes[node].definition)
            .map_err(|e| Error::machine("a definition has no JSON form").because(e))?;
        let (action, layers, wall_ms) = (known.action, vec![known.layer], known.wall_ms.max(known.saved_ms));
        Ok(DefinitionRecord { document, action, layers, wall_ms, from: known.remote.clone() })
    }

    /// Runs a step's command; none when it has to be run `closely` watched.
    fn run(&self, run: &Run<'_>, closely: bool, shown: &mut Shown) -> Result<Option<Made>> {
        let Run { node, step, action, key, layers, began } = run;
        let (node, key) = (*node, *key);
        let name = &self.plan.nodes[node].name;
        let below = self.resolver().view(layers)?;
        let run = self.store.new_run(self.ids)?;
        if self.request.conditions.used_inodes > 0 {
            run.use_up_inodes(self.request.conditions.used_inodes)?;
        }
        prepare_upper(&run.upper(), &below, action.epoch, self.ids)?;
        let mut spec = self.spec(step, action.clone(), layers.clone(), &below, run.name())?;
        spec.closely = closely;
        let by_the_contract = spec.is_contract();
        if let Some(message) = limits_warning(&step.step.limits) {
            let mut warned = self.warned.lock().unwrap_or_else(|e| e.into_inner());
            if warned.insert(message.clone()) {
                self.observer.event(Event::Warning { message });
            }
        }
        let mut capture =
            Capture::new(self.store, &key, Redactor::new(spec.secrets.iter().map(|secret| &*secret.value)));
        let outcome = {
            let (stdio, reader) = capture.pipes()?;
            let sandbox = self.executor.spawn(&spec, stdio)?;
            self.running.lock().unwrap_or_else(|e| e.into_inner()).insert(node, sandbox.killer());
            if self.stop.load(Ordering::Relaxed) {
                sandbox.killer().kill();
            }
            let outcome = std::thread::scope(|scope| {
                let show = |line: String| {
                    if shown.is_new(&line) {
                        self.observer.event(Event::Log { step: name.clone(), line });
                    }
                };
                let follow = scope.spawn(|| capture.follow(reader, show));
                let outcome = sandbox.wait();
                match follow.join() {
                    Ok(read) => read?,
                    Err(panic) => std::panic::resume_unwind(panic),
                }
                outcome
            });
            self.running.lock().unwrap_or_else(|e| e.into_inner()).remove(&node);
            outcome?
        };
        if self.stop.load(Ordering::Relaxed) {
            return Err(interrupted());
        }
        if outcome.again && !closely {
            return Ok(None);
        }
        let (log, tail) = capture.finish()?;
        if outcome.status != Status::Exited(0) || outcome.limit.is_some() {
            self.store.keep_failed(&key, run)?;
            let empty = crate::layer::Manifest::empty_id();
            let made = Known::made(empty, Some(key), began.elapsed().as_millis() as u64);
            let known = Known { how: OutcomeKind::Failed, ..made };
            let failure = Failure {
                step: name.clone(),
                name: step.step.name.clone(),
                recipe: self.shown_recipe(step),
                key,
                status: outcome.status,
                limit: outcome.limit,
                log,
                tail,
            };
            return Ok(Some(Made::Failed(known, Box::new(failure))));
        }
        let manifest = commit_unless(self.stop, &run.upper(), &below, spec.action.epoch, self.ids);
        let manifest = manifest.map_err(|e| match self.stop.load(Ordering::Relaxed) {
            true => interrupted(),
            false => e.within(format!("cannot keep what step `{name}` wrote")),
        })?;
        let layer = self.store.add_layer(&run.upper(), &manifest)?;
        drop(run);
        self.store.drop_failed(&key)?;
        let known = Known::made(layer, Some(key), began.elapsed().as_millis() as u64);
        let record = ActionRecord {
            action: spec.action,
            layer,
            usage: outcome.usage,
            wall_ms: known.wall_ms,
            finished: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64),
            recipe: self.plan.recipes[step.recipe].recipe.name.clone(),
            step: step.step.name.clone(),
            from: None,
        };
        // What ran under changed conditions is nobody's result.
        if by_the_contract {
            let definition = self.definition(node, &known)?;
            self.store.put_result((&key, &record), (&self.plan.nodes[node].key, &definition))?;
        }
        Ok(Some(Made::Layer(known)))
    }

    /// The recipe file of a step as the user would name it.
    fn shown_recipe(&self, step: &StepNode) -> PathBuf {
        if step.recipe + 1 == self.plan.recipes.len() {
            self.request.recipe.clone()
        } else {
            self.plan.recipes[step.recipe].recipe.path.clone()
        }
    }

    /// The sandbox of a step, made from its action document and from where things are on this machine. `view`
    /// is that of `layers`.
    pub fn spec(
        &self,
        step: &StepNode,
        action: ActionDocument,
        layers: Vec<LayerId>,
        view: &View,
        run: &str,
    ) -> Result<SandboxSpec> {
        let mut caches = Vec::new();
        let mut secrets = Vec::new();
        for mount in &action.mounts {
            match mount {
                MountDoc::Cache { at, id } => {
                    caches.push(CacheMount { at: at.clone(), dir: self.store.cache_mount(id, self.ids)? });
                }
                MountDoc::Secret { at, name } => {
                    let value = self.request.secrets.get(name).cloned().ok_or_else(|| {
                        Error::usage(format!("step `{}` needs the secret `{name}`", step.step.name))
                            .hint(format!("add `--secret {name}`"))
                    })?;
                    secrets.push(SecretMount { at: at.clone(), value });
                }
                MountDoc::Tmpfs { .. } => {}
            }
        }
        let mut spec = sandbox(self.store, self.ids, action, layers, view, run)?;
        // Nobody knows what is in a cache.
        spec.owners.any |= self.ids.recorded && !caches.is_empty();
        spec.jobs = jobs(&step.step.limits);
        spec.jobs = self.request.conditions.cpus.map_or(spec.jobs, |most| spec.jobs.min(most));
        (spec.caches, spec.secrets) = (caches, secrets);
        spec.limits = step.step.limits.clone();
        spec.conditions = self.request.conditions.clone();
        Ok(spec)
    }
}

/// Copies in the inputs among `nodes` that the store does not have. `importing` is held meanwhile.
pub fn fetch(
    store: &Store,
    plan: &Plan,
    knowledge: &Knowledge,
    ids: IdShift,
    importing: &Mutex<()>,
    nodes: &[NodeId],
) -> Result<()> {
    for node in nodes {
        let (Work::Input { id, .. } | Work::Kept { id, .. }) = &plan.nodes[*node].work else { continue };
        if knowledge.is_ready(store, id, ids)? {
            continue;
        }
        let _one = importing.lock().unwrap_or_else(|e| e.into_inner());
        if knowledge.is_ready(store, id, ids)? {
            continue;
        }
        match &plan.nodes[*node].work {
            Work::Input { manifest, files, .. } => drop(import(store, manifest, files, ids)?),
            Work::Kept { what, .. } => {
                return Err(Error::usage(format!("{what} as it was for that build is gone from the store"))
                    .hint("put the files back as they were and build the recipe itself; a tag keeps a build whole"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A sandbox of the contract without caches, secrets and limits. `view` is that of `layers`.
pub fn sandbox(
    store: &Store,
    ids: IdShift,
    action: ActionDocument,
    layers: Vec<LayerId>,
    view: &View,
    run: &str,
) -> Result<SandboxSpec> {
    let owners = if ids.recorded { StackOwners::default().with(view) } else { StackOwners::default() };
    Ok(SandboxSpec {
        action,
        layers: mountable(store, layers, ids)?,
        on_top: None,
        hidden_dirs: view.hidden_dirs().into_iter().map(|path| path.as_bytes().to_vec()).collect(),
        owners,
        run: run.to_string(),
        caches: Vec::new(),
        secrets: Vec::new(),
        jobs: 1,
        limits: sandbox::Limits::default(),
        extras: None,
        closely: false,
        conditions: Conditions::default(),
    })
}

/// The number of cpus that a command is told.
pub fn jobs(limits: &sandbox::Limits) -> u32 {
    // Looked up in several files.
    static CPUS: OnceLock<u32> = OnceLock::new();
    let cpus = *CPUS.get_or_init(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u32));
    limits.cpus.map_or(cpus, |most| cpus.min(most.ceil() as u32)).max(1)
}

/// The warning that some limits cannot be kept here, if that is so.
pub fn limits_warning(limits: &sandbox::Limits) -> Option<String> {
    match cgroup::plan(limits) {
        cgroup::Plan::Impossible { why, fix } => {
            Some(format!("limits cannot be enforced: {why} (hint: {fix})"))
        }
        _ => None,
    }
}

/// Whether a stored result may stand in for making a node. What is made of a step that has to run has to be made again
/// too: the step may give something else this time.
pub fn may_use_cache(plan: &Plan, policy: &CachePolicy, node: NodeId) -> bool {
    match (plan.step(node), policy) {
        (_, CachePolicy::Use) => true,
        (None, _) => plan.needs(node).into_iter().all(|need| may_use_cache(plan, policy, need)),
        (Some(step), CachePolicy::Ignore) => step.recipe + 1 != plan.recipes.len(),
        (Some(_), CachePolicy::IgnoreFrom(name)) => !plan.is_or_follows(node, name),
    }
}

/// The error of a call that was stopped.
pub fn interrupted() -> Error {
    Error::new(Class::Interrupted, "interrupted")
}
