//! Verify: does a file tree on disk still say what its manifest says?

use std::cmp::Ordering;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rayon::prelude::*;
use rustix::fs::{FileType, OFlags, Stat};

use super::canonical::{self, Node};
use super::disk;
use super::{Entry, IdShift, Kind, Manifest, Xattrs};
use crate::path::GuestPath;

/// The first difference, in the order of paths, between a layer's manifest and its files.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{path}` {what}")]
pub struct Damage {
    /// Where.
    pub path: GuestPath,
    /// What is wrong there.
    pub what: String,
}

/// Reads and hashes the file tree at `fs`, in parallel, and compares it with its manifest. An empty manifest
/// stands for an empty directory, whose own attributes do not matter.
///
/// Anything that cannot be read is damage, too.
pub fn verify(manifest: &Manifest, fs: &Path, ids: IdShift) -> Result<(), Damage> {
    let path = GuestPath::root();
    let unreadable = |why: io::Error| damage(&path, format!("cannot be read: {why}"));
    let root = disk::open_root(fs).map_err(unreadable)?;
    if manifest.is_empty() {
        let names = disk::names(root.as_fd()).map_err(unreadable)?;
        let extra = names.iter().map(|(name, _)| path.join(name.to_bytes())).min();
        return extra.map_or(Ok(()), |extra| Err(damage(&extra, "is not part of the layer")));
    }
    let mut nodes = directory(root, GuestPath::root(), ids)?;
    nodes.sort_unstable_by(|a, b| a.entry.path.cmp(&b.entry.path));
    let entries = canonical::entries(nodes);
    let mut found = entries.iter().peekable();
    for wanted in manifest.entries() {
        match found.peek().map(|entry| entry.path.cmp(&wanted.path)) {
            None | Some(Ordering::Greater) => return Err(damage(&wanted.path, "is missing")),
            Some(Ordering::Less) => break,
            Some(Ordering::Equal) => {}
        }
        if let Some(what) = found.next().and_then(|entry| difference(wanted, entry)) {
            return Err(damage(&wanted.path, what));
        }
    }
    match found.next() {
        Some(extra) => Err(damage(&extra.path, "is not part of the layer")),
        None => Ok(()),
    }
}

fn damage(path: &GuestPath, what: impl Into<String>) -> Damage {
    Damage { path: path.clone(), what: what.into() }
}

/// What differs between what should be at a path and what is.
fn difference(wanted: &Entry, found: &Entry) -> Option<String> {
    let octal = |mode| format!("{mode:04o}");
    let pairs = [
        ("is a", kind_name(&wanted.kind).to_string(), kind_name(&found.kind).to_string()),
        ("has mode", octal(wanted.mode), octal(found.mode)),
        ("has owner", format!("{}:{}", wanted.uid, wanted.gid), format!("{}:{}", found.uid, found.gid)),
        ("has mtime", wanted.mtime.to_string(), found.mtime.to_string()),
        ("has", kind_detail(&wanted.kind), kind_detail(&found.kind)),
    ];
    for (has, wanted, found) in pairs {
        if wanted != found {
            return Some(format!("{has} {found}, not {wanted}"));
        }
    }
    let names = wanted.xattrs.keys().chain(found.xattrs.keys());
    let mut differing = names.filter(|name| wanted.xattrs.get(*name) != found.xattrs.get(*name));
    differing.next().map(|name| format!("has another extended attribute {}", String::from_utf8_lossy(name)))
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::File { .. } => "file",
        Kind::Dir { .. } => "directory",
        Kind::Symlink { .. } => "symlink",
        Kind::Fifo => "fifo",
        Kind::HardLink { .. } => "hard link",
        Kind::Whiteout => "whiteout",
        Kind::CharDevice { .. } => "character device",
        Kind::BlockDevice { .. } => "block device",
    }
}

fn kind_detail(kind: &Kind) -> String {
    match kind {
        Kind::File { size, digest } => format!("{size} bytes with digest {digest}"),
        Kind::Dir { opaque } => format!("opaque = {opaque}"),
        Kind::Symlink { target } => format!("target `{}`", target.escape_ascii()),
        Kind::HardLink { target } => format!("other name `{target}`"),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            format!("number {major}:{minor}")
        }
        Kind::Fifo | Kind::Whiteout => String::new(),
    }
}

/// The nodes of a directory and below, in no order. Fails with the first path that cannot be in a layer.
fn directory(dir: OwnedFd, path: GuestPath, ids: IdShift) -> Result<Vec<Node>, Damage> {
    let unreadable = |why: io::Error| damage(&path, format!("cannot be read: {why}"));
    let (stat, attributes) = disk::look_at(&dir, ids).map_err(unreadable)?;
    let names = disk::names(dir.as_fd()).map_err(unreadable)?;
    let nodes = names.par_iter().map(|(name, _)| child(dir.as_fd(), name, path.join(name.to_bytes()), ids));
    let mut nodes = nodes.try_reduce(Vec::new, |mut a, mut b| {
        a.append(&mut b);
        Ok(a)
    })?;
    let kind = Kind::Dir { opaque: attributes.opaque };
    nodes.push(node(path, &stat, ids, attributes.kept, kind)?);
    Ok(nodes)
}

fn child(dir: BorrowedFd, name: &CStr, path: GuestPath, ids: IdShift) -> Result<Vec<Node>, Damage> {
    let unreadable = |why: io::Error| damage(&path, format!("cannot be read: {why}"));
    let stat = disk::stat(dir, name).map_err(unreadable)?;
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let (kind, xattrs) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let dir = disk::open(dir, name, OFlags::DIRECTORY).map_err(unreadable)?;
            return directory(dir, path, ids);
        }
        kind @ (FileType::RegularFile | FileType::Fifo) => {
            let file = disk::open(dir, name, OFlags::empty()).map_err(unreadable)?;
            let attributes = disk::attributes(file.as_fd(), ids).map_err(unreadable)?;
            let kind = match kind {
                FileType::Fifo => Kind::Fifo,
                _ => disk::file_kind(file.as_fd(), &stat).map_err(unreadable)?,
            };
            (kind, attributes.kept)
        }
        FileType::Symlink => (disk::symlink_kind(dir, name).map_err(unreadable)?, Xattrs::new()),
        FileType::CharacterDevice if disk::is_whiteout(&stat) => return Ok(vec![Node::whiteout(path)]),
        FileType::CharacterDevice => (Kind::CharDevice { major, minor }, Xattrs::new()),
        FileType::BlockDevice => (Kind::BlockDevice { major, minor }, Xattrs::new()),
        _ => return Err(damage(&path, "is a socket, which no layer has")),
    };
    Ok(vec![node(path, &stat, ids, xattrs, kind)?])
}

fn node(path: GuestPath, stat: &Stat, ids: IdShift, xattrs: Xattrs, kind: Kind) -> Result<Node, Damage> {
    if stat.st_mtime_nsec != 0 {
        return Err(damage(&path, "has an mtime that is no whole second"));
    }
    let entry =
        disk::entry(path.clone(), stat, ids, xattrs, kind).map_err(|why| damage(&path, why.to_string()))?;
    Ok(Node { entry, inode: disk::shared_inode(stat), kept: true })
}
