//! Verify: does a file tree on disk still say what its manifest says?

use std::cmp::Ordering;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
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
    let failed = |why: io::Error| damage(&GuestPath::root(), format!("cannot be read: {why}"));
    let root = disk::open_root(fs).map_err(failed)?;
    if manifest.is_empty() {
        let names = disk::names(root.as_fd()).map_err(failed)?;
        let extra = names.iter().map(|(name, _)| path.join(name.to_bytes())).min();
        return extra.map_or(Ok(()), |extra| Err(damage(&extra, "is not part of the layer")));
    }
    let (mut nodes, mut damages) = (Vec::new(), Vec::new());
    // Level by level: no stack or set of open files grows with the depth.
    let mut level = vec![path];
    while !level.is_empty() {
        let seen: Vec<Seen> = level.par_iter().flat_map(|path| directory(root.as_fd(), path, ids)).collect();
        level.clear();
        for seen in seen {
            match seen {
                Seen::Node(node) => nodes.push(node),
                Seen::Dir(path) => level.push(path),
                Seen::Bad(damage) => damages.push(damage),
            }
        }
    }
    nodes.sort_unstable_by(|a, b| a.entry.path.cmp(&b.entry.path));
    let difference = compare(manifest.entries(), &canonical::entries(nodes));
    // Of what cannot be looked at, why says more than that it is missing.
    let first = difference.into_iter().chain(damages).min_by_key(|it| (it.path.clone(), it.what == MISSING));
    first.map_or(Ok(()), Err)
}

/// The first difference between what should be there and what is, both sorted.
fn compare(wanted: &[Entry], found: &[Entry]) -> Option<Damage> {
    let mut found = found.iter().peekable();
    for wanted in wanted {
        match found.peek().map(|entry| entry.path.cmp(&wanted.path)) {
            None | Some(Ordering::Greater) => return Some(damage(&wanted.path, MISSING)),
            Some(Ordering::Less) => break,
            Some(Ordering::Equal) => {}
        }
        if let Some(what) = found.next().and_then(|entry| difference(wanted, entry)) {
            return Some(damage(&wanted.path, what));
        }
    }
    found.next().map(|extra| damage(&extra.path, "is not part of the layer"))
}

const MISSING: &str = "is missing";

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

/// Something on the way through a tree.
enum Seen {
    /// What is at a path.
    Node(Node),
    /// A directory that is to be looked at.
    Dir(GuestPath),
    /// What cannot be in a layer.
    Bad(Damage),
}

/// A directory and what is in it, in no order.
fn directory(root: BorrowedFd, path: &GuestPath, ids: IdShift) -> Vec<Seen> {
    let looked = disk::open_below(root, path).and_then(|dir| {
        let looked = disk::look_at(&dir, ids)?;
        let names = disk::names(dir.as_fd())?;
        Ok((dir, looked, names))
    });
    let (dir, (stat, attributes), names) = match looked {
        Ok(looked) => looked,
        Err(why) => return vec![unreadable(path, why)],
    };
    let inside = names.par_iter().flat_map_iter(|(name, _)| {
        let path = path.join(name.to_bytes());
        child(dir.as_fd(), name, &path, ids).unwrap_or_else(|why| vec![unreadable(&path, why)])
    });
    let mut seen: Vec<Seen> = inside.collect();
    seen.extend(node(path.clone(), &stat, ids, attributes.kept, Kind::Dir { opaque: attributes.opaque }));
    seen
}

fn child(dir: BorrowedFd, name: &CStr, path: &GuestPath, ids: IdShift) -> io::Result<Vec<Seen>> {
    let stat = disk::stat(dir, name)?;
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let (kind, xattrs) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return Ok(vec![Seen::Dir(path.clone())]),
        kind @ (FileType::RegularFile | FileType::Fifo) => {
            let file = disk::open(dir, name, OFlags::empty())?;
            let attributes = disk::attributes(file.as_fd(), ids)?;
            let kind = match kind {
                FileType::Fifo => Kind::Fifo,
                _ => disk::file_kind(file.as_fd(), &stat)?,
            };
            (kind, attributes.kept)
        }
        FileType::Symlink => (disk::symlink_kind(dir, name)?, Xattrs::new()),
        FileType::CharacterDevice if disk::is_whiteout(&stat) => {
            return Ok(vec![Seen::Node(Node::whiteout(path.clone()))]);
        }
        FileType::CharacterDevice => (Kind::CharDevice { major, minor }, Xattrs::new()),
        FileType::BlockDevice => (Kind::BlockDevice { major, minor }, Xattrs::new()),
        _ => return Ok(vec![Seen::Bad(damage(path, "is a socket, which no layer has"))]),
    };
    Ok(node(path.clone(), &stat, ids, xattrs, kind).collect())
}

fn node(
    path: GuestPath,
    stat: &Stat,
    ids: IdShift,
    xattrs: Xattrs,
    kind: Kind,
) -> impl Iterator<Item = Seen> + use<> {
    let uneven =
        (stat.st_mtime_nsec != 0).then(|| Seen::Bad(damage(&path, "has an mtime that is no whole second")));
    let seen = match disk::entry(path.clone(), stat, ids, xattrs, kind) {
        Ok(entry) => Seen::Node(Node { entry, inode: disk::shared_inode(stat), kept: true }),
        Err(why) => unreadable(&path, why),
    };
    [seen].into_iter().chain(uneven)
}

fn unreadable(path: &GuestPath, why: io::Error) -> Seen {
    Seen::Bad(damage(path, format!("cannot be read: {why}")))
}
