//! What a supervisor does for a process that waits in a system call (seccomp_unotify(2)): reads its memory,
//! and makes the answer.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::seccomp::Call;
use super::{Result, check, show};

/// Whether the caller still waits. Only then is what was read of it (by its process id) really its own.
pub fn is_waiting(listener: BorrowedFd<'_>, call: &Call) -> bool {
    // _IOW('!', 2, u64) of linux/seccomp.h.
    const NOTIF_ID_VALID: libc::c_ulong = 0x4008_2102;
    // SAFETY: the id outlives the call.
    unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_ID_VALID as _, &raw const call.id) == 0 }
}

/// Reads memory of a process from `at` on, not past the end of a page: how many bytes.
fn read_in_page(pid: i32, at: u64, buf: &mut [u8]) -> Result<usize> {
    let left = 4096 - (at % 4096) as usize;
    let len = buf.len().min(left);
    let local = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: len };
    let remote = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: len };
    // SAFETY: `local` is valid for its length; the kernel checks the other process's addresses.
    let n = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    Ok(check(n as i64, || format!("process_vm_readv({pid}, {len})"))? as usize)
}

/// Reads a NUL-terminated string of another process, with room in `buf` for the NUL: its length; none when it
/// is longer.
pub fn read_string(pid: i32, at: u64, buf: &mut [u8]) -> Result<Option<usize>> {
    let mut have = 0;
    while have < buf.len() {
        // Most are short, and a copy that ends early is not an error.
        let want = (buf.len() - have).min(256);
        let n = read_in_page(pid, at.wrapping_add(have as u64), &mut buf[have..have + want])?;
        if let Some(end) = buf[have..have + n].iter().position(|b| *b == 0) {
            return Ok(Some(have + end));
        }
        have += n.max(1);
    }
    Ok(None)
}

/// Reads memory of another process, all of `buf`.
pub fn read_memory(pid: i32, at: u64, buf: &mut [u8]) -> Result<()> {
    let mut have = 0;
    while have < buf.len() {
        match read_in_page(pid, at.wrapping_add(have as u64), &mut buf[have..])? {
            0 => return Err(super::SysError::new(format!("process_vm_readv({pid})"), libc::EFAULT)),
            n => have += n,
        }
    }
    Ok(())
}

/// `stat` or `lstat`, in the form that the call stores.
pub fn stat(path: &CStr, follow: bool) -> Result<libc::stat> {
    // SAFETY: an all-zero stat is valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    let (flags, at) = (if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW }, &raw mut stat);
    // SAFETY: `path` is NUL-terminated; `stat` outlives the call.
    check(unsafe { libc::fstatat(libc::AT_FDCWD, path.as_ptr(), at, flags) }, || {
        format!("stat({})", show(path))
    })?;
    Ok(stat)
}

/// What [`stat`] gave, as bytes, with this owner.
pub fn stat_bytes(mut stat: libc::stat, (uid, gid): (u32, u32)) -> [u8; size_of::<libc::stat>()] {
    (stat.st_uid, stat.st_gid) = (uid, gid);
    // SAFETY: on these 64-bit targets libc's structure is the kernel's; it was zeroed, padding too.
    unsafe { std::mem::transmute(stat) }
}

/// `statx` with these flags and mask, as the bytes that the call stores, with this owner.
pub fn statx_bytes(path: &CStr, flags: i32, mask: u32, (uid, gid): (u32, u32)) -> Result<Vec<u8>> {
    // SAFETY: an all-zero statx is valid.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let at = &raw mut stat;
    // SAFETY: `path` is NUL-terminated; `stat` outlives the call.
    let ret = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, mask, at) };
    check(ret, || format!("statx({}, {flags:#x}, {mask:#x})", show(path)))?;
    (stat.stx_uid, stat.stx_gid) = (uid, gid);
    // SAFETY: libc's structure is the kernel's; it was zeroed, padding too.
    Ok(unsafe { std::slice::from_raw_parts((&raw const stat).cast::<u8>(), size_of_val(&stat)) }.to_vec())
}

/// Changes the owner of an object that is open as a name only; `u32::MAX` keeps an id.
pub fn chown(object: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH;
    // SAFETY: the empty path is a constant.
    let ret = unsafe { libc::fchownat(object.as_raw_fd(), c"".as_ptr(), uid, gid, flags) };
    check(ret, || format!("fchownat(object, {uid}, {gid})"))?;
    Ok(())
}

/// Makes the directory that `fd` names the working directory and the root of this process.
pub fn change_root(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: plain integer; a constant path.
    unsafe {
        check(libc::fchdir(fd.as_raw_fd()), || "fchdir".to_string())?;
        check(libc::chroot(c".".as_ptr()), || "chroot(\".\")".to_string())?;
    }
    Ok(())
}
