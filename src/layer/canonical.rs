//! From the nodes that a walk found to the entries of a manifest: which stay, and which of several names is
//! the file.

use std::collections::HashMap;

use super::{Entry, Kind, Manifest, ManifestError};
use crate::path::GuestPath;

/// One path as a walk found it, every name of a file on its own.
pub(super) struct Node {
    /// What is there; never a hard link yet.
    pub entry: Entry,
    /// The same number for all names of one file; none when it has only this name.
    pub inode: Option<u64>,
    /// Whether it is part of the layer.
    pub kept: bool,
}

impl Node {
    /// A whiteout.
    pub fn whiteout(path: GuestPath) -> Self {
        Self { entry: bare(path, Kind::Whiteout), inode: None, kept: true }
    }
}

/// An entry of a kind that has no attributes of its own.
fn bare(path: GuestPath, kind: Kind) -> Entry {
    Entry { path, mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: Default::default(), kind }
}

/// Sorts the nodes and keeps, with each one that is kept, all names of its file and all directories above.
pub(super) fn complete(nodes: &mut [Node]) {
    nodes.sort_unstable_by(|a, b| a.entry.path.cmp(&b.entry.path));
    let mut groups: HashMap<u64, bool> = HashMap::new();
    for node in nodes.iter() {
        if let Some(inode) = node.inode {
            *groups.entry(inode).or_default() |= node.kept;
        }
    }
    let mut last_parent = None;
    for at in (0..nodes.len()).rev() {
        nodes[at].kept |= nodes[at].inode.is_some_and(|inode| groups[&inode]);
        let parent = nodes[at].entry.path.parent();
        if !nodes[at].kept || parent == last_parent {
            continue;
        }
        // Ancestors sort before what is in them, so they are visited after it.
        if let Some(path) = &parent
            && let Ok(above) = nodes[..at].binary_search_by(|node| node.entry.path.cmp(path))
        {
            nodes[above].kept = true;
        }
        last_parent = parent;
    }
}

/// The manifest entries of sorted nodes: of several names of one file the first in byte order is the file
/// and the others are hard links to it, however the file system tells them.
pub(super) fn entries(nodes: Vec<Node>) -> Vec<Entry> {
    let mut first: HashMap<u64, GuestPath> = HashMap::new();
    let name = |node: Node| {
        let Some(inode) = node.inode else { return node.entry };
        match first.get(&inode) {
            Some(target) => bare(node.entry.path, Kind::HardLink { target: target.clone() }),
            None => {
                first.insert(inode, node.entry.path.clone());
                node.entry
            }
        }
    };
    nodes.into_iter().map(name).collect()
}

/// The manifest of nodes in any order, all of which stay.
pub(super) fn manifest(mut nodes: Vec<Node>) -> Result<Manifest, ManifestError> {
    nodes.sort_unstable_by(|a, b| a.entry.path.cmp(&b.entry.path));
    Manifest::new(entries(nodes))
}
