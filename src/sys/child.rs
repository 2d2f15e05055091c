//! A function run in a forked child, for trying out what cannot be undone in the process itself.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

/// A system call (or a write) that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was tried, with its arguments.
    pub what: String,
    /// The error number.
    pub errno: i32,
}

impl Refusal {
    /// Something was refused with `why`.
    pub fn new(what: &str, why: impl Into<io::Error>) -> Refusal {
        Refusal { what: what.to_owned(), errno: why.into().raw_os_error().unwrap_or(0) }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, io::Error::from_raw_os_error(self.errno))
    }
}

impl std::error::Error for Refusal {}

/// Runs `trial` in a forked child, waits for it and gives its answer; a child that dies without one is
/// a refusal too. Best called while the process has one thread.
pub fn in_child(trial: impl FnOnce() -> Result<(), Refusal>) -> Result<(), Refusal> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|why| Refusal::new("pipe2", why))?;
    // SAFETY: the child runs only `trial` and then `_exit`s. With one thread anything may follow fork; with
    // more, the C library leaves its allocator usable in the child and trials take no other lock.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(Refusal::new("fork", io::Error::last_os_error())),
        0 => {
            drop(read);
            answer(write, trial());
            // SAFETY: ends the process at once, without running anything that belongs to the parent.
            unsafe { libc::_exit(0) }
        }
        pid => {
            drop(write);
            let mut text = String::new();
            let read = std::fs::File::from(read).read_to_string(&mut text);
            let _ = rustix::process::waitpid(
                rustix::process::Pid::from_raw(pid),
                rustix::process::WaitOptions::empty(),
            );
            read.map_err(|why| Refusal::new("read", why))?;
            match text.split_once('\n') {
                Some(("", _)) => Ok(()),
                Some((errno, what)) => {
                    Err(Refusal { what: what.to_owned(), errno: errno.parse().unwrap_or(0) })
                }
                None => Err(Refusal { what: "a child process ended early".to_owned(), errno: libc::EINTR }),
            }
        }
    }
}

/// One line with the error number (empty when all went well), then what was refused.
fn answer(pipe: OwnedFd, result: Result<(), Refusal>) {
    let text = match result {
        Ok(()) => "\n".to_owned(),
        Err(refusal) => format!("{}\n{}", refusal.errno, refusal.what),
    };
    let _ = std::fs::File::from(pipe).write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_the_child_comes_back() {
        assert_eq!(in_child(|| Ok(())), Ok(()));
        let refusal = Refusal { what: "unshare(CLONE_NEWUSER)".to_owned(), errno: libc::EPERM };
        assert_eq!(in_child(|| Err(refusal.clone())), Err(refusal));
        let early = in_child(|| std::process::abort());
        assert_eq!(early.unwrap_err().errno, libc::EINTR);
    }
}
