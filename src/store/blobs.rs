//! Fetched bytes: `blobs/ab/<blake3>`, each once whoever wants it, and the index from other digests to it
//! (`notes/blob/`, by `sha256:<hex>` and the like).
//!
//! A blob is hashed again each time it is opened: that costs little beside what is done with its bytes, and so
//! neither power loss nor a bad disk needs a rule of its own.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Store, io};
use crate::digest::ContentDigest;
use crate::error::Result;

/// The kind of the notes that lead from a digest to a blob.
const INDEX: &str = "blob";

impl Store {
    /// Where a blob is, or would be.
    pub fn blob_path(&self, id: &ContentDigest) -> PathBuf {
        self.shard("blobs", &id.to_hex())
    }

    /// Opens a blob whose bytes have just been hashed and are right; none when the store does not have it. A
    /// damaged one is removed.
    pub fn open_blob(&self, id: &ContentDigest) -> Result<Option<File>> {
        let path = self.blob_path(id);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if io::is_absent(&e) => return Ok(None),
            Err(e) => return Err(io::failed("read", &path, e)),
        };
        if hash(&mut file).is_ok_and(|found| found == *id) {
            file.seek(SeekFrom::Start(0)).map_err(|e| io::failed("read", &path, e))?;
            return Ok(Some(file));
        }
        self.discard(&path)?;
        Ok(None)
    }

    /// The blob with another digest (as text, `sha256:<hex>`), as it was found when the blob came in. The blob
    /// itself may be gone.
    pub fn blob_named(&self, digest: &str) -> Option<ContentDigest> {
        self.get_note(INDEX, digest)
    }

    /// Takes in a file that lies in a scratch directory of this store. `id` is the BLAKE3 of its bytes,
    /// `digests` are others that lead to it from now on.
    pub fn add_blob(
        &self,
        file: &Path,
        id: &ContentDigest,
        digests: impl IntoIterator<Item = String>,
    ) -> Result<()> {
        let blobs = self.root.join("blobs");
        if !blobs.is_dir() {
            io::make_dir(&blobs, 0o700)?; // The store was made before there were blobs.
        }
        io::rename(file, &self.blob_path(id))?;
        for digest in digests {
            self.put_note(INDEX, &digest, id)?;
        }
        Ok(())
    }
}

/// The BLAKE3 of what is left of a file.
pub(super) fn hash(file: &mut File) -> std::io::Result<ContentDigest> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(ContentDigest::from_bytes(*hasher.finalize().as_bytes())),
            Ok(n) => drop(hasher.update(&buffer[..n])),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_found_by_every_digest_and_a_damaged_one_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let id = ContentDigest::of(b"bytes");
        assert!(store.open_blob(&id).unwrap().is_none());
        let scratch = store.scratch().unwrap();
        for _ in 0..2 {
            let file = scratch.path().join("download");
            std::fs::write(&file, b"bytes").unwrap();
            store.add_blob(&file, &id, ["sha256:x".to_string()]).unwrap();
        }
        assert_eq!(store.blob_named("sha256:x"), Some(id));
        assert_eq!(store.blob_named("sha256:y"), None);
        let mut text = String::new();
        store.open_blob(&id).unwrap().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "bytes");
        std::fs::write(store.blob_path(&id), b"Bytes").unwrap();
        assert!(store.open_blob(&id).unwrap().is_none());
        assert!(!store.blob_path(&id).exists());
    }
}
