//! A tar archive as the layer a recipe starts from.

use std::fs::File;

use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::layer::{IdShift, decompress, unpack};
use crate::store::Store;

/// Unpacks the archive (plain, gzip, xz, bzip2 or zstd), called `what` in messages, into the store. Owners, modes, times (whole seconds), links
/// and whiteouts are those of the archive.
pub fn import_tar(store: &Store, file: File, what: &str, ids: IdShift) -> Result<LayerId> {
    let scratch = store.scratch()?;
    let tree = scratch.tree()?;
    let wrap = |e: Error| {
        let class = e.class();
        let hint = e.hint_text().map(str::to_string);
        let error =
            Error::machine(format!("cannot unpack `{what}`")).because(e).class_as(class);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    };
    let stream = decompress(file).map_err(wrap)?;
    let manifest = unpack(stream, &tree, ids).map_err(wrap)?;
    store.add_layer(&tree, &manifest)
}
