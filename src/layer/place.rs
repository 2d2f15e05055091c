//! Laying a manifest out as a tree on disk.
//!
//! Nothing is ever written outside the destination, whatever the manifest says: a parent directory is
//! reached from the destination's descriptor component by component, without following symbolic links.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, Uid, XattrFlags, chmodat, chownat, fchmod, fchown,
    fsetxattr, futimens, ioctl_ficlone, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, renameat,
    statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::entry::{Entry, Kind};
use super::manifest::Manifest;
use super::{IdShift, disk, owners, xattrs};
use crate::error::{Error, Result};
use crate::path::GuestPath;

/// Who the placed files belong to, and what else follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// For a sandbox: shifted guest ids, all mode bits, whiteouts and opaque marks as overlayfs reads them.
    Guest(IdShift),
    /// For the caller's own use: files belong to who makes them, so setuid and setgid bits, capabilities and
    /// access lists are left out, whiteouts are nothing, and devices are an error. Non-directories that are
    /// in the way are replaced.
    Caller,
}

/// How many entries one thread takes at a time.
const CHUNK: usize = 32;

/// Where the bytes of a file entry are found.
type Content<'a> = &'a (dyn Fn(&Entry) -> Result<PathBuf> + Sync);

/// Makes the tree of `manifest` in the directory `dest`, which exists (and is empty, unless for
/// [`Owners::Caller`]). `content` says where the bytes of a file entry are; they are cloned or copied, and
/// only their length is checked. Modes do not depend on the umask; times are whole seconds.
pub fn place(manifest: &Manifest, dest: &Path, owners: Owners, content: Content) -> Result<()> {
    place_from(manifest, dest, owners, content, None)
}

/// The same, but content that lies in the directory `moved`, on the file system of `dest`, is moved and not copied.
/// No two entries may have the same file of it.
pub(super) fn place_moving(
    manifest: &Manifest,
    dest: &Path,
    owners: Owners,
    content: Content,
    moved: &Path,
) -> Result<()> {
    place_from(manifest, dest, owners, content, Some(moved))
}

fn place_from(
    manifest: &Manifest,
    dest: &Path,
    owners: Owners,
    content: Content,
    moved: Option<&Path>,
) -> Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let root = openat(CWD, dest, flags, Mode::empty()).map_err(|why| Error::io("open", dest, why))?;
    let tree = Tree { root, dest, owners, content, moved };
    let (mut dirs, mut links, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for entry in manifest.entries() {
        match entry.kind {
            Kind::Dir { .. } => dirs.push(entry),
            Kind::HardLink { .. } => links.push(entry),
            _ => others.push(entry),
        }
    }
    let mut parent = Parent::of(&tree);
    for entry in dirs.iter().filter(|dir| !dir.path.is_root()) {
        tree.make_dir(parent.open(&entry.path)?, entry)?;
    }
    others.par_chunks(CHUNK).try_for_each(|chunk| {
        let mut parent = Parent::of(&tree);
        chunk.iter().try_for_each(|entry| tree.make(parent.open(&entry.path)?, entry))
    })?;
    let mut target_parent = Parent::of(&tree);
    for entry in links {
        let Kind::HardLink { target } = &entry.kind else { continue };
        let (from, to) = (target_parent.open(target)?, parent.open(&entry.path)?);
        tree.clear(to, entry)?;
        linkat(from, target.name(), to, entry.path.name(), AtFlags::empty())
            .map_err(|why| tree.failed("link", entry, why))?;
    }
    // Children before parents: what is done to a child changes the parent's time, and the parent's mode
    // may keep us out.
    dirs.iter().rev().try_for_each(|entry| tree.finish_dir(parent.open(&entry.path)?, entry))
}

struct Tree<'a> {
    root: OwnedFd,
    dest: &'a Path,
    owners: Owners,
    content: Content<'a>,
    moved: Option<&'a Path>,
}

/// The directory that was looked into last: entries come in runs with the same one.
struct Parent<'a> {
    tree: &'a Tree<'a>,
    open: Option<(GuestPath, OwnedFd)>,
}

impl<'a> Parent<'a> {
    fn of(tree: &'a Tree<'a>) -> Self {
        Parent { tree, open: None }
    }

    /// The directory that `path` is in; for the root the destination itself.
    fn open(&mut self, path: &GuestPath) -> Result<BorrowedFd<'_>> {
        let dir = path.parent().unwrap_or_default();
        if dir.is_root() {
            return Ok(self.tree.root.as_fd());
        }
        if self.open.as_ref().is_none_or(|(path, _)| *path != dir) {
            let fd = self.tree.open_dir(&dir)?;
            self.open = Some((dir, fd));
        }
        Ok(self.open.as_ref().map_or(self.tree.root.as_fd(), |(_, fd)| fd.as_fd()))
    }
}

impl Tree<'_> {
    fn failed(&self, verb: &str, entry: &Entry, why: impl Into<io::Error>) -> Error {
        Error::io(verb, &self.dest.join(entry.path.as_relative()), why)
    }

    fn open_dir(&self, path: &GuestPath) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut dir: Option<OwnedFd> = None;
        for name in path.as_bytes().split(|b| *b == b'/') {
            let from = dir.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let next = openat(from, name, flags, Mode::empty())
                .map_err(|why| Error::io("open", &self.dest.join(path.as_relative()), why))?;
            dir = Some(next);
        }
        dir.ok_or_else(|| Error::io("open", self.dest, Errno::INVAL))
    }

    /// Makes a directory, for now open to us alone.
    fn make_dir(&self, parent: BorrowedFd, entry: &Entry) -> Result<()> {
        let name = entry.path.name();
        match mkdirat(parent, name, Mode::RWXU) {
            Err(Errno::EXIST) if self.owners == Owners::Caller => {
                let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|why| self.failed("examine", entry, why))?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    return Err(self
                        .failed("make the directory", entry, Errno::EXIST)
                        .hint("something else is in the way: remove it, or choose an empty directory"));
                }
                chmodat(parent, name, Mode::RWXU, AtFlags::empty())
            }
            result => result,
        }
        .map_err(|why| self.failed("make the directory", entry, why))
    }

    /// Removes what an earlier use of the destination may have left where `entry` goes.
    fn clear(&self, parent: BorrowedFd, entry: &Entry) -> Result<()> {
        if self.owners != Owners::Caller {
            return Ok(());
        }
        match unlinkat(parent, entry.path.name(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(why) => Err(self.failed("replace", entry, why).hint("choose an empty directory")),
        }
    }

    /// Makes anything but a directory or a hard link.
    fn make(&self, parent: BorrowedFd, entry: &Entry) -> Result<()> {
        let name = entry.path.name();
        self.clear(parent, entry)?;
        match &entry.kind {
            Kind::File { size, .. } => self.make_file(parent, entry, *size),
            Kind::Symlink { target } => {
                symlinkat(&target[..], parent, name)
                    .map_err(|why| self.failed("make the link", entry, why))?;
                self.dress(parent, entry)
            }
            Kind::Fifo => self.make_node(parent, entry, FileType::Fifo, 0),
            Kind::CharDevice { major, minor } => {
                self.make_node(parent, entry, FileType::CharacterDevice, makedev(*major, *minor))
            }
            Kind::BlockDevice { major, minor } => {
                self.make_node(parent, entry, FileType::BlockDevice, makedev(*major, *minor))
            }
            // overlayfs's own form of a whiteout; owner and time of it mean nothing.
            Kind::Whiteout => match self.owners {
                Owners::Guest(ids) => disk::make_whiteout(parent, name, ids)
                    .map_err(|why| self.failed("make the whiteout", entry, why)),
                Owners::Caller => Ok(()),
            },
            Kind::Dir { .. } | Kind::HardLink { .. } => Ok(()),
        }
    }

    fn make_node(&self, parent: BorrowedFd, entry: &Entry, kind: FileType, dev: Dev) -> Result<()> {
        if kind != FileType::Fifo && self.owners == Owners::Caller {
            return Err(Error::machine(format!(
                "{} is a device, which is not put into a directory",
                entry.path
            ))
            .hint("write a tar archive instead"));
        }
        mknodat(parent, entry.path.name(), kind, Mode::empty(), dev).map_err(|why| {
            let failed = self.failed("make the device or fifo", entry, why);
            match why {
                Errno::PERM => failed.hint("only root may make devices: leave them out, or run as root"),
                _ => failed,
            }
        })?;
        self.dress(parent, entry)
    }

    fn make_file(&self, parent: BorrowedFd, entry: &Entry, size: u64) -> Result<()> {
        let source = (self.content)(entry)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from =
            openat(CWD, &source, flags, Mode::empty()).map_err(|why| Error::io("open", &source, why))?;
        let mut from = File::from(from);
        let found = from.metadata().map_err(|why| Error::io("examine", &source, why))?;
        let changed = || {
            Error::machine(format!("`{}` is not the file that its layer says it is", source.display()))
                .hint("the store is damaged: run `isolith store fsck`")
        };
        if !found.is_file() || found.len() != size {
            return Err(changed());
        }
        if self.moved.is_some_and(|moved| source.starts_with(moved)) {
            renameat(CWD, &source, parent, entry.path.name())
                .map_err(|why| self.failed("move into place", entry, why))?;
            return self.dress_open(from.as_fd(), entry);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = openat(parent, entry.path.name(), flags, Mode::RUSR | Mode::WUSR)
            .map_err(|why| self.failed("create", entry, why))?;
        let mut to = File::from(to);
        // A clone shares the blocks, where the file system can; else the kernel copies.
        if size > 0 && ioctl_ficlone(&to, &from).is_err() {
            let copied = io::copy(&mut from, &mut to).map_err(|why| self.failed("write", entry, why))?;
            if copied != size {
                return Err(changed());
            }
        }
        self.dress_open(to.as_fd(), entry)
    }

    fn finish_dir(&self, parent: BorrowedFd, entry: &Entry) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = if entry.path.is_root() { b"." } else { entry.path.name() };
        let dir =
            openat(parent, name, flags, Mode::empty()).map_err(|why| self.failed("open", entry, why))?;
        if entry.kind == (Kind::Dir { opaque: true }) && self.owners != Owners::Caller {
            fsetxattr(&dir, disk::OPAQUE, b"y", XattrFlags::empty())
                .map_err(|why| self.failed("mark as opaque", entry, why))?;
        }
        self.dress_open(dir.as_fd(), entry)
    }

    /// Owner, xattrs, mode and time, in this order: a change of owner drops capabilities and setuid bits,
    /// and a read-only mode refuses xattrs.
    fn dress_open(&self, fd: BorrowedFd, entry: &Entry) -> Result<()> {
        if let Some((uid, gid)) = self.owner(entry)? {
            fchown(fd, Some(uid), Some(gid)).map_err(|why| self.failed("change the owner of", entry, why))?;
        }
        if let Owners::Guest(ids) = self.owners
            && ids.recorded
            && (entry.uid, entry.gid) != (0, 0)
        {
            owners::record(fd, (entry.uid, entry.gid))
                .map_err(|why| self.failed("record the owner of", entry, why))?;
        }
        for (name, value) in self.xattrs(entry)? {
            fsetxattr(fd, name, &value, XattrFlags::empty()).map_err(|why| {
                let failed = self.failed("set an extended attribute of", entry, why);
                match why {
                    Errno::OPNOTSUPP => failed.hint("use a file system that has extended attributes"),
                    _ => failed,
                }
            })?;
        }
        fchmod(fd, self.mode(entry)).map_err(|why| self.failed("change the mode of", entry, why))?;
        futimens(fd, &disk::times(entry.mtime)).map_err(|why| self.failed("set the time of", entry, why))
    }

    /// The same for what cannot be opened.
    fn dress(&self, parent: BorrowedFd, entry: &Entry) -> Result<()> {
        let name = entry.path.name();
        if let Some((uid, gid)) = self.owner(entry)? {
            chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|why| self.failed("change the owner of", entry, why))?;
        }
        for (attribute, value) in self.xattrs(entry)? {
            let dir = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
            let path = dir.join(std::ffi::OsStr::from_bytes(name));
            lsetxattr(path, attribute, &value, XattrFlags::empty())
                .map_err(|why| self.failed("set an extended attribute of", entry, why))?;
        }
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            chmodat(parent, name, self.mode(entry), AtFlags::empty())
                .map_err(|why| self.failed("change the mode of", entry, why))?;
        }
        utimensat(parent, name, &disk::times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|why| self.failed("set the time of", entry, why))
    }

    fn owner(&self, entry: &Entry) -> Result<Option<(Uid, Gid)>> {
        let Owners::Guest(ids) = self.owners else { return Ok(None) };
        match (ids.to_disk(entry.uid), ids.to_disk(entry.gid)) {
            (Some(uid), Some(gid)) => Ok(Some((Uid::from_raw(uid), Gid::from_raw(gid)))),
            _ => Err(Error::machine(format!("{} belongs to {}:{}", entry.path, entry.uid, entry.gid))
                .hint(format!("a sandbox has the ids 0 to {} only", IdShift::MAX_GUEST))),
        }
    }

    fn mode(&self, entry: &Entry) -> Mode {
        match self.owners {
            Owners::Guest(_) => Mode::from_raw_mode(entry.mode.into()),
            Owners::Caller => Mode::from_raw_mode((entry.mode & 0o1777).into()),
        }
    }

    /// The extended attributes as they are written to disk.
    fn xattrs<'e>(&self, entry: &'e Entry) -> Result<Vec<(&'e [u8], Vec<u8>)>> {
        let mut out = Vec::new();
        for (name, value) in &entry.xattrs {
            match self.owners {
                Owners::Guest(ids) => {
                    let value = xattrs::to_disk(name, value, ids).ok_or_else(|| {
                        let name = name.escape_ascii();
                        Error::machine(format!(
                            "{} has an attribute `{name}` that is malformed, or names users for which there are no ids",
                            entry.path
                        ))
                        .hint("remove the attribute where the layer comes from")
                    })?;
                    out.push((&name[..], value));
                }
                Owners::Caller if name.starts_with(b"user.") => out.push((&name[..], value.clone())),
                Owners::Caller => {}
            }
        }
        Ok(out)
    }
}
