//! Verify: does a file tree on disk still say what its manifest says?

use std::cmp::Ordering;
use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, OFlags, Stat};

use super::canonical::{self, Node};
use super::content::NEVER;
use super::disk;
use super::owners::{self, Owner};
use super::traverse::{Dir, Name, Visitor, traverse};
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
    let failed = |why: io::Error| damage(&path, format!("cannot be read: {why}"));
    let root = disk::open_root(fs).map_err(failed)?;
    if manifest.is_empty() {
        let names = disk::names(root.as_fd()).map_err(failed)?;
        let extra = names.iter().map(|(name, _)| path.join(name.to_bytes())).min();
        return extra.map_or(Ok(()), |extra| Err(damage(&extra, "is not part of the layer")));
    }
    let (mut nodes, mut damages) = (Vec::new(), Vec::new());
    for seen in traverse(&Look { ids }, root, ()) {
        match seen {
            Ok(node) => nodes.push(node),
            Err(damage) => damages.push(damage),
        }
    }
    nodes.sort_unstable_by(|a, b| a.entry.path.cmp(&b.entry.path));
    if ids.recorded {
        // Nothing on disk says who owns these.
        for Node { entry, .. } in nodes.iter_mut().filter(|node| !owners::carries(&node.entry.kind)) {
            if let Some(wanted) = manifest.get(&entry.path).map(|wanted| manifest.node(wanted)) {
                (entry.uid, entry.gid) = (wanted.uid, wanted.gid);
            }
        }
    }
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
        ("is a", wanted.kind.word().to_string(), found.kind.word().to_string()),
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

/// What is at one path; an error when it cannot be in a layer.
type Seen = Result<Node, Damage>;

struct Look {
    ids: IdShift,
}

impl Visitor for Look {
    type Context = ();
    type Item = Seen;

    fn descend(&self, _: &Dir<()>, _: &GuestPath) {}

    fn directory(&self, dir: &mut Dir<()>, _: &[Name], items: &mut Vec<Seen>) -> io::Result<()> {
        let (stat, attributes) = disk::look_at(&dir.fd, self.ids)?;
        let kind = Kind::Dir { opaque: attributes.opaque };
        let owner = owners::of(&stat, attributes.owner, self.ids);
        items.extend(node(dir.path.clone(), &stat, owner, attributes.kept, kind));
        Ok(())
    }

    fn other(
        &self,
        dir: &Dir<()>,
        name: &CStr,
        path: &GuestPath,
        kind: FileType,
        items: &mut Vec<Seen>,
    ) -> io::Result<()> {
        let fd = dir.fd.as_fd();
        let mut owner = None;
        let (stat, kind, xattrs) = match kind {
            FileType::RegularFile | FileType::Fifo => {
                let file = disk::open(fd, name, OFlags::empty())?;
                let (stat, attributes) = disk::look_at(&file, self.ids)?;
                owner = attributes.owner;
                let kind = match kind {
                    FileType::Fifo => Kind::Fifo,
                    _ => disk::file_kind(file.as_fd(), &stat, &NEVER)?,
                };
                (stat, kind, attributes.kept)
            }
            FileType::Symlink => (disk::stat(fd, name)?, disk::symlink_kind(fd, name)?, Xattrs::new()),
            FileType::CharacterDevice | FileType::BlockDevice => {
                let stat = disk::stat(fd, name)?;
                let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                let kind = match kind {
                    _ if disk::is_whiteout(&stat) => {
                        items.push(Ok(Node::whiteout(path.clone())));
                        return Ok(());
                    }
                    FileType::BlockDevice => Kind::BlockDevice { major, minor },
                    _ => Kind::CharDevice { major, minor },
                };
                (stat, kind, Xattrs::new())
            }
            _ => {
                items.push(Err(damage(path, "is a socket, which no layer has")));
                return Ok(());
            }
        };
        items.extend(node(path.clone(), &stat, owners::of(&stat, owner, self.ids), xattrs, kind));
        Ok(())
    }

    fn failed(&self, path: &GuestPath, why: io::Error) -> Seen {
        unreadable(path, why)
    }
}

fn node(
    path: GuestPath,
    stat: &Stat,
    owner: io::Result<Owner>,
    xattrs: Xattrs,
    kind: Kind,
) -> impl Iterator<Item = Seen> + use<> {
    let uneven =
        (stat.st_mtime_nsec != 0).then(|| Err(damage(&path, "has an mtime that is no whole second")));
    let seen = match owner {
        Ok(owner) => {
            let entry = disk::entry(path.clone(), stat, owner, xattrs, kind);
            Ok(Node { entry, inode: disk::shared_inode(stat), kept: true })
        }
        Err(why) => unreadable(&path, why),
    };
    [seen].into_iter().chain(uneven)
}

fn unreadable(path: &GuestPath, why: io::Error) -> Seen {
    Err(damage(path, format!("cannot be read: {why}")))
}
