//! A descriptor at which a process waits in a call until there is something or one of its children has ended.
//!
//! `poll` could tell both, as one more call each time. Instead the handler of SIGCHLD puts another descriptor in the
//! place of the one that is waited at: a call that waits there comes back, and one that is about to begin fails.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};

use super::{Result, SysError, check};

/// The number of the door.
static DOOR: AtomicI32 = AtomicI32::new(-1);
/// What is put there; a descriptor that names a directory, which no such call takes (EBADF).
static SHUT: AtomicI32 = AtomicI32::new(-1);

/// The descriptor. A process has one at most.
pub struct Door {
    behind: OwnedFd,
    number: OwnedFd,
    _shut: OwnedFd,
}

impl Door {
    /// A door to `behind`. It is shut at first.
    pub fn new(behind: BorrowedFd<'_>) -> Result<Door> {
        let shut = super::fd::open_path(super::fd::here(), c"/")?;
        let door = Door { behind: duplicate(behind)?, number: duplicate(shut.as_fd())?, _shut: shut };
        SHUT.store(door._shut.as_raw_fd(), Ordering::SeqCst);
        DOOR.store(door.number.as_raw_fd(), Ordering::SeqCst);
        let action = SigAction::new(SigHandler::Handler(on_child), SaFlags::SA_RESTART, SigSet::empty());
        let failed = |what: &str, e: Errno| SysError::new(format!("{what}(SIGCHLD)"), e as i32);
        // SAFETY: the handler only touches atomics and calls dup2(2), which is async-signal-safe.
        unsafe { sigaction(Signal::SIGCHLD, &action) }.map_err(|e| failed("sigaction", e))?;
        let set = SigSet::from(Signal::SIGCHLD);
        sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&set), None).map_err(|e| failed("sigprocmask", e))?;
        Ok(door)
    }

    /// Opens it again. Children that had ended before are to be looked for after this.
    pub fn open(&self) -> Result<()> {
        // SAFETY: plain integers; the number stays owned by `self`.
        let ret = unsafe { libc::dup2(self.behind.as_raw_fd(), self.number.as_raw_fd()) };
        check(ret, || "dup2".to_string()).map(drop)
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.number.as_fd()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: no handler.
        let _ = unsafe { sigaction(Signal::SIGCHLD, &default) };
    }
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: plain integers.
    let ret = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 0) };
    check(ret, || "fcntl(F_DUPFD_CLOEXEC)".to_string())?;
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(ret) })
}

extern "C" fn on_child(_: libc::c_int) {
    let errno = Errno::last_raw();
    // SAFETY: plain integers, of descriptors that are open as long as this is the handler.
    unsafe { libc::dup2(SHUT.load(Ordering::SeqCst), DOOR.load(Ordering::SeqCst)) };
    Errno::set_raw(errno);
}
