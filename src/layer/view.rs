//! What a stack of layers looks like when it is mounted, answered from the manifests alone.
//!
//! The rules are overlayfs's (and OCI's): the topmost layer that has a path decides; directories merge
//! downwards until a layer has something else there, a whiteout, or an opaque directory.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::entry::{Entry, Kind};
use super::manifest::Manifest;
use crate::path::GuestPath;

/// The merged look of a stack.
#[derive(Debug, Clone, Default)]
pub struct View {
    layers: Vec<Arc<Manifest>>,
}

/// Something visible in a [`View`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// The entry as it is named.
    pub entry: &'a Entry,
    /// The entry that carries kind, mode, owner, times and xattrs: the same one, but for hard links the
    /// one they lead to.
    pub node: &'a Entry,
    /// Which layer it is from; 0 is the lowest.
    pub layer: usize,
}

/// What layers have at one path, topmost first: a lone non-directory, or directories that merge.
pub(super) type Stacked<'a> = Vec<(usize, &'a Entry)>;

impl View {
    /// The view of these layers, lowest first.
    pub fn new(layers: Vec<Arc<Manifest>>) -> View {
        View { layers }
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[Arc<Manifest>] {
        &self.layers
    }

    /// What is visible at exactly this path. Symlinks are not followed, in no component.
    pub fn lookup(&self, path: &GuestPath) -> Option<Found<'_>> {
        self.stacked(self.layers.len(), path).first().map(|(layer, entry)| self.found(*layer, entry))
    }

    /// The names visible in a directory, sorted; none when it is not a directory.
    pub fn children(&self, dir: &GuestPath) -> Vec<Vec<u8>> {
        self.merged(&self.stacked(self.layers.len(), dir)).into_keys().map(<[u8]>::to_vec).collect()
    }

    /// Everything visible at `from` and below it, in the order of path bytes.
    pub fn walk(&self, from: &GuestPath) -> Vec<(GuestPath, Found<'_>)> {
        let mut out: Vec<(GuestPath, Found<'_>)> = Vec::new();
        let mut todo = vec![self.stacked(self.layers.len(), from)];
        while let Some(stacked) = todo.pop() {
            let Some((layer, entry)) = stacked.first() else { continue };
            out.push((entry.path.clone(), self.found(*layer, entry)));
            todo.extend(self.merged(&stacked).into_values());
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    /// Directories with whiteouts of some layer in them that no lower layer has as a directory, sorted. Only
    /// merged directories hide whiteouts, so a mount needs something below these (measured: otherwise the
    /// whiteouts show up as names that cannot be opened). This does not help in a directory that took the
    /// place of something else in the stack; commits make no whiteouts there, because they hide nothing.
    pub fn hidden_dirs(&self) -> Vec<GuestPath> {
        let mut dirs: Vec<GuestPath> = Vec::new();
        for (layer, manifest) in self.layers.iter().enumerate() {
            let mut parents: Vec<GuestPath> = manifest.whiteouts().filter_map(|e| e.path.parent()).collect();
            parents.sort();
            parents.dedup();
            let merges = |dir: &GuestPath| self.stacked(layer, dir).first().is_some_and(|(_, e)| is_dir(e));
            dirs.extend(parents.into_iter().filter(|dir| !merges(dir)));
        }
        dirs.sort();
        dirs.dedup();
        dirs
    }

    /// What the lowest `count` layers have at `path`.
    fn stacked(&self, count: usize, path: &GuestPath) -> Stacked<'_> {
        let mut candidates: Vec<usize> = (0..count).rev().collect();
        let mut stacked = Vec::new();
        for step in path.ancestors().chain([path.clone()]) {
            let entries = candidates.iter().filter_map(|at| Some((*at, self.layers[*at].get(&step)?)));
            stacked = stack(entries);
            // Behind something that is not a directory there is nothing.
            candidates = stacked.iter().filter(|(_, e)| is_dir(e)).map(|(at, _)| *at).collect();
        }
        stacked
    }

    /// The children of what lies at one path.
    pub(super) fn merged<'a>(&'a self, dir: &Stacked<'a>) -> BTreeMap<&'a [u8], Stacked<'a>> {
        let mut names: BTreeMap<&[u8], Stacked<'a>> = BTreeMap::new();
        for (layer, entry) in dir.iter().filter(|(_, e)| is_dir(e)) {
            for child in self.layers[*layer].children(&entry.path) {
                names.entry(child.path.name()).or_default().push((*layer, child));
            }
        }
        for stacked in names.values_mut() {
            *stacked = stack(stacked.drain(..));
        }
        names.retain(|_, stacked| !stacked.is_empty());
        names
    }

    fn found<'a>(&'a self, layer: usize, entry: &'a Entry) -> Found<'a> {
        Found { entry, node: self.layers[layer].node(entry), layer }
    }
}

/// Keeps of the entries at one path, topmost first, those that count.
pub(super) fn stack<'a>(entries: impl Iterator<Item = (usize, &'a Entry)>) -> Stacked<'a> {
    let mut stacked = Vec::new();
    for (layer, entry) in entries {
        match entry.kind {
            Kind::Dir { opaque } => {
                stacked.push((layer, entry));
                if opaque {
                    break;
                }
            }
            Kind::Whiteout => break,
            _ => {
                if stacked.is_empty() {
                    stacked.push((layer, entry));
                }
                break;
            }
        }
    }
    stacked
}

fn is_dir(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::Dir { .. })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::*;
    use super::*;

    /// The plainest idea of a stack: one layer after the other is applied to a tree.
    #[derive(Default)]
    struct Model(BTreeMap<GuestPath, (usize, Entry)>);

    impl Model {
        fn apply(&mut self, layer: usize, manifest: &Manifest) {
            for entry in manifest.entries() {
                let ends = |kind: &Kind| !matches!(kind, Kind::Dir { opaque: false });
                let was_dir = self.0.get(&entry.path).is_some_and(|(_, e)| is_dir(e));
                if ends(&entry.kind) || !was_dir {
                    self.0.retain(|path, _| !path.starts_with(&entry.path));
                }
                if entry.kind != Kind::Whiteout {
                    self.0.insert(entry.path.clone(), (layer, entry.clone()));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_applying_layers_one_by_one(layers in prop::collection::vec(any_layer(), 0..6)) {
            let view = View::new(layers.iter().cloned().map(Arc::new).collect());
            let (mut model, mut hidden) = (Model::default(), Vec::new());
            for (at, layer) in layers.iter().enumerate() {
                let parents = layer.whiteouts().filter_map(|e| e.path.parent());
                hidden.extend(parents.filter(|dir| !model.0.get(dir).is_some_and(|(_, e)| is_dir(e))));
                model.apply(at, layer);
            }
            hidden.sort();
            hidden.dedup();
            prop_assert_eq!(view.hidden_dirs(), hidden);

            let all: BTreeMap<_, _> =
                view.walk(&p("/")).into_iter().map(|(path, f)| (path, (f.layer, f.entry.clone()))).collect();
            prop_assert_eq!(&all, &model.0);
            for path in layers.iter().flat_map(|layer| layer.entries()).map(|e| &e.path) {
                let found = view.lookup(path).map(|f| (f.layer, f.entry.clone()));
                prop_assert_eq!(found.as_ref(), model.0.get(path));
                let children: Vec<Vec<u8>> = (model.0.keys())
                    .filter(|child| child.parent().as_ref() == Some(path))
                    .map(|child| child.name().to_vec())
                    .collect();
                prop_assert_eq!(view.children(path), children);
                let below: Vec<_> = view.walk(path).into_iter().map(|(path, _)| path).collect();
                let expected: Vec<_> = model.0.keys().filter(|k| k.starts_with(path)).cloned().collect();
                prop_assert_eq!(below, expected);
            }
        }
    }

    #[test]
    fn resolves_hard_links_within_their_layer() {
        let view = view([
            layer([file("/a", "old"), link("/b", "/a")]),
            layer([file("/a", "new")]),
            layer([symlink("/c", "a")]),
        ]);
        let b = view.lookup(&p("/b")).unwrap();
        assert_eq!((b.layer, b.node), (0, &file("/a", "old")));
        assert_eq!(view.lookup(&p("/a")).unwrap().node, &file("/a", "new"));
        assert_eq!(view.lookup(&p("/c")).unwrap().node, &symlink("/c", "a"));
        assert_eq!(view.lookup(&p("/c/x")), None);
    }

    #[test]
    fn nothing_shows_through_files_whiteouts_and_opaque_directories() {
        let view = view([
            layer([file("/a/x", ""), file("/b/x", ""), file("/c/x", ""), file("/d/x", "")]),
            layer([file("/a", ""), gone("/b"), opaque("/c")]),
            layer([file("/a/y", ""), file("/b/y", ""), file("/c/y", ""), file("/d/y", "")]),
        ]);
        for dir in ["/a", "/b", "/c"] {
            assert_eq!(view.children(&p(dir)), [b"y"], "{dir}");
        }
        assert_eq!(view.children(&p("/d")), [b"x", b"y"]);
        assert_eq!(view.hidden_dirs(), []);
    }

    #[test]
    fn whiteouts_in_directories_of_one_layer_are_told() {
        let top = layer([gone("/a/x"), gone("/b/y")]);
        assert_eq!(view([layer([dir("/a")]), top.clone()]).hidden_dirs(), [p("/b")]);
        assert_eq!(view([top.clone()]).hidden_dirs(), [p("/a"), p("/b")]);
        assert_eq!(view([layer([file("/a", ""), dir("/b")]), top]).hidden_dirs(), [p("/a")]);
    }
}
