//! A tar archive as the layer a recipe starts from.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::digest::{ContentDigest, LayerId};
use crate::error::{Error, Result};
use crate::layer::{IdShift, decompress, unpack};
use crate::store::Store;

/// Unpacks the archive (plain, gzip, xz or zstd) into the store. Owners, modes, times (whole seconds), links
/// and whiteouts are those of the archive.
///
/// # Errors
/// An archive that cannot be unpacked, or whose bytes are no longer those that `digest` names.
pub fn import_tar(store: &Store, archive: &Path, digest: ContentDigest, ids: IdShift) -> Result<LayerId> {
    let scratch = store.scratch()?;
    let tree = scratch.tree()?;
    let file = File::open(archive).map_err(|e| Error::io("read", archive, e))?;
    let hasher = Arc::new(Mutex::new(blake3::Hasher::new()));
    let read = Hashed { file, hasher: hasher.clone() };
    let unpacked = decompress(read).and_then(|stream| unpack(stream, &tree, ids));
    // The unpacker may stop at the end mark; what follows belongs to the file all the same.
    let mut rest = Hashed { file: File::open(archive).map_err(|e| Error::io("read", archive, e))?, hasher };
    let seen = rest.hash().count();
    rest.file.seek(SeekFrom::Start(seen)).map_err(|e| Error::io("read", archive, e))?;
    std::io::copy(&mut rest, &mut std::io::sink()).map_err(|e| Error::io("read", archive, e))?;
    let found = *rest.hash().finalize().as_bytes();
    if found != *digest.as_bytes() {
        return Err(Error::machine(format!("`{}` changed while it was read", archive.display()))
            .hint("let whatever writes there finish, then build again"));
    }
    let manifest = unpacked.map_err(|e| {
        let hint = e.hint_text().map(str::to_string);
        let class = e.class();
        let error =
            Error::machine(format!("cannot unpack `{}`", archive.display())).because(e).class_as(class);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })?;
    store.add_layer(&tree, &manifest)
}

/// Hashes what is read through it.
struct Hashed {
    file: File,
    hasher: Arc<Mutex<blake3::Hasher>>,
}

impl Hashed {
    fn hash(&self) -> std::sync::MutexGuard<'_, blake3::Hasher> {
        self.hasher.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.hash().update(&buffer[..n]);
        Ok(n)
    }
}
