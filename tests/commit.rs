//! What steps leave behind on real overlay mounts, committed: the layer is the smallest difference, shows
//! what the step saw, and is the same however the step got there.
//!
//! Needs root or user namespaces, `unshare`, and `python3` for extended attributes.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use isolith::layer::{IdShift, Kind, Manifest, View, commit, prepare_upper, verify};

const EPOCH: i64 = 1_705_881_600;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn ids() -> IdShift {
    IdShift::by(rustix::process::geteuid().as_raw())
}

/// A shell function: `xattr set|del PATH NAME [VALUE]`, `xattr list`.
const XATTR: &str = r#"xattr() { python3 -c '
import os, sys
todo, args = sys.argv[1], sys.argv[2:]
if todo == "set": os.setxattr(args[0], args[1], args[2].encode())
if todo == "del": os.removexattr(*args)
if todo == "list":
    for top, dirs, files in os.walk(b"."):
        dirs.sort()
        for path in [top] + [top + b"/" + name for name in sorted(files)]:
            for name in os.listxattr(path, follow_symlinks=False):
                print(path, name, os.getxattr(path, name, follow_symlinks=False))
' "$@"; }"#;

/// A stack that grows by committed steps.
struct Stack {
    dir: tempfile::TempDir,
    layers: Vec<Arc<Manifest>>,
}

impl Stack {
    fn new(base: &str) -> Stack {
        let mut stack = Stack { dir: tempfile::tempdir().unwrap(), layers: Vec::new() };
        stack.step(base);
        stack
    }

    fn path(&self, layer: usize) -> PathBuf {
        self.dir.path().join(format!("fs{layer}"))
    }

    fn view(&self) -> View {
        View::new(self.layers.clone())
    }

    /// Runs a script in the merged tree and prints that tree.
    fn run(&self, script: &str, upper: Option<&Path>, attributes: bool) -> String {
        let skeleton = self.dir.path().join("skeleton");
        _ = std::fs::remove_dir_all(&skeleton);
        std::fs::create_dir(&skeleton).unwrap();
        for dir in self.view().hidden_dirs() {
            std::fs::create_dir_all(skeleton.join(dir.as_relative())).unwrap();
        }
        for name in ["merged", "work"] {
            std::fs::create_dir_all(self.dir.path().join(name)).unwrap();
        }
        let lower: Vec<_> = (0..self.layers.len()).rev().map(|at| format!("fs{at}")).collect();
        let lower = [lower, vec!["skeleton".into()]].concat().join(":");
        let mount = match upper {
            Some(upper) => {
                // Volatile: unmounting does not sync the whole disk.
                format!("volatile,userxattr,lowerdir={lower},upperdir={},workdir=work", upper.display())
            }
            None if self.layers.is_empty() => "userxattr,lowerdir=skeleton:merged".to_string(),
            None => format!("userxattr,lowerdir={lower}"),
        };
        let look = "LC_ALL=C; export LC_ALL
            find . ! -name . \\( -type d -o -type p \\) -printf '%P %y %m %U:%G\\n' \\
                -o ! -name . -type l -printf '%P l %U:%G %l\\n' \\
                -o -type f -printf '%P %y %m %U:%G %s\\n' | sort
            find . -type f -print0 | sort -z | xargs -0r md5sum";
        let look = if attributes { format!("{look}\nxattr list") } else { look.to_string() };
        let whole = format!(
            "cd {0}; mount -t overlay -o {mount} overlay merged && cd merged || exit 99\n\
            umask 022\n{XATTR}\n( set -e\n{script}\n) >&2 || exit 98\n{look}\ncd ..; umount merged; rm -rf work",
            self.dir.path().display()
        );
        let mut unshare = Command::new("unshare");
        unshare.arg("-m").args((!is_root()).then_some("-Ur")).args(["sh", "-c", &whole]);
        let output = unshare.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {:?} {stderr}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a step and puts its layer on the stack. What the committed stack shows must be what the step left.
    fn step(&mut self, script: &str) -> Arc<Manifest> {
        let upper = self.path(self.layers.len());
        std::fs::create_dir(&upper).unwrap();
        prepare_upper(&upper, &self.view(), EPOCH, ids()).unwrap();
        // Looking at them takes a while, so only where a script has to do with them.
        let attributes = script.contains("xattr");
        let seen = self.run(script, Some(&upper), attributes);
        let manifest = Arc::new(commit(&upper, &self.view(), EPOCH, ids()).unwrap());
        verify(&manifest, &upper, ids()).unwrap();
        assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), *manifest);
        if manifest.is_empty() {
            assert_eq!(std::fs::read_dir(&upper).unwrap().count(), 0);
        } else {
            assert_eq!(std::fs::metadata(&upper).unwrap().mtime(), EPOCH);
        }
        self.layers.push(manifest.clone());
        assert_eq!(self.run(":", None, attributes), seen, "after {script}");
        manifest
    }
}

impl Stack {
    /// The layer of a step that is then forgotten.
    fn try_step(&mut self, script: &str) -> Arc<Manifest> {
        let layer = self.step(script);
        self.layers.pop();
        std::fs::remove_dir_all(self.path(self.layers.len())).unwrap();
        layer
    }
}

/// A base with something of everything.
const BASE: &str = "
    mkdir -p etc usr/bin usr/lib/deep/er
    echo root > etc/passwd; echo two > etc/two; ln etc/two etc/also-two
    echo prog > usr/bin/prog; chmod 755 usr/bin/prog
    echo su > usr/bin/su; chmod 4755 usr/bin/su
    ln -s prog usr/bin/link
    echo lib > usr/lib/a.so; echo deep > usr/lib/deep/d; echo er > usr/lib/deep/er/e
    xattr set etc/passwd user.note hello; xattr set usr/lib user.dir d
    mkfifo usr/fifo
    printf x > \"$(printf 'usr/lib/\\377\\n name')\"";

/// The paths of a layer with a letter for what is there, directories left out.
fn what(manifest: &Manifest) -> Vec<String> {
    let letter = |kind: &Kind| match kind {
        Kind::File { .. } => Some('f'),
        Kind::Dir { opaque: false } => None,
        Kind::Dir { opaque: true } => panic!("a step's layer is never opaque"),
        Kind::Symlink { .. } => Some('l'),
        Kind::Fifo => Some('p'),
        Kind::HardLink { .. } => Some('h'),
        Kind::Whiteout => Some('w'),
        _ => panic!("a device"),
    };
    let entries = manifest.entries().iter();
    entries.filter_map(|e| Some(format!("{} {}", letter(&e.kind)?, e.path))).collect()
}

#[test]
fn a_step_that_changes_nothing_leaves_nothing() {
    let mut stack = Stack::new(BASE);
    for script in [
        ":",
        "touch etc/passwd usr usr/lib .",
        "touch -h usr/bin/link; touch usr/fifo",
        "mv etc/passwd x; mv x etc/passwd",
        "mv usr/lib y; mv y usr/lib",
        "mv usr y; mv y usr",
        "cp -a usr/lib/. ../keep; rm -rf usr/lib; mkdir usr/lib; cp -a ../keep/. usr/lib; rm -rf ../keep",
        "cp -a usr ../keep; rm -rf usr; mv ../keep usr",
        "chmod 600 etc/passwd; chmod 700 usr; chmod 644 etc/passwd; chmod 755 usr",
        "chmod 755 usr/bin/su; chmod 4755 usr/bin/su",
        "cat etc/passwd > c; cat c > etc/passwd; rm c",
        "echo other > etc/passwd; echo root > etc/passwd",
        "xattr set etc user.x 1; xattr del etc user.x",
        "xattr del etc/passwd user.note; xattr set etc/passwd user.note hello",
        "mkdir new; touch new/x; rm -r new",
        "ln usr/bin/prog usr/bin/other; rm usr/bin/other",
        "rm usr/bin/link; ln -s prog usr/bin/link",
        "rm usr/fifo; mkfifo usr/fifo",
        "rm etc/passwd; mkdir etc/passwd; rmdir etc/passwd; echo root > etc/passwd; xattr set etc/passwd user.note hello",
        "for f in usr/lib/*; do touch \"$f\"; done",
        "rm etc/two etc/also-two; echo two > etc/two; ln etc/two etc/also-two",
    ] {
        let layer = stack.try_step(script);
        assert_eq!(layer.entries(), [], "{script}");
    }
}

#[test]
fn a_layer_is_the_smallest_difference() {
    let mut stack = Stack::new(BASE);
    for (script, expected) in [
        ("echo new > etc/passwd", "f /etc/passwd"),
        ("chmod 600 etc/passwd", "f /etc/passwd"),
        ("xattr set etc/passwd user.note other", "f /etc/passwd"),
        ("rm etc/passwd", "w /etc/passwd"),
        ("rm -rf usr/lib", "w /usr/lib"),
        (
            "rm -rf usr/lib; mkdir usr/lib; xattr set usr/lib user.dir d",
            "w /usr/lib/a.so,w /usr/lib/deep,w /usr/lib/\u{fffd}\n name",
        ),
        (
            "cp -a usr/lib ../keep; rm -rf usr/lib; cp -a ../keep usr/lib; rm -r ../keep usr/lib/deep/er usr/lib/a.so",
            "w /usr/lib/a.so,w /usr/lib/deep/er",
        ),
        (
            "rm -rf usr; mkdir -p usr/lib/deep/new; echo n > usr/lib/deep/new/n",
            "w /usr/bin,w /usr/fifo,w /usr/lib/a.so,w /usr/lib/deep/d,w /usr/lib/deep/er,f /usr/lib/deep/new/n,w /usr/lib/\u{fffd}\n name",
        ),
        ("rm etc/passwd; mkdir etc/passwd; echo in > etc/passwd/in", "f /etc/passwd/in"),
        ("rm etc/passwd; mkdir etc/passwd; rm -rf usr/lib/deep; echo file > usr/lib/deep", "f /usr/lib/deep"),
        ("rm -rf usr/lib/deep; ln -s /etc usr/lib/deep", "l /usr/lib/deep"),
        ("rm usr/bin/link; mkdir usr/bin/link; echo p > usr/bin/link/p", "f /usr/bin/link/p"),
        ("rm usr/bin/link; ln -s other usr/bin/link", "l /usr/bin/link"),
        (
            "mv usr/lib lib2",
            "f /lib2/a.so,f /lib2/deep/d,f /lib2/deep/er/e,f /lib2/\u{fffd}\n name,w /usr/lib",
        ),
        ("echo 1 > b; ln b a; ln b etc/c", "f /a,h /b,h /etc/c"),
        ("ln usr/bin/prog usr/bin/other", "f /usr/bin/other,h /usr/bin/prog"),
        ("ln usr/bin/prog etc/a; rm usr/bin/prog", "f /etc/a,w /usr/bin/prog"),
        ("mkfifo usr/pipe; mkdir -m 1777 tmp", "p /usr/pipe"),
        ("touch etc/a; rm etc/a; touch etc/b; mkdir etc/.wh.c; rm -r etc/.wh.c", "f /etc/b"),
    ] {
        let layer = stack.try_step(script);
        assert_eq!(what(&layer).join(","), expected, "{script}");
        assert!(!layer.is_empty());
        for entry in layer.entries() {
            let bare = matches!(entry.kind, Kind::HardLink { .. } | Kind::Whiteout);
            assert_eq!(entry.mtime, if bare { 0 } else { EPOCH }, "{entry:?}");
        }
    }
}

#[test]
fn how_a_step_got_there_does_not_show() {
    let ways = [
        "mkdir d; echo 1 > d/a; echo 2 > d/b; ln d/a d/c; rm etc/two",
        "echo 2 > b; mkdir d; echo 1 > d/c; mv b d/b; ln d/c d/a; touch -d 2001-01-01 d d/a; rm -f etc/two; umask 077",
        "umask 077; mkdir d; umask 022; chmod 755 d; echo 1 > x; ln x d/c; ln x d/a; rm x; echo 2 > d/b; mv etc/two y; rm y; touch etc/passwd",
    ];
    let mut stack = Stack::new(BASE);
    let layers: Vec<_> = ways.iter().map(|way| stack.try_step(way)).collect();
    assert_eq!(layers[0], layers[1]);
    assert_eq!(layers[0], layers[2]);
    assert_eq!(layers[0].id(), layers[2].id());
}

#[test]
fn through_several_layers() {
    let mut stack = Stack::new(BASE);
    stack.step("echo 2 > usr/lib/two; rm usr/lib/a.so");
    stack.step("rm -rf usr/lib/deep; echo x > usr/lib/deep");
    // A file over a directory hides it; a directory over that file starts anew.
    let layer = stack.step("rm usr/lib/deep; mkdir usr/lib/deep; echo d > usr/lib/deep/d2");
    assert_eq!(what(&layer), ["f /usr/lib/deep/d2"]);
    // Names from all layers below are hidden, and only those still visible.
    let layer = stack.step("rm -rf usr/lib; mkdir -p usr/lib/deep; echo er > usr/lib/deep/er");
    let expected = "f /usr/lib/deep/er,w /usr/lib/deep/d2,w /usr/lib/two,w /usr/lib/\u{fffd}\n name";
    let mut found = what(&layer);
    found.sort();
    let mut expected: Vec<_> = expected.split(',').collect();
    expected.sort();
    assert_eq!(found, expected);
    // Bringing a hidden file back is a change; bringing back what is there is none.
    assert_eq!(what(&stack.step("echo lib > usr/lib/a.so")), ["f /usr/lib/a.so"]);
    assert!(stack.step("rm usr/lib/a.so; echo lib > usr/lib/a.so").is_empty());
    assert_eq!(what(&stack.step("rm -rf usr")), ["w /usr"]);
    assert!(stack.step("mkdir usr; rmdir usr").is_empty());
}

/// Whatever steps do, their layers show it: [`Stack::step`] compares.
#[test]
fn random_steps_are_shown_faithfully() {
    let mut state = 20_240_122u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let paths = ["a", "a-", "a/b", "a/b/c", "a/b/d", "d", "d/a", "d/a/b", "d/a/b/c", "d/e", "f"];
    let commands = [
        "mkdir -p P",
        "mkdir P",
        "echo 1 > P",
        "echo 2 > P",
        "echo 2 > P",
        "rm -rf P",
        "rm -rf P; mkdir -p P",
        "mv P Q",
        "cp -a P Q",
        "ln P Q",
        "ln -s Q P",
        "chmod 700 P",
        "chmod 755 P",
        "touch P",
        "mkfifo P",
    ];
    for _ in 0..6 {
        let mut stack =
            Stack::new("mkdir -p a/b d/a/b; echo 1 > a/b/c; echo 1 > d/a/b/c; echo 2 > d/e; ln d/e f");
        for _ in 0..6 {
            let mut script = "set +e\n".to_string();
            for _ in 0..8 {
                let command = commands[random(commands.len())].replace('P', paths[random(paths.len())]);
                script += &format!("{} 2>&1\n", command.replace('Q', paths[random(paths.len())]));
            }
            stack.step(&(script + ":"));
        }
    }
}

#[test]
fn the_root_itself_can_change() {
    let mut stack = Stack::new("echo a > a");
    let layer = stack.step("chmod 700 .");
    assert_eq!(layer.entries().len(), 1);
    assert_eq!(layer.entries()[0].mode, 0o700);
    assert!(stack.step("test $(stat -c %a:%Y .) = 700:1705881600; touch .").is_empty());
    assert_eq!(stack.step("echo b > b").entries()[0].mode, 0o700);
    assert_eq!(stack.step("chmod 755 .; rm b").entries()[0].mode, 0o755);
}
