//! `isolith build`: plan, run what is missing, export.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

use super::outputs::Wanted;
use super::remotes::RemoteArgs;
use super::request::RecipeArgs;
use super::target::RecipeRef;
use super::{Context, outputs, target};
use crate::config::{Progress, Settings};
use crate::engine::verify::{Outside, Setting};
use crate::engine::{
    Built, CachePolicy, Event, ImageOptions, Observer, Remotes, Request, Session, Target, Wanted as Look,
};
use crate::error::{Class, Error, Result};
use crate::sys::process;
use crate::ui::shell_words;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The recipe file, or an earlier build of it as `isolith history` numbers them, or of a tag
    #[arg(value_name = "RECIPE[@NUMBER]|@TAG")]
    recipe: RecipeRef,
    #[command(flatten)]
    args: RecipeArgs,
    #[command(flatten)]
    remotes: RemoteArgs,
    /// Steps that may run at once (default: number of cpus)
    #[arg(short, long, value_name = "N", value_parser = at_least_one)]
    jobs: Option<usize>,
    /// Run every step of the recipe, whatever is cached
    #[arg(long, conflicts_with = "no_cache_from")]
    no_cache: bool,
    /// Run this step and all that come after it, whatever is cached
    #[arg(long, value_name = "STEP")]
    no_cache_from: Option<String>,
    /// Fail (exit code 4) instead of running a step
    #[arg(long, conflicts_with_all = ["no_cache", "no_cache_from"])]
    fail_on_miss: bool,
    /// Stop when this step and what it needs are there
    #[arg(long, value_name = "STEP", conflicts_with = "output")]
    until: Option<String>,
    /// Write the output there: dir:DIR, tar:FILE, or an image as `isolith export` takes it
    #[arg(short, long, value_name = "TARGET", value_parser = target::parse_target)]
    output: Option<Target>,
    /// How progress is shown
    #[arg(long, value_enum, value_name = "HOW")]
    progress: Option<Progress>,
    /// The conditions of a round of `verify`; see `engine::verify::Setting`
    #[arg(long, value_name = "JSON", hide = true, conflicts_with = "output")]
    conditions: Option<String>,
}

/// Runs this program again as another user, with what is left of the setting. Returns when that fails.
fn become_user(setting: &Setting, uid: u32, gid: u32) -> Error {
    let mut rest = setting.clone();
    rest.outside = Outside { one_id: setting.outside.one_id, ..Outside::default() };
    let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
    // `engine::verify` puts the setting last.
    args.pop();
    args.push(rest.text().into());
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg0("isolith").args(args).uid(uid).gid(gid);
    // The caller's own configuration is not that user's, who may not even be able to read it.
    command.env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME").env_remove("XDG_CACHE_HOME");
    let why = command.exec();
    Error::machine(format!("cannot build as user {uid}")).because(why)
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n >= 1).ok_or_else(|| "expected a number of at least 1".to_string())
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let setting = args.conditions.as_deref().map(Setting::parse).transpose()?;
    if let Some(setting) = &setting {
        // A round is of no use when whoever wanted it is gone.
        process::die_with_parent()?;
        setting.outside.enter()?;
        if let Some((uid, gid)) = setting.outside.user {
            return Err(become_user(setting, uid, gid));
        }
    }
    if let Some(step) = &args.recipe.step {
        let recipe = args.recipe.recipe.display();
        return Err(Error::usage(format!("`build` takes a recipe file, and `{recipe}:{step}` is none"))
            .hint(format!("to stop at a step: isolith build {recipe} --until {step}")));
    }
    args.output.as_ref().map_or(Ok(()), target::check)?;
    let settings = context.settings(args.jobs, args.progress)?;
    let mut request = args.args.request(RecipeRef { step: args.until, ..args.recipe }, &settings)?;
    let is_round = setting.is_some();
    request.conditions = setting.unwrap_or_default().inside;
    request.fail_on_miss = args.fail_on_miss;
    request.cache = match args.no_cache_from {
        Some(step) => CachePolicy::IgnoreFrom(step),
        None if args.no_cache => CachePolicy::Ignore,
        None => CachePolicy::Use,
    };
    let to_dir = settings.output_dir.value.is_some() && !is_round;
    request.wanted = if args.output.is_some() || to_dir { Look::Outputs } else { Look::Nothing };
    let remotes = if is_round { Remotes::default() } else { args.remotes.remotes(context, &settings)? };
    let task = Task { settings: &settings, request: &request, set: &args.args.set, remotes };
    build_and_export(context, task, ImageOptions::default(), |built| {
        match (&args.output, &settings.output_dir.value) {
            (Some(target), _) => outputs::choose(built, None, target),
            (None, Some(dir)) if !is_round && !built.outputs.is_empty() => {
                outputs::choose(built, None, &Target::Dir(dir.join(&built.recipe.name)))
            }
            _ => Ok(Vec::new()),
        }
    })
}

/// What is to be built, and with what.
pub(super) struct Task<'a> {
    pub settings: &'a Settings,
    pub request: &'a Request,
    /// Arguments of the recipe, as they were given.
    pub set: &'a [(String, String)],
    pub remotes: Remotes,
}

/// Builds, writes what `choose` wants of the result, and says what happened.
pub(super) fn build_and_export(
    context: &Context,
    task: Task,
    options: ImageOptions,
    choose: impl FnOnce(&Built) -> Result<Vec<Wanted>>,
) -> Result<ExitCode> {
    build_and(context, task, |session, built, observer| {
        export(session, built, &choose(built)?, options, &context.surroundings.env.cwd, observer)
    })
}

/// Builds, does `then` with the result unless a step failed, and says what happened.
pub(super) fn build_and(
    context: &Context,
    Task { settings, request, set, remotes }: Task,
    then: impl FnOnce(&mut Session, &Built, &dyn Observer) -> Result<()>,
) -> Result<ExitCode> {
    let reports = context.surroundings.ci || !remotes.list.is_empty();
    let mut session = context.session(settings)?.with_remotes(remotes);
    let progress = context.ui.progress(settings.progress.value, session.cancel_flag());
    let held = HoldFinished { inner: progress.as_ref(), held: Mutex::new(None) };
    let result = session.build(request, &held).and_then(|built| {
        if reports {
            session.keep_report(&built)?;
        }
        if built.failure.is_none() {
            then(&mut session, &built, &held)?;
        }
        Ok(built)
    });
    held.release();
    let built = result.map_err(|error| match error.class() {
        // Only a miss under --fail-on-miss is of this class.
        Class::Difference => {
            let words = [vec![request.recipe.display().to_string()], flags(context, set)].concat();
            error.hint(format!("`isolith explain {}` says why", shell_words(&words)))
        }
        _ => error,
    })?;
    if let Some(failure) = &built.failure {
        let set = if built.recipe.path == failure.recipe { set } else { &[] };
        context.ui.failure(failure, &context.surroundings.env.cwd, &flags(context, set));
        return Ok(ExitCode::from(Class::Step.exit_code()));
    }
    if !matches!(settings.progress.value, Progress::Json | Progress::Quiet) {
        context.ui.summary(&built);
    }
    Ok(ExitCode::SUCCESS)
}

/// The flags that make another command see the same recipe in the same store.
fn flags(context: &Context, set: &[(String, String)]) -> Vec<String> {
    let set = set.iter().flat_map(|(key, value)| ["--set".to_string(), format!("{key}={value}")]);
    let store =
        context.global.store.iter().flat_map(|dir| ["--store".to_string(), dir.display().to_string()]);
    set.chain(store).collect()
}

/// Writes outputs and tells the observer of each, with paths as they are seen from `cwd`.
fn export(
    session: &mut Session,
    built: &Built,
    wanted: &[Wanted],
    options: ImageOptions,
    cwd: &Path,
    observer: &dyn Observer,
) -> Result<()> {
    for wanted in wanted {
        let output = wanted.name.clone();
        let digest = match &wanted.target {
            Target::Image(image) => {
                Some(session.export_image(built, output.as_deref(), image, options, observer)?)
            }
            target => {
                session.export(&wanted.layers, target)?;
                None
            }
        };
        let to = target::path(&wanted.target);
        let to = to.strip_prefix(cwd).unwrap_or(to).display().to_string();
        observer.event(Event::Exported { output, to, digest });
    }
    Ok(())
}

/// Keeps `Finished` back, so that it is the last event although exports come after the build.
struct HoldFinished<'a> {
    inner: &'a dyn Observer,
    held: Mutex<Option<Event>>,
}

impl HoldFinished<'_> {
    fn release(&self) {
        if let Some(event) = self.held.lock().ok().and_then(|mut held| held.take()) {
            self.inner.event(event);
        }
    }
}

impl Observer for HoldFinished<'_> {
    fn event(&self, event: Event) {
        match (&event, self.held.lock()) {
            (Event::Finished { .. }, Ok(mut held)) => *held = Some(event),
            _ => self.inner.event(event),
        }
    }
}
