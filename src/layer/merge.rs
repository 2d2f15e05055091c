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
                Kind::Dir { opaque: false } => match below.lookup(&entry.path) {
                    Some(found) => !same(found.node, node),
                    None => !entry.path.is_root() || !same(&Entry::plain_root(0), node),
                },
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::testing::*;
    use super::*;

    /// A layer as a step on `below` could have made it: of its directories those whose bit is not set are
    /// like `below` has them, and only there for what is in them.
    fn made_on(below: &View, layer: Manifest, bits: u16) -> Manifest {
        let settle = |(at, entry): (usize, Entry)| match below.lookup(&entry.path) {
            Some(found)
                if matches!(entry.kind, Kind::Dir { opaque: false }) && bits >> (at % 16) & 1 == 0 =>
            {
                match found.node.kind {
                    Kind::Dir { .. } => as_directory(&entry.path, found.node),
                    _ => entry,
                }
            }
            _ => entry,
        };
        let mut entries: Vec<Entry> = layer.into_entries().into_iter().enumerate().map(settle).collect();
        for at in (0..entries.len()).rev() {
            let path = entries[at].path.clone();
            let plain = entries[at].kind == Kind::Dir { opaque: false };
            let as_below = below.lookup(&path).is_some_and(|found| same(found.node, &entries[at]));
            if plain && as_below && !entries[at + 1..].iter().any(|e| e.path.starts_with(&path)) {
                entries.remove(at);
            }
        }
        Manifest::new(entries).unwrap()
    }

    fn on(below: &View, layers: &[&Manifest]) -> View {
        let more = layers.iter().map(|layer| Arc::new((*layer).clone()));
        View::new(below.layers().iter().cloned().chain(more).collect())
    }

    /// What a step sees, times aside.
    fn seen(view: &View) -> Vec<(GuestPath, Entry)> {
        let node = |node: &Entry| match node.kind {
            Kind::Dir { .. } => Entry { mtime: 0, ..as_directory(&GuestPath::root(), node) },
            _ => Entry { path: GuestPath::root(), mtime: 0, ..node.clone() },
        };
        view.walk(&p("/")).into_iter().map(|(path, found)| (path, node(found.node))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// Whatever goes together looks the same in whichever order it is stacked: `b` is after `a`, `c` is
        /// after neither.
        #[test]
        fn the_order_of_branches_does_not_matter(
            base in any_layer(), a in any_layer(), b in any_layer(), c in any_layer(), bits in any::<[u16; 3]>(),
        ) {
            let base = view([base]);
            let a = made_on(&base, a, bits[0]);
            let above = on(&base, &[&a]);
            let (b, c) = (made_on(&above, b, bits[1]), made_on(&base, c, bits[2]));
            let part = |name, layer, below, after| Part { name, layer, below, after };
            let orders = [
                vec![part("a", &a, &base, &[]), part("b", &b, &above, &[0]), part("c", &c, &base, &[])],
                vec![part("a", &a, &base, &[]), part("c", &c, &base, &[]), part("b", &b, &above, &[0])],
                vec![part("c", &c, &base, &[]), part("a", &a, &base, &[]), part("b", &b, &above, &[1])],
            ];
            let results: Vec<_> = orders.iter().map(|parts| {
                let fix_up = merge(parts)?;
                let mut layers: Vec<&Manifest> = parts.iter().map(|part| part.layer).collect();
                layers.push(&fix_up);
                Ok::<_, Conflict>(seen(&on(&base, &layers)))
            }).collect();
            for result in &results[1..] {
                prop_assert_eq!(result.as_ref().ok(), results[0].as_ref().ok());
            }
        }
    }

    /// Merges two layers made on the same base, neither after the other.
    fn join(base: &Manifest, first: Manifest, second: Manifest) -> Result<Manifest, String> {
        let below = view([base.clone()]);
        let part = |name, layer| Part { name, layer, below: &below, after: &[] };
        merge(&[part("one", &first), part("two", &second)])
            .map_err(|c| format!("{} {} {}", c.first, c.second, c.path))
    }

    fn base() -> Manifest {
        layer([file("/d/a", "1"), file("/d/b", "2"), file("/d/e/x", "3"), file("/f", "4")])
    }

    #[test]
    fn different_paths_go_together() {
        let none = Ok(Manifest::default());
        assert_eq!(join(&base(), layer([file("/d/new", "")]), layer([gone("/d/a"), file("/q", "")])), none);
        assert_eq!(join(&base(), layer([file("/n/x", "")]), layer([file("/n/y", "")])), none);
        assert_eq!(join(&Manifest::default(), layer([file("/x", "")]), layer([file("/y", "")])), none);
    }

    #[test]
    fn the_same_change_twice_is_one_change() {
        let none = Ok(Manifest::default());
        let later = Entry { mtime: 99, ..file("/d/a", "9") };
        assert_eq!(join(&base(), layer([file("/d/a", "9")]), layer([later])), none);
        assert_eq!(join(&base(), layer([gone("/d")]), layer([gone("/d")])), none);
        let chmod = layer([mode(0o700, dir("/d"))]);
        assert_eq!(join(&base(), chmod.clone(), chmod), none);
    }

    #[test]
    fn different_changes_to_one_path_conflict() {
        let cases = [
            (file("/d/a", "8"), file("/d/a", "9"), "/d/a"),
            (file("/d/a", "8"), mode(0o600, file("/d/a", "8")), "/d/a"),
            (file("/d/a", "8"), gone("/d/a"), "/d/a"),
            (file("/n", ""), dir("/n"), "/n"),
            (mode(0o700, dir("/n")), dir("/n"), "/n"),
            (mode(0o700, dir("/d")), mode(0o711, dir("/d")), "/d"),
            (mode(0o700, dir("/d")), gone("/d"), "/d"),
            (file("/f", "5"), dir("/f"), "/f"),
        ];
        for (a, b, path) in cases {
            let expected = Err(format!("one two {path}"));
            assert_eq!(join(&base(), layer([a.clone()]), layer([b.clone()])), expected);
            assert_eq!(join(&base(), layer([b]), layer([a])), expected);
        }
    }

    #[test]
    fn what_is_in_a_directory_that_the_other_step_took_away_conflicts() {
        for end in [gone("/d"), file("/d", ""), opaque("/d")] {
            for (change, path) in [
                (file("/d/new", ""), "/d/new"),
                (gone("/d/a"), "/d/a"),
                (file("/d/e/y", ""), "/d/e/y"),
                (mode(0o700, dir("/d/e")), "/d/e"),
            ] {
                let expected = Err(format!("one two {path}"));
                assert_eq!(join(&base(), layer([end.clone()]), layer([change.clone()])), expected);
                assert_eq!(join(&base(), layer([change]), layer([end.clone()])), expected);
            }
        }
    }

    #[test]
    fn a_changed_directory_is_not_covered_by_one_that_is_only_on_the_way() {
        let chmod = || Entry { mtime: 5, ..mode(0o700, dir("/d/e")) };
        let write = || layer([file("/d/e/new", "")]);
        // The change on top already: nothing to mend.
        assert_eq!(join(&base(), write(), layer([chmod()])), Ok(Manifest::default()));
        let fixed = join(&base(), layer([chmod()]), write()).unwrap();
        assert_eq!(fixed, layer([chmod()]));

        // The fix-up shows what both branches made.
        let top = view([base(), layer([chmod()]), write(), fixed]);
        assert_eq!(top.lookup(&p("/d/e")).unwrap().node.mode, 0o700);
        assert_eq!(top.children(&p("/d/e")), [&b"new"[..], b"x"]);
        assert_eq!(top.lookup(&p("/d")).unwrap().node.mode, 0o755);
    }

    #[test]
    fn directories_above_a_mended_one_are_mended_too() {
        let first = layer([mode(0o711, dir("/d")), mode(0o700, dir("/d/e"))]);
        assert_eq!(join(&base(), first.clone(), layer([file("/d/e/new", "")])), Ok(first));
        // Here `/d` is right on top, with the second step's mode.
        let second = layer([mode(0o711, dir("/d")), file("/d/e/new", "")]);
        let fixed = join(&base(), layer([mode(0o700, dir("/d/e"))]), second);
        assert_eq!(fixed, Ok(layer([mode(0o711, dir("/d")), mode(0o700, dir("/d/e"))])));
    }

    #[test]
    fn the_root_can_be_changed_on_scratch() {
        let none = Manifest::default();
        let fixed = join(&none, layer([mode(0o700, dir("/"))]), layer([file("/x", "")]));
        assert_eq!(fixed, Ok(layer([mode(0o700, dir("/"))])));
    }

    #[test]
    fn steps_that_come_after_each_other_may_change_anything() {
        let (one, two) = (layer([mode(0o700, dir("/d"))]), layer([gone("/d")]));
        let other = layer([file("/q", "")]);
        let (base, after) = (view([base()]), view([base(), one.clone()]));
        let parts = [
            Part { name: "one", layer: &one, below: &base, after: &[] },
            Part { name: "two", layer: &two, below: &after, after: &[0] },
            Part { name: "other", layer: &other, below: &base, after: &[] },
        ];
        assert_eq!(merge(&parts), Ok(Manifest::default()));
        let late = layer([file("/d/a", "7")]);
        let late = Part { name: "late", layer: &late, below: &base, after: &[] };
        let conflict = merge(&[parts[0], parts[1], late]).unwrap_err();
        assert_eq!(conflict, Conflict { path: p("/d/a"), first: "two".into(), second: "late".into() });
    }

    #[test]
    fn the_last_of_several_changes_to_a_directory_counts() {
        let (one, two) = (layer([mode(0o700, dir("/d"))]), layer([mode(0o711, dir("/d"))]));
        let other = layer([file("/d/new", "")]);
        let (below, after) = (view([base()]), view([base(), one.clone()]));
        let parts = [
            Part { name: "one", layer: &one, below: &below, after: &[] },
            Part { name: "two", layer: &two, below: &after, after: &[0] },
            Part { name: "other", layer: &other, below: &below, after: &[] },
        ];
        assert_eq!(merge(&parts), Ok(two.clone()));
    }
}
