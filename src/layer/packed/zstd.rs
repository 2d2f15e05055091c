//! The travelling form: zstd frames, one for each run of headers and one or more for each file, and behind them
//! in skippable frames (RFC 8878, 3.1.2) what tells a reader where each file is.

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::PathBuf;

use ::zstd::bulk::Compressor;
use sha2::{Digest, Sha256};

use super::chunked::{Chunked, Finished};
use super::cut::{Cut, PIECE, Part, Piece};
use super::digests::{Output, text};
use super::squeeze::{self, Results};
use super::{Packed, table, tar_split};
use crate::error::Result;
use crate::layer::{Entry, Manifest};

/// zstd's own default.
const LEVEL: i32 = 3;

/// What a thread learns of a piece.
struct Frame {
    bytes: Vec<u8>,
    /// Of the plain bytes of a part of a file.
    sha256: [u8; 32],
    /// The same, of a whole file.
    crc: u64,
}

/// Compresses in one frame that says how long the plain bytes are.
pub(super) fn frame(bytes: &[u8]) -> io::Result<Vec<u8>> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    }
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(Compressor::new(LEVEL)?),
        };
        compressor.compress(bytes)
    })
}

/// A frame that decoders pass over. `kind` is the last digit of its magic number.
pub(super) fn skippable(kind: u8, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let size = u32::try_from(bytes.len()).map_err(|_| io::Error::other("a table of more than 4 GiB"))?;
    Ok([&[0x50 | kind, 0x2a, 0x4d, 0x18][..], &size.to_le_bytes(), bytes].concat())
}

pub(super) fn write(
    manifest: &Manifest,
    content: &dyn Fn(&Entry) -> Result<PathBuf>,
    out: &mut (dyn Write + Send),
) -> Result<Packed> {
    let squeeze = |piece: &Piece| {
        let (mut sha256, mut crc) = ([0; 32], 0);
        if let Part::File { whole, .. } = piece.part {
            sha256 = Sha256::digest(&piece.bytes).into();
            crc = if whole { tar_split::CRC.checksum(&piece.bytes) } else { 0 };
        }
        Ok(Frame { bytes: frame(&piece.bytes)?, sha256, crc })
    };
    squeeze::run(manifest, content, Cut::AtFiles, &squeeze, |results| join(manifest, results, out))
}

fn join(manifest: &Manifest, results: Results<Frame>, out: &mut (dyn Write + Send)) -> io::Result<Packed> {
    let mut out = Output::new(out);
    let mut plain = Sha256::new();
    let mut chunked = Some(Chunked::new()?);
    let mut places = table::Places::default();
    while let Some(done) = results.next()? {
        for squeezed in done {
            let (piece, frame) = (squeezed.piece, squeezed.result);
            plain.update(&piece.bytes);
            let at = out.size;
            out.put(&frame.bytes)?;
            if let Part::File { first, .. } = piece.part {
                places.frame(first, at, frame.bytes.len());
            }
            // Once a name turns up that its JSON cannot say, the layer has no table of that kind.
            chunked = match chunked {
                Some(chunked) => chunked.piece(piece, at, out.size, frame.sha256, frame.crc)?,
                None => None,
            };
        }
    }
    let diff_id = text(plain.finalize().as_slice());
    let own = out.size;
    let (own_table, length) = table::encode(manifest, &places)?;
    out.put(&own_table)?;
    let annotations = match chunked {
        Some(chunked) => {
            let Finished { annotations, frames, footer } = chunked.finish(out.size)?;
            out.put(&frames)?;
            out.put(&table::footer(own, own_table.len() as u64, length)?)?;
            out.put(&footer)?;
            annotations
        }
        None => {
            out.put(&table::footer(own, own_table.len() as u64, length)?)?;
            Default::default()
        }
    };
    let (digest, blob, size) = out.finish()?;
    Ok(Packed { diff_id, digest, blob, size, annotations })
}

/// The most bytes that a frame of a piece can have.
pub(super) fn most() -> usize {
    ::zstd::zstd_safe::compress_bound(PIECE)
}
