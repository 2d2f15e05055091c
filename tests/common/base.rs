//! What the tests share, made once a test binary and removed at its end: a base directory and a copy of
//! the program where every user can reach it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where worlds are made; ISOLITH_TEST_DIR puts them on another file system.
pub fn place() -> PathBuf {
    let dirs = ["/dev/shm".into(), "/var/tmp".into()];
    let asked = std::env::var_os("ISOLITH_TEST_DIR").map(PathBuf::from);
    asked.into_iter().chain(dirs).find(|dir| dir.is_dir()).unwrap()
}

/// A directory for all tests of this process.
fn shared() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    extern "C" fn remove() {
        if let Some(dir) = DIR.get() {
            let _ = fs::remove_dir_all(dir);
        }
    }
    DIR.get_or_init(|| {
        let dir = tempfile::Builder::new().prefix("isolith-shared-").tempdir_in(place()).unwrap().keep();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        // SAFETY: `remove` takes no arguments, does not unwind and stays valid until the process ends.
        unsafe { libc::atexit(remove) };
        dir
    })
}

/// The program. The build directory may be closed to other users, so it is a copy.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let copy = shared().join("isolith");
        fs::copy(env!("CARGO_BIN_EXE_isolith"), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        copy
    })
}

/// A base for recipes: static busybox with all its names, and the probe (`tests/contract/probe.c`).
pub fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| make_base("base"))
}

/// Another base of the same content, for tests that change it.
pub fn make_base(name: &str) -> PathBuf {
    let base = shared().join(name);
    for dir in ["bin", "etc", "home/kim", "usr"] {
        fs::create_dir_all(base.join(dir)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = busybox.expect("no busybox: install the Debian package `busybox-static`");
    fs::copy(busybox, base.join("bin/busybox")).unwrap();
    let list = Command::new(busybox).arg("--list").output().unwrap();
    for name in String::from_utf8(list.stdout).unwrap().lines().filter(|name| *name != "busybox") {
        symlink("busybox", base.join("bin").join(name)).unwrap();
    }
    fs::copy(probe(), base.join("bin/probe")).unwrap();
    fs::write(base.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nkim:x:1000:1000::/home/kim:/bin/sh\n")
        .unwrap();
    fs::write(base.join("etc/group"), "root:x:0:\nkim:x:1000:\n").unwrap();
    base
}

fn probe() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/probe.c");
        let probe = shared().join("probe");
        let output = Command::new("cc")
            .args(["-O1", "-static", "-o"])
            .args([&probe, &source])
            .output()
            .expect("no C compiler: install the Debian packages `gcc` and `libc6-dev`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        probe
    })
}
