//! The walk of a commit: visits what overlayfs left in an upper directory, in parallel and each thing once,
//! takes overlayfs's notes away and tells what is new.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, OFlags, Timestamps};
use rustix::io::Errno;

use super::below::Below;
use super::canonical::Node;
use super::disk;
use super::{Entry, IdShift, Kind, Xattrs};
use crate::error::{Error, Result};
use crate::path::GuestPath;

/// What a walk needs to know.
pub(super) struct Walk {
    /// The time that everything gets.
    pub times: Timestamps,
    /// The sandbox's ids.
    pub ids: IdShift,
}

/// A directory that is to be visited.
struct Dir<'a> {
    path: GuestPath,
    below: Below<'a>,
    /// True in and below an opaque directory: what lower layers have does not show through.
    hidden: bool,
}

/// What visits found.
#[derive(Default)]
struct Visited<'a> {
    nodes: Vec<Node>,
    dirs: Vec<Dir<'a>>,
}

impl Visited<'_> {
    fn and(mut self, mut other: Self) -> Self {
        self.nodes.append(&mut other.nodes);
        self.dirs.append(&mut other.dirs);
        self
    }
}

impl Walk {
    /// All nodes of an upper directory above the lower layers at `below`, in no order. Afterwards whiteouts of
    /// nothing and sockets are gone from disk, opaque directories have whiteouts of what they hid instead, and
    /// all but the directories have their time.
    ///
    /// Goes down level by level: no stack or set of open files grows with the depth of what a step made.
    pub fn nodes(&self, upper: OwnedFd, below: Below) -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        let mut level = vec![Dir { path: GuestPath::root(), below, hidden: false }];
        while !level.is_empty() {
            let visits = level.into_par_iter().map(|dir| self.directory(upper.as_fd(), dir));
            let mut all = visits.try_reduce(Visited::default, |a, b| Ok(a.and(b)))?;
            nodes.append(&mut all.nodes);
            level = all.dirs;
        }
        Ok(nodes)
    }

    fn directory<'a>(&self, upper: BorrowedFd, mut dir: Dir<'a>) -> Result<Visited<'a>> {
        let failed = |why| failed("read the directory", &dir.path, why);
        let fd = disk::open_below(upper, &dir.path).map_err(failed)?;
        let (stat, attributes) = disk::look_at(&fd, self.ids).map_err(failed)?;
        strip(fd.as_fd(), &attributes.foreign).map_err(failed)?;
        let kind = Kind::Dir { opaque: false };
        let entry = disk::entry(dir.path.clone(), &stat, self.ids, attributes.kept, kind).map_err(failed)?;
        let names = disk::names(fd.as_fd()).map_err(failed)?;
        dir.hidden |= attributes.opaque;
        let visit = |mut visited: Visited<'a>, (name, kind): &(CString, FileType)| {
            self.child(&dir, fd.as_fd(), name, *kind, &mut visited)?;
            Ok::<_, Error>(visited)
        };
        let mut visited = match names.len() {
            0 => Visited::default(),
            _ => (names.par_iter().try_fold(Visited::default, visit))
                .try_reduce(Visited::default, |a, b| Ok(a.and(b)))?,
        };
        if dir.hidden {
            self.make_hidden_explicit(&dir, fd.as_fd(), &names, &mut visited.nodes)?;
        }
        visited.nodes.push(self.node(entry, None, &dir.below));
        Ok(visited)
    }

    fn child<'a>(
        &self,
        dir: &Dir<'a>,
        fd: BorrowedFd,
        name: &CStr,
        kind: FileType,
        visited: &mut Visited<'a>,
    ) -> Result<()> {
        let path = dir.path.join(name.to_bytes());
        let failed = |why| failed("read", &path, why);
        let kind = match kind {
            FileType::Unknown => FileType::from_raw_mode(disk::stat(fd, name).map_err(failed)?.st_mode),
            known => known,
        };
        let below = dir.below.child(&path);
        match kind {
            FileType::Directory => visited.dirs.push(Dir { path, below, hidden: dir.hidden }),
            FileType::RegularFile | FileType::Fifo => {
                visited.nodes.extend(self.file(fd, name, path.clone(), kind, &below).map_err(failed)?);
            }
            FileType::Symlink => {
                visited.nodes.push(self.symlink(fd, name, path.clone(), &below).map_err(failed)?);
            }
            FileType::CharacterDevice if disk::is_whiteout(&disk::stat(fd, name).map_err(failed)?) => {
                visited.nodes.extend(self.whiteout(fd, name, path.clone(), &below).map_err(failed)?);
            }
            // A socket means something only while its process lives; what it took the place of stays gone.
            FileType::Socket => {
                visited
                    .nodes
                    .extend(self.replace_by_whiteout(fd, name, path.clone(), &below).map_err(failed)?);
            }
            _ => {
                return Err(Error::machine(format!("`{path}` is a device: a step's layer cannot have one"))
                    .hint("let the step remove it again; devices come with an imported base"));
            }
        }
        Ok(())
    }

    /// A file or fifo; none when it stands for a whiteout of nothing.
    fn file(
        &self,
        dir: BorrowedFd,
        name: &CStr,
        path: GuestPath,
        kind: FileType,
        below: &Below,
    ) -> io::Result<Option<Node>> {
        let file = disk::open(dir, name, OFlags::empty())?;
        let (stat, attributes) = disk::look_at(&file, self.ids)?;
        if attributes.whiteout && stat.st_size == 0 {
            return self.replace_by_whiteout(dir, name, path, below);
        }
        strip(file.as_fd(), &attributes.foreign)?;
        let kind = match kind {
            FileType::Fifo => Kind::Fifo,
            _ => disk::file_kind(file.as_fd(), &stat)?,
        };
        rustix::fs::futimens(&file, &self.times)?;
        let entry = disk::entry(path, &stat, self.ids, attributes.kept, kind)?;
        Ok(Some(self.node(entry, disk::shared_inode(&stat), below)))
    }

    fn symlink(&self, dir: BorrowedFd, name: &CStr, path: GuestPath, below: &Below) -> io::Result<Node> {
        let stat = disk::stat(dir, name)?;
        let kind = disk::symlink_kind(dir, name)?;
        rustix::fs::utimensat(dir, name, &self.times, AtFlags::SYMLINK_NOFOLLOW)?;
        let entry = disk::entry(path, &stat, self.ids, Xattrs::new(), kind)?;
        Ok(self.node(entry, disk::shared_inode(&stat), below))
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
        dir: &Dir,
        fd: BorrowedFd,
        names: &[(CString, FileType)],
        nodes: &mut Vec<Node>,
    ) -> Result<()> {
        let lower = dir.below.names();
        if lower.is_empty() {
            return Ok(());
        }
        let here: HashSet<&[u8]> = names.iter().map(|(name, _)| name.to_bytes()).collect();
        for name in lower.into_iter().filter(|name| !here.contains(name)) {
            let path = dir.path.join(name);
            disk::make_whiteout(fd, name, self.ids)
                .map_err(|why| failed("make a whiteout for", &path, why))?;
            nodes.push(Node::whiteout(path));
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
