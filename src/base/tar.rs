//! A tar archive as the layer a recipe starts from.

use std::fs::File;
use std::path::Path;

use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::layer::{IdShift, decompress, unpack};
use crate::store::Store;

/// Unpacks the archive (plain, gzip, xz or zstd) into the store. Owners, modes, times (whole seconds), links
/// and whiteouts are those of the archive.
pub fn import_tar(store: &Store, archive: &Path, ids: IdShift) -> Result<LayerId> {
    let scratch = store.scratch()?;
    let tree = scratch.tree()?;
    let file = File::open(archive).map_err(|e| Error::io("read", archive, e))?;
    let wrap = |e: Error| {
        let class = e.class();
        let hint = e.hint_text().map(str::to_string);
        let error =
            Error::machine(format!("cannot unpack `{}`", archive.display())).because(e).class_as(class);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    };
    let stream = decompress(file).map_err(wrap)?;
    let manifest = unpack(stream, &tree, ids).map_err(wrap)?;
    store.add_layer(&tree, &manifest)
}
