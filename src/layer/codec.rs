//! The bytes of a manifest, as docs/format.md lays them down: little-endian, fixed width, length-prefixed,
//! and only the fields that the kind of an entry has.

use super::entry::{Entry, Kind, Xattrs};
use super::manifest::ManifestError;
use crate::digest::ContentDigest;
use crate::path::GuestPath;

/// The first bytes of every manifest of this version.
const MAGIC: &[u8; 16] = b"isolith layer 1\n";

/// The shortest entry: a whiteout with an empty path. Bounds what a count can make us allocate.
const SHORTEST_ENTRY: usize = 5;

const FILE: u8 = 1;
const DIR: u8 = 2;
const SYMLINK: u8 = 3;
const FIFO: u8 = 4;
const HARD_LINK: u8 = 5;
const WHITEOUT: u8 = 6;
const CHAR_DEVICE: u8 = 7;
const BLOCK_DEVICE: u8 = 8;

/// Encodes sorted, checked entries.
pub(super) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(MAGIC.len() + 4 + entries.len() * 112);
    out.extend_from_slice(MAGIC);
    put_len(&mut out, entries.len());
    for entry in entries {
        put_bytes(&mut out, entry.path.as_bytes());
        match &entry.kind {
            Kind::File { size, digest } => {
                put_head(&mut out, FILE, entry);
                out.extend_from_slice(&size.to_le_bytes());
                out.extend_from_slice(digest.as_bytes());
            }
            Kind::Dir { opaque } => {
                put_head(&mut out, DIR, entry);
                out.push(u8::from(*opaque));
            }
            Kind::Symlink { target } => {
                put_head(&mut out, SYMLINK, entry);
                put_bytes(&mut out, target);
            }
            Kind::Fifo => put_head(&mut out, FIFO, entry),
            Kind::HardLink { target } => {
                out.push(HARD_LINK);
                put_bytes(&mut out, target.as_bytes());
            }
            Kind::Whiteout => out.push(WHITEOUT),
            Kind::CharDevice { major, minor } => put_device(&mut out, CHAR_DEVICE, entry, *major, *minor),
            Kind::BlockDevice { major, minor } => put_device(&mut out, BLOCK_DEVICE, entry, *major, *minor),
        }
    }
    out
}

fn put_head(out: &mut Vec<u8>, kind: u8, entry: &Entry) {
    out.push(kind);
    out.extend_from_slice(&entry.mode.to_le_bytes());
    out.extend_from_slice(&entry.uid.to_le_bytes());
    out.extend_from_slice(&entry.gid.to_le_bytes());
    out.extend_from_slice(&entry.mtime.to_le_bytes());
    put_len(out, entry.xattrs.len());
    for (name, value) in &entry.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

fn put_device(out: &mut Vec<u8>, kind: u8, entry: &Entry, major: u32, minor: u32) {
    put_head(out, kind, entry);
    out.extend_from_slice(&major.to_le_bytes());
    out.extend_from_slice(&minor.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Lengths fit: a path that the kernel or an archive gave us is far below 4 GiB, and so is a count.
fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

/// Reads entries. What it accepts still has to be checked as a tree.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Entry>, ManifestError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(ManifestError::Magic)?;
    let mut reader = Reader { rest, total: bytes.len() };
    let count = reader.len()?;
    let mut entries = Vec::with_capacity(count.min(reader.rest.len() / SHORTEST_ENTRY));
    for _ in 0..count {
        entries.push(reader.entry()?);
    }
    match reader.rest.len() {
        0 => Ok(entries),
        extra => Err(ManifestError::Trailing(extra)),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    total: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], ManifestError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.cut())?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ManifestError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(|| self.cut())?;
        self.rest = rest;
        Ok(*head)
    }

    fn cut(&self) -> ManifestError {
        ManifestError::Truncated(self.total - self.rest.len())
    }

    fn u32(&mut self) -> Result<u32, ManifestError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn len(&mut self) -> Result<usize, ManifestError> {
        Ok(self.u32()? as usize)
    }

    fn bytes(&mut self) -> Result<&'a [u8], ManifestError> {
        let len = self.len()?;
        self.take(len)
    }

    fn path(&mut self) -> Result<GuestPath, ManifestError> {
        let bytes = self.bytes()?;
        match GuestPath::from_relative(bytes) {
            Ok(path) if path.as_bytes() == bytes => Ok(path),
            _ => Err(ManifestError::Path(String::from_utf8_lossy(bytes).into_owned())),
        }
    }

    fn entry(&mut self) -> Result<Entry, ManifestError> {
        let path = self.path()?;
        let [kind] = self.array()?;
        let mut entry =
            Entry { path, mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new(), kind: Kind::Whiteout };
        if !(FILE..=BLOCK_DEVICE).contains(&kind) {
            return Err(ManifestError::Field(entry.path, "kind"));
        }
        if !matches!(kind, HARD_LINK | WHITEOUT) {
            entry.mode = u16::from_le_bytes(self.array()?);
            entry.uid = self.u32()?;
            entry.gid = self.u32()?;
            entry.mtime = i64::from_le_bytes(self.array()?);
            entry.xattrs = self.xattrs(&entry.path)?;
        }
        entry.kind = match kind {
            FILE => Kind::File {
                size: u64::from_le_bytes(self.array()?),
                digest: ContentDigest::from_bytes(self.array()?),
            },
            DIR => match self.array()? {
                [0] => Kind::Dir { opaque: false },
                [1] => Kind::Dir { opaque: true },
                _ => return Err(ManifestError::Field(entry.path, "opaque mark")),
            },
            SYMLINK => Kind::Symlink { target: self.bytes()?.to_vec() },
            FIFO => Kind::Fifo,
            HARD_LINK => Kind::HardLink { target: self.path()? },
            WHITEOUT => Kind::Whiteout,
            CHAR_DEVICE => Kind::CharDevice { major: self.u32()?, minor: self.u32()? },
            _ => Kind::BlockDevice { major: self.u32()?, minor: self.u32()? },
        };
        Ok(entry)
    }

    fn xattrs(&mut self, path: &GuestPath) -> Result<Xattrs, ManifestError> {
        let mut xattrs = Xattrs::new();
        for _ in 0..self.len()? {
            let (name, value) = (self.bytes()?, self.bytes()?);
            if xattrs.last_key_value().is_some_and(|(last, _)| &last[..] >= name) {
                return Err(ManifestError::Field(path.clone(), "order of extended attributes"));
            }
            xattrs.insert(name.to_vec(), value.to_vec());
        }
        Ok(xattrs)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::*;
    use super::super::{Manifest, ManifestError};

    proptest! {
        #[test]
        fn decoding_undoes_encoding(manifest in any_layer()) {
            prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }

        /// No second encoding of anything: what is accepted is what encoding gives.
        #[test]
        fn damaged_bytes_are_refused_or_another_layer(
            manifest in any_layer(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let mut bytes = manifest.encode();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            match Manifest::decode(&bytes) {
                Ok(other) => prop_assert_eq!(other.encode(), bytes),
                Err(_) => prop_assert_ne!(manifest.encode(), bytes),
            }
        }
    }

    #[test]
    fn refuses_what_encoding_does_not_give() {
        let good = layer([file("/a", "x"), gone("/b")]).encode();
        let extra = [&good[..], b"\0"].concat();
        assert_eq!(Manifest::decode(&extra), Err(ManifestError::Trailing(1)));
        assert_eq!(Manifest::decode(b"isolith layer 2\n\0\0\0\0"), Err(ManifestError::Magic));
        // A count of four thousand million entries is refused before memory is.
        let many = [&good[..16], &[0xff; 4]].concat();
        assert_eq!(Manifest::decode(&many), Err(ManifestError::Truncated(20)));
        // `/b` behind `/c` instead of `/a`
        let mut order = good;
        let at = order.windows(5).position(|w| w == b"\x01\0\0\0a").unwrap();
        order[at + 4] = b'c';
        assert_eq!(Manifest::decode(&order), Err(ManifestError::Order(p("/b"))));
    }
}
