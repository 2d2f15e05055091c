//! A store with layers made by hand, and specs to run on it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use isolith::Result;
use isolith::digest::LayerId;
use isolith::key::{ActionDocument, Network, UserDoc};
use isolith::layer::IdShift;
use isolith::path::GuestPath;
use isolith::sandbox::{Executor, Limits, Outcome, SandboxSpec, ids};

mod bench;
mod inside;
mod layers;
mod life;

pub type Test = (&'static str, fn(&Fixture));

macro_rules! tests {
    ($($module:ident: $($name:ident)*;)*) => { &[$($((stringify!($name), $module::$name as fn(&Fixture)),)*)*] };
}

pub static TESTS: &[Test] = tests! {
    inside: namespaces_are_all_new init_shows_nothing only_three_descriptors mounts_are_the_contract
        environment_is_exact process_attributes_are_fixed devices_and_proc network_is_a_loopback clocks_start_at_zero
        other_users_have_no_rights seccomp_denies;
    layers: writes_go_to_the_upper_directory the_topmost_layer_wins five_hundred_layers_and_more
        whiteouts_stay_invisible links_of_the_stack_stay_inside cache_tmpfs_and_secret_mounts host_base
        host_network host_path_missing state_on_top;
    life: kill_ends_everything time_limit disk_limit memory_limit missing_programs the_rest_dies_with_the_command
        executor_death_leaves_nothing main_death_leaves_nothing drop_leaves_nothing set_up_failure_is_an_error
        many_at_once interactive_has_a_terminal caller_limits_do_not_matter needs_one_thread;
};

pub static BENCHES: &[Test] = tests! { bench: bench_steps bench_parallel bench_start; };

/// A store below /dev/shm with a busybox layer, removed at the end.
pub struct Fixture {
    pub store: PathBuf,
    pub ids: IdShift,
    pub busybox: LayerId,
    runs: AtomicU32,
}

impl Fixture {
    pub fn new() -> Fixture {
        let dir = tempfile::Builder::new().prefix("isolith-test-").tempdir_in("/dev/shm").unwrap();
        let store = dir.keep();
        // Only the way through the executor's own mounts leads into it.
        fs::set_permissions(&store, fs::Permissions::from_mode(0o700)).unwrap();
        let ids = ids::enter().unwrap();
        let fixture =
            Fixture { store, ids, busybox: LayerId::from_bytes([0xbb; 32]), runs: AtomicU32::new(0) };
        let fs = fixture.layer_dir(fixture.busybox);
        fs::create_dir_all(fs.join("bin")).unwrap();
        fs::copy("/bin/busybox", fs.join("bin/busybox")).expect("install busybox-static");
        for applet in "sh ls cat echo id mount stat env readlink sleep true false touch mkdir rm mv ln ps kill ip hostname dd chown head grep tr sort wc unshare nc mkfifo cut yes".split(' ') {
            std::os::unix::fs::symlink("busybox", fs.join("bin").join(applet)).unwrap();
        }
        fixture.own(fs.parent().unwrap());
        fixture
    }

    pub fn layer_dir(&self, id: LayerId) -> PathBuf {
        let hex = id.to_hex();
        let dir = self.store.join("layers").join(&hex[..2]).join(&hex).join("fs");
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A layer with these files.
    pub fn layer(&self, n: u32, files: &[(&str, &str)]) -> LayerId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        let id = LayerId::from_bytes(bytes);
        let dir = self.layer_dir(id);
        for (path, text) in files {
            fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
            fs::write(dir.join(path), text).unwrap();
        }
        self.own(dir.parent().unwrap());
        id
    }

    /// Gives a tree to the root of the sandbox.
    pub fn own(&self, path: &Path) {
        lchown(path, Some(self.ids.offset), Some(self.ids.offset)).unwrap();
        if path.symlink_metadata().unwrap().is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                self.own(&entry.unwrap().path());
            }
        }
    }

    pub fn executor(&self) -> Executor {
        Executor::start(&self.store, self.ids).unwrap()
    }

    /// A spec that runs `script` in a shell on the busybox layer.
    pub fn script(&self, script: &str) -> SandboxSpec {
        self.spec(&["/bin/sh", "-euc", script])
    }

    pub fn spec(&self, argv: &[&str]) -> SandboxSpec {
        let run = format!("run-{:06}", self.runs.fetch_add(1, Ordering::Relaxed));
        let dir = self.store.join("tmp").join(&run);
        for part in ["upper", "work"] {
            fs::create_dir_all(dir.join(part)).unwrap();
        }
        self.own(&dir);
        let env = [
            ("PATH", "/bin"),
            ("LANG", "C.UTF-8"),
            ("TZ", "UTC"),
            ("TERM", "dumb"),
            ("SOURCE_DATE_EPOCH", "1"),
        ];
        SandboxSpec {
            action: ActionDocument {
                contract: 1,
                arch: std::env::consts::ARCH.into(),
                host: None,
                stack: vec![self.busybox.to_hex()],
                argv: argv.iter().map(|arg| arg.to_string()).collect(),
                env: env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>(),
                cwd: GuestPath::root(),
                user: UserDoc { uid: 0, gid: 0 },
                network: Network::None,
                mounts: vec![],
                epoch: 1,
            },
            layers: vec![self.busybox],
            on_top: None,
            hidden_dirs: vec![],
            owners: Default::default(),
            run,
            caches: vec![],
            secrets: vec![],
            jobs: 2,
            limits: Limits::default(),
            closely: false,
            extras: None,
            conditions: Default::default(),
        }
    }

    pub fn upper(&self, spec: &SandboxSpec) -> PathBuf {
        self.store.join("tmp").join(&spec.run).join("upper")
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.store);
    }
}

/// Standard descriptors for a sandbox, and the end to read its output from.
pub fn stdio() -> ([OwnedFd; 3], OwnedFd) {
    let (read, write) = isolith::sys::socket::pipe().unwrap();
    let null = OwnedFd::from(fs::File::open("/dev/null").unwrap());
    ([null, write.try_clone().unwrap(), write], read)
}

/// Runs to the end: the outcome, and what it printed.
pub fn run(executor: &Executor, spec: &SandboxSpec) -> (Result<Outcome>, String) {
    let (stdio, read) = stdio();
    let sandbox = match executor.spawn(spec, stdio) {
        Ok(sandbox) => sandbox,
        Err(e) => return (Err(e), String::new()),
    };
    let mut text = Vec::new();
    fs::File::from(read).read_to_end(&mut text).unwrap();
    (sandbox.wait(), String::from_utf8_lossy(&text).into_owned())
}

/// Runs a script that must succeed; what it printed.
pub fn output(fixture: &Fixture, executor: &Executor, script: &str) -> String {
    let (outcome, text) = run(executor, &fixture.script(script));
    let outcome = outcome.unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(outcome.status, isolith::sandbox::Status::Exited(0), "output: {text}");
    text
}
