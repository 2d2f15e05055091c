//! A function run in a forked child, for trying out what cannot be undone in the process itself.

use std::io::Read;
use std::os::fd::AsFd;

use crate::sys::{Result, SysError, fd, process, socket};

/// Runs `trial` in a forked child, waits for it and gives its answer; a child that dies without one is
/// an error too.
///
/// With one thread anything may follow fork. With more (in unit tests), the C library leaves its
/// allocator usable in the child, and trials take no other lock.
pub(super) fn in_child(trial: impl FnOnce() -> Result<()>) -> Result<()> {
    let (read, write) = socket::pipe()?;
    let Some(pid) = process::fork()? else {
        drop(read);
        // One line with the error number (empty when all went well), then what was refused.
        let text = match trial() {
            Ok(()) => "\n".to_owned(),
            Err(refused) => format!("{}\n{}", refused.errno(), refused.call()),
        };
        let _ = fd::write_all(write.as_fd(), text.as_bytes());
        process::exit(0)
    };
    drop(write);
    let mut text = String::new();
    let read = std::fs::File::from(read).read_to_string(&mut text);
    process::wait(pid, true)?;
    read.map_err(|why| SysError::new("read", why.raw_os_error().unwrap_or(0)))?;
    match text.split_once('\n') {
        Some(("", _)) => Ok(()),
        Some((errno, call)) => Err(SysError::new(call, errno.parse().unwrap_or(0))),
        None => Err(SysError::new("a child process ended early", libc::EINTR)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_the_child_comes_back() {
        assert_eq!(in_child(|| Ok(())), Ok(()));
        let refused = SysError::new("unshare(CLONE_NEWUSER)", libc::EPERM);
        assert_eq!(in_child(|| Err(refused.clone())), Err(refused));
        let early = in_child(|| std::process::abort());
        assert_eq!(early.unwrap_err().errno(), libc::EINTR);
    }
}
