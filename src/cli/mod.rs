//! The command line: arguments in, one call of the library, a rendered answer out. One file a subcommand.

mod archives;
mod attend;
mod attest;
mod build;
mod ci;
mod completions;
mod diff;
mod doctor;
mod explain;
mod export;
mod history;
mod init;
mod key;
mod lock;
mod log;
mod outputs;
#[cfg(feature = "net")]
mod push;
mod remote;
mod remotes;
mod request;
mod run;
mod sbom;
mod shell;
mod store;
mod target;
mod trust;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::config::{Env, Flags, Progress, Setting, Settings};
use crate::engine::{Inputs, Session};
use crate::error::Result;
use crate::layer::Limits;
use crate::oci::source::Images;
use crate::source::fetch::{Access, Proxies};
use crate::sys::signals;
use crate::ui::{ColorChoice, Ui};

/// Everything the command takes from the process it runs in.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// For the settings.
    pub env: Env,
    /// `NO_COLOR` is set and not empty.
    pub no_color: bool,
    /// `TERM`.
    pub term: Option<String>,
    /// Where credentials for registries may be, the first one with an entry counts (containers-auth.json(5),
    /// docker-config(5)).
    pub auth_files: Vec<PathBuf>,
    /// `CI` is set, as continuous integration does, and not to `false`.
    pub ci: bool,
}

impl Surroundings {
    /// Those of this process. The only place that reads the environment (secrets given by name aside).
    pub fn of_process() -> Self {
        let text = |names: &[&str]| {
            names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        };
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = || path("HOME");
        let config = || path("XDG_CONFIG_HOME").or_else(|| Some(home()?.join(".config")));
        let docker = path("DOCKER_CONFIG").or_else(|| Some(home()?.join(".docker")));
        let auth_files = [
            path("REGISTRY_AUTH_FILE"),
            path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
            config().map(|dir| dir.join("containers/auth.json")),
            docker.map(|dir| dir.join("config.json")),
        ];
        Self {
            auth_files: auth_files.into_iter().flatten().collect(),
            env: Env {
                cwd: std::env::current_dir().unwrap_or_else(|_| "/".into()),
                home: path("HOME"),
                xdg_config_home: path("XDG_CONFIG_HOME"),
                xdg_cache_home: path("XDG_CACHE_HOME"),
                store: path("ISOLITH_STORE"),
                // Not HTTP_PROXY: a CGI server would set it to what a visitor sends.
                http_proxy: text(&["http_proxy", "all_proxy", "ALL_PROXY"]),
                https_proxy: text(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
                no_proxy: text(&["no_proxy", "NO_PROXY"]),
                trusted_keys: text(&["ISOLITH_TRUSTED_KEYS"]),
                certificates: path("SSL_CERT_FILE"),
                cpus: std::thread::available_parallelism().map_or(1, usize::from),
            },
            no_color: path("NO_COLOR").is_some(),
            term: std::env::var("TERM").ok(),
            ci: text(&["CI"]).is_some_and(|value| value != "false"),
        }
    }
}

#[derive(Debug, Parser)]
#[command(name = "isolith", version, about = "Builds in sealed steps, on layers named by their content")]
#[command(disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done; 1 a step failed; 2 usage; 3 the recipe is wrong; 4 a miss under \
    --fail-on-miss, a difference, or not reproducible; 125 isolith or the machine failed; 130 interrupted."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Global {
    /// Directory of the store
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,
    /// When to use colour
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
    /// Say more: keys and layer ids of steps
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// Open no socket: use what is in the store and on this machine
    #[arg(long, global = true)]
    offline: bool,
    /// Say nothing but errors
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build a recipe
    Build(build::Args),
    /// Pin what a recipe leaves open, in its lock file
    Lock(lock::Args),
    /// Say why each step would hit or miss
    Explain(explain::Args),
    /// Print the log of a step's latest run
    Log(log::Args),
    /// Open a shell in a step's sandbox
    Shell(shell::Args),
    /// Run a command in what was built
    Run(Box<run::Args>),
    /// Build a recipe and write an output as a directory, an archive or a container image
    Export(export::Args),
    /// Build a recipe and push it to a registry as a container image
    #[cfg(feature = "net")]
    Push(push::Args),
    /// Say what differs between two layers, steps, outputs, recipes, directories or archives
    Diff(diff::Args),
    /// Build again under changed conditions, and show what differs
    Verify(verify::Args),
    /// List earlier builds of a recipe, and what changed
    History(history::Args),
    /// Give a name to a build, or list the names
    Tag(history::TagArgs),
    /// Take names of builds away
    Untag(history::UntagArgs),
    /// Look after the store
    Store(store::Args),
    /// List everything that a recipe pins, as SPDX or CycloneDX
    Sbom(sbom::Args),
    /// Check whether this machine can run sandboxes, and say how to mend it
    Doctor(doctor::Args),
    /// The key that signs results which are shared
    Key(key::Args),
    /// Look after remotes
    Remote(remote::Args),
    /// Who says what about the steps of a recipe
    Trust(trust::Args),
    /// Write signed provenance of what a recipe leaves
    Attest(attest::Args),
    /// For continuous integration: what a build did
    Ci(ci::Args),
    /// Write a starter recipe
    Init(init::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

/// What every subcommand gets beside its own arguments.
struct Context {
    surroundings: Surroundings,
    global: Global,
    ui: Ui,
}

impl Context {
    /// The settings, with what this subcommand's own flags say.
    fn settings(&self, jobs: Option<usize>, progress: Option<Progress>) -> Result<Settings> {
        let progress = if self.global.quiet { Some(Progress::Quiet) } else { progress };
        let flags = Flags { store: self.global.store.clone(), jobs, progress, offline: self.global.offline };
        Settings::load(&self.surroundings.env, &flags)
    }

    /// How inputs are fetched, by the settings and the environment.
    fn inputs(&self, settings: &Settings) -> Inputs {
        let (env, said, mut access) = (&self.surroundings.env, &settings.inputs, Access::default());
        access.offline = said.offline.as_ref().is_some_and(|offline| offline.value);
        access.allowed_hosts = said.allowed_hosts.as_ref().map(|hosts| hosts.value.clone());
        access.mirrors = said.mirrors.clone();
        access.plain_http = said.plain_http.clone();
        access.proxies = Proxies {
            http: env.http_proxy.clone(),
            https: env.https_proxy.clone(),
            none: env.no_proxy.clone(),
        };
        access.certificates = env.certificates.clone();
        let or = |setting: &Option<Setting<u64>>, default| setting.as_ref().map_or(default, |s| s.value);
        access.max_size = or(&said.fetch_max_size, access.max_size);
        let limits = Limits::default();
        let unpack = Limits {
            bytes: or(&said.unpack_max_size, limits.bytes),
            entries: or(&said.unpack_max_entries, limits.entries),
        };
        let access = Arc::new(access);
        #[cfg(feature = "net")]
        let images = {
            let files = self.surroundings.auth_files.clone();
            let credentials = crate::oci::registry::Credentials { files };
            Images::new(crate::oci::registry::Registry::new(access.clone(), Arc::new(credentials)))
        };
        #[cfg(not(feature = "net"))]
        let images = Images::default();
        Inputs { access, archives: Arc::new(archives::archives(settings)), images: Arc::new(images), unpack }
    }

    /// Opens the store and lets Ctrl-C, SIGTERM and SIGHUP stop what runs in it. Commands that run nothing
    /// open it themselves: those signals may just end them.
    fn session(&self, settings: &Settings) -> Result<Session> {
        let session = Session::open(&settings.store.value)?.with_inputs(self.inputs(settings));
        signals::cancel_on_signals(session.cancel_flag());
        Ok(session)
    }
}

/// Runs the command and renders what went wrong.
pub fn main(args: impl IntoIterator<Item = OsString>, surroundings: Surroundings) -> ExitCode {
    let Cli { global, command } = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output with 0, mistakes to standard error with 2.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let ui = Ui::new(global.color, surroundings.no_color, surroundings.term.as_deref(), global.verbose);
    let context = Context { surroundings, global, ui };
    match run(&context, command) {
        Ok(code) => code,
        Err(error) => {
            context.ui.error(&error);
            ExitCode::from(error.class().exit_code())
        }
    }
}

fn run(context: &Context, command: Command) -> Result<ExitCode> {
    match command {
        Command::Build(args) => build::run(context, args),
        Command::Lock(args) => lock::run(context, args),
        Command::Explain(args) => explain::run(context, args),
        Command::Log(args) => log::run(context, args),
        Command::Shell(args) => shell::run(context, args),
        Command::Run(args) => run::run(context, *args),
        Command::Export(args) => export::run(context, args),
        #[cfg(feature = "net")]
        Command::Push(args) => push::run(context, args),
        Command::Diff(args) => diff::run(context, args),
        Command::Verify(args) => verify::run(context, args),
        Command::History(args) => history::run(context, args),
        Command::Tag(args) => history::tag(context, args),
        Command::Untag(args) => history::untag(context, args),
        Command::Store(args) => store::run(context, args),
        Command::Sbom(args) => sbom::run(context, args),
        Command::Doctor(args) => doctor::run(context, args),
        Command::Key(args) => key::run(context, args),
        Command::Remote(args) => remote::run(context, args),
        Command::Trust(args) => trust::run(context, args),
        Command::Attest(args) => attest::run(context, args),
        Command::Ci(args) => ci::run(context, args),
        Command::Init(args) => init::run(context, args),
        Command::Completions(args) => completions::run(context, args),
    }
}

#[cfg(test)]
mod tests;
