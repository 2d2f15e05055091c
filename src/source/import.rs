//! A scanned tree becomes a layer of the store.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::hashing::{changed, hash_files};
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::layer::{IdShift, Kind, Manifest, Owners, place};
use crate::path::GuestPath;
use crate::store::Store;

/// Copies the files of a scan into the store as the layer that the scan describes. The copies are read back
/// and compared, so that a file that changed since the scan is an error and never a wrong layer.
pub fn import(
    store: &Store,
    manifest: &Manifest,
    files: &BTreeMap<GuestPath, PathBuf>,
    ids: IdShift,
) -> Result<LayerId> {
    let scratch = store.scratch()?;
    let tree = scratch.tree()?;
    place(manifest, &tree, Owners::Guest(ids), &|entry| {
        files
            .get(&entry.path)
            .cloned()
            .ok_or_else(|| Error::machine(format!("no file is known for `{}`", entry.path)))
    })
    .map_err(|why| {
        files.iter().find(|file| has_changed(manifest, *file)).map_or(why, |(_, host)| changed(host))
    })?;
    let mut copies = Vec::new();
    let mut expected = Vec::new();
    for entry in manifest.entries() {
        if let Kind::File { digest, .. } = &entry.kind {
            copies.push(tree.join(entry.path.as_relative()));
            expected.push((*digest, &entry.path));
        }
    }
    for ((found, _), (wanted, path)) in hash_files(&copies)?.into_iter().zip(expected) {
        if found != wanted {
            return Err(changed(&files[path]));
        }
    }
    store.add_layer(&tree, manifest)
}

/// Whether a file is not there any more, or has another size, which alone keeps it from being copied.
fn has_changed(manifest: &Manifest, (at, host): (&GuestPath, &PathBuf)) -> bool {
    let wanted = manifest.get(at).map(|entry| &entry.kind);
    let found = std::fs::symlink_metadata(host);
    !matches!((wanted, found), (Some(Kind::File { size, .. }), Ok(found)) if found.is_file() && found.len() == *size)
}
