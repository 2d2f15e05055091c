//! What comes from outside: checkouts, archives, the caller, the store.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::common::{Build, World, each_mode, each_mode_with_all_ids};
use super::{Seen, base};

/// Ids and keys of a build, without what it printed and how long it took.
fn names(build: Build) -> (Vec<String>, Vec<String>) {
    assert_eq!(build.run.code, 0, "{}", build.run);
    let finished = build.finished();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let stack = finished["stack"].as_array().unwrap().iter().map(text).collect();
    (stack, finished["steps"].as_array().unwrap().iter().map(|step| text(&step["key"])).collect())
}

/// A tree that somebody has checked out to `at`.
struct Checkout {
    dir: fn(bool) -> u32,
    umask: u32,
    backwards: bool,
    mtime: u64,
}

impl Checkout {
    fn make(&self, world: &World, at: &Path) {
        let mut files: Vec<String> = (0..40).map(|n| format!("dir{}/file-{n}", n % 3)).collect();
        files.extend(["run.sh".into(), "ünï".into(), "a b".into()]);
        if self.backwards {
            files.reverse();
        }
        fs::create_dir_all(at).unwrap();
        for name in &files {
            let path = at.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("content of {name}")).unwrap();
            let mode = (self.dir)(name.ends_with(".sh")) & !self.umask;
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(self.mtime);
            fs::File::open(&path).unwrap().set_modified(time).unwrap();
        }
        std::os::unix::fs::symlink("run.sh", at.join("link")).unwrap();
        let mut own = vec![at.to_owned()];
        own.extend((0..3).map(|n| at.join(format!("dir{n}"))));
        for dir in &own {
            fs::set_permissions(dir, PermissionsExt::from_mode(0o777 & !self.umask)).unwrap();
        }
        own.extend(files.iter().map(|name| at.join(name)));
        if rustix::process::geteuid().is_root() {
            own.iter().for_each(|path| chown(path, Some(world.mode.uid), Some(world.mode.gid)).unwrap());
        }
    }
}

fn git(executable: bool) -> u32 {
    if executable { 0o777 } else { 0o666 }
}

/// Umask, order of creation, times, place and file system of a checkout.
#[test]
fn checkouts() {
    let seen = Seen::default();
    each_mode(|world| {
        let disk = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(disk.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let memory = world.path("work");
        let cases = [
            (memory.join("a"), 0o022, false, 1),
            (memory.join("b"), 0o002, true, 1_700_000_000),
            (memory.join("c c/ü/deeper/down"), 0o077, false, 4_000_000_000),
            (disk.path().join("d"), 0o022, true, 0),
            (disk.path().join("e"), 0o007, false, 77),
        ];
        for (at, umask, backwards, mtime) in cases {
            Checkout { dir: git, umask, backwards, mtime }.make(world, &at);
            let who = format!("{}: {} {umask:o}", world.mode.name, at.display());
            let at = at.to_str().unwrap();
            world.recipe_on(base(), &format!(
                "[sources.src]\npath = {at:?}\nunpack = \"/src\"\n[[step]]\nname = \"list\"\nrun = 'ls -lR /src > /f'\n"
            ));
            seen.add(names(world.build()), &who);
        }
    });
}

fn tar(tree: &Path, args: &[&str]) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.arg("-C")
        .arg(tree)
        .args(["-c", "--numeric-owner", "--owner=0", "--group=0", "--mtime=@7"])
        .args(args);
    let output = tar.env("LC_ALL", "C.UTF-8").output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Format, order, names of users, times of access, labels and compression of an archive.
#[test]
fn archives() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path();
    for name in ["etc", "etc/conf", "zed"] {
        fs::create_dir(tree.join(name)).unwrap();
        fs::set_permissions(tree.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(tree, PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["etc/conf/b", "etc/a", "zed/first"] {
        fs::write(tree.join(name), name.repeat(1000)).unwrap();
        fs::set_permissions(tree.join(name), PermissionsExt::from_mode(0o640)).unwrap();
    }
    fs::hard_link(tree.join("zed/first"), tree.join("etc/link")).unwrap();
    std::os::unix::fs::symlink("a", tree.join("etc/sym")).unwrap();
    let plain = tar(tree, &["--format=gnu", "--sort=name", "."]);
    let backwards = [
        "./zed",
        "./zed/first",
        "./etc/sym",
        "./etc/link",
        "./etc/conf/b",
        "./etc/conf",
        "./etc/a",
        "./etc",
        ".",
    ];
    let mut archives = vec![
        plain.clone(),
        tar(tree, &["--format=ustar", "--sort=name", "."]),
        // With times of access and change, to the nanosecond.
        tar(tree, &["--format=pax", "--sort=inode", "."]),
        tar(tree, &["--format=pax", "--no-recursion"].into_iter().chain(backwards).collect::<Vec<_>>()),
        tar(
            tree,
            &[
                "--format=pax",
                "--pax-option=SCHILY.xattr.security.selinux:=label,SCHILY.xattr.trusted.x:=y",
                ".",
            ],
        ),
        tar(tree, &["--format=pax", "--pax-option=comment=made by somebody,delete=atime", "."]),
    ];
    for (user, group) in [("somebody", "anybody"), ("root", "wheel")] {
        let owners = [format!("--owner={user}:0"), format!("--group={group}:0")];
        let args = [&owners[0], &owners[1], "--format=gnu", "."];
        let mut tar = Command::new("tar");
        let output = tar.arg("-C").arg(tree).args(["-c", "--mtime=@7"]).args(args).output().unwrap();
        assert!(output.status.success());
        archives.push(output.stdout);
    }
    for level in [1, 9] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        gzip.write_all(&plain).unwrap();
        archives.push(gzip.finish().unwrap());
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), level);
        xz.write_all(&plain).unwrap();
        archives.push(xz.finish().unwrap());
        let mut zstd = zstd::Encoder::new(Vec::new(), level as i32 * 2).unwrap();
        zstd.multithread(level / 9).unwrap();
        zstd.write_all(&plain).unwrap();
        archives.push(zstd.finish().unwrap());
    }
    let seen = Seen::default();
    each_mode(|world| {
        for (at, archive) in archives.iter().enumerate() {
            let file = world.path("work").join(format!("base{at}"));
            fs::write(&file, archive).unwrap();
            fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
            world.write("recipe.toml", &format!(
                "name = \"t\"\n[base]\ntar = {{ path = \"base{at}\" }}\n[outputs.default]\nfrom = \"/etc\"\n"
            ));
            let stack = names(world.build()).0;
            assert!(!stack.is_empty());
            seen.add(stack, &format!("{}: archive {at}", world.mode.name));
        }
    });
}

/// Everything at once, to be built under all sorts of circumstances. Sizes of directories and numbers of blocks,
/// which `ls -l` prints, are the file system's and not looked at here.
const EVERYTHING: &str = r#"
[sources.src]
path = "src"
unpack = "/src"

[[step]]
name = "write"
run = '''
umask > /umask; ulimit -n >> /umask; env | sort > /env; id > /id; hostname > /host; pwd > /cwd
mkdir -p /n/m; cp -r /src /n; ln /n/src/f /n/hard; ln -s hard /n/soft; mkfifo /n/fifo
rm -rf /opt/tool/lib; echo new >> /opt/tool/one; chown 1000:1000 /n/m; chmod 4755 /n/hard
attr /n/hard user.note 6869
'''

[[step]]
name = "read"
run = 'find / -xdev > /tmp/list; sort /tmp/list > /list; find /n /opt /etc ! -type d | sort | xargs ls -l > /long'

[[step]]
name = "user"
user = "1000:1000"
after = ["write"]
run = 'echo mine > /n/m/mine; touch /n/m'

[outputs.default]
from = "/n"
"#;

/// Shell commands before the program, its environment, the number of jobs, and the store if not the usual one.
type Caller<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, Option<&'a Path>);

/// The caller's umask, limits, locale, time zone, directory and descriptors; file system and place of the store;
/// parallelism; the time.
#[test]
fn circumstances() {
    let seen = Seen::default();
    each_mode_with_all_ids(|world| {
        let disk = tempfile::tempdir_in("/var/tmp").unwrap();
        if rustix::process::geteuid().is_root() {
            chown(disk.path(), Some(world.mode.uid), Some(world.mode.gid)).unwrap();
        }
        let on_disk = disk.path().join("store");
        let odd = world.path("work/an odd  place/ü");
        let callers: [Caller; 8] = [
            ("", &[], "2", None),
            ("umask 000", &[("LC_ALL", "de_DE.UTF-8"), ("LANG", "C")], "2", None),
            ("umask 077", &[("TZ", "Asia/Tokyo"), ("LC_ALL", "POSIX")], "1", None),
            (
                "ulimit -S -n 256; ulimit -S -s 1024; ulimit -S -c 0",
                &[("HOSTNAME", "elsewhere"), ("USER", "x")],
                "2",
                None,
            ),
            ("cd /", &[("SOURCE_DATE_EPOCH", "12345"), ("TMPDIR", "/nowhere")], "4", None),
            ("exec 7</dev/null 9>&1; sleep 1.1", &[("MAKEFLAGS", "-j9")], "2", None),
            ("", &[], "2", Some(&on_disk)),
            ("ulimit -S -u 4000", &[], "2", Some(&odd)),
        ];
        for (caller, env, jobs, elsewhere) in callers {
            let mut world = World::new(world.mode);
            world.recipe_on(base(), EVERYTHING);
            world.write("src/f", "f");
            world.write("src/run", "run");
            world.caller = caller.to_owned();
            world.env = env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            let recipe = world.path("work/recipe.toml");
            let store = elsewhere.map_or_else(|| world.store(), Path::to_owned);
            let store = ["--store", store.to_str().unwrap()];
            let args = ["build", recipe.to_str().unwrap(), "--progress", "json", "--jobs", jobs];
            let run = world.isolith(&[&args[..], &store].concat());
            if elsewhere.is_some() {
                // What is in it belongs to ids that only the program can map.
                world.isolith(&[&["store", "clear"][..], &store].concat());
            }
            let events = run.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let who = format!("{}: `{caller}` {env:?} {jobs} {elsewhere:?}", world.mode.name);
            seen.add(names(Build { run, events, out: PathBuf::new(), twice: Default::default() }), &who);
        }
    });
}

/// A layer that went out as an archive and came in again is the layer that it was.
#[test]
fn export_and_import() {
    let seen = Seen::default();
    each_mode_with_all_ids(|world| {
        world.recipe_on(base(), EVERYTHING);
        world.write("src/f", "f");
        world.write("src/run", "run");
        let store = world.store();
        let store = ["--store", store.to_str().unwrap()];
        let archive = world.path("work/out.tar");
        let to = format!("tar:{}", archive.display());
        let export = world.isolith(&[&["export", "recipe.toml", &to][..], &store].concat());
        assert_eq!(export.code, 0, "{export}");
        world.write(
            "again.toml",
            "name = \"again\"\n[base]\ntar = { path = \"out.tar\" }\n[outputs.default]\nfrom = \"/\"\n",
        );
        let stack = names(world.build_recipe("again.toml", &[])).0;
        let again = world.path("work/again.tar");
        let to = format!("tar:{}", again.display());
        let export = world.isolith(&[&["export", "again.toml", &to][..], &store].concat());
        assert_eq!(export.code, 0, "{export}");
        assert!(fs::read(archive).unwrap() == fs::read(again).unwrap(), "{}", world.mode.name);
        seen.add(stack, world.mode.name);
    });
}
