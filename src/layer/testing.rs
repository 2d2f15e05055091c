//! Manifests for tests: short to write, and arbitrary ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Entry, Kind, Manifest, View, Xattrs};
use crate::digest::ContentDigest;
use crate::path::GuestPath;

pub fn p(path: &str) -> GuestPath {
    GuestPath::parse(path).unwrap()
}

/// An entry with mode 0755 (where there is one), owner 0:0 and time 1.
pub fn entry(path: &str, kind: Kind) -> Entry {
    let bare = matches!(kind, Kind::HardLink { .. } | Kind::Whiteout);
    let mode = if bare || matches!(kind, Kind::Symlink { .. }) { 0 } else { 0o755 };
    let mtime = if bare { 0 } else { 1 };
    Entry { path: p(path), mode, uid: 0, gid: 0, mtime, xattrs: Xattrs::new(), kind }
}

pub fn file(path: &str, content: &str) -> Entry {
    let (size, digest) = (content.len() as u64, ContentDigest::of(content.as_bytes()));
    entry(path, Kind::File { size, digest })
}

pub fn dir(path: &str) -> Entry {
    entry(path, Kind::Dir { opaque: false })
}

pub fn opaque(path: &str) -> Entry {
    entry(path, Kind::Dir { opaque: true })
}

pub fn gone(path: &str) -> Entry {
    entry(path, Kind::Whiteout)
}

pub fn symlink(path: &str, target: &str) -> Entry {
    entry(path, Kind::Symlink { target: target.into() })
}

pub fn link(path: &str, target: &str) -> Entry {
    entry(path, Kind::HardLink { target: p(target) })
}

pub fn mode(mode: u16, entry: Entry) -> Entry {
    Entry { mode, ..entry }
}

/// The layer of these entries; directories they are in are filled in.
pub fn layer(entries: impl IntoIterator<Item = Entry>) -> Manifest {
    let mut all = BTreeMap::new();
    for entry in entries {
        for above in entry.path.ancestors() {
            all.entry(above.clone()).or_insert_with(|| dir(&above.to_string()));
        }
        all.insert(entry.path.clone(), entry);
    }
    Manifest::new(all.into_values().collect()).unwrap()
}

/// The view of these layers, lowest first.
pub fn view<const N: usize>(layers: [Manifest; N]) -> View {
    View::new(layers.into_iter().map(Arc::new).collect())
}

/// Any tree of few names, so that layers meet often. Names sort on both sides of the slash.
pub fn any_layer() -> impl Strategy<Value = Manifest> {
    let name = prop::sample::select(vec!["a", "a-", "b", "b0"]);
    let path = prop::collection::vec(name, 0..4).prop_map(|names| p(&format!("/{}", names.join("/"))));
    let xattrs = prop::collection::btree_map(
        prop::sample::select(vec![b"user.a".to_vec(), b"user.b".to_vec()]),
        prop::collection::vec(any::<u8>(), 0..3),
        0..2,
    );
    let about = (0u16..0o10000, 0u32..3, any::<u32>(), any::<i64>(), xattrs);
    prop::collection::vec((path, 0u8..12, about), 0..12).prop_map(|wanted| {
        let mut all: BTreeMap<GuestPath, Entry> = BTreeMap::new();
        for (path, kind, (mode, uid, gid, mtime, xattrs)) in wanted {
            insert(&mut all, Entry { path, mode, uid, gid, mtime, xattrs, kind: Kind::Fifo }, kind);
        }
        Manifest::new(all.into_values().collect()).unwrap()
    })
}

/// Adds an entry of some kind, unless what is there already forbids it.
fn insert(all: &mut BTreeMap<GuestPath, Entry>, mut entry: Entry, kind: u8) {
    let is = |kind: &Kind, path: &GuestPath| all.get(path).is_some_and(|e| e.kind == *kind);
    let below_opaque = entry.path.ancestors().any(|above| is(&Kind::Dir { opaque: true }, &above));
    let blocked = |above| all.get(&above).is_some_and(|e: &Entry| !matches!(e.kind, Kind::Dir { .. }));
    if entry.path.ancestors().any(blocked) || all.contains_key(&entry.path) {
        return;
    }
    let earlier =
        all.values().find(|e| e.path < entry.path && matches!(e.kind, Kind::File { .. } | Kind::Fifo));
    entry.kind = match kind {
        0 => Kind::Symlink { target: b"/a".to_vec() },
        1 => Kind::Fifo,
        2 => Kind::CharDevice { major: entry.uid + 1, minor: entry.gid },
        3 => Kind::BlockDevice { major: entry.uid, minor: entry.gid },
        4 | 5 if !below_opaque => Kind::Whiteout,
        6 | 7 if earlier.is_some() => Kind::HardLink { target: earlier.unwrap().path.clone() },
        8 => Kind::Dir { opaque: true },
        9 => Kind::Dir { opaque: false },
        _ => Kind::File { size: entry.uid.into(), digest: ContentDigest::of(&vec![0; entry.uid as usize]) },
    };
    if entry.path.is_root() {
        entry.kind = Kind::Dir { opaque: false };
    }
    if entry.kind == (Kind::Dir { opaque: true }) {
        let inside = |e: &&Entry| e.path.starts_with(&entry.path) && e.kind == Kind::Whiteout;
        entry.kind = Kind::Dir { opaque: !all.values().any(|e| inside(&e)) };
    }
    match entry.kind {
        Kind::HardLink { .. } | Kind::Whiteout => {
            let (path, kind) = (entry.path, entry.kind);
            entry = Entry { path, kind, mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new() };
        }
        Kind::Symlink { .. } => (entry.mode, entry.xattrs) = (0, Xattrs::new()),
        Kind::File { .. } | Kind::Dir { .. } => {}
        _ => entry.xattrs = Xattrs::new(),
    }
    for above in entry.path.ancestors() {
        all.entry(above.clone()).or_insert_with(|| dir(&above.to_string()));
    }
    all.insert(entry.path.clone(), entry);
}
