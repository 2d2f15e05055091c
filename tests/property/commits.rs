//! A model of commit: random work on a real overlay mount, committed. The layer shows what was there, says no
//! more than it must, and depends on nothing but the result.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::sync::Arc;

use isolith::layer::{Entry, Kind, Manifest, View, commit, pack, prepare_upper, unpack, verify};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode};

use super::look::{Seen, Tree, What, at, difference, look, shown, timeless};
use super::mount::{IDS, Stack, private_mounts};
use super::ops::{Op, noise, op, remove};
use super::{cases, is_root, stacks};

const EPOCH: i64 = 1_705_881_600;

/// Runs `work` on the stack; what it left, and the layer that came of it.
fn step(stack: &Stack, upper: &Path, work: impl FnOnce(&Path)) -> (Tree, Manifest) {
    let view = stack.view();
    fs::create_dir(upper).unwrap();
    prepare_upper(upper, &view, EPOCH, IDS).unwrap();
    let seen = stack.mounted(Some(upper), |root| {
        work(root);
        timeless(&look(root))
    });
    let layer = commit(upper, &view, EPOCH, IDS).unwrap();
    verify(&layer, upper, IDS).unwrap();
    (seen, layer)
}

/// Everything a layer has is there for a reason.
fn assert_minimal(layer: &Manifest, below: &View) {
    let mut lower = timeless(&shown(below));
    // Where no layer has a root, the sandbox brings a plain one.
    let (mode, what, xattrs) = (0o755, What::Dir { opaque: false }, BTreeMap::new());
    lower.entry(Vec::new()).or_insert(Seen { what, mode, uid: 0, gid: 0, mtime: 0, xattrs });
    let own = timeless(&shown(&View::new(vec![Arc::new(layer.clone())])));
    let same = |entry: &Entry| lower.get(entry.path.as_bytes()) == own.get(entry.path.as_bytes());
    let entries = layer.entries();
    for entry in entries {
        match &entry.kind {
            Kind::Whiteout => assert!(below.lookup(&entry.path).is_some(), "{} hides nothing", entry.path),
            Kind::Dir { opaque } => {
                assert!(!opaque, "{} is opaque", entry.path);
                let holds = entries.iter().any(|e| e.path != entry.path && e.path.starts_with(&entry.path));
                assert!(holds || !same(entry), "{} is as below and empty", entry.path);
            }
            _ => {
                let first = &layer.node(entry).path;
                let of_group = |e: &&Entry| {
                    !matches!(e.kind, Kind::Dir { .. } | Kind::Whiteout) && layer.node(e).path == *first
                };
                assert!(!entries.iter().filter(of_group).all(same), "{} is as below", entry.path);
            }
        }
        assert!(
            entry.kind == Kind::Whiteout || layer.node(entry).mtime == EPOCH,
            "{} has another time",
            entry.path
        );
    }
}

/// Makes the tree anew, with other calls in another order.
fn rebuild(
    root: &Path,
    wanted: &Tree,
    groups: &BTreeMap<Vec<u8>, (bool, u64)>,
    files: &BTreeMap<Vec<u8>, Vec<u8>>,
) {
    for entry in fs::read_dir(root).unwrap() {
        remove(&entry.unwrap().path()).unwrap();
    }
    let mut paths: Vec<&Vec<u8>> = wanted.keys().collect();
    paths.sort_by_key(|path| (path.iter().filter(|b| **b == b'/').count(), std::cmp::Reverse(*path)));
    let mut first: BTreeMap<(bool, u64), &Vec<u8>> = BTreeMap::new();
    for path in paths.iter().filter(|path| !path.is_empty()) {
        let (host, seen) = (at(root, path), &wanted[*path]);
        if let What::Dir { .. } = seen.what {
            fs::create_dir(&host).unwrap();
            // A default access list of the directory above has been taken over.
            for name in xattr::list(&host).unwrap() {
                xattr::remove(&host, name).unwrap();
            }
            continue;
        }
        if let Some(known) = first.insert(groups[*path], path) {
            fs::hard_link(at(root, known), &host).unwrap();
            continue;
        }
        match &seen.what {
            What::File(..) => fs::write(&host, &files[*path]).unwrap(),
            What::Symlink(target) => symlink(OsStr::from_bytes(target), &host).unwrap(),
            What::Fifo => rustix::fs::mknodat(CWD, &host, FileType::Fifo, Mode::RWXU, 0).unwrap(),
            other => panic!("{other:?}"),
        }
        dress(&host, seen);
    }
    for path in paths.iter().rev().filter(|path| matches!(wanted[**path].what, What::Dir { .. })) {
        dress(&at(root, path), &wanted[*path]);
    }
}

fn dress(host: &Path, seen: &Seen) {
    lchown(host, Some(seen.uid), Some(seen.gid)).unwrap();
    if matches!(seen.what, What::Symlink(_)) {
        return;
    }
    for name in xattr::list(host).unwrap() {
        if !seen.xattrs.contains_key(name.as_bytes()) {
            xattr::remove(host, name).unwrap();
        }
    }
    for (name, value) in &seen.xattrs {
        xattr::set(host, OsStr::from_bytes(name), value).unwrap();
    }
    fs::set_permissions(host, Permissions::from_mode(seen.mode)).unwrap();
}

fn check(base: Vec<Manifest>, ops: &[Op], disturbed: &[(prop::sample::Index, u8)]) {
    let stack = Stack::new(base);
    let view = stack.view();
    let upper = |name: &str| stack.dir.path().join(name);
    let work = |root: &Path| ops.iter().for_each(|op| _ = op.apply(root));

    let mut inodes = BTreeMap::new();
    let mut files = BTreeMap::new();
    let (seen, layer) = step(&stack, &upper("once"), |root| {
        work(root);
        for (path, seen) in look(root) {
            // Overlayfs shows a symlink's two names as two files when one of them has been copied up.
            let own = fs::symlink_metadata(at(&upper("once"), &path));
            let written = own.is_ok();
            let stat = own.or_else(|_| fs::symlink_metadata(at(root, &path))).unwrap();
            inodes.insert(path.clone(), (written, stat.ino()));
            if let What::File(..) = seen.what {
                files.insert(path.clone(), fs::read(at(root, &path)).unwrap());
            }
        }
    });
    let mut layers = stack.layers.clone();
    layers.push(Arc::new(layer.clone()));
    let above = View::new(layers.clone());
    let wanted = timeless(&shown(&above));
    if !wanted.is_empty() {
        assert_eq!(difference(&seen, &wanted), None, "the layer does not show what the step left");
    }
    assert_minimal(&layer, &view);

    // The way through an archive, and onto a mount again.
    let mut archive = Vec::new();
    pack(&layer, &|entry| Ok(upper("once").join(entry.path.as_relative())), &mut archive).unwrap();
    let fs = stack.fs(stack.layers.len());
    fs::create_dir(&fs).unwrap();
    assert_eq!(unpack(&archive[..], &fs, IDS).unwrap().id(), layer.id(), "imported");
    let stack = Stack { layers, dir: stack.dir };
    let mounted = timeless(&stack.mounted(None, look));
    if !wanted.is_empty() {
        assert_eq!(difference(&seen, &mounted), None, "mounted again");
    }
    let mut stack = stack;
    stack.layers.pop();

    // The same result, come by in other ways.
    let (noisy, other) = step(&stack, &stack.dir.path().join("noisy"), |root| {
        let some = |at: usize| -> Vec<u8> {
            let tree: Vec<Vec<u8>> = look(root).into_keys().collect();
            disturbed[at].0.get(&tree).clone()
        };
        for (at, op) in ops.iter().enumerate() {
            if at < disturbed.len() {
                _ = noise(root, &some(at), disturbed[at].1);
            }
            _ = op.apply(root);
        }
        for (at, (_, which)) in disturbed.iter().enumerate() {
            _ = noise(root, &some(at), which.wrapping_add(3));
        }
    });
    if noisy == seen {
        assert_eq!(other.id(), layer.id(), "noise: {:?}", difference_of(&layer, &other));
    }
    let (rebuilt, other) =
        step(&stack, &stack.dir.path().join("rebuilt"), |root| rebuild(root, &seen, &inodes, &files));
    assert_eq!(difference(&seen, &rebuilt), None, "the test's own rebuilding");
    assert_eq!(other.id(), layer.id(), "rebuilt: {:?}", difference_of(&layer, &other));
}

/// Where two layers differ first.
fn difference_of(a: &Manifest, b: &Manifest) -> Option<(Option<Entry>, Option<Entry>)> {
    let only = |a: &Manifest, b: &Manifest| a.entries().iter().find(|e| b.get(&e.path) != Some(e)).cloned();
    Some((only(a, b), only(b, a)))
}

#[test]
fn a_layer_is_what_a_step_left_and_nothing_of_how() {
    if !is_root() {
        return;
    }
    private_mounts();
    let disturbed = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    let work = prop::collection::vec(op(), 0..24);
    proptest!(cases(120), |(base in stacks::layers(false, 1..4), ops in work, disturbed in disturbed)| {
        check(base, &ops, &disturbed);
    });
}

/// A stack of one layer that a script of operations has made, to work on.
fn on(base: &[Op]) -> Stack {
    let mut stack = Stack::new(vec![]);
    let (_, layer) = step(&stack, &stack.fs(0), |root| base.iter().for_each(|op| op.apply(root).unwrap()));
    stack.layers.push(Arc::new(layer));
    stack
}

fn path(path: &str) -> Vec<u8> {
    path.as_bytes().to_vec()
}

/// A socket is no part of a layer, but the file that it took the place of is gone.
#[test]
fn what_a_socket_took_the_place_of_is_gone() {
    if !is_root() {
        return;
    }
    private_mounts();
    let stack = on(&[Op::Mkdir(path("d")), Op::Write(path("d/a"), 1), Op::Write(path("b"), 1)]);
    let (_, layer) = step(&stack, &stack.fs(1), |root| {
        let ops = [
            Op::Unlink(path("b")),
            Op::Socket(path("b")),
            Op::Recreate(path("d")),
            Op::Socket(path("d/a")),
            Op::Socket(path("new")),
        ];
        ops.iter().for_each(|op| op.apply(root).unwrap());
    });
    let whiteouts: Vec<String> = layer.whiteouts().map(|entry| entry.path.to_string()).collect();
    assert_eq!(whiteouts, ["/b", "/d/a"]);
    assert_eq!(layer.entries().len(), 4);
}

/// All names of a file are looked at at once, and overlayfs's note on it is taken off once.
#[test]
fn many_names_of_one_copied_file_are_no_race() {
    if !is_root() {
        return;
    }
    private_mounts();
    let stack = on(&[Op::Write(path("a"), 1)]);
    for round in 0..20 {
        let (_, layer) = step(&stack, &stack.dir.path().join(format!("upper{round}")), |root| {
            for name in 0..200 {
                Op::Link(path("a"), path(&format!("name{name}"))).apply(root).unwrap();
            }
        });
        assert_eq!(layer.entries().len(), 202);
    }
}

/// Depth is bounded by what a path can say, not by a stack.
#[test]
fn deep_trees_are_committed() {
    if !is_root() {
        return;
    }
    private_mounts();
    let stack = on(&[]);
    let deep = path(&["d"; 1900].join("/"));
    let (_, layer) = step(&stack, &stack.dir.path().join("upper"), |root| {
        fs::create_dir_all(at(root, &deep)).unwrap();
    });
    assert_eq!(layer.entries().len(), 1901);
}
