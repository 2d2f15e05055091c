//! Making, waiting for and ending processes.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Result, check, retry, show};

/// How a waited-for process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

/// True when this process has one thread, so that it may fork and go on as it likes.
pub fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

/// `fork`: the child's id in the parent, none in the child. The caller must be single-threaded.
pub fn fork() -> Result<Option<i32>> {
    // SAFETY: callers check that there is one thread, so the child's locks and memory are consistent.
    let pid = unsafe { libc::fork() };
    check(pid, || "fork".to_string())?;
    Ok((pid != 0).then_some(pid))
}

/// `vfork`: runs `child` in a new process that shares this one's memory, and goes on when the child has called
/// `execve` or ended. Cheaper than [`fork`], which copies page tables for nothing.
///
/// What `child` changes in memory stays changed here. Descriptors, working directory, credentials and signals
/// are the child's own. The caller must be single-threaded.
pub fn spawn_sharing_memory<F: FnOnce() -> i32>(child: F) -> Result<i32> {
    const STACK: usize = 512 << 10;
    extern "C" fn enter<F: FnOnce() -> i32>(arg: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `arg` is the `Option<F>` below, which outlives the child's use of this memory.
        let child = unsafe { (*arg.cast::<Option<F>>()).take() };
        exit(child.map_or(125, |child| child()))
    }
    let mut child = Some(child);
    let mut stack: Vec<u128> = Vec::with_capacity(STACK / size_of::<u128>());
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is aligned, grows down from its end, and is larger than what the set-up of a command
    // needs; this thread sleeps until the child has left the shared memory, and there is no other.
    let pid = unsafe {
        let top = stack.as_mut_ptr().cast::<u8>().add(STACK);
        libc::clone(enter::<F>, top.cast(), flags, (&raw mut child).cast())
    };
    Ok(check(pid, || "clone(CLONE_VM | CLONE_VFORK)".to_string())? as i32)
}

/// A child in new namespaces, in the parent.
pub struct Child {
    /// Its process id.
    pub pid: i32,
    /// A descriptor for it.
    pub pidfd: OwnedFd,
}

/// `clone3` with these `CLONE_NEW*` flags, and copied memory as with `fork`: none in the child. The caller
/// must be single-threaded.
pub fn clone_into_namespaces(flags: u64) -> Result<Option<Child>> {
    let mut pidfd: i32 = -1;
    // SAFETY: an all-zero clone_args is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM this is a fork; `args` and `pidfd` outlive the call, and there is one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    check(pid, || format!("clone3({flags:#x})"))?;
    // SAFETY: in the parent the kernel has stored a new descriptor that nobody else owns.
    Ok((pid != 0).then(|| Child { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }))
}

/// `unshare(flags)`.
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: no CLONE_VM/FILES semantics are relied on; plain integer.
    check(unsafe { libc::unshare(flags) }, || format!("unshare({flags:#x})"))?;
    Ok(())
}

/// Enters the namespace behind `fd`.
pub fn enter_namespace(fd: BorrowedFd<'_>, kind: i32) -> Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::setns(fd.as_raw_fd(), kind) }, || format!("setns({kind:#x})"))?;
    Ok(())
}

/// A descriptor for a process.
pub fn pidfd(pid: i32) -> Result<OwnedFd> {
    // SAFETY: plain integers.
    let ret = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }, || format!("pidfd_open({pid})"))?;
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(ret as i32) })
}

/// Writes into the memory of another process, or of a thread of one.
pub fn write_memory(pid: i32, address: u64, bytes: &[u8]) -> Result<()> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: the local range is only read; the remote one is not of this process, and the kernel checks it.
    let ret = unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    match check(ret as i64, || format!("process_vm_writev({pid}, {} bytes)", bytes.len()))? {
        n if n as usize == bytes.len() => Ok(()),
        _ => Err(super::SysError::new("process_vm_writev (cut short)", libc::EFAULT)),
    }
}

/// This process's id.
pub fn own_pid() -> i32 {
    std::process::id() as i32
}

/// SIGKILL to the process behind the descriptor. One that is gone already is fine.
pub fn kill(pidfd: BorrowedFd<'_>) -> Result<()> {
    send_signal(pidfd, libc::SIGKILL)
}

/// A signal to the process behind the descriptor. One that is gone already is fine.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let null = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is what kill(2) semantics ask for.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, null, 0) };
    match check(ret, || format!("pidfd_send_signal({signal})")) {
        Err(e) if e.errno() == libc::ESRCH => Ok(()),
        other => other.map(drop),
    }
}

/// A signal to a process, or (with `group`) to all of a process group. Who is gone already gets none.
pub fn signal(pid: i32, group: bool, signal: i32) {
    if pid > 1 {
        // SAFETY: plain integers; not -1, which is everyone.
        unsafe { libc::kill(if group { -pid } else { pid }, signal) };
    }
}

/// SIGKILL to every process of this pid namespace but its init. Only as pid 1.
pub fn kill_all_others() {
    if own_pid() == 1 {
        // SAFETY: plain integers; as pid 1, -1 reaches only this pid namespace.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }
}

/// Waits for a child (`pid`), or any (-1): which, and how it ended. None: with `block` there is no child
/// left, without it none has ended or is left.
pub fn wait(pid: i32, block: bool) -> Result<Option<(i32, Ended)>> {
    let mut status = 0;
    let flags = if block { 0 } else { libc::WNOHANG };
    let at = &raw mut status;
    // SAFETY: `status` is valid during the call.
    match retry(|| unsafe { libc::waitpid(pid, at, flags) }.into(), || format!("waitpid({pid})")) {
        Ok(0) => Ok(None),
        Ok(pid) if libc::WIFSIGNALED(status) => {
            Ok(Some((pid as i32, Ended::Signaled(libc::WTERMSIG(status)))))
        }
        // It has made this process its tracer (PTRACE_TRACEME) and stands still: nobody will let it go on.
        Ok(pid) if libc::WIFSTOPPED(status) => {
            Ok(Some((pid as i32, Ended::Signaled(libc::WSTOPSIG(status)))))
        }
        Ok(pid) => Ok(Some((pid as i32, Ended::Exited(libc::WEXITSTATUS(status))))),
        Err(e) if e.errno() == libc::ECHILD => Ok(None),
        Err(e) => Err(e),
    }
}

/// Processor time (user, system, in microseconds) and largest resident set (bytes) of all waited-for
/// descendants.
pub fn children_usage() -> (u64, u64, u64) {
    // SAFETY: an all-zero rusage is valid, and the call cannot fail with these arguments.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let us = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    (us(usage.ru_utime), us(usage.ru_stime), usage.ru_maxrss as u64 * 1024)
}

/// Ends this process at once: no destructors, no buffers flushed.
pub fn exit(code: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}

/// A program's arguments or environment, ready for `execve`.
pub struct Strings {
    _strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    /// From these, in this order.
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Self { _strings: strings, pointers }
    }
}

/// Replaces this process by a program; returns only when that fails.
pub fn exec(path: &CStr, args: &Strings, env: &Strings) -> super::SysError {
    // SAFETY: the lists are null-terminated and their strings live in `args` and `env`.
    let ret = unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    match check(ret, || format!("execve({})", show(path))) {
        Err(e) => e,
        Ok(_) => super::SysError::new(format!("execve({})", show(path)), 0),
    }
}

/// A new session, without a controlling terminal.
pub fn new_session() -> Result<()> {
    // SAFETY: no arguments.
    check(unsafe { libc::setsid() }, || "setsid".to_string())?;
    Ok(())
}

/// Makes the terminal on `fd` the controlling one, and this process's group its foreground.
pub fn take_terminal(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) }, || "ioctl(TIOCSCTTY)".to_string())?;
    Ok(())
}

/// Whether `fd` is a terminal.
pub fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: plain integer.
    unsafe { libc::isatty(fd.as_raw_fd()) == 1 }
}

/// Every signal does its default thing again, and none is blocked.
pub fn reset_signals() -> Result<()> {
    // The kernel's own layout, all zero: SIG_DFL, no flags, empty mask. The raw call, because glibc's keeps the
    // two signals of its threads from being reset.
    let action = [0u64; 4];
    for signal in 1..=64 {
        let null = std::ptr::null_mut::<u64>();
        // SAFETY: `action` is at least as large as the kernel's structure; SIGKILL and SIGSTOP only give EINVAL.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), null, 8) };
    }
    unblock_signals()
}

/// No signal is blocked any more.
pub fn unblock_signals() -> Result<()> {
    // SAFETY: `none` is initialised by sigemptyset and outlives the call.
    let ret = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    check(ret, || "sigprocmask".to_string())?;
    Ok(())
}

/// Blocks SIGCHLD and gives a descriptor that becomes readable when a child has ended.
pub fn child_signals() -> Result<OwnedFd> {
    watch_signals(&[libc::SIGCHLD])
}

/// Blocks these signals, so that they wait for whoever asks for them.
pub fn block_signals(signals: &[i32]) -> Result<()> {
    let set = signal_set(signals);
    // SAFETY: `set` is initialised and outlives the call.
    let ret = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    check(ret, || "sigprocmask".to_string())?;
    Ok(())
}

/// Blocks these signals and gives a descriptor to read them from with [`caught_signals`].
pub fn watch_signals(signals: &[i32]) -> Result<OwnedFd> {
    block_signals(signals)?;
    let set = signal_set(signals);
    // SAFETY: `set` is initialised and outlives the call.
    let ret = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    check(ret, || format!("signalfd({signals:?})"))?;
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(ret) })
}

/// Signals that have come to a descriptor of [`watch_signals`], of which one is known to be there: each with the
/// process that sent it, 0 when that is none of this pid namespace.
pub fn caught_signals(fd: BorrowedFd<'_>) -> Result<Vec<(i32, u32)>> {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut buf = [0; 8 * SIZE];
    let len = super::fd::read(fd, &mut buf)?;
    let number = |info: &[u8], at: usize| info[at..at + 4].try_into().map_or(0, u32::from_ne_bytes);
    let pid = std::mem::offset_of!(libc::signalfd_siginfo, ssi_pid);
    let read = |info: &[u8]| (number(info, 0) as i32, number(info, pid));
    Ok(buf[..len].chunks_exact(SIZE).map(read).collect())
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: an all-zero set is valid for sigemptyset, which initialises it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Gives the process the name `name` and overwrites its command line with it and its environment with
/// zeros: children made by `fork` show these to whoever can see their `/proc` entry.
///
/// Nothing may use the process's arguments or environment afterwards.
pub fn rename_and_blank(name: &CStr) -> Result<()> {
    prctl(libc::PR_SET_NAME, name.as_ptr() as usize, "PR_SET_NAME")?;
    let stat = std::fs::read_to_string("/proc/self/stat").map_err(|e| {
        super::SysError::new("read(\"/proc/self/stat\")", e.raw_os_error().unwrap_or(libc::EIO))
    })?;
    // Fields are counted behind the command name, which is in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let field = |n: usize| fields.get(n - 3).and_then(|f| f.parse::<usize>().ok()).unwrap_or(0);
    let (arg_start, arg_end, env_start, env_end) = (field(48), field(49), field(50), field(51));
    let name = name.to_bytes_with_nul();
    if arg_start == 0 || arg_end <= arg_start {
        return Ok(());
    }
    let fits = name.len().min(arg_end - arg_start);
    // SAFETY: the kernel says that these ranges of the stack hold the arguments and the environment of this
    // process; nothing reads them any more. Where the last byte of the arguments is not zero, the kernel
    // shows the text up to the first NUL, whatever the length of the original (proc_pid_cmdline).
    unsafe {
        std::ptr::write_bytes(arg_start as *mut u8, 0, arg_end - arg_start);
        std::ptr::copy_nonoverlapping(name.as_ptr(), arg_start as *mut u8, fits);
        *((arg_end - 1) as *mut u8) = if fits < arg_end - arg_start { 1 } else { 0 };
        if env_start >= arg_end && env_end > env_start {
            std::ptr::write_bytes(env_start as *mut u8, 0, env_end - env_start);
        }
    }
    Ok(())
}

/// Asks for SIGKILL when the parent ends. A change of credentials undoes it.
pub fn die_with_parent() -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as usize, "PR_SET_PDEATHSIG, SIGKILL")
}

/// Keeps others from looking into this process through /proc or ptrace.
pub fn set_undumpable() -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0, "PR_SET_DUMPABLE, 0")
}

pub(super) fn prctl(option: i32, arg: usize, call: &str) -> Result<()> {
    // SAFETY: the options used here take an integer, or a string that the caller keeps alive.
    check(unsafe { libc::prctl(option, arg, 0, 0, 0) }, || format!("prctl({call})"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;

    #[test]
    fn a_child_that_wants_to_be_traced_has_not_exited() {
        let mut command = std::process::Command::new("/bin/true");
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                Ok(())
            })
        };
        let mut child = command.spawn().unwrap();
        let pid = child.id() as i32;
        assert_eq!(wait(pid, true).unwrap(), Some((pid, Ended::Signaled(libc::SIGTRAP))));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
