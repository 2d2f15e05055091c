//! One gzip member (RFC 1952) over pieces of deflate data that end on whole bytes, as pigz makes it.
//!
//! Compressed by miniz_oxide, without any instruction that one machine has and another has not: its output depends on
//! its version and the level alone. Not through flate2, which takes zlib-rs as soon as any dependency asks for it.

use std::io::{self, Write};
use std::path::PathBuf;

use miniz_oxide::deflate::core::CompressorOxide;
use miniz_oxide::deflate::stream::deflate as compress;
use miniz_oxide::{DataFormat, MZFlush};
use sha2::{Digest, Sha256};

use super::Packed;
use super::cut::{Cut, Piece};
use super::digests::{Output, text};
use super::squeeze::{self, Results};
use crate::error::Result;
use crate::layer::{Entry, Manifest};

/// Deflate level: the usual one.
const LEVEL: u8 = 6;
/// No name, no time, no flags; "unknown" as the operating system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty last block.
const END: [u8; 2] = [3, 0];

pub(super) fn write(
    manifest: &Manifest,
    content: &dyn Fn(&Entry) -> Result<PathBuf>,
    out: &mut (dyn Write + Send),
) -> Result<Packed> {
    let squeeze = |piece: &Piece| deflate(&piece.bytes);
    squeeze::run(manifest, content, Cut::Evenly, &squeeze, |results| join(results, out))
}

fn join(results: Results<Vec<u8>>, out: &mut (dyn Write + Send)) -> io::Result<Packed> {
    let mut out = Output::new(out);
    let (mut plain, mut crc, mut size) = (Sha256::new(), crc32fast::Hasher::new(), 0u64);
    out.put(&HEADER)?;
    while let Some(done) = results.next()? {
        for squeezed in done {
            let bytes = &squeezed.piece.bytes;
            plain.update(bytes);
            crc.update(bytes);
            size += bytes.len() as u64;
            out.put(&squeezed.result)?;
        }
    }
    out.put(&END)?;
    out.put(&crc.finalize().to_le_bytes())?;
    out.put(&(size as u32).to_le_bytes())?; // Modulo 2^32, as the format has it.
    let diff_id = text(plain.finalize().as_slice());
    let (digest, blob, size) = out.finish()?;
    Ok(Packed { diff_id, digest, blob, size, annotations: Default::default() })
}

/// Deflates a piece on its own and ends on a whole byte, without ending the stream.
fn deflate(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressor = Box::<CompressorOxide>::default();
    compressor.set_format_and_level(DataFormat::Raw, LEVEL);
    // Room for bytes that do not compress at all, so that one call does it.
    let mut out = vec![0; bytes.len() + bytes.len() / 8 + 1024];
    let done = compress(&mut compressor, bytes, &mut out, MZFlush::Sync);
    done.status.map_err(|why| io::Error::other(format!("deflate: {why:?}")))?;
    if done.bytes_consumed != bytes.len() || done.bytes_written == out.len() {
        return Err(io::Error::other("deflate needs more room than it should"));
    }
    out.truncate(done.bytes_written);
    Ok(out)
}
