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
use isolith::path::GuestPath;
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
    let same = |entry: &Entry| {
        let plain = || Seen {
            what: What::Dir { opaque: false },
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: BTreeMap::new(),
        };
        let below = timeless(&shown(below));
        let lower = below.get(entry.path.as_bytes()).cloned();
        let lower = lower.or_else(|| entry.path.is_root().then(plain));
        let alone = Manifest::new(layer.entries().to_vec()).unwrap();
        let own = timeless(&shown(&View::new(vec![Arc::new(alone)])));
        lower.is_some() && lower.as_ref() == own.get(entry.path.as_bytes())
    };
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
fn rebuild(root: &Path, wanted: &Tree, groups: &BTreeMap<Vec<u8>, u64>, files: &BTreeMap<Vec<u8>, Vec<u8>>) {
    for entry in fs::read_dir(root).unwrap() {
        remove(&entry.unwrap().path()).unwrap();
    }
    let mut paths: Vec<&Vec<u8>> = wanted.keys().collect();
    paths.sort_by_key(|path| (path.iter().filter(|b| **b == b'/').count(), std::cmp::Reverse(*path)));
    let mut first: BTreeMap<u64, &Vec<u8>> = BTreeMap::new();
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
            inodes.insert(path.clone(), fs::symlink_metadata(at(root, &path)).unwrap().ino());
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
    let _ = GuestPath::root();
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
