//! Drives the built program the way people do: as root, as a user with a range of subordinate ids, as a
//! user without one. Not run as root, the tests drive it as whoever runs them.
//!
//! Every [`World`] is a directory of its own with a store, a home and a recipe; when it is dropped
//! nothing may be left of what ran in it.
#![allow(dead_code)] // each test binary uses its part

mod base;
mod python;
pub mod registry;
mod users;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

#[allow(unused_imports)]
pub use base::{base, make_base, place, program};
#[allow(unused_imports)]
pub use python::python;
pub use users::{Mode, modes};

/// A directory for one test in one mode.
pub struct World {
    pub mode: Mode,
    dir: tempfile::TempDir,
    /// Set for every run of the program, beside the fixed environment.
    pub env: BTreeMap<String, String>,
    /// Given to every build.
    pub flags: Vec<String>,
    /// Shell commands that come before the program: its caller's umask, limits, descriptors.
    pub caller: String,
    /// The network namespace that the program runs in, by its name (`ip netns`); that of the tests if there is none.
    pub network: Option<String>,
}

/// What a run of the program gave.
pub struct Run {
    /// Exit code; 128 + signal when one ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A build with `--progress json`.
pub struct Build {
    pub run: Run,
    pub events: Vec<Value>,
    /// Where the output was exported to.
    pub out: PathBuf,
    /// The logs of steps that ran twice, of which only what was new the second time was told.
    pub twice: BTreeMap<String, Vec<String>>,
}

impl World {
    pub fn new(mode: Mode) -> World {
        // In memory, for speed; overlayfs takes its layers there like anywhere.
        World::new_in(mode, &base::place())
    }

    /// One somewhere else, on a disk maybe.
    pub fn new_in(mode: Mode, place: &Path) -> World {
        let dir = tempfile::Builder::new().prefix("isolith-test-").tempdir_in(place).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (env, flags, caller) = (BTreeMap::new(), Vec::new(), String::new());
        let world = World { mode, dir, env, flags, caller, network: None };
        for name in ["", "home", "work"] {
            let path = world.path(name);
            fs::create_dir_all(&path).unwrap();
            world.own(&path);
        }
        world
    }

    /// Something in the world's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.dir.path().to_owned() } else { self.dir.path().join(name) }
    }

    /// The part of its path that occurs nowhere else on the machine.
    pub fn mark(&self) -> String {
        self.dir.path().file_name().unwrap().to_str().unwrap().to_owned()
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Gives a path to the world's user.
    fn own(&self, path: &Path) {
        if users::is_root() {
            chown(path, Some(self.mode.uid), Some(self.mode.gid)).unwrap();
        }
    }

    /// Writes a file below `work/`, owned by the world's user.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path("work").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let work = self.path("work");
        path.ancestors().take_while(|path| *path != work).for_each(|path| self.own(path));
        path
    }

    /// Writes `work/recipe.toml`: the busybox base, then `text`.
    pub fn recipe(&self, text: &str) -> PathBuf {
        self.recipe_on(base(), text)
    }

    /// The same on another base directory.
    pub fn recipe_on(&self, base: &Path, text: &str) -> PathBuf {
        let head = format!("name = \"test\"\n[base]\ndir = {:?}\n", base.to_str().unwrap());
        self.write("recipe.toml", &format!("{head}\n{text}"))
    }

    /// Runs the program.
    pub fn isolith(&self, args: &[&str]) -> Run {
        Run::new(self.command().args(args).stdin(Stdio::null()).output().unwrap())
    }

    /// Starts the program with pipes for its output. It is killed when the test ends before it does.
    pub fn spawn(&self, args: &[&str]) -> Running {
        let mut command = self.command();
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
        Running(command.spawn().unwrap())
    }

    /// The program without arguments, as the world's user, in a clean environment.
    pub fn command(&self) -> Command {
        let mut command = match &self.network {
            // Only root may enter one, so the user is changed to inside.
            Some(network) => {
                let (uid, gid) = (self.mode.uid.to_string(), self.mode.gid.to_string());
                let mut command = Command::new("ip");
                command.args(["netns", "exec", network, "setpriv", "--reuid", &uid, "--regid", &gid]);
                command.args(["--clear-groups", "/bin/sh"]);
                command
            }
            None => Command::new("/bin/sh"),
        };
        command.arg("-c").arg(format!("{}\nexec \"$0\" \"$@\"", self.caller)).arg(base::program());
        command.env_clear().envs([("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")]);
        command.env("HOME", self.path("home")).env("XDG_CACHE_HOME", self.path("home/cache"));
        command.envs(&self.env).current_dir(self.path("work"));
        if users::is_root() && self.network.is_none() {
            // Also clears the supplementary groups.
            command.uid(self.mode.uid).gid(self.mode.gid);
        }
        command
    }

    /// Builds `work/recipe.toml`, exporting its output to a fresh directory.
    pub fn build(&self) -> Build {
        self.build_recipe("recipe.toml", &[])
    }

    pub fn build_recipe(&self, recipe: &str, flags: &[&str]) -> Build {
        let out = tempfile::Builder::new().prefix("out-").tempdir_in(self.path("work")).unwrap().keep();
        self.own(&out);
        fs::remove_dir(&out).unwrap();
        let store = self.store();
        let mut args = vec!["build", recipe, "--store", store.to_str().unwrap(), "--progress", "json"];
        args.extend(self.flags.iter().map(String::as_str));
        args.extend(flags);
        let text = fs::read_to_string(self.path("work").join(recipe)).unwrap_or_default();
        if text.contains("[outputs.") {
            args.extend(["--output", out.to_str().unwrap()]);
        }
        let run = self.isolith(&args);
        let events: Vec<Value> =
            run.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let messages = events.iter().filter_map(|event| event["message"].as_str());
        let twice = messages.filter_map(|text| text.strip_prefix("step `")?.split_once("` runs again"));
        let twice = twice.map(|(step, _)| {
            let log = self.isolith(&["log", &format!("{recipe}:{step}"), "--store", store.to_str().unwrap()]);
            (step.to_owned(), log.stdout.lines().map(str::to_owned).collect())
        });
        Build { run, twice: twice.collect(), events, out }
    }

    /// Nothing that ran in this world is left: no process, no mount, no temporary file.
    pub fn assert_clean(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "left behind ({}): {left:#?}", self.mode.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn leftovers(&self) -> Vec<String> {
        let mark = self.mark();
        let mut left = Vec::new();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let dir = process.path();
            if process.file_name().to_str().is_none_or(|name| name.parse::<u32>().is_err()) {
                continue;
            }
            let holds =
                |file: &str| fs::read(dir.join(file)).is_ok_and(|text| contains(&text, mark.as_bytes()));
            let links = |file: &str| {
                fs::read_link(dir.join(file)).is_ok_and(|to| to.to_string_lossy().contains(&mark))
            };
            let reasons =
                [("cmdline", holds("cmdline")), ("mountinfo", holds("mountinfo")), ("cwd", links("cwd"))];
            for (reason, _) in reasons.into_iter().filter(|(_, found)| *found) {
                let name = fs::read_to_string(dir.join("comm")).unwrap_or_default();
                left.push(format!("process {} `{}` ({reason})", dir.display(), name.trim()));
            }
        }
        for entry in fs::read_dir(self.store().join("tmp")).into_iter().flatten().flatten() {
            left.push(format!("file {}", entry.path().display()));
        }
        left
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_clean();
        }
        if !users::is_root() && self.store().exists() {
            // The store's files belong to ids that only the program can map.
            let store = self.store();
            self.isolith(&["store", "clear", "--store", store.to_str().unwrap()]);
        }
    }
}

/// The program, running. Dropped, it is killed.
pub struct Running(pub std::process::Child);

impl Running {
    /// Waits for its end.
    pub fn wait_with_output(mut self) -> std::io::Result<std::process::Output> {
        let mut stderr = self.0.stderr.take();
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            stderr.as_mut().map(|pipe| pipe.read_to_end(&mut text));
            text
        });
        let mut stdout = Vec::new();
        self.0.stdout.take().map(|mut pipe| pipe.read_to_end(&mut stdout)).transpose()?;
        let stderr = errors.join().unwrap();
        Ok(std::process::Output { status: self.0.wait()?, stdout, stderr })
    }
}

impl From<Running> for Run {
    fn from(running: Running) -> Run {
        Run::new(running.wait_with_output().unwrap())
    }
}

impl std::ops::Deref for Running {
    type Target = std::process::Child;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl std::ops::DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Run {
    fn new(output: std::process::Output) -> Run {
        use std::os::unix::process::ExitStatusExt;
        let status = output.status;
        Run {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

impl Build {
    /// Asserts that it went well.
    pub fn ok(self) -> Build {
        assert_eq!(self.run.code, 0, "{}", self.run);
        assert_eq!(self.finished()["status"], "ok", "{}", self.run);
        self
    }

    /// The last event.
    pub fn finished(&self) -> &Value {
        let last = self.events.last().unwrap_or_else(|| panic!("no events: {}", self.run));
        assert_eq!(last["event"], "finished", "{}", self.run);
        last
    }

    /// The report of a step.
    pub fn step(&self, name: &str) -> &Value {
        let steps = self.finished()["steps"].as_array().unwrap();
        steps
            .iter()
            .find(|step| step["name"] == name)
            .unwrap_or_else(|| panic!("no step {name}: {}", self.run))
    }

    /// What a step printed, line by line: of its last run, if it had to run again.
    pub fn log(&self, step: &str) -> Vec<String> {
        if let Some(log) = self.twice.get(step) {
            return log.clone();
        }
        let lines = self.events.iter().filter(|event| event["event"] == "log" && event["step"] == step);
        lines.map(|event| event["line"].as_str().unwrap().to_owned()).collect()
    }

    /// A file of the exported output.
    pub fn file(&self, name: &str) -> String {
        let path = self.out.join(name);
        fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
    }
}

/// Runs `test` in a fresh world of every mode that can run sandboxes.
pub fn each_mode(test: impl Fn(&World)) {
    for mode in modes().into_iter().filter(|mode| mode.runs) {
        test(&World::new(mode));
    }
}

/// The same in the modes in which a sandbox has all ids: what has to do with other users and named ids is
/// refused where there is only one (docs/security.md).
pub fn each_mode_with_all_ids(test: impl Fn(&World)) {
    each_mode(|world| {
        if !world.mode.single {
            test(world);
        }
    });
}

/// Runs a script as the only step of a recipe, in every mode, and hands over what it printed.
pub fn inside(script: &str, check: impl Fn(&World, &[String])) {
    inside_step(&format!("run = '''\n{script}\n'''"), check);
}

/// The same with the step's own keys. As another user than 0:0 it must fail closed where there is one id only.
pub fn inside_step(step: &str, check: impl Fn(&World, &[String])) {
    for mode in modes() {
        let world = World::new(mode);
        world.recipe(&format!("[[step]]\nname = \"look\"\n{step}\n"));
        let build = world.build();
        if !(world.mode.single && step.contains("user = ")) {
            let build = build.ok();
            check(&world, &build.log("look"));
        } else {
            assert_fails_closed(&build.run);
        }
    }
}

/// A step needs ids that cannot be mapped: an error before anything ran, with its cause and the command that mends it.
pub fn assert_fails_closed(run: &Run) {
    assert_eq!(run.code, 125, "{run}");
    assert!(run.stderr.contains("/etc/subuid"), "no cause: {run}");
    assert!(run.stderr.contains("usermod --add-subuids"), "no fix: {run}");
    assert!(!run.stdout.contains("\"event\":\"log\""), "a step ran: {run}");
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// `key value` lines as a map.
pub fn facts(lines: &[String]) -> BTreeMap<String, String> {
    let pairs = lines.iter().filter_map(|line| line.split_once(' '));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
