//! What readers of `zstd:chunked` need to make the archive anew out of its files: the bytes between the
//! contents, and a checksum of each content, as the Go library `tar-split` writes it: one JSON object a line.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc::{CRC_64_GO_ISO, Crc, Table};

/// The checksum of contents.
pub(super) static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_GO_ISO);

/// The lines, compressed as they come.
pub(super) struct TarSplit {
    out: ::zstd::stream::write::Encoder<'static, Vec<u8>>,
    position: u64,
    /// Bytes of the lines.
    length: u64,
    segment: Vec<u8>,
}

impl TarSplit {
    pub fn new() -> io::Result<Self> {
        let out = ::zstd::stream::write::Encoder::new(Vec::new(), 3)?;
        Ok(Self { out, position: 0, length: 0, segment: Vec::new() })
    }

    /// Bytes of the archive that are no content.
    pub fn between(&mut self, bytes: &[u8]) {
        self.segment.extend_from_slice(bytes);
    }

    /// A member, after its headers.
    pub fn member(&mut self, name: &str, size: u64, crc: u64) -> io::Result<()> {
        self.flush()?;
        let name = serde_json::to_string(name)?;
        // `size` is left out when it is zero, and then there is no checksum.
        let (size, payload) = match size {
            0 => (String::new(), "null".to_string()),
            _ => (format!("\"size\":{size},"), format!("\"{}\"", STANDARD.encode(crc.to_be_bytes()))),
        };
        self.line(format!("{{\"type\":1,\"name\":{name},{size}\"payload\":{payload},"))
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.segment.is_empty() {
            return Ok(());
        }
        let payload = STANDARD.encode(std::mem::take(&mut self.segment));
        self.line(format!("{{\"type\":2,\"payload\":\"{payload}\","))
    }

    fn line(&mut self, start: String) -> io::Result<()> {
        let line = format!("{start}\"position\":{}}}\n", self.position);
        self.position += 1;
        self.length += line.len() as u64;
        self.out.write_all(line.as_bytes())
    }

    /// The compressed lines, and how many bytes they have without compression.
    pub fn finish(mut self) -> io::Result<(Vec<u8>, u64)> {
        self.flush()?;
        Ok((self.out.finish()?, self.length))
    }
}
