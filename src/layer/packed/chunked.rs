//! The table of contents of `zstd:chunked`, by which podman, buildah and CRI-O fetch only the files that they do
//! not have yet. The format is that of `pkg/chunked` in containers/storage; docs/format.md has what is used of it.

use std::collections::BTreeMap;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tar::EntryType;

use super::super::pack::Member;
use super::cut::{Part, Piece};
use super::digests::{sha256, text};
use super::tar_split::{CRC, TarSplit};
use super::zstd::{frame, skippable};

const MANIFEST_CHECKSUM: &str = "io.github.containers.zstd-chunked.manifest-checksum";
const MANIFEST_POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
const TAR_SPLIT_POSITION: &str = "io.github.containers.zstd-chunked.tarsplit-position";
/// What older readers (buildah 1.28 of Debian 12) call the first two.
const OLD_CHECKSUM: &str = "io.containers.zstd-chunked.manifest-checksum";
const OLD_POSITION: &str = "io.containers.zstd-chunked.manifest-position";
/// The kind of table that there is.
const KIND: u64 = 1;
/// What a footer ends with.
pub(super) const MAGIC: &[u8; 8] = b"GNUlInUx";

/// An entry, its fields as they are called there. What is zero or empty is left out.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct TocEntry {
    r#type: &'static str,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    link_name: String,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    modtime: String,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    digest: String,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    end_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    chunk_digest: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Toc<'a> {
    version: u32,
    entries: &'a [TocEntry],
    tar_split_digest: String,
}

/// The table as it grows.
pub(super) struct Chunked {
    entries: Vec<TocEntry>,
    split: TarSplit,
    /// The file whose content comes, when it is in several pieces.
    open: Option<Open>,
}

/// A table that is ready to be written.
pub(super) struct Finished {
    /// What has to be known of it beside the layer's digest.
    pub annotations: BTreeMap<String, String>,
    /// Its frames.
    pub frames: Vec<u8>,
    /// The frame that comes at the very end.
    pub footer: Vec<u8>,
}

struct Open {
    /// Its entry.
    at: usize,
    sha256: Sha256,
    crc: crc::Digest<'static, u64, crc::Table<16>>,
    done: u64,
}

impl Chunked {
    pub fn new() -> io::Result<Self> {
        Ok(Self { entries: Vec::new(), split: TarSplit::new()?, open: None })
    }

    /// Takes a piece that lies at `start..end` of the compressed bytes. None when the table cannot say it.
    pub fn piece(
        mut self,
        piece: Piece,
        start: u64,
        end: u64,
        digest: [u8; 32],
        crc: u64,
    ) -> io::Result<Option<Self>> {
        match piece.part {
            Part::Between => {
                let mut from = 0;
                for (to, member) in piece.members {
                    self.split.between(&piece.bytes[from..to]);
                    from = to;
                    let Some(entry) = entry(&member) else { return Ok(None) };
                    // That of a file with content follows when its checksum is known.
                    if member.size == 0 {
                        self.split.member(&entry.name, 0, 0)?;
                    }
                    self.entries.push(entry);
                }
                self.split.between(&piece.bytes[from..]);
            }
            Part::File { whole: true, .. } => {
                let Some(entry) = self.entries.last_mut() else { return Ok(None) };
                (entry.offset, entry.end_offset, entry.digest) = (start, end, text(&digest));
                let (name, size) = (entry.name.clone(), entry.size);
                self.split.member(&name, size, crc)?;
            }
            Part::File { .. } => self.chunk(&piece.bytes, start, end, &digest)?,
        }
        Ok(Some(self))
    }

    /// One of several pieces of a file.
    fn chunk(&mut self, bytes: &[u8], start: u64, end: u64, digest: &[u8]) -> io::Result<()> {
        let at = self.entries.len() - 1;
        let open =
            self.open.get_or_insert_with(|| Open { at, sha256: Sha256::new(), crc: CRC.digest(), done: 0 });
        open.sha256.update(bytes);
        open.crc.update(bytes);
        let (at, done) = (open.at, open.done);
        open.done += bytes.len() as u64;
        if done > 0 {
            let name = self.entries[at].name.clone();
            self.entries.push(TocEntry { r#type: "chunk", name, chunk_offset: done, ..Default::default() });
        }
        if let Some(last) = self.entries.last_mut() {
            (last.offset, last.chunk_size, last.chunk_digest) = (start, bytes.len() as u64, text(digest));
        }
        let file = &mut self.entries[at];
        file.end_offset = end;
        if let Some(open) = self.open.take_if(|open| open.done == file.size) {
            file.digest = text(open.sha256.finalize().as_slice());
            let (name, size) = (file.name.clone(), file.size);
            self.split.member(&name, size, open.crc.finalize())?;
        }
        Ok(())
    }

    /// The finished table, whose frames lie at `at`.
    pub fn finish(self, at: u64) -> io::Result<Finished> {
        let (split, split_length) = self.split.finish()?;
        let toc = Toc { version: 1, entries: &self.entries, tar_split_digest: sha256(&split) };
        let json = serde_json::to_vec(&toc)?;
        let manifest = frame(&json)?;
        // Positions are those of what is in the skippable frames, behind 8 bytes of magic number and size.
        let manifest_at = at + 8;
        let split_at = manifest_at + manifest.len() as u64 + 8;
        let checksum = sha256(&manifest);
        let position = format!("{manifest_at}:{}:{}:{KIND}", manifest.len(), json.len());
        let annotations = BTreeMap::from([
            (OLD_CHECKSUM.to_string(), checksum.clone()),
            (OLD_POSITION.to_string(), position.clone()),
            (MANIFEST_CHECKSUM.to_string(), checksum),
            (MANIFEST_POSITION.to_string(), position),
            (TAR_SPLIT_POSITION.to_string(), format!("{split_at}:{}:{split_length}", split.len())),
        ]);
        let numbers = [
            manifest_at,
            manifest.len() as u64,
            json.len() as u64,
            KIND,
            split_at,
            split.len() as u64,
            split_length,
        ];
        let mut footer: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        footer.extend_from_slice(MAGIC);
        let frames = [skippable(0, &manifest)?, skippable(0, &split)?].concat();
        Ok(Finished { annotations, frames, footer: skippable(0, &footer)? })
    }
}

/// The entry of a member, without the place of its content. None when JSON cannot say its names, or when its
/// time is none that Go's JSON has.
fn entry(member: &Member) -> Option<TocEntry> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let mut xattrs = BTreeMap::new();
    for (name, value) in &member.xattrs {
        xattrs.insert(text(name)?, STANDARD.encode(value));
    }
    Some(TocEntry {
        r#type: match member.kind {
            EntryType::Directory => "dir",
            EntryType::Symlink => "symlink",
            EntryType::Link => "hardlink",
            EntryType::Char => "char",
            EntryType::Block => "block",
            EntryType::Fifo => "fifo",
            _ => "reg",
        },
        name: text(&member.path)?,
        link_name: text(&member.link)?,
        mode: member.mode.into(),
        size: member.size,
        uid: member.owner.0.into(),
        gid: member.owner.1.into(),
        modtime: crate::layer::time::rfc3339(member.mtime)?,
        dev_major: member.device.0.into(),
        dev_minor: member.device.1.into(),
        xattrs,
        ..Default::default()
    })
}
