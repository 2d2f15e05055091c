//! What makes layers differ elsewhere (mtimes, mount points, copies, links, ids, archives, checkouts, …) and
//! must not here: each cause is provoked with the program itself, and one layer id comes out, for root and for
//! a user with a range.
//!
//! What no canonical form can or should take away is what a step *writes*: see the last test.

mod common;

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use common::{Build, World, each_mode, modes};
use isolith::layer::Manifest;

/// Busybox, `attr`, and something to change; modes do not depend on the umask of the tests.
fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let base = common::make_base("canonical");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/canonical/attr.c");
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-static", "-o"]).arg(base.join("bin/attr")).arg(source);
        assert!(cc.status().unwrap().success());
        fs::create_dir_all(base.join("opt/tool/lib")).unwrap();
        for name in ["opt/tool/one", "opt/tool/two", "opt/tool/lib/three"] {
            fs::write(base.join(name), name).unwrap();
            fs::set_permissions(base.join(name), PermissionsExt::from_mode(0o644)).unwrap();
        }
        for name in ["", "etc", "home", "home/kim", "opt", "opt/tool", "opt/tool/lib", "usr"] {
            fs::set_permissions(base.join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        for name in ["etc/passwd", "etc/group"] {
            fs::set_permissions(base.join(name), PermissionsExt::from_mode(0o644)).unwrap();
        }
        base
    })
}

/// Runs each step on the base and gives the ids of their layers. A step is a script, or keys of a step.
fn layers(world: &World, steps: &[&str]) -> Vec<String> {
    let step = |(at, step): (usize, &&str)| {
        let keys = if step.contains(" = ") { step.to_string() } else { format!("run = '''{step}'''") };
        format!("[[step]]\nname = \"s{at}\"\nafter = []\n{keys}\n")
    };
    world.recipe_on(base(), &steps.iter().enumerate().map(step).collect::<String>());
    let build = world.build();
    assert_eq!(build.run.code, 0, "{}", build.run);
    (0..steps.len()).map(|at| build.step(&format!("s{at}"))["layer"].as_str().unwrap().to_owned()).collect()
}

/// Names that have to be the same each time.
#[derive(Default)]
struct Seen(RefCell<Vec<(String, String)>>);

impl Seen {
    /// `who` came to `name`.
    fn add(&self, name: impl std::fmt::Debug, who: &str) {
        let mut seen = self.0.borrow_mut();
        let name = format!("{name:?}");
        if let Some((first, of)) = seen.first() {
            assert_eq!(name, *first, "\n{who}\nis not like\n{of}");
        }
        seen.push((name, who.to_owned()));
    }

    fn only(&self) -> String {
        self.0.borrow().first().expect("nothing was seen").0.trim_matches('"').to_owned()
    }
}

/// All steps yield one layer, which is not empty, in every mode.
fn one_layer(steps: &[&str]) {
    let ids = Seen::default();
    each_mode(|world| {
        for (id, step) in layers(world, steps).into_iter().zip(steps) {
            ids.add(id, &format!("{}: `{step}`", world.mode.name));
        }
    });
    assert_ne!(ids.only(), Manifest::empty_id().to_hex(), "nothing was written");
}

/// All steps leave nothing.
fn no_layer(steps: &[&str]) {
    each_mode(|world| {
        for (id, step) in layers(world, steps).iter().zip(steps) {
            assert_eq!(*id, Manifest::empty_id().to_hex(), "{}: `{step}` left something", world.mode.name);
        }
    });
}

// --- what steps do

#[test]
fn mtimes_of_files() {
    one_layer(&[
        "echo x > /f",
        "echo x > /f; touch -d @5 /f",
        "echo y > /f; echo x > /f; touch -d @4102444800 /f",
        "touch -d @99 /f; sleep 1.1; echo x > /f",
    ]);
}

#[test]
fn mtimes_of_new_directories_and_symlinks() {
    one_layer(&[
        "mkdir -p /n/m; ln -s m /n/l",
        "mkdir /n; mkdir /n/m; ln -s m /n/l; touch -h -d @7 /n/l; touch -d @7 /n /n/m",
        "mkdir -p /n/m; ln -s m /n/l; touch /n/x; rm /n/x",
        "mkdir -p /x/y; mv /x/y /x/m; ln -s m /x/l; mv /x /n",
    ]);
}

#[test]
fn parents_of_copied_files() {
    one_layer(&[
        "cp /opt/tool/one /opt/tool/copy",
        "cp -p /opt/tool/one /opt/tool/copy; touch -d @9 /opt/tool /opt",
        "cp /opt/tool/one /x; mv /x /opt/tool/copy; touch /opt/tool/lib; chmod 700 /opt; chmod 755 /opt",
    ]);
}

#[test]
fn whiteouts() {
    one_layer(&[
        "rm /opt/tool/one",
        "mv /opt/tool/one /opt/tool/gone; sleep 1.1; rm /opt/tool/gone",
        "echo > /opt/tool/one; rm /opt/tool/one",
        // Opaque in the writable layer.
        "cp -rp /opt/tool /t; rm -rf /opt/tool; mv /t /opt/tool; rm /opt/tool/one",
        "cp -p /opt/tool/two /t; rm -rf /opt/tool; mkdir -p /opt/tool/lib; mv /t /opt/tool/two; \
         echo -n opt/tool/lib/three > /opt/tool/lib/three",
    ]);
}

#[test]
fn replaced_kinds() {
    one_layer(&[
        "rm -rf /opt/tool; echo x > /opt/tool; rm -rf /opt/tool; mkdir /opt/tool; echo y > /opt/tool/one",
        "rm -r /opt/tool/lib /opt/tool/two; echo y > /opt/tool/one",
        "rm -rf /opt/tool; ln -s nowhere /opt/tool; rm /opt/tool; mkdir -p /n; echo y > /n/one; mv /n /opt/tool",
    ]);
}

#[test]
fn places_where_something_is_mounted() {
    let secret = |world: &World| {
        let path = world.write("secret", "hush");
        format!("T=file:{}", path.display())
    };
    let ids = Seen::default();
    each_mode(|world| {
        let steps = [
            "run = 'echo x > /f'",
            "run = 'echo x > /f; for d in /proc /sys /dev /run /tmp /var/tmp; do touch $d 2>/dev/null || true; done'",
            "run = 'echo x > /f; for d in /run /tmp /var/tmp /dev/shm; do mkdir $d/t; echo > $d/t/t; done'",
            "run = 'echo x > /f; cat /etc/hosts > /tmp/h; cat /etc/resolv.conf /etc/hostname 2>/dev/null || true'",
            "network = \"host\"\nrun = 'echo x > /f; cat /etc/hosts /etc/resolv.conf 2>/dev/null || true'",
            "mounts = [{ tmpfs = \"/scratch\" }, { tmpfs = \"/opt/tool/lib\" }]\n\
             run = 'echo x > /f; echo > /scratch/t; echo > /opt/tool/lib/t'",
            "mounts = [{ cache = \"/deep/cache/dir\" }]\nrun = 'echo x > /f; echo > /deep/cache/dir/t'",
            "mounts = [{ secret = \"T\", at = \"/etc/secret\" }]\nrun = 'echo x > /f; grep -q hush /etc/secret'",
            "cwd = \"/opt/tool\"\nuser = \"0:0\"\nrun = 'echo x > /f; cd /proc; cat /proc/self/mountinfo'",
        ];
        let mut given = World::new(world.mode);
        given.flags = vec!["--secret".into(), secret(world)];
        for (id, step) in layers(&given, &steps).into_iter().zip(steps) {
            ids.add(id, &format!("{}: `{step}`", world.mode.name));
        }
    });
    ids.only();
}

#[test]
fn copies_that_are_as_before() {
    no_layer(&[
        ":",
        "touch /opt/tool/one /opt/tool /opt / /etc/passwd",
        "chmod 600 /opt/tool/one; chmod 644 /opt/tool/one",
        "chown 5:6 /opt/tool/one /opt/tool; chown 0:0 /opt/tool/one /opt/tool",
        "mv /opt/tool/one /p; mv /p /opt/tool/one",
        "cp -p /opt/tool/one /p; mv /p /opt/tool/one",
        "cat /opt/tool/one > /tmp/x; echo > /opt/tool/one; cat /tmp/x > /opt/tool/one",
        "sed -i s/o/o/ /opt/tool/one",
        "ln /opt/tool/one /l; rm /l",
        "mkdir -p /n/m; rm -r /n; mkfifo /p; rm /p; ln -s x /s; rm /s",
        "cp -rp /opt/tool /t; rm -rf /opt/tool; mv /t /opt/tool",
        "rm -rf /home/kim; mkdir /home/kim",
        "attr /opt/tool/one user.x 00; attr /opt/tool/one user.x",
        ": >> /opt/tool/one; dd if=/dev/null of=/opt/tool/two conv=notrunc 2>/dev/null",
    ]);
}

#[test]
fn hard_links() {
    one_layer(&[
        "mkdir /z; echo x > /a; ln /a /b; ln /a /z/c",
        "mkdir /z; echo x > /z/c; ln /z/c /b; ln /b /a",
        "mkdir /z; echo x > /t; ln /t /b; ln /t /z/c; ln /t /a; rm /t",
        "mkdir /z; echo x > /a; ln /a /z/c; echo y > /b; ln -f /z/c /b; touch -d @3 /b",
    ]);
    one_layer(&[
        "ln /opt/tool/one /p",
        "ln /opt/tool/one /q; ln /q /p; rm /q",
        "cp -p /opt/tool/one /p; rm /opt/tool/one; ln /p /opt/tool/one",
    ]);
}

#[test]
fn owners_and_id_ranges() {
    one_layer(&[
        "echo x > /f; chown 65535:1 /f; mkdir /n; chown 1000:65535 /n; ln -s f /l; chown -h 7:8 /l",
        "mkdir /n; chown 1000:65535 /n; echo x > /n/f; chown 65535:1 /n/f; mv /n/f /f; ln -s f /l; chown -h 7:8 /l",
    ]);
}

/// `cap_net_bind_service+ep`, which the kernel stores with the root id of the sandbox; access lists with ids.
#[test]
fn capabilities_and_access_lists() {
    let cap = "attr /f security.capability 0100000200040000000000000000000000000000";
    let acl = "attr /f system.posix_acl_access 0200000001000600ffffffff0200040007000000\
               04000400ffffffff10000400ffffffff20000400ffffffff";
    one_layer(&[
        &format!("echo x > /f; {acl}; {cap}; attr /f user.b 62; attr /f user.a 61"),
        &format!("echo x > /g; mv /g /f; attr /f user.a 61; attr /f user.b 62; {cap}; {acl}"),
        &format!(
            "echo x > /f; chown 9 /f; chown 0 /f; attr /f user.a 61; {cap}; attr /f user.b 62; {acl}; touch /f"
        ),
    ]);
}

#[test]
fn what_is_printed() {
    each_mode(|world| {
        let say = |what: &str| {
            format!(
                "[[step]]\nname = \"say\"\nrun = 'echo {what}; echo x > /f'\n[[step]]\nname = \"next\"\nrun = ':'\n"
            )
        };
        let seen = Seen::default();
        for what in ["one", "two", "$(cat /proc/uptime /proc/sys/kernel/random/uuid)"] {
            world.recipe_on(base(), &say(what));
            let build = world.build().ok();
            seen.add((&build.step("say")["layer"], &build.step("next")["key"]), what);
        }
    });
}

// --- what comes from outside

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

/// Everything at once, to be built under all sorts of circumstances.
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
run = 'find / -xdev | sort > /list; ls -l /n /opt /opt/tool /etc > /long'

[[step]]
name = "user"
user = "1000:1000"
after = ["write"]
run = 'echo mine > /n/m/mine; touch /n/m'

[outputs.default]
from = "/n"
"#;

/// The caller's umask, limits, locale, time zone, directory and descriptors; file system and place of the store;
/// parallelism; the time.
#[test]
fn circumstances() {
    let seen = Seen::default();
    each_mode(|world| {
        let disk = tempfile::tempdir_in("/var/tmp").unwrap();
        if rustix::process::geteuid().is_root() {
            chown(disk.path(), Some(world.mode.uid), Some(world.mode.gid)).unwrap();
        }
        let on_disk = disk.path().join("store");
        let odd = world.path("work/an odd  place/ü");
        let callers: [(&str, &[(&str, &str)], &[&str]); 8] = [
            ("", &[], &[]),
            ("umask 000", &[("LC_ALL", "de_DE.UTF-8"), ("LANG", "C")], &[]),
            ("umask 077", &[("TZ", "Asia/Tokyo"), ("LC_ALL", "POSIX")], &["--jobs", "1"]),
            ("ulimit -n 256; ulimit -s 1024; ulimit -c 0", &[("HOSTNAME", "elsewhere"), ("USER", "x")], &[]),
            ("cd /", &[("SOURCE_DATE_EPOCH", "12345"), ("TMPDIR", "/nowhere")], &["--jobs", "4"]),
            ("exec 7</dev/null 9>&1; sleep 1.1", &[("MAKEFLAGS", "-j9")], &[]),
            ("", &[], &["--store", on_disk.to_str().unwrap()]),
            ("nice -n 5 true; ulimit -u 4000", &[], &["--store", odd.to_str().unwrap()]),
        ];
        for (caller, env, flags) in callers {
            let mut world = World::new(world.mode);
            world.recipe_on(base(), EVERYTHING);
            world.write("src/f", "f");
            world.write("src/run", "run");
            world.caller = caller.to_owned();
            world.env = env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            let recipe = world.path("work/recipe.toml");
            let (store, mine) = (world.store(), flags.contains(&"--store"));
            let mut args = vec!["build", recipe.to_str().unwrap(), "--progress", "json"];
            args.extend(flags);
            if !mine {
                args.extend(["--store", store.to_str().unwrap()]);
            }
            let run = world.isolith(&args);
            let events = run.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let who = format!("{}: `{caller}` {env:?} {flags:?}", world.mode.name);
            seen.add(names(Build { run, events, out: PathBuf::new() }), &who);
        }
    });
}

/// A layer that went out as an archive and came in again is the layer that it was.
#[test]
fn export_and_import() {
    let seen = Seen::default();
    each_mode(|world| {
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

// --- what is left

/// What a step writes is what its layer has: nobody rewrites clocks, inode numbers or random numbers in the
/// content of files. (`verify` finds such steps.)
#[test]
fn content_is_never_touched() {
    let mode = modes().into_iter().find(|mode| mode.runs).unwrap();
    let build = || {
        let world = World::new(mode);
        layers(&world, &["cat /proc/sys/kernel/random/uuid > /f"])
    };
    assert_ne!(build(), build());
}
