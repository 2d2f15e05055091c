//! Machines that share a remote: each is a user with a store, a home and a key of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Build, Mode, World, base, modes, place};

/// Two steps, a source, and an output.
pub const RECIPE: &str = r#"
[sources.src]
path = "src"
unpack = "/src"

[[step]]
name = "compile"
run = "mkdir /obj; cat /src/a /src/a > /obj/a; head -c 300000 /dev/zero > /obj/zero; date -r /src/a > /obj/date"

[[step]]
name = "pack"
uses = []
run = "mkdir /out; cp /obj/a /out/program; chown 3:4 /out/program 2>/dev/null || true"

[outputs.default]
from = "/out"
"#;

/// A machine with [`RECIPE`] and a key.
pub struct Machine {
    pub world: World,
    /// Its public key.
    pub key: String,
}

impl Machine {
    pub fn new(mode: Mode) -> Machine {
        let world = World::new(mode);
        world.recipe(RECIPE);
        world.write("src/a", "one\n");
        let run = world.isolith(&["key", "generate"]);
        assert_eq!(run.code, 0, "{run}");
        Machine { world, key: run.stdout.trim().to_string() }
    }

    /// Its settings: those of the user.
    pub fn configure(&self, text: &str) {
        let path = self.world.path("home/.config/isolith/config.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// Uses the remote at `url`, and trusts `keys` beside its own.
    pub fn shares(&self, url: &str, keys: &[&str]) {
        self.configure(&format!("trusted-keys = {keys:?}\n[remotes.team]\nurl = {url:?}\npatience = 5\n"));
    }

    /// Builds without an export.
    pub fn build(&self) -> Build {
        let store = self.world.store();
        let args = ["build", "recipe.toml", "--store", store.to_str().unwrap(), "--progress", "json"];
        let run = self.world.isolith(&args);
        let events = run.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Build { run, events, out: PathBuf::new(), twice: Default::default() }
    }

    /// The layers of its store.
    pub fn layers(&self) -> Vec<String> {
        let shards = fs::read_dir(self.world.store().join("layers")).into_iter().flatten().flatten();
        let layers = shards.flat_map(|shard| fs::read_dir(shard.path()).into_iter().flatten().flatten());
        let mut names: Vec<String> = layers.map(|layer| layer.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Empties its store.
    pub fn forget(&self) {
        let store = self.world.store();
        if !store.exists() {
            return;
        }
        let run = self.world.isolith(&["store", "clear", "--store", store.to_str().unwrap()]);
        assert_eq!(run.code, 0, "{run}");
    }
}

/// A directory that every user can use as a remote.
pub struct Shared(tempfile::TempDir);

impl Shared {
    pub fn new() -> Shared {
        Shared::at(&place())
    }

    /// One below a directory.
    pub fn at(place: &Path) -> Shared {
        let dir = tempfile::Builder::new().prefix("isolith-remote-").tempdir_in(place).unwrap();
        for name in ["records", "blobs", "tmp"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("isolith-remote"), "1\n").unwrap();
        for name in ["", "records", "blobs", "tmp"] {
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o777)).unwrap();
        }
        Shared(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    /// The files below one of its directories.
    pub fn files(&self, name: &str) -> Vec<PathBuf> {
        let shards = fs::read_dir(self.path().join(name)).unwrap().flatten();
        let files = shards.flat_map(|shard| fs::read_dir(shard.path()).unwrap().flatten());
        let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
        files.sort();
        files
    }

    pub fn bytes(&self, name: &str) -> u64 {
        self.files(name).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
    }
}

/// Pairs of modes to be two machines: every mode is a reader and a writer once.
pub fn pairs() -> Vec<(Mode, Mode)> {
    let modes = modes();
    let next = modes.iter().cycle().skip(1);
    base(); // Made once, as root.
    modes.iter().copied().zip(next.copied()).collect()
}

/// How often each outcome came up.
pub fn outcomes(build: &Build, outcome: &str) -> usize {
    let steps = build.finished()["steps"].as_array().unwrap();
    steps.iter().filter(|step| step["outcome"] == outcome).count()
}

pub fn warnings(build: &Build) -> Vec<String> {
    let warnings = build.events.iter().filter(|event| event["event"] == "warning");
    warnings.map(|event| event["message"].as_str().unwrap().to_string()).collect()
}

/// What a remote did in a build.
pub fn remote<'a>(build: &'a Build, name: &str) -> &'a Value {
    let all = build.finished()["remotes"].as_array().unwrap_or_else(|| panic!("no remotes: {}", build.run));
    all.iter().find(|remote| remote["name"] == name).unwrap_or_else(|| panic!("no {name}: {}", build.run))
}

pub fn number(build: &Build, what: &str) -> u64 {
    remote(build, "team")[what].as_u64().unwrap()
}

/// What is exported, file by file.
pub fn tree(build: &Build) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(&build.out).unwrap().flatten().map(|file| file.path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap())).collect()
}
