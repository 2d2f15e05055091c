//! The walk of a commit: visits what overlayfs left in an upper directory, in parallel and each thing once,
//! takes overlayfs's notes away and tells what is new.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;

use rustix::fs::{AtFlags, FileType, OFlags, Stat, Timestamps};
use rustix::io::Errno;

use super::below::Below;
use super::canonical::Node;
use super::disk;
use super::owners::{self, Owner, Recorded};
use super::traverse::{Dir, Name, Visitor, traverse};
use super::{Entry, IdShift, Kind, Xattrs};
use crate::error::{Error, Result};
use crate::path::GuestPath;

/// What a walk needs to know.
pub(super) struct Walk<'a> {
    /// The time that everything gets.
    pub times: Timestamps,
    /// The sandbox's ids.
    pub ids: IdShift,
    /// Where the lower layers begin.
    pub root: Below<'a>,
    /// Owners that stand nowhere else.
    pub recorded: Recorded,
    /// Set to make the walk an error soon.
    pub stop: &'a AtomicBool,
}

/// What is known of an upper directory.
pub(super) struct Place<'a> {
    below: Below<'a>,
    /// True in and below an opaque directory: what lower layers have does not show through.
    hidden: bool,
    /// In recorded mode: the group of what was made here, if the directory hands its own down.
    group: Option<u32>,
}

impl<'a> Visitor for Walk<'a> {
    type Context = Place<'a>;
    type Item = Result<Node>;

    fn descend(&self, dir: &Dir<Place<'a>>, path: &GuestPath) -> Place<'a> {
        let Place { below, hidden, group } = &dir.context;
        Place { below: below.child(path), hidden: *hidden, group: *group }
    }

    fn directory(
        &self,
        dir: &mut Dir<Place<'a>>,
        names: &[Name],
        items: &mut Vec<Result<Node>>,
    ) -> io::Result<()> {
        let (stat, attributes) = disk::look_at(&dir.fd, self.ids)?;
        strip(dir.fd.as_fd(), &attributes.foreign)?;
        let owner = self.owner(&stat, attributes.owner, dir.context.group)?;
        if self.ids.recorded {
            self.keep(dir.fd.as_fd(), attributes.owner, owner)?;
            dir.context.group = owners::inherited(stat.st_mode, owner);
        }
        let kind = Kind::Dir { opaque: false };
        let entry = disk::entry(dir.path.clone(), &stat, owner, attributes.kept, kind);
        items.push(Ok(self.node(entry, None, &dir.context.below)));
        dir.context.hidden |= attributes.opaque;
        if dir.context.hidden {
            self.make_hidden_explicit(dir, names, items)?;
        }
        Ok(())
    }

    fn other(
        &self,
        dir: &Dir<Place<'a>>,
        name: &CStr,
        path: &GuestPath,
        kind: FileType,
        items: &mut Vec<Result<Node>>,
    ) -> io::Result<()> {
        let fd = dir.fd.as_fd();
        let below = dir.context.below.child(path);
        let path = path.clone();
        match kind {
            FileType::RegularFile | FileType::Fifo => {
                items.extend(self.file(dir, name, path, kind, &below)?.map(Ok));
            }
            FileType::Symlink => items.push(Ok(self.symlink(dir, name, path, &below)?)),
            FileType::CharacterDevice if disk::is_whiteout(&disk::stat(fd, name)?) => {
                items.extend(self.whiteout(fd, name, path, &below)?.map(Ok));
            }
            // A socket means something only while its process lives; what it took the place of stays gone.
            FileType::Socket => items.extend(self.replace_by_whiteout(fd, name, path, &below)?.map(Ok)),
            _ => items
                .push(Err(Error::machine(format!("`{path}` is a device: a step's layer cannot have one"))
                    .hint("let the step remove it again; devices come with an imported base"))),
        }
        Ok(())
    }

    fn failed(&self, path: &GuestPath, why: io::Error) -> Result<Node> {
        Err(failed("read", path, why))
    }
}

impl<'a> Walk<'a> {
    /// All nodes of an upper directory, in no order. Afterwards whiteouts of nothing and sockets are gone from
    /// disk, opaque directories have whiteouts of what they hid instead, and all but the directories have
    /// their time.
    pub fn nodes(&self, upper: OwnedFd) -> Result<Vec<Node>> {
        let place = Place { below: self.root.clone(), hidden: false, group: None };
        traverse(self, upper, place).into_iter().collect()
    }

    /// A file or fifo; none when it stands for a whiteout of nothing.
    fn file(
        &self,
        parent: &Dir<Place>,
        name: &CStr,
        path: GuestPath,
        kind: FileType,
        below: &Below,
    ) -> io::Result<Option<Node>> {
        let dir = parent.fd.as_fd();
        let file = disk::open(dir, name, OFlags::empty())?;
        let (stat, attributes) = disk::look_at(&file, self.ids)?;
        if attributes.whiteout && stat.st_size == 0 {
            return self.replace_by_whiteout(dir, name, path, below);
        }
        strip(file.as_fd(), &attributes.foreign)?;
        let owner = self.owner(&stat, attributes.owner, parent.context.group)?;
        if self.ids.recorded && kind != FileType::Fifo {
            self.keep(file.as_fd(), attributes.owner, owner)?;
        }
        let kind = match kind {
            FileType::Fifo => Kind::Fifo,
            _ => disk::file_kind(file.as_fd(), &stat, self.stop)?,
        };
        rustix::fs::futimens(&file, &self.times)?;
        let entry = disk::entry(path, &stat, owner, attributes.kept, kind);
        Ok(Some(self.node(entry, disk::shared_inode(&stat), below)))
    }

    fn symlink(&self, parent: &Dir<Place>, name: &CStr, path: GuestPath, below: &Below) -> io::Result<Node> {
        let dir = parent.fd.as_fd();
        let stat = disk::stat(dir, name)?;
        let kind = disk::symlink_kind(dir, name)?;
        rustix::fs::utimensat(dir, name, &self.times, AtFlags::SYMLINK_NOFOLLOW)?;
        let owner = self.owner(&stat, None, parent.context.group)?;
        let entry = disk::entry(path, &stat, owner, Xattrs::new(), kind);
        Ok(self.node(entry, disk::shared_inode(&stat), below))
    }

    /// Who owns what has this attribute and is in a directory that hands down this group.
    fn owner(&self, stat: &Stat, attribute: Option<Owner>, group: Option<u32>) -> io::Result<Owner> {
        let known = attribute.or_else(|| self.recorded.get(stat));
        let owner = owners::of(stat, known, self.ids)?;
        Ok(if known.is_none() { (owner.0, group.unwrap_or(owner.1)) } else { owner })
    }

    /// Writes down an owner that followed from something else: in the layer every object speaks for itself.
    fn keep(&self, file: BorrowedFd, attribute: Option<Owner>, owner: Owner) -> io::Result<()> {
        match attribute {
            None if owner != (0, 0) => owners::record(file, owner),
            _ => Ok(()),
        }
    }

    /// A whiteout; none, and gone, when there is nothing below that it could hide.
    fn whiteout(
        &self,
        dir: BorrowedFd,
        name: &CStr,
        path: GuestPath,
        below: &Below,
    ) -> io::Result<Option<Node>> {
        if below.node().is_some() {
            return Ok(Some(Node::whiteout(path)));
        }
        remove(dir, name)?;
        Ok(None)
    }

    /// Makes a whiteout of something that stands for one.
    fn replace_by_whiteout(
        &self,
        dir: BorrowedFd,
        name: &CStr,
        path: GuestPath,
        below: &Below,
    ) -> io::Result<Option<Node>> {
        remove(dir, name)?;
        disk::make_whiteout(dir, name.to_bytes(), self.ids)?;
        self.whiteout(dir, name, path, below)
    }

    /// Replaces what an opaque directory says in one word by a whiteout for each name that it hides.
    fn make_hidden_explicit(
        &self,
        dir: &Dir<Place>,
        names: &[Name],
        items: &mut Vec<Result<Node>>,
    ) -> io::Result<()> {
        let lower = dir.context.below.names();
        if lower.is_empty() {
            return Ok(());
        }
        let here: HashSet<&[u8]> = names.iter().map(|(name, _)| name.to_bytes()).collect();
        for name in lower.into_iter().filter(|name| !here.contains(name)) {
            disk::make_whiteout(dir.fd.as_fd(), name, self.ids)?;
            items.push(Ok(Node::whiteout(dir.path.join(name))));
        }
        Ok(())
    }

    /// A node with the layer's time, kept unless it equals what lies below.
    fn node(&self, entry: Entry, inode: Option<u64>, below: &Below) -> Node {
        let entry = Entry { mtime: self.times.last_modification.tv_sec, ..entry };
        let kept = match below.node() {
            Some(lower) => !same(&entry, lower),
            None if entry.path.is_root() => !same(&entry, &Entry::plain_root(entry.mtime)),
            None => true,
        };
        Node { entry, inode, kept }
    }
}

/// Whether a step sees no difference between the two, apart from times.
fn same(new: &Entry, lower: &Entry) -> bool {
    let kind = match (&new.kind, &lower.kind) {
        (Kind::Dir { .. }, Kind::Dir { .. }) => true,
        (new, lower) => new == lower,
    };
    kind && (new.mode, new.uid, new.gid) == (lower.mode, lower.uid, lower.gid) && new.xattrs == lower.xattrs
}

/// Takes attributes off that are not part of a layer. Those of security modules stay if they have to.
fn strip(file: BorrowedFd, names: &[CString]) -> io::Result<()> {
    for name in names {
        match rustix::fs::fremovexattr(file, name.as_c_str()) {
            Err(Errno::NODATA) => {}
            Err(error) if name.to_bytes().starts_with(b"user.") => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn remove(dir: BorrowedFd, name: &CStr) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
}

/// An error about one path of what a step wrote.
pub(super) fn failed(verb: &str, path: &GuestPath, why: io::Error) -> Error {
    Error::machine(format!("cannot {verb} `{path}` while committing a layer")).because(why)
}
