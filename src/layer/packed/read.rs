//! Finds and reads the table of contents of a packed layer, wherever the layer is.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use super::chunked::MAGIC;
use super::table::{self, CHUNKED_FOOTER_SIZE, FOOTER_SIZE, MOST, Places};
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::layer::Manifest;

/// As much of the end is read at once: most tables are in it.
const TAIL: u64 = 64 << 10;

/// Compressed bytes that can be read in any order: a file, or something on another machine.
pub trait Ranges: Sync {
    /// How many there are.
    fn size(&self) -> u64;
    /// Those from `at` on, exactly `length` of them.
    fn read(&self, at: u64, length: usize) -> Result<Vec<u8>>;
}

impl Ranges for File {
    fn size(&self) -> u64 {
        self.metadata().map_or(0, |meta| meta.len())
    }

    fn read(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, at)
            .map_err(|why| Error::machine("cannot read a packed layer").because(why))?;
        Ok(bytes)
    }
}

/// The table of contents of a packed layer.
pub struct Table {
    pub(super) manifest: Manifest,
    pub(super) places: Places,
}

impl Table {
    /// Reads the table of the layer `id`: at most two reads.
    ///
    /// # Errors
    /// The bytes are no layer in travelling form, or of another layer. Nothing of them is believed before.
    pub fn read(ranges: &dyn Ranges, id: &LayerId) -> Result<Table> {
        let size = ranges.size();
        let tail_at = size.saturating_sub(TAIL);
        let tail = ranges.read(tail_at, (size - tail_at) as usize)?;
        let (at, length, plain) = footer(&tail).ok_or_else(|| refused("it has no table of contents"))?;
        let end = at.checked_add(length).filter(|end| *end <= size);
        let (Some(own), Some(_)) = (at.checked_sub(8), end) else {
            return Err(refused("its table of contents is not in it"));
        };
        if plain > MOST || length > plain + plain / 128 + 1024 {
            return Err(refused("its table of contents is too long"));
        }
        let compressed = match at.checked_sub(tail_at) {
            Some(at) => tail[at as usize..][..length as usize].to_vec(),
            None => ranges.read(at, length as usize)?,
        };
        let mut bytes = Vec::new();
        let decoder = ::zstd::stream::read::Decoder::with_buffer(&compressed[..]);
        let decoded = decoder.and_then(|decoder| decoder.take(plain + 1).read_to_end(&mut bytes));
        if decoded.is_err() || bytes.len() as u64 != plain {
            return Err(refused("its table of contents does not decompress to what it should"));
        }
        let (manifest, places) = table::decode(&bytes, own).map_err(refused)?;
        if manifest.id() != *id {
            return Err(
                refused("it is another layer").because(format!("expected {id}, got {}", manifest.id()))
            );
        }
        Ok(Table { manifest, places })
    }

    /// The layer's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// What the footer says: at the end, or in front of that of `zstd:chunked`.
fn footer(tail: &[u8]) -> Option<(u64, u64, u64)> {
    let mut end = tail.len();
    if tail.ends_with(MAGIC) {
        end = end.checked_sub(CHUNKED_FOOTER_SIZE)?;
    }
    table::read_footer(tail.get(end.checked_sub(FOOTER_SIZE)?..end)?)
}

/// The error about bytes that are not what they should be.
pub(super) fn refused(why: &str) -> Error {
    Error::machine(format!("cannot use a packed layer: {why}"))
        .hint("it is damaged, or no layer of isolith: have whoever packed it pack it again")
}
