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
            let root = plain_dir(GuestPath::root(), epoch_for_missing_root);
            return Ok((manifest(vec![root])?, Sources::new()));
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

fn plain_dir(path: GuestPath, mtime: i64) -> Entry {
    let kind = Kind::Dir { opaque: false };
    Entry { path, mode: 0o755, uid: 0, gid: 0, mtime, xattrs: Xattrs::new(), kind }
}

fn hard_link(path: GuestPath, target: GuestPath) -> Entry {
    let kind = Kind::HardLink { target };
    Entry { path, mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new(), kind }
}
