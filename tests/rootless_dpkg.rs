//! A real `dpkg` unpacks and configures over 100 Debian packages, as root, as a user with a range of ids and
//! as one without: one layer id for each step. The packages come from the machine's own mirror, once, into a
//! directory of the build (`tests/rootless_dpkg/fetch`).

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{World, modes};

/// Makes the packages be there; none when this machine has no apt.
fn packages() -> Option<PathBuf> {
    if !Path::new("/usr/bin/apt-get").exists() {
        return None;
    }
    let dir = std::env::var_os("ISOLITH_TEST_DEBS").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("debs"));
    fs::create_dir_all(&dir).unwrap();
    let fetch = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rootless_dpkg/fetch");
    let output = Command::new(fetch).arg(&dir).output().unwrap();
    assert!(output.status.success(), "cannot fetch: {}", String::from_utf8_lossy(&output.stderr));
    Some(dir.join("debs"))
}

/// Every directory of the packages and every file, by its owner and mode, as the last step lists them.
const ODD: [&str; 12] = [
    "-rw-r----- 0:1 /etc/at.deny",
    "-rw-r----- 0:42 /etc/shadow",
    "-rwsr-sr-x 1:1 /usr/bin/at",
    "-rwxr-sr-x 0:42 /usr/bin/chage",
    "-rwsr-xr-x 0:0 /usr/bin/sudo",
    "drwxr-xr-x 6:12 /var/cache/man",
    "drwxrwsr-x 0:50 /var/local",
    "drwxrwsr-x 0:8 /var/mail",
    "-rw-rw-r-- 0:43 /var/log/wtmp",
    "drwxrwx--T 1:1 /var/spool/cron/atjobs",
    "-rw------- 1:1 /var/spool/cron/atjobs/.SEQ",
    "/usr/bin/ping cap_net_raw=ep",
];

#[test]
fn a_debian_system_is_the_same_in_every_mode() {
    let (true, Some(debs)) = (rustix::process::geteuid().is_root(), packages()) else {
        println!("skipped: needs root, for the other users, and apt-get");
        return;
    };
    let mut first: Option<(Vec<String>, Vec<String>)> = None;
    for mode in modes() {
        let world = World::new(mode);
        let work = world.path("work");
        fs::create_dir_all(work.join("debs")).unwrap();
        for deb in fs::read_dir(&debs).unwrap().flatten() {
            fs::copy(deb.path(), work.join("debs").join(deb.file_name())).unwrap();
        }
        let busybox = work.join("bb/busybox");
        fs::create_dir_all(&busybox).unwrap();
        fs::copy("/bin/busybox", busybox.join("busybox")).expect("install busybox-static");
        let list = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
        for name in String::from_utf8(list).unwrap().lines().filter(|name| *name != "busybox") {
            std::os::unix::fs::symlink("busybox", busybox.join(name)).unwrap();
        }
        world.write("recipe.toml", include_str!("rootless_dpkg/recipe.toml"));
        let build = world.build().ok();
        let log = build.log("look");
        assert!(log[0].parse::<u32>().unwrap() >= 100, "packages that are installed: {}", log[0]);
        for line in ODD {
            assert!(log.iter().any(|found| found == line), "no `{line}` ({}): {log:#?}", mode.name);
        }
        let layers = ["bootstrap", "unpack", "configure", "look"];
        let layers = layers.map(|step| build.step(step)["layer"].as_str().unwrap().to_owned()).to_vec();
        match &first {
            None => first = Some((layers, log)),
            Some(first) => assert_eq!((&layers, &log), (&first.0, &first.1), "{}", mode.name),
        }
    }
}
