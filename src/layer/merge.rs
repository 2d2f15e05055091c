//! Joining branches of the step graph that do not come after each other.
//!
//! Branches join by stacking their layers. That is right as long as no two of them changed the same path,
//! which is checked here, and but for one thing: a layer also lists the directories that its entries are
//! in, and those would cover what another branch changed about the same directories. A fix-up layer on top
//! mends that.

use std::collections::{BTreeMap, HashMap};

use super::entry::{Entry, Kind};
use super::manifest::Manifest;
use super::view::View;
use crate::path::GuestPath;

/// One layer of a merge, with what it was made on.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Name of the step, for messages.
    pub name: &'a str,
    /// What the step changed.
    pub layer: &'a Manifest,
    /// The stack the step ran on.
    pub below: &'a View,
    /// Which other parts this one comes after, directly or through others.
    pub after: &'a [usize],
}

/// Two steps, neither after the other, that changed the same path to different things.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the steps `{first}` and `{second}` both change {path}, and not to the same thing")]
pub struct Conflict {
    /// The path.
    pub path: GuestPath,
    /// The step that is lower in the stack.
    pub first: String,
    /// The other one.
    pub second: String,
}

/// Checks that `parts`, in the order in which they are stacked (each behind all it comes after), go
/// together, and gives the layer that belongs on top of them: most often an empty one.
///
/// A step changes a path when its layer has something else there than its own stack had, times aside.
/// A non-directory always counts: it is only in a layer when it changed, or shares a hard-link group with
/// one that did.
pub fn merge(parts: &[Part]) -> Result<Manifest, Conflict> {
    let unordered = |a: usize, b: usize| !parts[a].after.contains(&b) && !parts[b].after.contains(&a);
    if (1..parts.len()).all(|b| (0..b).all(|a| !unordered(a, b))) {
        return Ok(Manifest::default());
    }
    let paths = by_path(parts);
    let hides = |touch: &Touch| touch.changed && !matches!(touch.node.kind, Kind::Dir { opaque: false });
    let hiding: HashMap<&GuestPath, &Vec<Touch>> =
        paths.iter().filter(|(_, touches)| touches.iter().any(hides)).map(|(path, t)| (*path, t)).collect();
    let conflict = |path: &GuestPath, a: usize, b: usize| Conflict {
        path: path.clone(),
        first: parts[a.min(b)].name.to_string(),
        second: parts[a.max(b)].name.to_string(),
    };
    for (path, touches) in &paths {
        let changes: Vec<&Touch> = touches.iter().filter(|touch| touch.changed).collect();
        for (at, a) in changes.iter().enumerate() {
            for b in &changes[at + 1..] {
                if unordered(a.part, b.part) && !same(a.node, b.node) {
                    return Err(conflict(path, a.part, b.part));
                }
            }
        }
        if hiding.is_empty() {
            continue;
        }
        for above in path.ancestors().filter_map(|above| hiding.get(&above)) {
            for a in above.iter().filter(|touch| hides(touch)) {
                if let Some(b) = changes.iter().find(|b| unordered(a.part, b.part)) {
                    return Err(conflict(path, a.part, b.part));
                }
            }
        }
    }
    Ok(fix_up(parts, &paths))
}

/// One part's entry at a path.
struct Touch<'a> {
    part: usize,
    node: &'a Entry,
    /// It is there for its own sake, not for what is below it.
    changed: bool,
}

/// All entries of all parts, by path, in stacking order.
fn by_path<'a>(parts: &[Part<'a>]) -> BTreeMap<&'a GuestPath, Vec<Touch<'a>>> {
    let mut paths: BTreeMap<&GuestPath, Vec<Touch>> = BTreeMap::new();
    for (part, Part { layer, below, .. }) in parts.iter().enumerate() {
        for entry in layer.entries() {
            let node = layer.node(entry);
            let changed = match node.kind {
                Kind::Dir { opaque: false } => {
                    below.lookup(&entry.path).is_none_or(|found| !same(found.node, node))
                }
                _ => true,
            };
            paths.entry(&entry.path).or_default().push(Touch { part, node, changed });
        }
    }
    paths
}

/// True when two entries are the same thing: kind, content, mode, owner, xattrs.
fn same(a: &Entry, b: &Entry) -> bool {
    let kinds = match (&a.kind, &b.kind) {
        (Kind::Dir { .. }, Kind::Dir { .. }) => true,
        (a, b) => a == b,
    };
    kinds && (a.mode, a.uid, a.gid) == (b.mode, b.uid, b.gid) && a.xattrs == b.xattrs
}

/// The directories whose change plain stacking would cover, with the directories they are in.
fn fix_up(parts: &[Part], paths: &BTreeMap<&GuestPath, Vec<Touch>>) -> Manifest {
    let covered = |path: &GuestPath, top: usize| {
        path.ancestors().filter_map(|above| paths.get(&above)).any(|touches| {
            touches.iter().any(|t| t.part > top && !matches!(t.node.kind, Kind::Dir { opaque: false }))
        })
    };
    let mut fixed: BTreeMap<GuestPath, Entry> = BTreeMap::new();
    for (path, touches) in paths {
        let Some(top) = touches.last() else { continue };
        // Changes that unordered parts made to one path are alike, so any that no other supersedes will do.
        let last_word = touches.iter().rev().find(|a| {
            a.changed && !touches.iter().any(|b| b.changed && parts[b.part].after.contains(&a.part))
        });
        if let Some(change) = last_word
            && !top.changed
            && !same(change.node, top.node)
            && matches!(change.node.kind, Kind::Dir { .. })
            && !covered(path, top.part)
        {
            fixed.insert((*path).clone(), as_directory(path, change.node));
        }
    }
    let above: Vec<GuestPath> = fixed.keys().flat_map(GuestPath::ancestors).collect();
    for path in above {
        if let Some(top) = paths.get(&path).and_then(|touches| touches.last()) {
            fixed.entry(path).or_insert_with_key(|path| as_directory(path, top.node));
        }
    }
    // A tree by construction: directories with all their ancestors.
    Manifest::new(fixed.into_values().collect()).unwrap_or_default()
}

fn as_directory(path: &GuestPath, node: &Entry) -> Entry {
    Entry { path: path.clone(), kind: Kind::Dir { opaque: false }, ..node.clone() }
}
