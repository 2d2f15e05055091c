//! The owners that a step has set and sees: in an attribute where the object can have one, else in memory.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::callee::Here;
use crate::layer::StackOwners;
use crate::layer::owners::{self, Owner};

/// An owner in memory. The open descriptor keeps the object's numbers from being given to another one.
struct Kept {
    object: OwnedFd,
    owner: Owner,
}

/// What a short look finds.
pub(super) enum Look {
    /// The owner is what the kernel says.
    Nothing,
    /// It is this one.
    Owner(Owner),
    /// That takes a closer look.
    Unsure,
}

/// All owners but 0:0.
pub(super) struct Records {
    /// Whether there is any.
    any: bool,
    /// By device and inode number.
    kept: HashMap<(u64, u64), Kept>,
    /// Absolute paths of directories that hand their group down. Perhaps more than that, never less.
    shared: HashSet<Vec<u8>>,
    /// Every `chmod` is seen. Otherwise a directory can have ceased to hand its group down at any time.
    pub(super) closely: bool,
    /// Something may have capabilities of its own.
    pub(super) capable: bool,
    /// That has happened to one, and what was made in it before and after cannot be told apart.
    wrong: Cell<bool>,
}

impl Records {
    /// What the stack has. The root is the sandbox's.
    pub(super) fn of(stack: &StackOwners, closely: bool) -> Records {
        let absolute = |path: &[u8]| [b"/", path].concat();
        let mut records = Records {
            any: stack.any,
            kept: HashMap::new(),
            shared: stack.shared.iter().map(|path| absolute(path)).collect(),
            closely,
            // What a failed step left is in no manifest.
            capable: stack.capable || closely,
            wrong: Cell::new(false),
        };
        for (path, owner) in &stack.bare {
            // What a mount covers cannot be seen.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(object) = rustix::fs::open(absolute(path), flags, Mode::empty()) {
                let _ = records.keep(object.as_fd(), *owner);
            }
        }
        records
    }

    /// True when nothing has another owner than 0:0.
    pub(super) fn is_empty(&self) -> bool {
        !self.any
    }

    /// True when no directory hands a group down.
    pub(super) fn none_shared(&self) -> bool {
        self.shared.is_empty()
    }

    /// The owner that stands beside the object itself.
    pub(super) fn own(&self, object: BorrowedFd<'_>) -> Option<Owner> {
        attribute(object).or_else(|| {
            if self.kept.is_empty() {
                return None;
            }
            Some(self.kept.get(&key(&rustix::fs::fstat(object).ok()?))?.owner)
        })
    }

    /// The owner of an object, if that is another one than the kernel says: its own, or the group of the
    /// directory it was made in.
    pub(super) fn owner(&self, object: BorrowedFd<'_>) -> Option<Owner> {
        self.own(object).or_else(|| {
            if self.shared.is_empty() {
                return None;
            }
            Some((0, self.handed_down(&path_of(object)?)?))
        })
    }

    /// The short way to an owner, without opening the object.
    pub(super) fn look(&self, here: &Here) -> Look {
        let mut buf = [0; 16];
        let found = match here.follow {
            true => rustix::fs::getxattr(&here.path, owners::ATTRIBUTE, &mut buf[..]),
            false => rustix::fs::lgetxattr(&here.path, owners::ATTRIBUTE, &mut buf[..]),
        };
        match found {
            Ok(len) => return owners::from_text(&buf[..len]).map_or(Look::Nothing, Look::Owner),
            // What is not there has no owner.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Look::Nothing,
            Err(_) => {}
        }
        if !self.kept.is_empty()
            && let Ok(stat) = here.stat()
            && let Some(kept) = self.kept.get(&key(&stat))
        {
            return Look::Owner(kept.owner);
        }
        match self.shared.is_empty() || self.closely && self.is_in_plain_directory(here) {
            true => Look::Nothing,
            false => Look::Unsure,
        }
    }

    /// True if what is there is certainly in a directory without the setgid bit.
    pub(super) fn is_in_plain_directory(&self, here: &Here) -> bool {
        let is_link = |stat: &Stat| stat.st_mode & libc::S_IFMT == libc::S_IFLNK;
        if here.follow
            && !rustix::fs::statat(CWD, &here.path, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| !is_link(&stat))
        {
            return false; // In the directory of what it leads to.
        }
        let Some(parent) = here.parent() else { return false };
        rustix::fs::statat(CWD, &parent, AtFlags::empty()).is_ok_and(|stat| !hands_down(&stat))
    }

    /// The group that what is at `path` got from its directory.
    fn handed_down(&self, path: &[u8]) -> Option<u32> {
        if !self.is_below_shared(path) {
            return None;
        }
        let parent = parent(path)?;
        let dir = rustix::fs::open(parent, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        if !hands_down(&rustix::fs::fstat(&dir).ok()?) {
            self.check(dir.as_fd());
            return None;
        }
        match self.own(dir.as_fd()) {
            Some((_, gid)) => Some(gid).filter(|gid| *gid != 0),
            None => self.handed_down(parent),
        }
    }

    /// Notes when a directory has ceased to hand its group down unseen. Whoever makes use of what a directory
    /// does now, or moves it out of sight, asks for this first.
    pub(super) fn check(&self, dir: BorrowedFd<'_>) {
        if !self.closely
            && !self.shared.is_empty()
            && path_of(dir).is_none_or(|path| self.has_ceased(dir, &path))
        {
            self.wrong.set(true);
        }
    }

    fn has_ceased(&self, dir: BorrowedFd<'_>, path: &[u8]) -> bool {
        if rustix::fs::fstat(dir).is_ok_and(|stat| hands_down(&stat)) {
            return false;
        }
        // A shared one has a record. So has what was moved below one, or was there before it handed its group
        // down; what was made there since then has got the setgid bit.
        match self.own(dir) {
            Some((_, gid)) => return gid != 0 && self.shared.contains(path),
            None if !self.is_below_shared(path) => return false,
            None => {}
        }
        let Some(above) = parent(path) else { return false };
        let Ok(dir) = rustix::fs::open(above, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else {
            return true;
        };
        rustix::fs::fstat(&dir).is_ok_and(|stat| hands_down(&stat)) || self.has_ceased(dir.as_fd(), above)
    }

    /// [`Records::check`] for every directory there is, when the step has ended.
    pub(super) fn check_all(&self) {
        if self.closely {
            return;
        }
        let mut left: Vec<Vec<u8>> = self.shared.iter().cloned().collect();
        while let Some(path) = left.pop().filter(|_| !self.wrong.get()) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = match rustix::fs::open(&path[..], flags, Mode::empty()) {
                Ok(dir) => dir,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(_) => return self.wrong.set(true), // Such as a path that is too long.
            };
            self.check(dir.as_fd());
            for entry in rustix::fs::Dir::read_from(&dir).into_iter().flatten().flatten() {
                let name = entry.file_name().to_bytes();
                if entry.file_type() == FileType::Directory && !matches!(name, b"." | b"..") {
                    left.push([&path, &b"/"[..], name].concat());
                }
            }
        }
    }

    /// True when the step has to be run again, closely watched.
    pub(super) fn are_wrong(&self) -> bool {
        self.wrong.get()
    }

    /// Whether a directory above `path` may hand a group down.
    pub(super) fn is_below_shared(&self, path: &[u8]) -> bool {
        let mut at = path;
        while let Some(above) = parent(at) {
            if self.shared.contains(above) {
                return true;
            }
            at = above;
        }
        false
    }

    /// Whether the attribute alone makes of this what the kernel's `chown` would: that has nothing to take away.
    pub(super) fn suffice(&self, stat: &Stat) -> bool {
        let bits = libc::S_IFMT | libc::S_ISUID | libc::S_ISGID;
        stat.st_mode & bits == libc::S_IFREG && !self.capable
    }

    /// Records an owner in the object's attribute.
    pub(super) fn write(&mut self, object: BorrowedFd<'_>, owner: Owner) -> Result<(), Errno> {
        // Linux 6.13's `setxattrat` does not take descriptors that only name a file, either.
        let text = owners::to_text(owner);
        rustix::fs::setxattr(link(object), owners::ATTRIBUTE, text.as_bytes(), XattrFlags::empty())?;
        self.any = true;
        Ok(())
    }

    /// Records an owner.
    pub(super) fn set(&mut self, object: BorrowedFd<'_>, owner: Owner) -> Result<(), Errno> {
        match self.write(object, owner) {
            // Symlinks, fifos, sockets; file systems without attributes.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS) => self.keep(object, owner),
            written => written,
        }
    }

    fn keep(&mut self, object: BorrowedFd<'_>, owner: Owner) -> Result<(), Errno> {
        let key = key(&rustix::fs::fstat(object)?);
        if let Some(kept) = self.kept.get_mut(&key) {
            kept.owner = owner;
        } else {
            let object = rustix::io::fcntl_dupfd_cloexec(object, 0)?;
            self.kept.insert(key, Kept { object, owner });
        }
        self.any = true;
        Ok(())
    }

    /// Writes down the owner of everything in a directory whose group is about to be another one, or to be
    /// handed down.
    pub(super) fn settle(&mut self, dir: BorrowedFd<'_>) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listed = rustix::fs::open(link(dir), flags, Mode::empty())?;
        for entry in rustix::fs::Dir::read_from(&listed)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let child = rustix::fs::openat(&listed, name, flags, Mode::empty())?;
            self.settle_one(child.as_fd())?;
        }
        Ok(())
    }

    /// Writes down the owner of one object, where it only follows from the place that it is at.
    pub(super) fn settle_one(&mut self, object: BorrowedFd<'_>) -> Result<(), Errno> {
        match self.own(object) {
            Some(_) => Ok(()),
            None => self.set(object, self.owner(object).unwrap_or((0, 0))),
        }
    }

    /// Notes that a directory may hand its group down from now on. It has a record of its own then.
    pub(super) fn share(&mut self, dir: BorrowedFd<'_>) -> Result<(), Errno> {
        self.settle_one(dir)?;
        self.shared.extend(path_of(dir));
        Ok(())
    }

    /// Notes that a directory, which is checked and has no setgid bit, does not hand its group down: another one did
    /// that was at this place.
    pub(super) fn unshare(&mut self, dir: BorrowedFd<'_>) {
        if let Some(path) = path_of(dir).filter(|_| !self.closely) {
            self.shared.remove(&path);
        }
    }

    /// The same of one that is about to be at `path`.
    pub(super) fn share_at(&mut self, path: Vec<u8>) {
        self.shared.insert(path);
    }

    /// Notes that a directory is about to move.
    pub(super) fn moves(&mut self, from: &[u8], to: &[u8]) {
        let below = |path: &Vec<u8>| {
            let rest = path.strip_prefix(from)?;
            (rest.is_empty() || rest[0] == b'/').then(|| [to, rest].concat())
        };
        let moved: Vec<_> = self.shared.iter().filter_map(below).collect();
        self.shared.extend(moved);
    }

    /// What is in memory and still has a name, as a list for the commit.
    pub(super) fn list(&self) -> Vec<u8> {
        let named = self.kept.values().filter_map(|kept| {
            let stat = rustix::fs::fstat(&kept.object).ok()?;
            let path = path_of(kept.object.as_fd()).filter(|_| stat.st_nlink > 0)?;
            Some((path, kept.owner))
        });
        let mut named: Vec<_> = named.collect();
        named.sort();
        owners::encode_list(named.iter().map(|(path, owner)| (&path[1..], *owner)))
    }
}

/// Whether what is made in a directory gets its group.
pub(super) fn hands_down(stat: &Stat) -> bool {
    is_dir(stat) && stat.st_mode & libc::S_ISGID != 0
}

pub(super) fn is_dir(stat: &Stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFDIR
}

/// A path that leads to an open object, even if that is a symlink. The working directory is [`LINKS`], which saves
/// a quarter of the look-up.
pub(super) fn link(object: BorrowedFd<'_>) -> CString {
    CString::new(object.as_raw_fd().to_string()).unwrap_or_default()
}

/// The directory of links to what this process has open.
pub(super) const LINKS: &CStr = c"/proc/self/fd";

/// Where an object is, from the root.
pub(super) fn path_of(object: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let path = rustix::fs::readlink(link(object), Vec::new()).ok()?.into_bytes();
    path.starts_with(b"/").then_some(path)
}

/// The attribute of an object.
fn attribute(object: BorrowedFd<'_>) -> Option<Owner> {
    let mut buf = [0; 16];
    let len = rustix::fs::getxattr(link(object), owners::ATTRIBUTE, &mut buf[..]).ok()?;
    owners::from_text(&buf[..len])
}

fn parent(path: &[u8]) -> Option<&[u8]> {
    match path.iter().rposition(|b| *b == b'/')? {
        0 if path.len() > 1 => Some(b"/"),
        0 => None,
        slash => Some(&path[..slash]),
    }
}

/// What tells an object from all others while it is there.
pub(super) fn key(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
