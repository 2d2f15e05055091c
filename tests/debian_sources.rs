//! Source packages of this machine's own package sources, unpacked and patched: the trees that dpkg-source makes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Native ones, ones with patches, one with a file that a patch takes away. More than are needed: a mirror may lack some.
const PACKAGES: [&str; 12] = [
    "bc", "bzip2", "debconf", "ed", "grep", "hello", "hostname", "less", "libonig", "lua5.4", "mawk", "zlib",
];

fn run(command: &mut Command) -> bool {
    command.env("LC_ALL", "C.UTF-8").output().unwrap_or_else(|e| panic!("{command:?}: {e}")).status.success()
}

/// Kind, executable or not, and content or target of everything in a tree.
type Tree = BTreeMap<String, (char, bool, Vec<u8>)>;

fn tree(root: &Path, dir: &Path, into: &mut Tree) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let meta = fs::symlink_metadata(&path).unwrap();
        let executable = meta.is_file() && meta.permissions().mode() & 0o100 != 0;
        if meta.is_dir() {
            // What quilt notes down is not part of the source.
            if name == ".pc" {
                continue;
            }
            into.insert(name, ('d', false, Vec::new()));
            tree(root, &path, into);
        } else if meta.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            into.insert(name, ('l', false, target.to_str().unwrap().into()));
        } else {
            into.insert(name, ('f', executable, fs::read(&path).unwrap()));
        }
    }
}

#[test]
fn the_same_trees_as_dpkg_source_makes() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in ["etc", "lists/partial", "cache/archives/partial", "get"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    // The machine's own sources, for source packages.
    for (from, to) in [("sources.list", "a.list"), ("sources.list.d", "")] {
        let from = Path::new("/etc/apt").join(from);
        let files = match from.is_dir() {
            true => fs::read_dir(&from).unwrap().map(|entry| entry.unwrap().path()).collect(),
            false => vec![from],
        };
        for file in files.into_iter().filter(|file| file.is_file()) {
            let name = if to.is_empty() { file.file_name().unwrap().to_str().unwrap() } else { to };
            let text = fs::read_to_string(&file).unwrap();
            let line = |line: &str| match line.strip_prefix("Types:") {
                Some(_) => "Types: deb-src".to_owned(),
                None if line.starts_with("deb ") => line.replacen("deb", "deb-src", 1),
                None => line.to_owned(),
            };
            fs::write(path("etc").join(name), text.lines().map(line).collect::<Vec<_>>().join("\n") + "\n")
                .unwrap();
        }
    }
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.arg("-qq").current_dir(path("get"));
        for (key, value) in [
            ("Dir::Etc::SourceList", Path::new("/dev/null").to_owned()),
            ("Dir::Etc::SourceParts", path("etc")),
            ("Dir::State::Lists", path("lists")),
            ("Dir::Cache", path("cache")),
            ("APT::Sandbox::User", "root".into()),
        ] {
            apt.arg("-o").arg(format!("{key}={}", value.display()));
        }
        apt
    };
    assert!(run(apt().arg("update")), "apt-get update");
    let targets = apt().args(["indextargets", "--format", "$(IDENTIFIER) $(CODENAME)"]).output().unwrap();
    let mut suites: Vec<String> = Vec::new();
    for line in String::from_utf8(targets.stdout).unwrap().lines() {
        if let Some(suite) =
            line.strip_prefix("Sources ").filter(|suite| !suites.iter().any(|known| known == suite))
        {
            suites.push(suite.to_owned());
        }
    }
    let mut recipe =
        "name = \"sources\"\nbase = { scratch = true }\noutputs.default = { from = \"/src\" }\n".to_owned();
    let mut there = Vec::new();
    for package in PACKAGES {
        if !run(apt().args(["source", "--download-only", package])) {
            continue;
        }
        recipe += &format!(
            "[sources.\"{}\"]\ndebian = \"{package}\"\nsuite = {suites:?}\nunpack = \"/src/{package}\"\n",
            package.replace('.', "_")
        );
        there.push(package);
    }
    assert!(there.len() >= 10, "the mirror has only {there:?}");
    fs::write(path("a.toml"), recipe).unwrap();
    let isolith = || {
        let mut isolith = Command::new(env!("CARGO_BIN_EXE_isolith"));
        isolith.arg("--store").arg(path("store")).current_dir(dir.path());
        isolith
    };
    for args in [&["lock", "a.toml"][..], &["build", "--locked", "a.toml", "-o", "dir:out"]] {
        let out = isolith().args(args).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    for package in there {
        let prefix = format!("{package}_");
        let dsc = fs::read_dir(path("get")).unwrap().map(|entry| entry.unwrap().path()).find(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(&prefix) && name.ends_with(".dsc")
        });
        let to = path(&format!("x-{package}"));
        let mut unpack = Command::new("dpkg-source");
        assert!(run(unpack.args(["--no-check", "-x"]).arg(dsc.unwrap()).arg(&to)), "{unpack:?}");
        let (mut ours, mut theirs) = (BTreeMap::new(), BTreeMap::new());
        let out = path("out").join(package);
        tree(&out, &out, &mut ours);
        tree(&to, &to, &mut theirs);
        let differ = |a: &Tree, b: &Tree| -> Vec<String> {
            a.iter().filter(|(name, what)| b.get(*name) != Some(what)).map(|(name, _)| name.clone()).collect()
        };
        let (more, less) = (differ(&ours, &theirs), differ(&theirs, &ours));
        assert!(more.is_empty() && less.is_empty(), "{package}: ours {more:?}, dpkg-source's {less:?}");
        assert!(theirs.len() > 5, "{package}");
    }
}
