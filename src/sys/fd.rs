//! Descriptors: closing, moving, waiting, and looking up paths below a root.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{Result, SysError, check, retry, show};

/// Closes every descriptor of this process but these. Only for a process that never drops what it closes
/// here, so one that ends with [`super::process::exit`].
pub fn close_all_but(keep: &[RawFd]) -> Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut from = 0u32;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > from {
            // SAFETY: plain integers; the caller promises that nothing will use what is closed.
            let ret = unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0u32) };
            check(ret, || format!("close_range({from}, {})", fd - 1))?;
        }
        from = fd.wrapping_add(1);
    }
    Ok(())
}

/// Makes the standard descriptors 0, 1 and 2 copies of these. They must all be above 2.
pub fn set_stdio(stdio: [RawFd; 3]) -> Result<()> {
    for (to, from) in stdio.into_iter().enumerate() {
        // SAFETY: replacing the standard descriptors; Rust's std expects them open, which they are.
        check(unsafe { libc::dup2(from, to as i32) }, || format!("dup2({from}, {to})"))?;
    }
    Ok(())
}

/// A copy of the descriptor with a number of at least `min`.
pub fn duplicate_above(fd: BorrowedFd<'_>, min: RawFd) -> Result<OwnedFd> {
    // SAFETY: plain integers.
    let ret = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, min) };
    check(ret, || format!("fcntl({}, F_DUPFD_CLOEXEC, {min})", fd.as_raw_fd()))?;
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(ret) })
}

/// A copy of descriptor `number` of another process, which shares its open file.
pub fn of_process(pidfd: BorrowedFd<'_>, number: RawFd) -> Result<OwnedFd> {
    // SAFETY: plain integers.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    check(ret, || format!("pidfd_getfd({number})"))?;
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(ret as i32) })
}

/// Waits until one of these can be read or is hung up: for each whether it is so. All false after `timeout`.
pub fn wait_readable<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> Result<[bool; N]> {
    let mut polled = fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    // Rounded up, so that a wait for the rest of a deadline does not spin.
    let ms = timeout.map_or(-1, |t| t.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32);
    let list = polled.as_mut_ptr();
    // SAFETY: `polled` is valid for N entries.
    retry(|| unsafe { libc::poll(list, N as libc::nfds_t, ms) }.into(), || "poll".to_string())?;
    Ok(polled.map(|p| p.revents != 0))
}

/// Waits for any of these without a limit: for each the `POLL*` bits that are set.
pub fn wait_events<const N: usize>(fds: [BorrowedFd<'_>; N]) -> Result<[i16; N]> {
    let mut polled = fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    let list = polled.as_mut_ptr();
    // SAFETY: `polled` is valid for N entries.
    retry(|| unsafe { libc::poll(list, N as libc::nfds_t, -1) }.into(), || "poll".to_string())?;
    Ok(polled.map(|p| p.revents))
}

/// Opens `path`, which may be absolute or lead through symlinks, as if `root` were `/`. It cannot come out
/// of `root`.
pub fn open_in_root(root: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    // SAFETY: an all-zero open_how is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = mode.into();
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    let size = size_of::<libc::open_how>();
    // SAFETY: `path` and `how` are valid during the call.
    let call =
        || unsafe { libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), &raw const how, size) };
    // A rename elsewhere during the look-up gives EAGAIN.
    let mut ret = call();
    for _ in 0..16 {
        let errno = std::io::Error::last_os_error().raw_os_error();
        if ret != -1 || !matches!(errno, Some(libc::EAGAIN | libc::EINTR)) {
            break;
        }
        ret = call();
    }
    check(ret, || format!("openat2(root, {}, {flags:#x}, RESOLVE_IN_ROOT)", show(path)))?;
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(ret as i32) })
}

/// A descriptor for `path` (relative to `dir`) that only names it (`O_PATH`).
pub fn open_path(dir: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: `path` is NUL-terminated and outlives the call.
    let ret = unsafe { libc::openat(dir.as_raw_fd(), path.as_ptr(), flags) };
    check(ret, || format!("openat({}, O_PATH)", show(path)))?;
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(ret) })
}

/// Makes a directory, without regard to the umask; one that exists is left as it is.
pub fn make_dir(dir: BorrowedFd<'_>, path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the calls.
    let ret = unsafe { libc::mkdirat(dir.as_raw_fd(), path.as_ptr(), mode) };
    match check(ret, || format!("mkdirat({}, {mode:#o})", show(path))) {
        Err(e) if e.errno() == libc::EEXIST => Ok(()),
        other => other.map(drop),
    }
}

/// The working directory and everything relative to it.
pub fn here() -> BorrowedFd<'static> {
    // SAFETY: AT_FDCWD is always valid and is never closed.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}

/// Makes a symlink.
pub fn symlink(target: &CStr, dir: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    // SAFETY: both strings are NUL-terminated and outlive the call.
    let ret = unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), path.as_ptr()) };
    check(ret, || format!("symlinkat({}, {})", show(target), show(path)))?;
    Ok(())
}

/// Changes owner and group of what a descriptor names.
pub fn chown(dir: BorrowedFd<'_>, path: &CStr, uid: u32, gid: u32) -> Result<()> {
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: `path` is NUL-terminated and outlives the call.
    let ret = unsafe { libc::fchownat(dir.as_raw_fd(), path.as_ptr(), uid, gid, flags) };
    check(ret, || format!("fchownat({}, {uid}, {gid})", show(path)))?;
    Ok(())
}

/// Changes the owner of a pipe; of anything else it does not.
pub fn give_pipe(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: an all-zero stat is valid, and outlives the call.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    check(unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) }, || "fstat".to_string())?;
    if stat.st_mode & libc::S_IFMT == libc::S_IFIFO {
        // SAFETY: plain integers.
        let ret = unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) };
        check(ret, || format!("fchown(pipe, {uid}, {gid})"))?;
    }
    Ok(())
}

/// Makes the directory the working directory.
pub fn change_dir(path: &CStr) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    check(unsafe { libc::chdir(path.as_ptr()) }, || format!("chdir({})", show(path)))?;
    Ok(())
}

/// Writes all of `bytes`, in as few calls as it takes.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        // SAFETY: `bytes` is valid for its length.
        let call = || unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) } as i64;
        match retry(call, || format!("write({} bytes)", bytes.len()))? {
            0 => return Err(SysError::new("write", libc::EIO)),
            n => bytes = &bytes[n as usize..],
        }
    }
    Ok(())
}

/// Reads up to `buf.len()` bytes; 0 is the end.
pub fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize> {
    let (at, len) = (buf.as_mut_ptr(), buf.len());
    // SAFETY: `buf` is valid for its length.
    let n = retry(|| unsafe { libc::read(fd.as_raw_fd(), at.cast(), len) } as i64, || "read".to_string())?;
    Ok(n as usize)
}

/// Sets access and modification time of what a path names (not of what a symlink there points to), in
/// seconds since 1970.
pub fn set_mtime(dir: BorrowedFd<'_>, path: &CStr, seconds: i64) -> Result<()> {
    let time = libc::timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = [time, time];
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: `path` is NUL-terminated; `times` has the two entries that the call reads.
    let ret = unsafe { libc::utimensat(dir.as_raw_fd(), path.as_ptr(), times.as_ptr(), flags) };
    check(ret, || format!("utimensat({}, {seconds})", show(path)))?;
    Ok(())
}

/// Standard input.
pub fn stdin() -> BorrowedFd<'static> {
    // SAFETY: the executor and its children keep the standard descriptors open.
    unsafe { BorrowedFd::borrow_raw(0) }
}

/// Standard error.
pub fn stderr() -> BorrowedFd<'static> {
    // SAFETY: as for `stdin`.
    unsafe { BorrowedFd::borrow_raw(2) }
}
