//! The typed recipe: everything checked, every default filled in, `${ARGS}` replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::base::debian::{Debian, SourceRequest};
use crate::key::Network;
use crate::oci::Platform;
use crate::oci::source::Place;
use crate::path::GuestPath;
use crate::sandbox::Limits;
use crate::source::Pin;

/// A recipe that has passed every check that needs no other file.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The file it came from, absolute, symlinks resolved.
    pub path: PathBuf,
    /// What is written in that file.
    pub text: String,
    /// Its name.
    pub name: String,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// SOURCE_DATE_EPOCH; 1 by default.
    pub epoch: i64,
    /// The arguments in force: defaults with `--set` laid over them.
    pub args: BTreeMap<String, String>,
    /// What the steps start from.
    pub base: Base,
    /// Inputs, by name.
    pub sources: BTreeMap<String, Source>,
    /// Outputs of other recipes, by name.
    pub deps: BTreeMap<String, Dep>,
    /// The steps, in the order of the file; `Step::after` refers to this order and only backwards or to
    /// any other place as long as there is no cycle.
    pub steps: Vec<Step>,
    /// Subtrees of the finished stack, by name.
    pub outputs: BTreeMap<String, Output>,
    /// What becomes the config of an image. In no key.
    pub image: Image,
}

/// The layers a recipe starts from.
#[derive(Debug, Clone)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// A read-only view of this machine.
    Host {
        /// The paths that are shown.
        paths: Vec<GuestPath>,
    },
    /// A directory that is copied in as a layer.
    Dir {
        /// Absolute.
        path: PathBuf,
    },
    /// An image of a container.
    Image(ImageBase),
    /// Packages of Debian.
    Debian(Debian),
    /// A tar archive that is fetched.
    Fetched(Remote),
    /// A tar archive of this machine: plain, or packed with gzip, xz, bzip2 or zstd.
    Tar {
        /// Absolute.
        path: PathBuf,
        /// Lower-case hex, when the recipe pins it.
        sha256: Option<String>,
        /// The line of the recipe that names it, from 1.
        line: usize,
    },
    /// The finished stack of another recipe.
    Recipe {
        /// Absolute path of its file.
        path: PathBuf,
    },
}

/// An image of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageBase {
    /// Where it is.
    pub place: Place,
    /// Which of those of an index; this machine's when nothing is said.
    pub platform: Option<Platform>,
    /// What the recipe says, which is what lock files and messages say.
    pub written: String,
}

/// An input that is laid in as a layer.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it comes from.
    pub origin: Origin,
    /// Patterns with the rules of `.dockerignore`, after those of `.isolithignore`.
    pub exclude: Vec<String>,
    /// Where steps see it.
    pub unpack: GuestPath,
}

/// Where a source comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A directory or file of this machine; absolute.
    Path(PathBuf),
    /// An archive that is fetched and unpacked.
    Archive {
        /// The archive.
        remote: Remote,
        /// How many leading components its names lose.
        strip: usize,
    },
    /// A file that is fetched and laid in as it is.
    File(Remote),
    /// A commit of a git repository.
    Git(Git),
    /// A source package of Debian.
    Debian(SourceRequest),
}

/// A file to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Where it is, best first; at least one.
    pub urls: Vec<String>,
    /// What it must hash to, when the recipe says so; else the lock file does.
    pub pin: Option<Pin>,
}

/// A tree of a git repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Git {
    /// The repository: a URL as git takes it, or an absolute path.
    pub url: String,
    /// The same as the recipe has it, which is what lock files say.
    pub written: String,
    /// Which commit.
    pub at: GitRef,
    /// Whether submodules are laid in too.
    pub submodules: bool,
}

/// How a commit is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GitRef {
    /// By its id, 40 (or 64) lower-case hexadecimal digits.
    Rev(String),
    /// By a tag; the lock file has the commit.
    Tag(String),
    /// By a branch; the lock file has the commit.
    Branch(String),
}

/// An output of another recipe, laid in at its own paths.
#[derive(Debug, Clone)]
pub struct Dep {
    /// Absolute path of its file.
    pub recipe: PathBuf,
    /// Which output; `default` unless said.
    pub output: String,
}

/// One command in one sandbox.
#[derive(Debug, Clone)]
pub struct Step {
    /// Unique in the recipe.
    pub name: String,
    /// Program and arguments; a `run` text is already behind its shell.
    pub argv: Vec<String>,
    /// Added to the contract's environment.
    pub env: BTreeMap<String, String>,
    /// Working directory, `/` by default.
    pub cwd: GuestPath,
    /// Who runs it.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// What network it sees.
    pub network: Network,
    /// Positions of the steps it comes after; sorted.
    pub after: Vec<usize>,
    /// Names of the sources it sees; sorted.
    pub sources: Vec<String>,
    /// Names of the deps it sees; sorted.
    pub deps: Vec<String>,
    /// What it may use up.
    pub limits: Limits,
    /// What is mounted over the stack, sorted by place.
    pub mounts: Vec<Mount>,
}

/// A mount of a step.
#[derive(Debug, Clone)]
pub enum Mount {
    /// A directory that outlives the step.
    Cache {
        /// Where.
        at: GuestPath,
        /// Which; `<recipe name>:<at>` unless the recipe gives an id.
        id: String,
    },
    /// An empty private directory in memory.
    Tmpfs {
        /// Where.
        at: GuestPath,
    },
    /// A file with a secret in it, given on the command line.
    Secret {
        /// Where.
        at: GuestPath,
        /// Its name.
        name: String,
    },
}

impl Mount {
    /// Where it is mounted.
    pub fn at(&self) -> &GuestPath {
        match self {
            Mount::Cache { at, .. } | Mount::Tmpfs { at } | Mount::Secret { at, .. } => at,
        }
    }
}

/// A subtree of the finished stack.
#[derive(Debug, Clone)]
pub struct Output {
    /// What becomes `/` of the output.
    pub from: GuestPath,
}

/// The config of an image. What is not said here is taken from the image the recipe starts from, if it does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// The output that is in it; as for any export when it is not said.
    pub output: Option<String>,
    /// The program that always runs, with arguments.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments for it when none are given, or the program when there is no entrypoint.
    pub cmd: Option<Vec<String>>,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// `user`, `uid`, `user:group` or `uid:gid`.
    pub user: Option<String>,
    /// Working directory.
    pub workdir: Option<GuestPath>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ports it listens on: `8080/tcp`.
    pub ports: BTreeSet<String>,
    /// Directories that live outside the image.
    pub volumes: BTreeSet<GuestPath>,
    /// What ends it: `SIGTERM`.
    pub stop_signal: Option<String>,
    /// How it is seen to work.
    pub healthcheck: Option<Healthcheck>,
    /// Who made it.
    pub author: Option<String>,
}

/// How a running container is seen to work (an extension of Docker's).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["CMD", program, …]`, `["CMD-SHELL", text]`, or `["NONE"]` for no check at all.
    pub test: Vec<String>,
    /// Seconds between two of them.
    pub interval: Option<u64>,
    /// Seconds after which one has failed.
    pub timeout: Option<u64>,
    /// Seconds in the beginning when failures do not count.
    pub start_period: Option<u64>,
    /// How many have to fail in a row.
    pub retries: Option<u32>,
}

impl Recipe {
    /// One that has nothing but an image to start from; no file says so.
    pub fn of_image(base: ImageBase) -> Recipe {
        Recipe {
            path: PathBuf::from(&base.written),
            text: String::new(),
            name: "image".to_string(),
            version: None,
            epoch: 1,
            args: BTreeMap::new(),
            base: Base::Image(base),
            sources: BTreeMap::new(),
            deps: BTreeMap::new(),
            steps: Vec::new(),
            outputs: BTreeMap::new(),
            image: Image::default(),
        }
    }

    /// The positions of the steps in an order in which each comes after all it has to come after; the order
    /// of the file wherever that allows it.
    pub fn order(&self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.steps.len());
        let mut placed = vec![false; self.steps.len()];
        while order.len() < self.steps.len() {
            let ready = (0..self.steps.len())
                .find(|at| !placed[*at] && self.steps[*at].after.iter().all(|a| placed[*a]));
            // A recipe with a cycle does not pass the checks; stopping short is still better than turning.
            let Some(next) = ready else { break };
            placed[next] = true;
            order.push(next);
        }
        order
    }

    /// The steps that come before one, near and far, in the order `order`.
    pub fn before(&self, step: usize, order: &[usize]) -> Vec<usize> {
        let mut found = vec![false; self.steps.len()];
        let mut look = self.steps[step].after.clone();
        while let Some(at) = look.pop() {
            if !std::mem::replace(&mut found[at], true) {
                look.extend(&self.steps[at].after);
            }
        }
        order.iter().copied().filter(|at| found[*at]).collect()
    }
}
