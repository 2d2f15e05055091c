//! System calls that wait for another process's answer (seccomp_unotify(2)), and that process's way into the
//! caller's memory.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::seccomp::Instruction;
use super::{Result, check, retry, show};

/// A call that waits.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    id: u64,
    /// The thread that calls, as this process's pid namespace numbers it; 0 if it is not in there.
    pub pid: i32,
    /// The call's number.
    pub nr: libc::c_long,
    /// Its arguments.
    pub args: [u64; 6],
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The kernel does it.
    Continue,
    /// It is not done and returns this.
    Value(i64),
    /// It is not done and fails with this errno.
    Fail(i32),
}

// `struct seccomp_notif` and `seccomp_notif_resp` of linux/seccomp.h.
#[repr(C)]
struct Notif {
    id: u64,
    pid: u32,
    flags: u32,
    nr: i32,
    arch: u32,
    instruction_pointer: u64,
    args: [u64; 6],
}

#[repr(C)]
struct Response {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

// _IOWR('!', 0, struct seccomp_notif) and so on.
const RECV: libc::Ioctl = 0xC050_2100_u32 as libc::Ioctl;
const SEND: libc::Ioctl = 0xC018_2101_u32 as libc::Ioctl;
const ID_VALID: libc::Ioctl = 0x4008_2102_u32 as libc::Ioctl;
const SET_FLAGS: libc::Ioctl = 0x4008_2104_u32 as libc::Ioctl;

/// Like [`super::seccomp::load`] for a filter that returns `SECCOMP_RET_USER_NOTIF`: the descriptor at which the
/// calls arrive, close-on-exec. A caller that waits can only be killed, by no other signal (Linux 5.19).
pub fn load(program: &[Instruction]) -> Result<OwnedFd> {
    let fprog = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    const SET_MODE_FILTER: u32 = 1;
    const SPEC_ALLOW: u32 = 1 << 2;
    const NEW_LISTENER: u32 = 1 << 3;
    const WAIT_KILLABLE_RECV: u32 = 1 << 5;
    let flags = SPEC_ALLOW | NEW_LISTENER | WAIT_KILLABLE_RECV;
    // SAFETY: `fprog` points at `program`, which outlives the call; the kernel copies and checks it.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const fprog) };
    check(ret, || format!("seccomp(SET_MODE_FILTER, NEW_LISTENER, {} instructions)", program.len()))?;
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(ret as i32) })
}

/// Lets caller and answerer take turns on one cpu, which is several times faster. Kernels before 6.6 cannot.
pub fn wake_on_same_cpu(listener: BorrowedFd<'_>) {
    const SYNC_WAKE_UP: u64 = 1;
    // SAFETY: plain integers.
    unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) };
}

/// Takes the next call; none when its caller has died meanwhile. Waits if there is no call.
pub fn receive(listener: BorrowedFd<'_>) -> Result<Option<Call>> {
    // SAFETY: an all-zero notification is valid, and what the kernel asks for.
    let mut notif: Notif = unsafe { std::mem::zeroed() };
    let at = &raw mut notif;
    // SAFETY: `notif` has the kernel's layout and outlives the call.
    let call = || unsafe { libc::ioctl(listener.as_raw_fd(), RECV, at) }.into();
    match retry(call, || "ioctl(SECCOMP_IOCTL_NOTIF_RECV)".to_string()) {
        Ok(_) => Ok(Some(Call {
            id: notif.id,
            pid: notif.pid as i32,
            nr: notif.nr.into(),
            args: notif.args,
        })),
        Err(e) if e.errno() == libc::ENOENT => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether the caller still waits. Only then is what was read of it (by its process id) really its own.
pub fn is_waiting(listener: BorrowedFd<'_>, call: &Call) -> bool {
    // SAFETY: the id outlives the call.
    unsafe { libc::ioctl(listener.as_raw_fd(), ID_VALID, &raw const call.id) == 0 }
}

/// Answers a call. A caller that is gone does not matter.
pub fn answer(listener: BorrowedFd<'_>, call: &Call, answer: Answer) -> Result<()> {
    const CONTINUE: u32 = 1;
    let (val, error, flags) = match answer {
        Answer::Continue => (0, 0, CONTINUE),
        Answer::Value(val) => (val, 0, 0),
        Answer::Fail(errno) => (0, -errno, 0),
    };
    let mut response = Response { id: call.id, val, error, flags };
    let at = &raw mut response;
    // SAFETY: `response` has the kernel's layout and outlives the call.
    let send = || unsafe { libc::ioctl(listener.as_raw_fd(), SEND, at) }.into();
    match retry(send, || "ioctl(SECCOMP_IOCTL_NOTIF_SEND)".to_string()) {
        Err(e) if e.errno() != libc::ENOENT => Err(e),
        _ => Ok(()),
    }
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

/// Writes into the memory of another process, all of it.
pub fn write_memory(pid: i32, at: u64, bytes: &[u8]) -> Result<()> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: `local` is valid for its length and only read; the kernel checks the other process's addresses.
    let n = unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    let n = check(n as i64, || format!("process_vm_writev({pid}, {})", bytes.len()))?;
    match n as usize == bytes.len() {
        true => Ok(()),
        false => Err(super::SysError::new(format!("process_vm_writev({pid}), cut short"), libc::EFAULT)),
    }
}

/// `stat` or `lstat`, as the bytes that the call stores, with this owner.
pub fn stat_bytes(path: &CStr, follow: bool, (uid, gid): (u32, u32)) -> Result<Vec<u8>> {
    // SAFETY: an all-zero stat is valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    let (flags, at) = (if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW }, &raw mut stat);
    // SAFETY: `path` is NUL-terminated; `stat` outlives the call.
    check(unsafe { libc::fstatat(libc::AT_FDCWD, path.as_ptr(), at, flags) }, || format!("stat({})", show(path)))?;
    (stat.st_uid, stat.st_gid) = (uid, gid);
    // SAFETY: on these 64-bit targets libc's structure is the kernel's; it was zeroed, padding too.
    Ok(unsafe { std::slice::from_raw_parts((&raw const stat).cast::<u8>(), size_of_val(&stat)) }.to_vec())
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

/// `chown` or `lchown`; `u32::MAX` keeps an id.
pub fn chown(path: &CStr, follow: bool, uid: u32, gid: u32) -> Result<()> {
    let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    // SAFETY: `path` is NUL-terminated and outlives the call.
    let ret = unsafe { libc::fchownat(libc::AT_FDCWD, path.as_ptr(), uid, gid, flags) };
    check(ret, || format!("fchownat({}, {uid}, {gid})", show(path)))?;
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
