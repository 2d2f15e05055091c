//! Removing trees that sandboxes wrote: any modes, any depth, any names.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, chmodat, fchmod, openat, openat2, renameat, unlinkat,
};
use rustix::io::Errno;

use super::io;
use crate::error::{Error, Result};

/// Depth below which directories are first moved up, so that open descriptors stay few.
const DEPTH: usize = 64;

/// Removes a file or a whole tree; nothing there is fine. Symlinks are removed, never followed; a mount in
/// the tree is an error and stays. Directories that forbid it (mode 000, 0500) are opened up first, which
/// only their owner can do, or a process that has the ids of the sandboxes.
pub fn remove_tree(path: &Path) -> Result<()> {
    remove(path).map_err(|errno| match errno {
        Errno::XDEV | Errno::BUSY => Error::io("remove", path, errno).hint("something is mounted there: unmount it first"),
        Errno::ACCESS | Errno::PERM => Error::io("remove", path, errno)
            .hint("files there belong to ids of sandboxes: `isolith store clear` can remove them, see `isolith doctor`"),
        _ => io::failed("remove", path, errno),
    })
}

fn remove(path: &Path) -> rustix::io::Result<()> {
    match unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match openat(CWD, path, flags, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ACCESS) => {
            chmodat(CWD, path, Mode::RWXU, AtFlags::empty())?;
            openat(CWD, path, flags, Mode::empty())?
        }
        Err(e) => return Err(e),
    };
    let mut moved = 0;
    loop {
        let before = moved;
        empty(&top, top.as_fd(), 0, &mut moved)?;
        if moved == before {
            break;
        }
    }
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// Removes everything in `dir`, which is `depth` levels below `top`. Deeper levels are moved to `top`,
/// counted in `moved`.
fn empty(dir: &OwnedFd, top: BorrowedFd<'_>, depth: usize, moved: &mut usize) -> rustix::io::Result<()> {
    let mut opened_up = false;
    for name in list(dir)? {
        let mut gone = unlinkat(dir, &name, AtFlags::empty());
        if matches!(gone, Err(Errno::ACCESS)) && !opened_up {
            opened_up = true;
            fchmod(dir, Mode::RWXU)?;
            gone = unlinkat(dir, &name, AtFlags::empty());
        }
        match gone {
            Ok(()) | Err(Errno::NOENT) => continue,
            // EPERM is what some file systems say of a directory.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(e) => return Err(e),
        }
        if depth >= DEPTH {
            *moved += 1;
            let up = format!(".isolith-deep-{moved}");
            renameat(dir, &name, top, up.as_str())?;
            continue;
        }
        let Some(child) = open_child(dir, &name)? else { continue };
        empty(&child, top, depth + 1, moved)?;
        drop(child);
        let mut gone = unlinkat(dir, &name, AtFlags::REMOVEDIR);
        if matches!(gone, Err(Errno::ACCESS)) && !opened_up {
            opened_up = true;
            fchmod(dir, Mode::RWXU)?;
            gone = unlinkat(dir, &name, AtFlags::REMOVEDIR);
        }
        match gone {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn list(dir: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes() != b"." && name.to_bytes() != b".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Opens a directory inside `dir`, on the same mount; none when it is gone.
fn open_child(dir: &OwnedFd, name: &CString) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let open = || openat2(dir, name.as_c_str(), flags, Mode::empty(), within);
    match open() {
        Ok(child) => Ok(Some(child)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::ACCESS) => {
            chmodat(dir, name.as_c_str(), Mode::RWXU, AtFlags::empty())?;
            open().map(Some)
        }
        Err(e) => Err(e),
    }
}
