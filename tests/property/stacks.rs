//! Three ways to apply a stack give one tree: the kernel's overlay mount, archives unpacked one after another,
//! and the view of the manifests. (And a fourth: the flattened stack.)

use std::sync::Arc;

use isolith::layer::{Entry, Kind, Manifest, Owners, View, flatten, place};
use isolith::path::GuestPath;
use proptest::prelude::*;

use super::look::{difference, look, shown};
use super::mount::{IDS, Stack, private_mounts};
use super::round_trip::packed;
use super::wild::{Shape, contents};
use super::{cases, is_root, oci};

/// Without the whiteouts that overlayfs cannot hide (see `View::hidden_dirs`): those of nothing, in a directory
/// that took the place of something else. Commits do not make them.
fn mountable(below: &[Manifest], layer: Manifest) -> Manifest {
    let merges = |path: &GuestPath| {
        let lower = below.iter().filter_map(|layer| layer.get(path));
        lower.into_iter().all(|entry| entry.kind == Kind::Dir { opaque: false })
    };
    let view = View::new(below.iter().cloned().map(Arc::new).collect());
    let fits = |entry: &Entry| {
        entry.kind != Kind::Whiteout
            || view.lookup(&entry.path).is_some()
            || entry.path.ancestors().all(|above| merges(&above))
    };
    Manifest::new(layer.into_entries().into_iter().filter(fits).collect()).unwrap()
}

pub fn layers(imported: bool, count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Manifest>> {
    prop::collection::vec(Shape::meeting(imported).layer(14), count).prop_map(|layers| {
        let mut stack = Vec::new();
        for layer in layers {
            stack.push(mountable(&stack, layer));
        }
        stack
    })
}

fn check(layers: Vec<Manifest>) {
    let stack = Stack::new(layers);
    let view = stack.view();
    let wanted = shown(&view);
    if wanted.is_empty() {
        // With nothing but empty layers the root is whoever's mounts it.
        return;
    }
    assert_eq!(difference(&wanted, &stack.mounted(None, look)), None, "mounted");

    let applied = stack.dir.path().join("applied");
    std::fs::create_dir(&applied).unwrap();
    for layer in &stack.layers {
        oci::apply(&packed(layer), &applied);
    }
    assert_eq!(difference(&wanted, &look(&applied)), None, "unpacked one after another");

    let flat = stack.dir.path().join("flat");
    std::fs::create_dir(&flat).unwrap();
    let (manifest, sources) = flatten(&view, &GuestPath::root(), 1).unwrap();
    let content = |entry: &Entry| {
        let source = &sources[&entry.path];
        let path = stack.fs(source.layer).join(source.path.as_relative());
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(contents().of(entry)?).unwrap());
        Ok(path)
    };
    place(&manifest, &flat, Owners::Guest(IDS), &content).unwrap();
    assert_eq!(difference(&wanted, &look(&flat)), None, "flattened");
}

#[test]
fn the_kernel_archives_and_manifests_agree_on_every_stack() {
    if !is_root() {
        return;
    }
    private_mounts();
    proptest!(cases(100), |(layers in layers(true, 2..6))| check(layers));
}
