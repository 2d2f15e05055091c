//! What a system call is about: a path or descriptor of another process, opened here without using it.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::Asked;
use super::records::{LINKS, link};
use crate::sys::notify;

/// The longest path the kernel takes, with its NUL.
const PATH_MAX: usize = 4096;

/// How a call names an object.
#[derive(Clone, Copy)]
pub(super) enum Named {
    /// By descriptor.
    Fd(i32),
    /// By a path.
    Path {
        /// The directory it is relative to.
        dir: i32,
        /// Where it is in memory.
        at: u64,
        /// Whether a symlink there is followed.
        follow: bool,
        /// Whether the empty path is `dir` itself.
        empty: bool,
    },
}

impl Named {
    /// By the path in argument `n`, relative to the working directory.
    pub(super) fn path(asked: &Asked<'_>, n: usize, follow: bool) -> Named {
        Named::Path { dir: libc::AT_FDCWD, at: asked.call.args[n], follow, empty: false }
    }

    /// By directory, path and flags, as in the calls whose names end in `at`.
    pub(super) fn at(asked: &Asked<'_>, dir: usize, path: usize, flags: i32) -> Named {
        Named::Path {
            dir: asked.int(dir),
            at: asked.call.args[path],
            follow: flags & libc::AT_SYMLINK_NOFOLLOW == 0,
            empty: flags & libc::AT_EMPTY_PATH != 0,
        }
    }
}

/// A path that means here what it means to the caller.
pub(super) struct Here {
    /// The path, absolute.
    pub(super) path: CString,
    /// Whether a symlink there is followed.
    pub(super) follow: bool,
    /// Whether the last component is a plain name, so that what is there is in the directory before it.
    plain: bool,
}

impl Here {
    fn new(path: Vec<u8>, follow: bool, plain: bool) -> Option<Here> {
        Some(Here { path: CString::new(path).ok()?, follow, plain })
    }

    /// An open object's name in this process.
    pub(super) fn of(object: BorrowedFd<'_>) -> Here {
        Here { path: link(object), follow: true, plain: false }
    }

    /// The path without its last component; none when that is not a plain name.
    pub(super) fn parent(&self) -> Option<CString> {
        let path = self.path.to_bytes();
        let slash = path.iter().rposition(|b| *b == b'/').filter(|_| self.plain)?;
        match &path[slash + 1..] {
            b"" | b"." | b".." => None,
            _ => CString::new(&path[..slash.max(1)]).ok(),
        }
    }

    /// What is there.
    pub(super) fn stat(&self) -> Result<Stat, Errno> {
        let flags = if self.follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        rustix::fs::statat(CWD, &self.path, flags)
    }

    /// Opens it as a name only (`O_PATH`).
    pub(super) fn open(&self) -> Option<OwnedFd> {
        rustix::fs::open(&self.path, flags(self.follow), Mode::empty()).ok()
    }
}

/// Looks objects up as the callers do.
pub(super) struct Resolver {
    /// This process's own root.
    root: OwnedFd,
    /// And working directory.
    links: OwnedFd,
    /// Some process has another root.
    pub(super) chrooted: bool,
    buffer: Box<[u8; PATH_MAX]>,
}

impl Resolver {
    pub(super) fn new() -> Result<Resolver, Errno> {
        let [root, links] =
            [c"/", LINKS].map(|path| rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()));
        let (root, links) = (root?, links?);
        rustix::process::fchdir(&links)?;
        Ok(Resolver { root, links, chrooted: false, buffer: Box::new([0; PATH_MAX]) })
    }

    /// The path of a call; none when it cannot be read or is too long.
    pub(super) fn read_path(&mut self, asked: &Asked<'_>, at: u64) -> Option<&[u8]> {
        if at == 0 {
            return Some(b"");
        }
        let len = notify::read_string(asked.call.pid, at, &mut self.buffer[..]).ok().flatten()?;
        Some(&self.buffer[..len])
    }

    /// A path for what a call names. None when there is none, such as for callers with another root, or when
    /// the kernel knows the right error.
    pub(super) fn here(&mut self, asked: &Asked<'_>, named: Named) -> Option<Here> {
        let (dir, at, follow, empty) = match named {
            Named::Fd(fd) => return Here::new(of_process(asked, fd), true, false),
            Named::Path { dir, at, follow, empty } => (dir, at, follow, empty),
        };
        let chrooted = self.chrooted;
        let path = self.read_path(asked, at)?;
        if path.is_empty() {
            return if empty { Here::new(of_process(asked, dir), true, false) } else { None };
        }
        if chrooted {
            return None;
        }
        if path.starts_with(b"/") {
            let own = own_process(path, asked.call.pid, follow);
            return Here::new(own.unwrap_or_else(|| path.to_vec()), follow, true);
        }
        let mut full = of_process(asked, dir);
        full.push(b'/');
        full.extend_from_slice(path);
        if full.len() < PATH_MAX { Here::new(full, follow, true) } else { None }
    }

    /// Opens what a call names, as a name only (`O_PATH`). None when that cannot be done: then the kernel
    /// knows the right error.
    pub(super) fn open(&mut self, asked: &Asked<'_>, named: Named) -> Option<OwnedFd> {
        if let Some(here) = self.here(asked, named) {
            return here.open();
        }
        let Named::Path { dir, at, follow, .. } = named else { return None };
        let path = self.read_path(asked, at)?.to_vec();
        if path.is_empty() { None } else { self.open_path(asked, dir, &path, follow) }
    }

    /// Opens a path of the caller's.
    pub(super) fn open_path(
        &self,
        asked: &Asked<'_>,
        dir: i32,
        path: &[u8],
        follow: bool,
    ) -> Option<OwnedFd> {
        let own = own_process(path, asked.call.pid, follow);
        let path = own.as_deref().unwrap_or(path);
        let relative = !path.starts_with(b"/");
        let base = if relative { Some(open(&of_process(asked, dir))?) } else { None };
        let base = base.as_ref().map_or(CWD, AsFd::as_fd);
        let root = if self.chrooted { self.other_root(asked) } else { None };
        if let Some(root) = &root {
            notify::change_root(root.as_fd()).ok()?;
        }
        let opened = rustix::fs::openat(base, path, flags(follow), Mode::empty());
        if root.is_some() {
            notify::change_root(self.root.as_fd()).ok()?;
            rustix::process::fchdir(&self.links).ok()?;
        }
        opened.ok()
    }

    /// The caller's root, if it is another one than this process's.
    fn other_root(&self, asked: &Asked<'_>) -> Option<OwnedFd> {
        let root = open(format!("/proc/{}/root", asked.call.pid).as_bytes())?;
        let (own, theirs) = (rustix::fs::fstat(&self.root).ok()?, rustix::fs::fstat(&root).ok()?);
        ((own.st_dev, own.st_ino) != (theirs.st_dev, theirs.st_ino)).then_some(root)
    }
}

/// The name by which this process knows a descriptor or the working directory of the caller.
fn of_process(asked: &Asked<'_>, fd: i32) -> Vec<u8> {
    let pid = asked.call.pid;
    match fd {
        libc::AT_FDCWD => format!("/proc/{pid}/cwd"),
        fd => format!("/proc/{pid}/fd/{fd}"),
    }
    .into_bytes()
}

/// Names that mean another process's thing here: those of /proc and /dev that lead to the process itself.
fn own_process(path: &[u8], pid: i32, follow: bool) -> Option<Vec<u8>> {
    const SELF: [(&[u8], &str); 6] = [
        (b"/proc/self", ""),
        (b"/proc/thread-self", ""),
        (b"/dev/fd", "/fd"),
        (b"/dev/stdin", "/fd/0"),
        (b"/dev/stdout", "/fd/1"),
        (b"/dev/stderr", "/fd/2"),
    ];
    let found = SELF.iter().find_map(|(name, to)| {
        let rest = path.strip_prefix(*name)?;
        let whole = if rest.is_empty() { follow } else { rest[0] == b'/' };
        whole.then_some((rest, to))
    });
    let (rest, to) = found?;
    Some([format!("/proc/{pid}{to}").as_bytes(), rest].concat())
}

fn flags(follow: bool) -> OFlags {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    if follow { flags } else { flags | OFlags::NOFOLLOW }
}

fn open(path: &[u8]) -> Option<OwnedFd> {
    rustix::fs::open(path, flags(true), Mode::empty()).ok()
}
