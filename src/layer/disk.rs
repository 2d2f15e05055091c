//! What a file tree on disk has at one path, read relative to the directory it is in. Symlinks are never
//! followed and nothing is looked up twice.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::owners::{self, Owner};
use super::{Entry, IdShift, Kind, Xattrs, content, xattrs};
use crate::path::GuestPath;

/// Overlayfs's note on a directory that lower layers end here (`y`), or that it has whiteouts in the form of
/// marked files (`x`).
pub(super) const OPAQUE: &str = "user.overlay.opaque";
/// Overlayfs's note on an empty file that it is a whiteout.
const WHITEOUT: &[u8] = b"user.overlay.whiteout";

/// Opens a file, fifo or directory for reading, without waiting for a fifo's other end and, where allowed,
/// without a trace in its access time.
pub(super) fn open(dir: BorrowedFd, name: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?),
        done => Ok(done?),
    }
}

/// The names in a directory, without `.` and `..`, in no order, with what they are if the file system tells.
pub(super) fn names(dir: BorrowedFd) -> io::Result<Vec<(CString, FileType)>> {
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

/// What is at `name`, itself and not what it leads to.
pub(super) fn stat(dir: BorrowedFd, name: &CStr) -> io::Result<Stat> {
    Ok(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The entry for something that has just been looked at and belongs to `owner`.
pub(super) fn entry(path: GuestPath, stat: &Stat, owner: Owner, xattrs: Xattrs, kind: Kind) -> Entry {
    let (uid, gid) = owner;
    let mode = if matches!(kind, Kind::Symlink { .. }) { 0 } else { (stat.st_mode & 0o7777) as u16 };
    Entry { path, mode, uid, gid, mtime: stat.st_mtime, xattrs, kind }
}

/// What kind of file an open one is; reads and hashes it all unless `stop` is set.
pub(super) fn file_kind(file: BorrowedFd, stat: &Stat, stop: &AtomicBool) -> io::Result<Kind> {
    let size = stat.st_size as u64;
    Ok(Kind::File { size, digest: content::digest(file, size, stop)? })
}

/// Where a symlink leads.
pub(super) fn symlink_kind(dir: BorrowedFd, name: &CStr) -> io::Result<Kind> {
    Ok(Kind::Symlink { target: rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes() })
}

/// The inode number, if something else may be a name of the same file.
pub(super) fn shared_inode(stat: &Stat) -> Option<u64> {
    (stat.st_nlink > 1).then_some(stat.st_ino)
}

/// True for a character device 0:0, overlayfs's whiteout.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// The extended attributes of an open file, sorted into what belongs to the layer and what does not.
#[derive(Default)]
pub(super) struct Attributes {
    /// Those of the layer, in the form manifests have them.
    pub kept: Xattrs,
    /// A directory where lower layers end.
    pub opaque: bool,
    /// A file that stands for a whiteout.
    pub whiteout: bool,
    /// The owner, where that is recorded.
    pub owner: Option<Owner>,
    /// Names of all that are not part of the layer.
    pub foreign: Vec<CString>,
}

/// Reads extended attributes. A file system without them has none.
pub(super) fn attributes(file: BorrowedFd, ids: IdShift) -> io::Result<Attributes> {
    let mut found = Attributes::default();
    let mut small = [0; 512];
    let mut large = Vec::new();
    let list = match rustix::fs::flistxattr(file, &mut small[..]) {
        Ok(len) => &small[..len],
        Err(Errno::NOTSUP) => return Ok(found),
        Err(Errno::RANGE) => {
            large.resize(64 * 1024, 0);
            let len = rustix::fs::flistxattr(file, &mut large[..])?;
            &large[..len]
        }
        Err(error) => return Err(error.into()),
    };
    for name in list.split_inclusive(|b| *b == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        // A capability of another namespace's root cannot be shown to us and means nothing in the sandbox.
        let value = match value(file, name) {
            Err(Errno::OVERFLOW) => Vec::new(),
            // Taken off a moment ago, by whoever looks at another name of the same file.
            Err(Errno::NODATA) => continue,
            value => value?,
        };
        if ids.recorded && name == owners::ATTRIBUTE {
            found.owner = owners::from_text(&value);
            continue;
        }
        match xattrs::from_disk(name.to_bytes(), &value, ids) {
            Some((name, value)) => {
                found.kept.insert(name, value);
            }
            None => {
                found.opaque |= name.to_bytes() == OPAQUE.as_bytes() && value == b"y";
                found.whiteout |= name.to_bytes() == WHITEOUT;
                found.foreign.push(name.to_owned());
            }
        }
    }
    Ok(found)
}

fn value(file: BorrowedFd, name: &CStr) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 256];
    match rustix::fs::fgetxattr(file, name, &mut small[..]) {
        Ok(len) => Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; 64 * 1024];
            let len = rustix::fs::fgetxattr(file, name, &mut large[..])?;
            large.truncate(len);
            Ok(large)
        }
        Err(error) => Err(error),
    }
}

/// Access and modification time both at `seconds` since 1970.
pub(super) fn times(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// True for the times that every file system keeps as they are; others may be moved to the nearest one.
pub(super) fn is_plain_time(seconds: i64) -> bool {
    (0..1 << 31).contains(&seconds)
}

/// The error about a time that came out as another one.
pub(super) fn wrong_time(seconds: i64) -> io::Error {
    io::Error::other(format!("this file system has no time {seconds} (seconds since 1970)"))
}

/// Makes a whiteout, owned like everything the sandbox's root makes.
pub(super) fn make_whiteout(dir: BorrowedFd, name: &[u8], ids: IdShift) -> io::Result<()> {
    rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)?;
    owners::give_at(dir, name, (0, 0), ids)
}

/// Gives an open file the owner, attributes, mode and time of an entry. The owner comes first, because a
/// change of it takes setuid bits and capabilities away.
pub(super) fn dress(file: BorrowedFd, entry: &Entry, ids: IdShift) -> io::Result<()> {
    owners::give(file, entry, ids)?;
    for (name, value) in &entry.xattrs {
        let value = xattrs::to_disk(name, value, ids).ok_or_else(|| {
            let why = "the attribute names users or groups, for which this user has no ids";
            io::Error::other(format!("{}: {why}", name.escape_ascii()))
        })?;
        rustix::fs::fsetxattr(file, &name[..], &value, XattrFlags::empty())?;
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(u32::from(entry.mode)))?;
    rustix::fs::futimens(file, &times(entry.mtime))?;
    if !is_plain_time(entry.mtime) && rustix::fs::fstat(file)?.st_mtime != entry.mtime {
        return Err(wrong_time(entry.mtime));
    }
    Ok(())
}

/// Opens the directory at `path` on the host.
pub(super) fn open_root(path: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The root directory's own attributes and stat.
pub(super) fn look_at(dir: &OwnedFd, ids: IdShift) -> io::Result<(Stat, Attributes)> {
    Ok((rustix::fs::fstat(dir)?, attributes(dir.as_fd(), ids)?))
}
