//! Loading a seccomp filter.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Result, check};

/// One BPF instruction, as the kernel has it.
pub type Instruction = libc::sock_filter;

const SET_MODE_FILTER: u32 = 1;
/// The speculation mitigation that old kernels attach to seccomp is not needed here and slows every step.
const SPEC_ALLOW: u32 = 4;
const NEW_LISTENER: u32 = 8;
/// Whoever waits for an answer can only be killed (Linux 5.19): a signal would have the call done twice.
const WAIT_KILLABLE_RECV: u32 = 32;

/// Puts the filter on this process for good; `no_new_privs` must be set. A filter's length is limited to
/// 4096 instructions by the kernel.
pub fn load(program: &[Instruction]) -> Result<()> {
    set_filter(program, SPEC_ALLOW).map(drop)
}

/// Like [`load`], and gives the descriptor at which calls arrive that the program answers with
/// `SECCOMP_RET_USER_NOTIF`.
pub fn load_with_listener(program: &[Instruction]) -> Result<OwnedFd> {
    let fd = set_filter(program, SPEC_ALLOW | NEW_LISTENER | WAIT_KILLABLE_RECV)?;
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn set_filter(program: &[Instruction], flags: u32) -> Result<i64> {
    let fprog = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: `fprog` points at `program`, which outlives the call; the kernel copies and checks it.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const fprog) };
    check(ret, || format!("seccomp(SET_MODE_FILTER, {} instructions)", program.len()))
}

/// A system call of another process that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// What the answer refers to.
    pub id: u64,
    /// The thread that makes it, as this process's pid namespace numbers it.
    pub pid: i32,
    /// Which call.
    pub number: libc::c_long,
    /// Its arguments.
    pub args: [u64; 6],
}

// ioctls of the listener (`linux/seccomp.h`): _IOWR('!', 0, 80), _IOWR('!', 1, 24), _IOW('!', 4, u64).
const NOTIF_RECV: libc::c_ulong = 0xC050_2100;
const NOTIF_SEND: libc::c_ulong = 0xC018_2101;
const NOTIF_SET_FLAGS: libc::c_ulong = 0x4008_2104;

/// Takes the call that waits at a listener, or waits for one; none when its caller is gone meanwhile, or the listener
/// is behind a [door](super::door) that has been shut.
pub fn receive(listener: BorrowedFd<'_>) -> Result<Option<Call>> {
    // SAFETY: the kernel wants an all-zero structure and fills it.
    let mut notif: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: `notif` outlives the call and has the size that is part of the request number.
    let ret = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as _, &raw mut notif) };
    match check(ret, || "ioctl(SECCOMP_IOCTL_NOTIF_RECV)".to_string()) {
        Err(e) if matches!(e.errno(), libc::ENOENT | libc::EINTR | libc::EBADF) => return Ok(None),
        other => other?,
    };
    let data = notif.data;
    Ok(Some(Call { id: notif.id, pid: notif.pid as i32, number: data.nr.into(), args: data.args }))
}

/// Lets a call return `value`; a negative one is an error number, as the kernel has it.
pub fn answer(listener: BorrowedFd<'_>, id: u64, value: i64) -> Result<()> {
    let (val, error) = if value < 0 { (0, value as i32) } else { (value, 0) };
    send(listener, libc::seccomp_notif_resp { id, val, error, flags: 0 })
}

/// Lets the kernel do a call.
pub fn pass(listener: BorrowedFd<'_>, id: u64) -> Result<()> {
    const CONTINUE: u32 = 1;
    send(listener, libc::seccomp_notif_resp { id, val: 0, error: 0, flags: CONTINUE })
}

fn send(listener: BorrowedFd<'_>, mut answer: libc::seccomp_notif_resp) -> Result<()> {
    // SAFETY: `answer` outlives the call and has the size that is part of the request number.
    let ret = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as _, &raw mut answer) };
    match check(ret, || "ioctl(SECCOMP_IOCTL_NOTIF_SEND)".to_string()) {
        // Nobody waits for it any more: the caller was killed or interrupted.
        Err(e) if e.errno() == libc::ENOENT => Ok(()),
        other => other.map(drop),
    }
}

/// The caller and whoever answers take turns on one cpu, which makes a call five times as fast (Linux 6.6).
pub fn wake_synchronously(listener: BorrowedFd<'_>) -> Result<()> {
    const SYNC_WAKE_UP: u64 = 1;
    // SAFETY: plain integers.
    let ret = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SET_FLAGS as _, SYNC_WAKE_UP) };
    check(ret, || "ioctl(SECCOMP_IOCTL_NOTIF_SET_FLAGS)".to_string()).map(drop)
}
