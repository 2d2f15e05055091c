//! isolith's own table of contents: the layer's manifest, and for each file the place of its frames.
//!
//! It lies in a skippable frame behind the archive; a footer in another one leads to it. What is in it is
//! believed because the manifest has the layer's id; the places need no proof, since what lies there is hashed.

use std::io;

use super::cut::PIECE;
use super::zstd::{frame, most, skippable};
use crate::layer::{Entry, Kind, Manifest};

/// What the plain bytes of a table begin with.
const TABLE: &[u8; 16] = b"isolith table 1\n";
/// What a footer ends with.
const FOOTER: &[u8; 16] = b"isolith footer 1";
/// The last digit of the magic number of our skippable frames.
const KIND: u8 = 9;
/// Bytes of the frame of a footer.
pub(super) const FOOTER_SIZE: usize = 8 + 24 + 16;
/// Bytes of the frame of the footer of `zstd:chunked`, which may come behind ours.
pub(super) const CHUNKED_FOOTER_SIZE: usize = 8 + 64;

/// The most bytes that a table may have: a manifest of about two million files.
pub(super) const MOST: u64 = 256 << 20;

/// Where frames of files are, in the order of the manifest.
#[derive(Default)]
pub(super) struct Places {
    /// Of each file that is not empty: where its first frame begins.
    pub starts: Vec<u64>,
    /// The lengths of all frames; those of one file lie behind each other.
    pub lengths: Vec<u32>,
}

impl Places {
    /// Adds the frame at `at`: the first of the next file, or another one of the last.
    pub fn frame(&mut self, first: bool, at: u64, length: usize) {
        if first {
            self.starts.push(at);
        }
        self.lengths.push(length as u32); // At most `most()`.
    }
}

/// How many frames a file has.
pub(super) fn frames(size: u64) -> u64 {
    size.div_ceil(PIECE as u64)
}

/// The files of a manifest that have frames, with their sizes.
pub(super) fn files(manifest: &Manifest) -> impl Iterator<Item = (&Entry, u64)> {
    manifest.entries().iter().filter_map(|entry| match entry.kind {
        Kind::File { size, .. } if size > 0 => Some((entry, size)),
        _ => None,
    })
}

/// The frame of a table, and how many bytes the table has without compression.
pub(super) fn encode(manifest: &Manifest, places: &Places) -> io::Result<(Vec<u8>, u64)> {
    let bytes = manifest.encode();
    let mut table = TABLE.to_vec();
    table.extend((bytes.len() as u64).to_le_bytes());
    table.extend(bytes);
    let mut lengths = places.lengths.iter();
    for ((_, size), start) in files(manifest).zip(&places.starts) {
        table.extend(start.to_le_bytes());
        for length in lengths.by_ref().take(frames(size) as usize) {
            table.extend(length.to_le_bytes());
        }
    }
    let length = table.len() as u64;
    Ok((skippable(KIND, &frame(&table)?)?, length))
}

/// The frame of a footer: of the table whose frame lies at `at` and has `size` bytes, `length` of them when
/// decompressed.
pub(super) fn footer(at: u64, size: u64, length: u64) -> io::Result<Vec<u8>> {
    let numbers = [at + 8, size - 8, length].map(u64::to_le_bytes).concat();
    skippable(KIND, &[&numbers[..], FOOTER].concat())
}

/// What a footer says: where the compressed table is, how many bytes it has, and how many when decompressed.
pub(super) fn read_footer(bytes: &[u8]) -> Option<(u64, u64, u64)> {
    let body = bytes.strip_prefix(&[0x50 | KIND, 0x2a, 0x4d, 0x18, 40, 0, 0, 0])?.strip_suffix(FOOTER)?;
    let number = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
    Some((number(0)?, number(8)?, number(16)?))
}

/// Why a table is refused.
pub(super) type Refused = &'static str;

/// Reads the plain bytes of a table whose frame begins at `own`.
pub(super) fn decode(bytes: &[u8], own: u64) -> Result<(Manifest, Places), Refused> {
    let rest = bytes.strip_prefix(TABLE).ok_or("its table of contents is of another version")?;
    let (length, rest) = rest.split_first_chunk().ok_or("its table of contents is cut off")?;
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let (manifest, mut rest) = rest.split_at_checked(length).ok_or("its table of contents is cut off")?;
    let manifest = Manifest::decode(manifest).map_err(|_| "the manifest in it is malformed")?;
    let (mut places, mut end) = (Places::default(), 0);
    for (_, size) in files(&manifest) {
        let (start, more) = rest.split_first_chunk().ok_or("its table of contents is cut off")?;
        let start = u64::from_le_bytes(*start);
        if start < end {
            return Err("the frames in its table of contents are not in order");
        }
        (end, rest) = (start, more);
        places.starts.push(start);
        // More frames than there are bytes end the loop.
        for _ in 0..frames(size) {
            let (length, more) = rest.split_first_chunk().ok_or("its table of contents is cut off")?;
            let length = u32::from_le_bytes(*length);
            end = end.saturating_add(u64::from(length));
            if length == 0 || length as usize > most() || end > own {
                return Err("a frame in its table of contents has a wrong length");
            }
            places.lengths.push(length);
            rest = more;
        }
    }
    if rest.is_empty() { Ok((manifest, places)) } else { Err("its table of contents is too long") }
}
