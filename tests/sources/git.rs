//! Git repositories, honest and not.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use isolith::digest::LayerId;
use isolith::error::Error;
use isolith::layer::Limits;
use isolith::path::GuestPath;
use isolith::source::fetch::Access;
use isolith::source::git::{Fetcher, resolve};

use crate::archives::lay;
use crate::{Ears, Place, ids};

pub fn git(dir: &Path, args: &[&str], input: &[u8]) -> String {
    let mut child = Command::new("git")
        .args(["-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always"])
        .args(args)
        .current_dir(dir)
        .env("HOME", dir)
        .envs([
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@b"),
            ("GIT_AUTHOR_DATE", "1700000000 +0000"),
        ])
        .envs([
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@b"),
            ("GIT_COMMITTER_DATE", "1700000000 +0000"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("git sources are tested with git");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_string()
}

/// A repository with a file, a program, a symlink, a tag and what would change a checkout.
fn repository(place: &Place, name: &str) -> PathBuf {
    let dir = place.path(name);
    std::fs::create_dir_all(dir.join("d")).unwrap();
    git(&dir, &["init", "--quiet"], b"");
    std::fs::write(dir.join("d/one"), format!("$Id$ {name}\n")).unwrap();
    std::fs::write(dir.join("run"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(dir.join("run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("d/one", dir.join("link")).unwrap();
    std::fs::write(dir.join(".gitattributes"), "d/one text eol=crlf ident export-subst\nrun export-ignore\n")
        .unwrap();
    git(&dir, &["add", "."], b"");
    git(&dir, &["commit", "--quiet", "-m", "one"], b"");
    git(&dir, &["tag", "-a", "v1", "-m", "v1"], b"");
    dir
}

fn fetch_with(
    place: &Place,
    access: &Access,
    url: &str,
    commit: &str,
    submodules: bool,
) -> Result<LayerId, Error> {
    let ears = Ears::default();
    let limits = Limits { bytes: 1 << 20, entries: 200 };
    let fetcher = Fetcher { store: &place.store, access, watch: &ears, what: "source `src`", limits };
    let got = lay(&[]).git(&fetcher, url, commit, submodules, ids());
    place.assert_clean();
    got
}

fn fetch(place: &Place, url: &Path, commit: &str, submodules: bool) -> Result<LayerId, Error> {
    fetch_with(place, &Access::default(), url.to_str().unwrap(), commit, submodules)
}

fn paths(place: &Place, id: &LayerId) -> Vec<String> {
    let manifest = place.store.manifest(id).unwrap().unwrap();
    let inside = manifest.entries().iter().filter_map(|entry| {
        entry.path.strip_prefix(&GuestPath::parse("/src/in").unwrap()).filter(|path| !path.is_root())
    });
    inside.map(|path| path.to_string()).collect()
}

#[test]
fn a_commit_is_a_tree_whatever_git_is_told() {
    let place = Place::new();
    let dir = repository(&place, "repo");
    let commit = git(&dir, &["rev-parse", "HEAD"], b"");
    let id = fetch(&place, &dir, &commit, false).unwrap();
    assert_eq!(paths(&place, &id), ["/.gitattributes", "/d", "/d/one", "/link", "/run"]);
    let manifest = place.store.manifest(&id).unwrap().unwrap();
    let get = |path: &str| manifest.get(&GuestPath::parse(path).unwrap()).unwrap();
    assert_eq!((get("/src/in/run").mode, get("/src/in/d/one").mode), (0o755, 0o644));
    let text = std::fs::read_to_string(place.store.layer_fs(&id).join("src/in/d/one")).unwrap();
    assert_eq!(text, "$Id$ repo\n", "attributes were obeyed");
    // Offline it comes from the mirror, and is the same.
    std::fs::remove_dir_all(&dir).unwrap();
    let offline = Access { offline: true, ..Access::default() };
    assert_eq!(fetch_with(&place, &offline, dir.to_str().unwrap(), &commit, false).unwrap(), id);
}

#[test]
fn tags_and_branches_are_resolved() {
    let place = Place::new();
    let dir = repository(&place, "repo");
    let (access, ears) = (Access::default(), Ears::default());
    let commit = git(&dir, &["rev-parse", "HEAD"], b"");
    let url = format!("file://{}", dir.display());
    let find = |kind, name| resolve(&access, &ears, "source `src`", &url, kind, name);
    // The tag is an object of its own: the commit is what it leads to.
    assert_eq!(find("tags", "v1").unwrap(), commit);
    assert_eq!(find("heads", "main").unwrap(), commit);
    let error = find("heads", "other").unwrap_err();
    assert!(error.to_string().contains("no branch `other`") && error.hint_text().is_some(), "{error}");
    let offline = Access { offline: true, ..Access::default() };
    let error =
        resolve(&offline, &ears, "source `src`", "https://example.org/x", "heads", "main").unwrap_err();
    assert!(error.to_string().contains("offline"), "{error}");
    let hosts = Access { allowed_hosts: Some(vec!["example.org".into()]), ..Access::default() };
    for url in ["https://other.org/x", "git@other.org:x", "ssh://git@other.org:22/x"] {
        let error = resolve(&hosts, &ears, "source `src`", url, "heads", "main").unwrap_err();
        assert!(error.to_string().contains("`other.org` is not one of `allowed-hosts`"), "{error}");
    }
}

#[test]
fn an_old_commit_and_one_that_is_not_there() {
    let place = Place::new();
    let dir = repository(&place, "repo");
    let old = git(&dir, &["rev-parse", "HEAD"], b"");
    std::fs::write(dir.join("new"), "new").unwrap();
    git(&dir, &["add", "."], b"");
    git(&dir, &["commit", "--quiet", "-m", "two"], b"");
    let new = git(&dir, &["rev-parse", "HEAD"], b"");
    let (a, b) = (fetch(&place, &dir, &new, false).unwrap(), fetch(&place, &dir, &old, false).unwrap());
    assert_eq!(paths(&place, &a).len(), paths(&place, &b).len() + 1);
    let error = fetch(&place, &dir, &"1".repeat(40), false).unwrap_err();
    assert!(error.hint_text().is_some(), "{error}");
    let error = fetch(&place, &place.path("nowhere"), &new, false).unwrap_err();
    assert!(
        error.to_string().contains("cannot fetch source `src`") && error.hint_text().is_some(),
        "{error}"
    );
}

#[test]
fn submodules_are_laid_in_at_their_commits() {
    let place = Place::new();
    let (inner, outer) = (repository(&place, "inner"), repository(&place, "outer"));
    git(&outer, &["submodule", "--quiet", "add", "../inner", "mods/in"], b"");
    git(&outer, &["commit", "--quiet", "-m", "sub"], b"");
    let commit = git(&outer, &["rev-parse", "HEAD"], b"");
    // The pinned commit counts, not the newest.
    std::fs::write(inner.join("later"), "later").unwrap();
    git(&inner, &["add", "."], b"");
    git(&inner, &["commit", "--quiet", "-m", "later"], b"");
    let with = fetch(&place, &outer, &commit, true).unwrap();
    let all = paths(&place, &with);
    assert!(
        all.contains(&"/mods/in/d/one".to_string()) && !all.contains(&"/mods/in/later".to_string()),
        "{all:?}"
    );
    assert!(!all.iter().any(|path| path.ends_with("/.git")), "{all:?}");
    let without = fetch(&place, &outer, &commit, false).unwrap();
    let all = paths(&place, &without);
    assert!(all.contains(&"/mods/in".to_string()) && !all.contains(&"/mods/in/d".to_string()), "{all:?}");
}

/// Writes a tree object with these entries, whatever git thinks of them; gives its id.
fn tree(dir: &Path, entries: &[(&str, &str, &str)]) -> String {
    let mut bytes = Vec::new();
    for (mode, name, id) in entries {
        bytes.extend_from_slice(format!("{mode} {name}\0").as_bytes());
        bytes.extend((0..20).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()));
    }
    git(dir, &["hash-object", "-t", "tree", "-w", "--stdin", "--literally"], &bytes)
}

#[test]
fn repositories_that_mean_harm() {
    let place = Place::new();
    let dir = repository(&place, "repo");
    let blob = git(&dir, &["hash-object", "-w", "--stdin"], b"evil");
    let target = git(&dir, &["hash-object", "-w", "--stdin"], b"/tmp");
    let sub = tree(&dir, &[("100644", "evil", &blob)]);
    let file = |name| tree(&dir, &[("100644", name, &blob)]);
    let mut wide = sub.clone();
    for _ in 0..8 {
        // Eight levels of ten: the tree of 10^8 files is a few objects.
        let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        let entries: Vec<_> = names.iter().map(|name| ("40000", name.as_str(), wide.as_str())).collect();
        wide = tree(&dir, &entries);
    }
    let modules = git(
        &dir,
        &["hash-object", "-w", "--stdin"],
        b"[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c touch% /tmp/isolith-evil\n",
    );
    let option = git(
        &dir,
        &["hash-object", "-w", "--stdin"],
        b"[submodule \"x\"]\n\tpath = x\n\turl = --upload-pack=touch\n",
    );
    let cases = [
        ("..", tree(&dir, &[("40000", "..", &sub)])),
        (".. as a file", file("..")),
        (".", tree(&dir, &[("40000", ".", &sub)])),
        (".git", tree(&dir, &[("40000", ".git", &sub)])),
        (".GIT", tree(&dir, &[("40000", ".GIT", &sub)])),
        ("git~1", file("git~1")),
        ("an empty name", file("")),
        ("a slash", file("a/b")),
        ("an absolute name", file("/tmp/isolith-evil")),
        ("a name twice", tree(&dir, &[("100644", "a", &blob), ("100644", "a", &blob)])),
        ("a symlink and a directory", tree(&dir, &[("120000", "a", &target), ("40000", "a", &sub)])),
        ("a directory and a symlink", tree(&dir, &[("40000", "a", &sub), ("120000", "a", &target)])),
        ("an odd mode", tree(&dir, &[("60644", "a", &blob)])),
        ("a tree that is a blob", tree(&dir, &[("40000", "a", &blob)])),
        ("a blob that is a tree", tree(&dir, &[("100644", "a", &sub)])),
        ("too many files", wide),
        (
            "a submodule that runs a program",
            tree(&dir, &[("100644", ".gitmodules", &modules), ("160000", "x", &"1".repeat(40))]),
        ),
        (
            "a submodule that is an option",
            tree(&dir, &[("100644", ".gitmodules", &option), ("160000", "x", &"1".repeat(40))]),
        ),
        ("a submodule without a place", tree(&dir, &[("160000", "x", &"1".repeat(40))])),
        (
            "modules by a symlink",
            tree(&dir, &[("120000", ".gitmodules", &modules), ("160000", "x", &"1".repeat(40))]),
        ),
    ];
    for (name, tree) in cases {
        let text = format!("tree {tree}\nauthor a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\n\n{name}\n");
        let commit =
            git(&dir, &["hash-object", "-t", "commit", "-w", "--stdin", "--literally"], text.as_bytes());
        let id = fetch(&place, &dir, &commit, true);
        let error = id.expect_err(name);
        assert!(error.to_string().len() > 20, "{name}: {error}");
        assert!(!Path::new("/tmp/isolith-evil").exists(), "{name}");
    }
    assert_eq!(std::fs::read_dir(place.store.root().join("layers")).unwrap().count(), 0);
}
