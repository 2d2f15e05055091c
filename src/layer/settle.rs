//! Archives of layers need not have the directories that their names are in. What such a directory looks like is
//! then the business of lower layers; but each of our layers brings its directories, plain ones in this case, and
//! overlayfs shows those of the topmost layer. A fix-up layer on top of an image puts that right, so that the layers
//! themselves depend on their archives alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Entry, Kind, Manifest, View};
use crate::error::{Error, Result};
use crate::path::GuestPath;

/// The fix-up of an image: layers, lowest first, each with the directories that its archive did not have. Often empty.
///
/// # Errors
/// A layer that brings something below what a lower layer has as something else than a directory.
pub fn settle(layers: &[(Arc<Manifest>, BTreeSet<GuestPath>)]) -> Result<Manifest> {
    let view = View::new(layers.iter().map(|(manifest, _)| manifest.clone()).collect());
    let implied: BTreeSet<&GuestPath> = layers.iter().flat_map(|(_, implied)| implied).collect();
    let mut fixed: BTreeMap<GuestPath, Entry> = BTreeMap::new();
    for dir in implied {
        for at in (0..layers.len()).filter(|at| layers[*at].1.contains(dir)) {
            not_through(layers, at, dir)?;
        }
        let Some(found) = view.lookup(dir).filter(|found| matches!(found.entry.kind, Kind::Dir { .. }))
        else {
            continue;
        };
        let right = right(layers, layers.len(), dir).unwrap_or(found.entry);
        if !same(right, found.entry) {
            fixed.insert(dir.clone(), plain(right));
        }
    }
    // Directories with whiteouts that took the place of something else show them, unless something merges there.
    for (at, (manifest, _)) in layers.iter().enumerate() {
        for dir in manifest.whiteouts().filter_map(|whiteout| whiteout.path.parent()) {
            let below = View::new(layers[..at].iter().map(|(manifest, _)| manifest.clone()).collect());
            let replaced =
                below.lookup(&dir).is_some_and(|found| !matches!(found.entry.kind, Kind::Dir { .. }));
            if replaced && !fixed.contains_key(&dir) && view.lookup(&dir).is_some() {
                fixed.extend(right(layers, layers.len(), &dir).map(|entry| (dir.clone(), plain(entry))));
            }
        }
    }
    let above: BTreeSet<GuestPath> = fixed.keys().flat_map(|dir| dir.ancestors()).collect();
    for dir in above {
        if let (false, Some(entry)) = (fixed.contains_key(&dir), right(layers, layers.len(), &dir)) {
            fixed.insert(dir, plain(entry));
        }
    }
    Manifest::new(fixed.into_values().collect())
        .map_err(|why| Error::machine("the layers of the image do not fit together").because(why))
}

/// The entry that says what the directory at `dir` looks like in the lowest `count` layers; none when there is none.
fn right<'a>(
    layers: &'a [(Arc<Manifest>, BTreeSet<GuestPath>)],
    count: usize,
    dir: &GuestPath,
) -> Option<&'a Entry> {
    let mut plain = None;
    for (manifest, implied) in layers[..count].iter().rev() {
        match manifest.get(dir) {
            Some(entry) if !matches!(entry.kind, Kind::Dir { .. }) => break,
            Some(entry) if !implied.contains(dir) => return Some(entry),
            Some(entry) => plain = Some(entry),
            None => {}
        }
        let ends = |dir: GuestPath| match manifest.get(&dir).map(|entry| &entry.kind) {
            None | Some(Kind::Dir { opaque: false }) => false,
            Some(_) => true,
        };
        if dir.ancestors().any(ends) {
            break;
        }
    }
    plain
}

/// Refuses an archive that has something below `dir`, but not `dir` itself, which is something else than a directory
/// in lower layers: some programs follow a symlink there, others put a directory in its place.
fn not_through(layers: &[(Arc<Manifest>, BTreeSet<GuestPath>)], at: usize, dir: &GuestPath) -> Result<()> {
    let below = View::new(layers[..at].iter().map(|(manifest, _)| manifest.clone()).collect());
    let hidden =
        |dir: GuestPath| layers[at].0.get(&dir).is_some_and(|entry| entry.kind == Kind::Dir { opaque: true });
    match below.lookup(dir) {
        Some(found) if !matches!(found.entry.kind, Kind::Dir { .. }) && !dir.ancestors().any(hidden) => {
            Err(Error::recipe(format!(
                "layer {} of the image brings something below `{dir}`, which is no directory in the layers below it",
                at + 1
            ))
            .hint("programs differ in what they make of it: build the image anew so that its layers have all directories"))
        }
        _ => Ok(()),
    }
}

fn same(a: &Entry, b: &Entry) -> bool {
    let look = |entry: &Entry| (entry.mode, entry.uid, entry.gid, entry.mtime, entry.xattrs.clone());
    look(a) == look(b)
}

/// A directory that hides nothing.
fn plain(entry: &Entry) -> Entry {
    Entry { kind: Kind::Dir { opaque: false }, ..entry.clone() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn with(entries: Vec<Entry>, implied: &[&str]) -> (Arc<Manifest>, BTreeSet<GuestPath>) {
        (Arc::new(Manifest::new(entries).unwrap()), implied.iter().map(|path| p(path)).collect())
    }

    fn looks(path: &str, mode: u16, uid: u32) -> Entry {
        Entry { mode, uid, ..dir(path) }
    }

    #[test]
    fn directories_look_as_lower_layers_say() {
        let low = with(vec![looks("/", 0o711, 7), looks("/a", 0o700, 1), looks("/a/b", 0o1777, 2)], &[]);
        let high = with(vec![dir("/"), dir("/a"), dir("/a/b"), file("/a/b/x", "x")], &["/", "/a", "/a/b"]);
        let fix = settle(&[low.clone(), high.clone()]).unwrap();
        let modes: Vec<_> = fix.entries().iter().map(|e| (e.path.to_string(), e.mode, e.uid)).collect();
        assert_eq!(modes, [("/".into(), 0o711, 7), ("/a".into(), 0o700, 1), ("/a/b".into(), 0o1777, 2)]);
        // Said anew in between.
        let middle = with(vec![looks("/", 0o755, 0), looks("/a", 0o750, 3)], &[]);
        let fix = settle(&[low.clone(), middle, high.clone()]).unwrap();
        assert_eq!(fix.get(&p("/a")).map(|e| e.mode), Some(0o750));
        // Gone in between.
        let gone_a = with(vec![looks("/", 0o711, 7), gone("/a")], &[]);
        let fix = settle(&[low, gone_a, high.clone()]).unwrap();
        assert_eq!(fix.get(&p("/a")), None);
        assert!(settle(&[high]).unwrap().is_empty());
    }

    #[test]
    fn nothing_leads_through_what_is_no_directory() {
        let low = with(vec![dir("/"), file("/a", "x")], &[]);
        let high = with(vec![dir("/"), dir("/a"), file("/a/x", "x")], &["/a"]);
        assert!(settle(&[low.clone(), high]).unwrap_err().to_string().contains("layer 2"));
        let replaced = with(vec![dir("/"), dir("/a"), file("/a/x", "x")], &[]);
        assert!(settle(&[low, replaced]).unwrap().is_empty());
    }
}
