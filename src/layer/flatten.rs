//! A subtree of a view as a layer of its own: for outputs, for squashing and for export.

use std::collections::HashMap;

use super::entry::{Entry, Kind, Xattrs};
use super::manifest::Manifest;
use super::view::{Found, View};
use crate::error::{Error, Result};
use crate::path::GuestPath;

/// Where the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Which layer of the view; 0 is the lowest.
    pub layer: usize,
    /// The path in that layer.
    pub path: GuestPath,
}

/// For each file of a flattened manifest, by its path there, where its bytes are.
pub type Sources = HashMap<GuestPath, Source>;

/// What is visible at `from` and below it, with `from` as the root: no whiteouts, no opaque marks; paths
/// that are hard links of each other stay so, the first in order being the file. The root of a view without
/// any layer is an empty directory, `epoch_for_missing_root` its time.
pub fn flatten(view: &View, from: &GuestPath, epoch_for_missing_root: i64) -> Result<(Manifest, Sources)> {
    let visible = view.walk(from);
    match visible.first() {
        None if from.is_root() => {
            return Ok((manifest(vec![Entry::plain_root(epoch_for_missing_root)])?, Sources::new()));
        }
        None => {
            return Err(Error::recipe(format!("there is no `{from}` in the finished stack"))
                .hint(format!("have a step make the directory `{from}`, or name another one")));
        }
        Some((_, Found { node: Entry { kind: Kind::Dir { .. }, .. }, .. })) => {}
        Some(_) => {
            return Err(Error::recipe(format!("`{from}` is not a directory in the finished stack"))
                .hint("name the directory that it is in; symbolic links are not followed"));
        }
    }
    let mut entries = Vec::with_capacity(visible.len());
    let mut sources = Sources::new();
    let mut first_names: HashMap<(usize, &GuestPath), GuestPath> = HashMap::new();
    for (path, Found { node, layer, .. }) in visible {
        let Some(path) = path.strip_prefix(from) else { continue };
        let kind = match &node.kind {
            Kind::Dir { .. } => Kind::Dir { opaque: false },
            kind => match first_names.get(&(layer, &node.path)) {
                Some(first) => {
                    entries.push(hard_link(path, first.clone()));
                    continue;
                }
                None => {
                    first_names.insert((layer, &node.path), path.clone());
                    kind.clone()
                }
            },
        };
        if matches!(kind, Kind::File { .. }) {
            sources.insert(path.clone(), Source { layer, path: node.path.clone() });
        }
        entries.push(Entry { path, kind, ..node.clone() });
    }
    Ok((manifest(entries)?, sources))
}

fn manifest(entries: Vec<Entry>) -> Result<Manifest> {
    Manifest::new(entries).map_err(|why| Error::machine("cannot flatten a stack").because(why))
}

fn hard_link(path: GuestPath, target: GuestPath) -> Entry {
    let kind = Kind::HardLink { target };
    Entry { path, mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new(), kind }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::*;
    use super::*;
    use std::sync::Arc;

    #[test]
    fn roots_a_subtree_anew_without_whiteouts_and_opaque_marks() {
        let view = view([
            layer([file("/out/a", "1"), file("/out/b", "2"), file("/else", "3"), file("/out/d/x", "4")]),
            layer([mode(0o700, dir("/out")), gone("/out/b"), opaque("/out/d"), file("/out/d/y", "5")]),
        ]);
        let (flat, sources) = flatten(&view, &p("/out"), 1).unwrap();
        assert_eq!(flat, layer([mode(0o700, dir("/")), file("/a", "1"), file("/d/y", "5")]));
        assert_eq!(sources[&p("/a")], Source { layer: 0, path: p("/out/a") });
        assert_eq!(sources[&p("/d/y")], Source { layer: 1, path: p("/out/d/y") });
        assert_eq!(sources.len(), 2);
    }

    #[test]
    fn names_of_one_file_stay_together_whichever_of_them_are_left() {
        let links = layer([file("/a", "1"), link("/o/b", "/a"), link("/o/c", "/a"), link("/o/d", "/a")]);
        let view = view([links, layer([gone("/o/b"), file("/o/e", "1")])]);
        let (flat, sources) = flatten(&view, &p("/o"), 1).unwrap();
        assert_eq!(flat, layer([file("/c", "1"), link("/d", "/c"), file("/e", "1")]));
        assert_eq!(sources[&p("/c")], Source { layer: 0, path: p("/a") });
    }

    #[test]
    fn a_missing_root_is_plain_and_anything_else_missing_is_an_error() {
        let none = view([]);
        assert_eq!(flatten(&none, &p("/"), 7).unwrap().0, layer([Entry { mtime: 7, ..dir("/") }]));
        let error = flatten(&none, &p("/out"), 7).unwrap_err();
        assert!(error.what().contains("`/out`") && error.hint_text().is_some());
        let error = flatten(&view([layer([symlink("/out", "x")])]), &p("/out"), 1).unwrap_err();
        assert!(error.what().contains("not a directory"));
    }

    proptest! {
        #[test]
        fn looks_like_the_view_it_is_made_of(layers in prop::collection::vec(any_layer(), 0..5)) {
            let stack = View::new(layers.into_iter().map(Arc::new).collect());
            let (flat, sources) = flatten(&stack, &p("/"), 1).unwrap();
            let seen = |view: &View| -> Vec<Entry> {
                let node = |(path, found): (GuestPath, Found)| {
                    let kind = match &found.node.kind {
                        Kind::Dir { .. } => Kind::Dir { opaque: false },
                        kind => kind.clone(),
                    };
                    Entry { path, kind, ..found.node.clone() }
                };
                view.walk(&p("/")).into_iter().map(node).collect()
            };
            let again = View::new(vec![Arc::new(flat.clone())]);
            match seen(&stack) {
                nothing if nothing.is_empty() => prop_assert_eq!(flat.entries().len(), 1),
                all => prop_assert_eq!(seen(&again), all),
            }
            for entry in flat.entries().iter().filter(|e| matches!(e.kind, Kind::File { .. })) {
                let source = &sources[&entry.path];
                prop_assert_eq!(&stack.layers()[source.layer].get(&source.path).unwrap().kind, &entry.kind);
            }
        }
    }
}
