//! Layered settings, each value knowing where it came from.
//!
//! Lowest to highest: default, user file, repository file (`isolith.toml`, found walking up from the
//! current directory), environment, flag. The environment is handed in as [`Env`]; nothing here reads it.

mod debian;
mod file;
mod gc;
mod inputs;
mod remotes;
mod units;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
pub use debian::{Debian, DebianMirror};
pub use gc::{Gc, MaxSize};
pub use inputs::Inputs;
pub use remotes::{PATIENCE, RemoteSettings, Remotes, Write};
pub use units::{size, time};

/// What the settings depend on from outside.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// The current directory, absolute.
    pub cwd: PathBuf,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`; ignored unless absolute, as its specification says.
    pub xdg_config_home: Option<PathBuf>,
    /// `XDG_CACHE_HOME`; ignored unless absolute.
    pub xdg_cache_home: Option<PathBuf>,
    /// `ISOLITH_STORE`.
    pub store: Option<PathBuf>,
    /// `http_proxy`.
    pub http_proxy: Option<String>,
    /// `https_proxy` or `HTTPS_PROXY`.
    pub https_proxy: Option<String>,
    /// `no_proxy` or `NO_PROXY`.
    pub no_proxy: Option<String>,
    /// `ISOLITH_TRUSTED_KEYS`.
    pub trusted_keys: Option<String>,
    /// `SSL_CERT_FILE`.
    pub certificates: Option<PathBuf>,
    /// Number of usable cpus.
    pub cpus: usize,
}

/// What flags say; `None` where a flag was not given.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--store`.
    pub store: Option<PathBuf>,
    /// `--jobs`.
    pub jobs: Option<usize>,
    /// `--offline`.
    pub offline: bool,
    /// `--progress` (or `--quiet`).
    pub progress: Option<Progress>,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Progress {
    /// Live bars on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// Every log line, prefixed with its step.
    Plain,
    /// One event a line on standard output.
    Json,
    /// Errors only.
    Quiet,
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value in force.
    pub value: T,
    /// Who said so.
    pub origin: Origin,
}

/// Where a value came from, weakest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A configuration file: path and line.
    File(PathBuf, usize),
    /// A variable of the environment.
    Environment(&'static str),
    /// A flag on the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Every setting in force.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The store's directory, absolute.
    pub store: Setting<PathBuf>,
    /// Steps that may run at once; at least 1.
    pub jobs: Setting<usize>,
    /// How progress is shown.
    pub progress: Setting<Progress>,
    /// Where `build` puts outputs when it is not told: `<output-dir>/<recipe name>`. None: nowhere.
    pub output_dir: Setting<Option<PathBuf>>,
    /// How inputs are fetched.
    pub inputs: Inputs,
    /// Where results are shared.
    pub remotes: Remotes,
    /// What garbage collection keeps.
    pub gc: Gc,
}

impl Settings {
    /// Reads the two files and lays everything over each other.
    ///
    /// # Errors
    /// `Usage` for a file that is wrong, with its place; `Machine` when a file cannot be read or there is no
    /// place for a store.
    pub fn load(env: &Env, flags: &Flags) -> Result<Settings> {
        let mut settings = Settings {
            store: Setting { value: PathBuf::new(), origin: Origin::Default },
            jobs: Setting { value: env.cpus.max(1), origin: Origin::Default },
            progress: Setting { value: Progress::Auto, origin: Origin::Default },
            output_dir: Setting { value: None, origin: Origin::Default },
            inputs: Inputs::default(),
            remotes: Remotes::default(),
            gc: Gc::default(),
        };
        let (of_user, of_repository) = (user_file(env), repository_file(&env.cwd));
        for (path, of_repository) in [(of_user, false), (of_repository, true)] {
            if let Some(path) = path {
                file::apply(&path, of_repository, &mut settings)?;
            }
        }
        if let Some(keys) = &env.trusted_keys {
            let value =
                keys.split([',', ' ', '\n']).filter(|key| !key.is_empty()).map(str::to_string).collect();
            settings.remotes.trusted_keys =
                Some(Setting { value, origin: Origin::Environment("ISOLITH_TRUSTED_KEYS") });
        }
        if let Some(store) = &env.store {
            settings.store =
                Setting { value: env.cwd.join(store), origin: Origin::Environment("ISOLITH_STORE") };
        }
        if let Some(store) = &flags.store {
            settings.store = Setting { value: env.cwd.join(store), origin: Origin::Flag("--store") };
        }
        if let Some(jobs) = flags.jobs {
            settings.jobs = Setting { value: jobs.max(1), origin: Origin::Flag("--jobs") };
        }
        if flags.offline {
            settings.inputs.offline = Some(Setting { value: true, origin: Origin::Flag("--offline") });
        }
        if let Some(progress) = flags.progress {
            settings.progress = Setting { value: progress, origin: Origin::Flag("--progress") };
        }
        if settings.store.origin == Origin::Default {
            settings.store.value = default_store(env)?;
        }
        settings.gc.only_of(user_file(env).as_deref(), &settings.store.origin);
        Ok(settings)
    }
}

/// The file of the key that signs when no setting names one; none without a home.
pub fn default_key_file(env: &Env) -> Option<PathBuf> {
    Some(user_dir(env)?.join("key"))
}

fn default_store(env: &Env) -> Result<PathBuf> {
    absolute(&env.xdg_cache_home)
        .or_else(|| Some(absolute(&env.home)?.join(".cache")))
        .map(|cache| cache.join("isolith"))
        .ok_or_else(|| {
            Error::usage("there is no place for the store: neither HOME nor XDG_CACHE_HOME is set")
                .hint("say where with --store DIR or ISOLITH_STORE=DIR")
        })
}

fn user_file(env: &Env) -> Option<PathBuf> {
    Some(user_dir(env)?.join("config.toml"))
}

/// Where what belongs to the user is: settings and the key that signs.
fn user_dir(env: &Env) -> Option<PathBuf> {
    let config = absolute(&env.xdg_config_home).or_else(|| Some(absolute(&env.home)?.join(".config")))?;
    Some(config.join("isolith"))
}

/// The nearest `isolith.toml` at or above `cwd`.
fn repository_file(cwd: &Path) -> Option<PathBuf> {
    cwd.ancestors().map(|dir| dir.join("isolith.toml")).find(|path| path.is_file())
}

fn absolute(path: &Option<PathBuf>) -> Option<PathBuf> {
    path.clone().filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests;
