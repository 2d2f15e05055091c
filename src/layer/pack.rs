//! Pack: a layer as a tar archive that depends on nothing but its manifest.
//!
//! The form is POSIX pax as OCI layers have it: whiteouts are empty files `.wh.NAME`, an opaque directory has
//! a file `.wh..wh..opq`, ids are numbers without names, there are no access and change times. Members come
//! in the order of the manifest, the root as `./`, and the archive ends with two empty blocks.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use super::{Entry, Kind, Manifest, Xattrs, pax};
use crate::digest::ContentDigest;
use crate::error::{Error, Result};
use crate::path::GuestPath;

/// What OCI puts before the name of something that is gone.
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// The OCI name that makes its directory opaque.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

const BLOCK: usize = 512;
/// The largest number in an 11-digit octal field.
const OCTAL_11: u64 = 0o77_777_777_777;

/// Takes an archive in parts.
pub(super) trait Sink {
    /// The header blocks of the next member. Its data follow if it is a file that is not empty.
    fn member(&mut self, member: Member) -> Result<()>;
    /// Data of the last member.
    fn data(&mut self, bytes: &[u8]) -> Result<()>;
    /// Zeros that fill up the last block of data, or that end the archive.
    fn zeros(&mut self, bytes: &[u8]) -> Result<()>;
}

/// Writes a layer as a tar archive. `content` gives the host file with the content of a file entry; it is
/// checked against the entry's size and digest on the way. The same manifest gives the same bytes, always.
///
/// A name that begins with `.wh.` is an error, since readers would take it for a whiteout; so is an extended
/// attribute with `=` in its name, which pax has no way to say.
pub fn pack(
    manifest: &Manifest,
    content: &dyn Fn(&Entry) -> Result<PathBuf>,
    out: &mut dyn Write,
) -> Result<()> {
    pack_into(manifest, content, &mut Plain(out))?;
    out.flush().map_err(failed)
}

/// The archive as one stream.
struct Plain<'a>(&'a mut dyn Write);

impl Sink for Plain<'_> {
    fn member(&mut self, member: Member) -> Result<()> {
        self.0.write_all(&member.blocks).map_err(failed)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(failed)
    }

    fn zeros(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(failed)
    }
}

pub(super) fn failed(why: io::Error) -> Error {
    Error::machine("cannot write the archive of a layer").because(why)
}

/// Gives a layer's archive to `sink`, part by part.
pub(super) fn pack_into(
    manifest: &Manifest,
    content: &dyn Fn(&Entry) -> Result<PathBuf>,
    sink: &mut dyn Sink,
) -> Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    for entry in manifest.entries() {
        for member in members(entry, manifest)? {
            sink.member(member)?;
        }
        if let Kind::File { size, digest } = &entry.kind {
            let path = content(entry)?;
            copy(&path, *size, digest, sink, &mut buffer)?;
            sink.zeros(&[0; BLOCK][..padding(*size)])?;
        }
    }
    sink.zeros(&[0; 2 * BLOCK])
}

/// The members of an entry: itself, and behind an opaque directory what makes it that.
fn members(entry: &Entry, manifest: &Manifest) -> Result<Vec<Member>> {
    if entry.path.name().starts_with(WHITEOUT) {
        return Err(Error::machine(format!("`{}` cannot be in a tar layer", entry.path))
            .hint("names that begin with `.wh.` stand for removed files there; rename it"));
    }
    let mut members = vec![member(entry, manifest.node(entry))?];
    if entry.kind == (Kind::Dir { opaque: true }) {
        members.push(member(&marker(entry.path.join(OPAQUE)), entry)?);
    }
    Ok(members)
}

/// A member as its headers say it.
pub(super) struct Member {
    /// Everything that stands in front of its data, in blocks.
    pub blocks: Vec<u8>,
    /// Its name.
    pub path: Vec<u8>,
    /// Where it links to.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: EntryType,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Seconds since 1970.
    pub mtime: i64,
    /// Bytes of data.
    pub size: u64,
    /// Device number.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// An empty file that says something by its name. Treated like a whiteout: it has no attributes.
fn marker(path: GuestPath) -> Entry {
    Entry { path, mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: Default::default(), kind: Kind::Whiteout }
}

/// The header blocks of a member. `node` has the attributes; for hard links that is the file they lead to,
/// because some readers apply the attributes of every name.
fn member(entry: &Entry, node: &Entry) -> Result<Member> {
    let mut header = Header::new_ustar();
    let mut records = Vec::new();
    let node = if entry.kind == Kind::Whiteout { entry } else { node };
    header.set_mode(u32::from(node.mode));
    header.set_uid(u64::from(node.uid));
    header.set_gid(u64::from(node.gid));
    header.set_size(0);
    header.set_mtime(0);
    let mut path = entry.path.as_bytes().to_vec();
    let mut link: &[u8] = b"";
    let (mut mode, mut data, mut numbers) = (u32::from(node.mode), 0, (0, 0));
    let kind = match &entry.kind {
        Kind::File { size, .. } => {
            data = *size;
            match *size {
                size if size <= OCTAL_11 => header.set_size(size),
                size => pax::push(&mut records, pax::SIZE, size.to_string().as_bytes()),
            }
            EntryType::Regular
        }
        Kind::Dir { .. } => {
            path.extend_from_slice(if path.is_empty() { b"./" } else { b"/" });
            EntryType::Directory
        }
        Kind::Symlink { target } => {
            mode = 0o777;
            header.set_mode(mode);
            link = target;
            EntryType::Symlink
        }
        Kind::HardLink { target } => {
            link = target.as_bytes();
            EntryType::Link
        }
        Kind::Whiteout => {
            if !path.ends_with(OPAQUE) {
                path.splice(path.len() - entry.path.name().len().., [WHITEOUT, entry.path.name()].concat());
            }
            EntryType::Regular
        }
        Kind::Fifo => EntryType::Fifo,
        Kind::CharDevice { major, minor } => {
            numbers = (*major, *minor);
            device(&mut header, *major, *minor, EntryType::Char)
        }
        Kind::BlockDevice { major, minor } => {
            numbers = (*major, *minor);
            device(&mut header, *major, *minor, EntryType::Block)
        }
    };
    header.set_entry_type(kind);
    match u64::try_from(node.mtime) {
        Ok(mtime) if mtime <= OCTAL_11 => header.set_mtime(mtime),
        _ => pax::push(&mut records, pax::MTIME, node.mtime.to_string().as_bytes()),
    }
    if let Some(ustar) = header.as_ustar_mut() {
        name(&mut ustar.name, pax::PATH, &path, &mut records);
        name(&mut ustar.linkname, pax::LINKPATH, link, &mut records);
    }
    let mut attributes = Xattrs::new();
    if entry.kind == node.kind {
        xattrs(entry, &mut records)?;
        attributes = entry.xattrs.clone();
    }
    header.set_cksum();
    let mut blocks = extended(records, &[&path, link]);
    blocks.extend_from_slice(header.as_bytes());
    Ok(Member {
        blocks,
        link: link.to_vec(),
        path,
        kind,
        mode,
        owner: (node.uid, node.gid),
        mtime: node.mtime,
        size: data,
        device: numbers,
        xattrs: attributes,
    })
}

fn device(header: &mut Header, major: u32, minor: u32, kind: EntryType) -> EntryType {
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.set_device_major(major);
        ustar.set_device_minor(minor);
    }
    kind
}

/// Puts a name into its field, or into a record when it does not fit or is not ASCII; then the field has
/// the beginning, for people.
fn name(field: &mut [u8; 100], key: &[u8], name: &[u8], records: &mut Vec<u8>) {
    if name.len() > field.len() || !name.is_ascii() {
        pax::push(records, key, name);
    }
    let ascii = name.iter().map(|b| if b.is_ascii() { *b } else { b'_' });
    for (to, from) in field.iter_mut().zip(ascii) {
        *to = from;
    }
}

fn xattrs(entry: &Entry, records: &mut Vec<u8>) -> Result<()> {
    for (name, value) in &entry.xattrs {
        if name.contains(&b'=') {
            let name = String::from_utf8_lossy(name);
            return Err(Error::machine(format!(
                "the extended attribute `{name}` of `{}` cannot be in a tar layer",
                entry.path
            ))
            .hint("tar cannot express attribute names with `=` in them; remove the attribute"));
        }
        pax::push(records, &[pax::XATTR, name].concat(), value);
    }
    Ok(())
}

/// The extended header in front of a member, if there is anything to say.
fn extended(records: Vec<u8>, names: &[&[u8]]) -> Vec<u8> {
    if records.is_empty() {
        return Vec::new();
    }
    let mut data = Vec::new();
    if names.iter().any(|name| std::str::from_utf8(name).is_err()) {
        pax::push(&mut data, b"hdrcharset", b"BINARY");
    }
    data.extend(records);
    let mut header = Header::new_ustar();
    // A relative path that exists nowhere, as Python and others have it.
    header.as_old_mut().name[..14].copy_from_slice(b"././@PaxHeader");
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(data.len() as u64);
    header.set_cksum();
    let mut blocks = header.as_bytes().to_vec();
    let padding = padding(data.len() as u64);
    blocks.extend(data);
    blocks.resize(blocks.len() + padding, 0);
    blocks
}

/// How many bytes fill up the last block of `size` bytes.
fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// Copies a file's content, which has to be what the manifest says.
fn copy(
    path: &Path,
    size: u64,
    digest: &ContentDigest,
    sink: &mut dyn Sink,
    buffer: &mut [u8],
) -> Result<()> {
    let mut file = File::open(path).map_err(|why| Error::io("read", path, why))?.take(size);
    let mut hasher = blake3::Hasher::new();
    let mut done = 0;
    loop {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&buffer[..n]);
                done += n as u64;
                sink.data(&buffer[..n])?;
            }
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(Error::io("read", path, why)),
        }
    }
    if done != size || ContentDigest::from_bytes(*hasher.finalize().as_bytes()) != *digest {
        return Err(Error::machine(format!("`{}` is not what its layer's manifest says", path.display()))
            .hint("the layer is damaged: `isolith store fsck` finds and removes such layers"));
    }
    Ok(())
}
