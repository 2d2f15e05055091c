//! What is learned of the bytes on their way: digests and lengths.

use std::io::{self, Write};

use sha2::{Digest, Sha256};

use crate::digest::ContentDigest;

/// `sha256:<hex>`.
pub(super) fn sha256(bytes: &[u8]) -> String {
    text(Sha256::digest(bytes).as_slice())
}

/// A finished SHA-256 as text.
pub(super) fn text(digest: &[u8]) -> String {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Where compressed bytes go.
pub(super) struct Output<'a> {
    out: &'a mut (dyn Write + Send),
    sha256: Sha256,
    blake3: blake3::Hasher,
    /// Bytes so far.
    pub size: u64,
}

impl<'a> Output<'a> {
    pub fn new(out: &'a mut (dyn Write + Send)) -> Self {
        Self { out, sha256: Sha256::new(), blake3: blake3::Hasher::new(), size: 0 }
    }

    pub fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sha256.update(bytes);
        self.blake3.update(bytes);
        self.size += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// SHA-256, BLAKE3 and length of everything.
    pub fn finish(self) -> io::Result<(String, ContentDigest, u64)> {
        self.out.flush()?;
        let blob = ContentDigest::from_bytes(*self.blake3.finalize().as_bytes());
        Ok((text(self.sha256.finalize().as_slice()), blob, self.size))
    }
}
