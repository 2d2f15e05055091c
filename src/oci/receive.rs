//! A layer in travelling form becomes a layer of the store; what other layers have is not fetched.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;

use rayon::prelude::*;

use crate::digest::{ContentDigest, LayerId};
use crate::error::{Error, Result};
use crate::layer::{IdShift, Kind, Ranges, Rebuilt, Table, rebuild};
use crate::store::{Presence, Store, read_layer};

/// Brings the layer `id` into the store, out of a packed layer that lies anywhere. `most` bounds the bytes of content
/// that are fetched.
///
/// # Errors
/// What is there is another layer, or damaged; it does not get into the store.
pub fn receive(store: &Store, id: &LayerId, ranges: &dyn Ranges, ids: IdShift, most: u64) -> Result<Rebuilt> {
    if store.ready(id, ids)? {
        return Ok(Rebuilt::default());
    }
    rebuild_into(store, &Table::read(ranges, id)?, ranges, ids, most)
}

/// The same with a table of contents that has been read.
pub(super) fn rebuild_into(
    store: &Store,
    table: &Table,
    ranges: &dyn Ranges,
    ids: IdShift,
    most: u64,
) -> Result<Rebuilt> {
    let wanted = table.manifest().entries().iter().filter_map(|entry| match entry.kind {
        Kind::File { size, digest } if size > 0 => Some(digest),
        _ => None,
    });
    let here = find(store, &wanted.collect(), ids)?;
    let scratch = store.scratch()?;
    let tree = scratch.tree()?;
    let parts = scratch.path().join("parts");
    fs::create_dir(&parts).map_err(|why| Error::io("create directory", &parts, why))?;
    let local = |digest: &ContentDigest| here.get(digest).cloned();
    let made = rebuild(table, ranges, &local, &parts, &tree, ids, most)?;
    store.add_layer(&tree, table.manifest())?;
    Ok(made)
}

/// Files of the store's layers that have these contents. It reads the manifests, which lie beside the layers: an index
/// of all contents would have to be kept right, and this takes a moment only.
fn find(
    store: &Store,
    wanted: &HashSet<ContentDigest>,
    ids: IdShift,
) -> Result<HashMap<ContentDigest, PathBuf>> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let of_layer = |id: &LayerId| -> HashMap<ContentDigest, PathBuf> {
        // One that was written under another boot may not be what it says; one that is gone has nothing to give.
        if store.presence(id) != Presence::Ready || !store.ready(id, ids).unwrap_or(false) {
            return HashMap::new();
        }
        let Ok(Some((manifest, fs))) = read_layer(store.root(), id) else { return HashMap::new() };
        let file = |entry: &crate::layer::Entry| match entry.kind {
            Kind::File { digest, .. } if wanted.contains(&digest) => {
                Some((digest, fs.join(entry.path.as_relative())))
            }
            _ => None,
        };
        manifest.entries().iter().filter_map(file).collect()
    };
    let all = store.layer_ids()?;
    Ok(all.par_iter().map(of_layer).reduce(HashMap::new, |mut one, other| {
        one.extend(other);
        one
    }))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::layer::{Compression, packed};

    #[test]
    fn a_layer_comes_in_with_what_others_have() {
        if !rustix::process::geteuid().is_root() {
            return; // Layers belong to the root of sandboxes.
        }
        let dir = tempfile::tempdir().unwrap();
        let ids = IdShift::by(0);
        let here = Store::open(&dir.path().join("here")).unwrap();
        let there = Store::open(&dir.path().join("there")).unwrap();
        let make = |store: &Store, files: &[(&str, &str)]| {
            let run = store.new_run(ids).unwrap();
            for (name, text) in files {
                fs::write(run.upper().join(name), text).unwrap();
            }
            let view = crate::layer::View::default();
            let manifest = crate::layer::commit(&run.upper(), &view, 1, ids).unwrap();
            (store.add_layer(&run.upper(), &manifest).unwrap(), manifest)
        };
        let text = "something that is in both layers".repeat(1000);
        make(&here, &[("other-name", &text)]);
        let (id, manifest) = make(&there, &[("a", &text), ("b", "only there"), ("empty", "")]);
        let tree = there.layer_fs(&id);
        let path = dir.path().join("packed");
        let mut out = File::create(&path).unwrap();
        let content = |entry: &crate::layer::Entry| Ok(tree.join(entry.path.as_relative()));
        packed(&manifest, &content, Compression::Zstd, &mut out).unwrap();
        let file = File::open(&path).unwrap();
        let made = receive(&here, &id, &file, ids, 100).unwrap();
        assert_eq!((made.reused, made.fetched), (1, 2));
        assert!(here.ready(&id, ids).unwrap());
        assert_eq!(fs::read_to_string(here.layer_fs(&id).join("a")).unwrap(), text);
        assert_eq!(receive(&here, &id, &file, ids, 0).unwrap(), Rebuilt::default(), "it is there now");
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(here.layer_fs(&id).join("a")).unwrap().nlink(), 1);
        // More than is allowed, and another layer.
        let empty = Store::open(&dir.path().join("empty")).unwrap();
        assert!(receive(&empty, &id, &file, ids, 100).is_err());
        assert!(receive(&empty, &LayerId::of_manifest(b"x"), &file, ids, 1 << 20).is_err());
        assert!(empty.layer_ids().unwrap().is_empty());
    }
}
