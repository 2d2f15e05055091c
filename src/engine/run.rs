//! What was built, run: a command in a finished stack, with a writable layer that is thrown away.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::attend::Attendance;
use super::plan::NodeId;
use super::remotes::Sharing;
use super::stack::{Resolver, view};
use super::state::Knowledge;
use super::user::user;
use super::{Event, Failure, Observer, Request, Session, demand, history, worker};
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::key::{ActionDocument, CONTRACT, HostView, MountDoc, Network, UserDoc};
use crate::layer::{Manifest, prepare_upper};
use crate::oci::image::config::RunConfig;
use crate::path::GuestPath;
use crate::recipe::Image;
use crate::sandbox::{Bind, Conditions, Extras, Limits, Outcome, cgroup, ids};

/// What runs where nothing says what to run.
const SHELL: &str = "/bin/sh";

/// How something that was built is run.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// The output whose tree is the root; the finished stack when none is named.
    pub output: Option<String>,
    /// The arguments behind the entrypoint, or the whole command where there is none.
    pub command: Vec<String>,
    /// In place of the image's entrypoint; takes away the image's default arguments too.
    pub entrypoint: Option<Vec<String>>,
    /// Laid over the environment.
    pub env: Vec<(String, String)>,
    /// Who runs it: see `isolith run --help`.
    pub user: Option<String>,
    /// Where it starts.
    pub workdir: Option<GuestPath>,
    /// It has the machine's network instead of a loopback of its own.
    pub host_network: bool,
    /// What is shown of the machine.
    pub binds: Vec<Bind>,
    /// Empty directories in memory.
    pub tmpfs: Vec<GuestPath>,
    /// The root cannot be written to.
    pub read_only: bool,
    /// What it may use up.
    pub limits: Limits,
}

/// What came of a run.
#[derive(Debug)]
pub enum Ran {
    /// The command has ended.
    Ended(Outcome),
    /// A step below failed, so nothing was run.
    NotBuilt(Box<Failure>),
}

/// A stack that is in the store, ready to be mounted.
pub(super) struct Finished {
    /// Lowest first.
    pub layers: Vec<LayerId>,
    /// What it shows of this machine.
    pub host: Option<HostView>,
    /// Time of what nothing made.
    pub epoch: i64,
    /// What the recipe says about running it.
    pub image: Image,
}

impl Session {
    /// Runs a command in what a recipe leaves, after building what is missing. What it writes is discarded, and
    /// nothing of it is recorded.
    ///
    /// # Errors
    /// What stops a build; an output, a user or a program's options that do not fit (class `Usage`); limits that this
    /// machine cannot keep.
    pub fn run(
        &mut self,
        request: &Request,
        options: &RunOptions,
        with: Attendance,
        observer: &dyn Observer,
    ) -> Result<Ran> {
        // Who asks for a limit here counts on it; a recipe goes on without, since machines differ.
        if let cgroup::Plan::Impossible { why, fix } = cgroup::plan(&options.limits) {
            return Err(Error::machine("the limits on memory, cpus or processes cannot be kept")
                .because(why)
                .hint(format!("{fix}\nor run it without them")));
        }
        let finished = match self.finish(request, options.output.as_deref(), observer)? {
            Ok(finished) => finished,
            Err(failure) => return Ok(Ran::NotBuilt(Box::new(failure))),
        };
        self.enter(finished, options, with).map(Ran::Ended)
    }

    /// Runs a command in a stack.
    pub(super) fn enter(
        &mut self,
        finished: Finished,
        options: &RunOptions,
        with: Attendance,
    ) -> Result<Outcome> {
        let (store, _, ids) = self.parts()?;
        let Finished { mut layers, host, epoch, image } = finished;
        layers.retain(|layer| *layer != Manifest::empty_id());
        let view = view(store, &layers, |_| None)?;
        let user = match (options.user.as_deref(), image.user.as_deref()) {
            // Not for an image to say: in it, this is a name like any other.
            (Some("caller"), _) => UserDoc { uid: ids::caller(), gid: ids::caller() },
            (Some(text), _) | (None, Some(text)) => user(store, &layers, &view, text)?,
            (None, None) => UserDoc { uid: 0, gid: 0 },
        };
        let alone = user.uid == ids::CALLER || user.gid == ids::CALLER;
        if alone && options.binds.is_empty() {
            return Err(Error::usage("user `caller` is somebody only where files of this machine are shown")
                .hint("add `--bind`, or name a user of the stack"));
        }
        let mut env: BTreeMap<String, String> = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("LANG", "C.UTF-8"),
            ("TZ", "UTC"),
            ("TERM", "dumb"),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into();
        env.extend(image.env.clone());
        env.extend(options.env.iter().cloned());
        let mut mounts: Vec<MountDoc> =
            options.tmpfs.iter().map(|at| MountDoc::Tmpfs { at: at.clone() }).collect();
        mounts.sort_by(|a, b| format!("{a:?}").cmp(&format!("{b:?}")));
        let action = ActionDocument {
            contract: CONTRACT,
            arch: std::env::consts::ARCH.to_string(),
            host,
            stack: layers.iter().map(LayerId::to_hex).collect(),
            argv: argv(options, &image),
            env,
            cwd: options.workdir.clone().or(image.workdir.clone()).unwrap_or_default(),
            user,
            network: if options.host_network { Network::Host } else { Network::None },
            mounts,
            epoch,
        };
        let run = store.new_run(ids)?;
        prepare_upper(&run.upper(), &view, epoch, ids)?;
        let mut spec = worker::sandbox(store, ids, action, layers, &view, run.name())?;
        // Nobody knows what is in a bind.
        spec.owners.any |= ids.recorded && !options.binds.is_empty();
        spec.jobs = worker::jobs(&options.limits);
        spec.limits = options.limits.clone();
        // What runs is used, not built: addresses may be as random as they can.
        spec.conditions = Conditions { random_addresses: true, ..Conditions::default() };
        let said: Vec<&String> = options.env.iter().map(|(name, _)| name).collect();
        spec.extras = Some(Extras {
            env: with.env.iter().filter(|(name, _)| !said.contains(&name)).cloned().collect(),
            binds: options.binds.clone(),
            read_only: options.read_only,
            ports: with.ports.is_some(),
        });
        self.attend(&spec, with)
    }

    /// Comes by the finished stack of a recipe, or one of its outputs, with every layer of it in the store.
    pub(super) fn finish(
        &mut self,
        request: &Request,
        output: Option<&str>,
        observer: &dyn Observer,
    ) -> Result<Result<Finished, Failure>> {
        let plan = self.plan(request, request.pinning(), observer)?;
        let root = plan.root();
        let image = defaults(&root.recipe.image, root.run.as_ref())?;
        let output = output.or(image.output.as_deref());
        let wanted: Vec<NodeId> = match output {
            None => root.finished.nodes(),
            Some(name) => vec![*root.outputs.get(name).ok_or_else(|| {
                let names: Vec<_> = root.outputs.keys().map(|name| format!("`{name}`")).collect();
                let error = Error::usage(format!("`{}` has no output `{name}`", request.recipe.display()));
                match names.is_empty() {
                    true => error.hint("it has no [outputs]; without a name the finished stack is run"),
                    false => error.hint(format!("its outputs: {}", names.join(", "))),
                }
            })?],
        };
        let mut knowledge = Knowledge::new(&plan);
        let goals = demand::goals(&plan, None);
        let missing = demand::missing(&self.store, &plan, &request.cache, &goals, &knowledge)?;
        let (store, remotes, cancel) = (self.store.clone(), self.remotes_for(request), self.cancel.clone());
        let sharing = Sharing::new(&remotes, (&store, &plan), observer, &cancel);
        let demand = self.demand(&plan, request, &sharing)?;
        let missing = demand.find(&goals, missing, &knowledge)?;
        let missing = demand.with_lost(missing, &wanted, &mut knowledge)?;
        if !missing.is_empty() {
            let steps = missing.iter().filter(|node| plan.step(**node).is_some());
            observer
                .event(Event::Planned { steps: steps.map(|node| plan.nodes[*node].name.clone()).collect() });
            if let Some(failure) =
                self.make(request, (&plan, &sharing), missing, &wanted, &mut knowledge, observer)?
            {
                return Ok(Err(failure));
            }
        }
        let (store, _, ids) = self.parts()?;
        worker::fetch(store, &plan, &knowledge, ids, &Mutex::new(()), &wanted)?;
        let resolver = Resolver { plan: &plan, knowledge: &knowledge, store, ids: Some(ids) };
        let stack = resolver.layers(&root.finished)?;
        let outputs =
            root.outputs.iter().map(|(name, node)| (name.clone(), knowledge.layer(*node))).collect();
        if !request.is_earlier() {
            history::record(store, &plan, &knowledge, &stack, &outputs)?;
        }
        let (layers, host) = match output {
            None => (stack, root.host.clone()),
            Some(_) => (wanted.iter().map(|node| knowledge.layer(*node)).collect(), None),
        };
        Ok(Ok(Finished { layers, host, epoch: root.recipe.epoch, image }))
    }
}

/// What the recipe says, and where it says nothing the image that it starts from.
fn defaults(own: &Image, below: Option<&RunConfig>) -> Result<Image> {
    let Some(below) = below else { return Ok(own.clone()) };
    let mut image = own.clone();
    let words = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    // The arguments below are for the entrypoint below.
    if image.entrypoint.is_none() {
        image.cmd = image.cmd.or_else(|| words(&below.cmd));
        image.entrypoint = words(&below.entrypoint);
    }
    for variable in below.env.iter() {
        if let Some((name, value)) = variable.split_once('=').filter(|(name, _)| !name.is_empty()) {
            image.env.entry(name.to_string()).or_insert_with(|| value.to_string());
        }
    }
    image.user = image.user.or_else(|| Some(below.user.clone()).filter(|user| !user.is_empty()));
    if image.workdir.is_none() && !below.working_dir.is_empty() {
        let wrong = |why| {
            Error::recipe(format!("the image says to start in `{}`", below.working_dir.escape_default()))
                .because(why)
                .hint("say another directory with `--workdir`")
        };
        image.workdir = Some(GuestPath::parse(&below.working_dir).map_err(wrong)?);
    }
    Ok(image)
}

/// The program and its arguments.
fn argv(options: &RunOptions, image: &Image) -> Vec<String> {
    // Another entrypoint has no use for the default arguments of the image's own.
    let cmd = if options.entrypoint.is_some() { None } else { image.cmd.as_ref() };
    let entrypoint = options.entrypoint.as_ref().or(image.entrypoint.as_ref());
    let command = if options.command.is_empty() { cmd } else { Some(&options.command) };
    let argv: Vec<String> = entrypoint.into_iter().chain(command).flatten().cloned().collect();
    if argv.is_empty() { vec![SHELL.to_string()] } else { argv }
}
