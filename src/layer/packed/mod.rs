//! A layer as one compressed file: its tar archive (see [`super::pack`]) packed with gzip, or with zstd in the
//! travelling form, which has a table of contents (docs/format.md, "Travelling layers").
//!
//! The archive is cut into pieces that depend on the layer alone. Each piece is compressed by itself, on
//! whatever thread is free, and the results are written in order: the same layer gives the same bytes whatever
//! the number of threads. zstd's own threads are not used, so its rule about worker counts does not come up.

mod chunked;
mod cut;
mod digests;
mod gzip;
mod read;
mod rebuild;
mod squeeze;
mod table;
mod tar_split;
mod zstd;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use read::{Ranges, Table};
pub use rebuild::{Rebuilt, rebuild};

use super::{Entry, Manifest};
use crate::digest::ContentDigest;
use crate::error::Result;

/// How a layer is compressed. Levels are fixed: they are part of what makes the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// One gzip member; everything reads it.
    Gzip,
    /// zstd frames with a table of contents: the travelling form.
    Zstd,
}

impl Compression {
    /// Its name: `gzip` or `zstd`.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }
}

/// What is known of a layer that has been packed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// SHA-256 of the plain archive, `sha256:<hex>`: what images call the diff id.
    pub diff_id: String,
    /// SHA-256 of the compressed bytes, `sha256:<hex>`.
    pub digest: String,
    /// BLAKE3 of the compressed bytes.
    pub blob: ContentDigest,
    /// How many compressed bytes there are.
    pub size: u64,
    /// What a reader of `zstd:chunked` has to be told beside the digest; empty when it can read the whole only.
    pub annotations: BTreeMap<String, String>,
}

/// Packs a layer. `content` gives the host file with the content of a file entry, as for [`super::pack`].
///
/// # Errors
/// Those of [`super::pack`], and those of `out`.
pub fn packed(
    manifest: &Manifest,
    content: &dyn Fn(&Entry) -> Result<PathBuf>,
    compression: Compression,
    out: &mut (dyn Write + Send),
) -> Result<Packed> {
    match compression {
        Compression::Gzip => gzip::write(manifest, content, out),
        Compression::Zstd => zstd::write(manifest, content, out),
    }
}

#[cfg(test)]
mod tests;
