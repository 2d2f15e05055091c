//! The library that shifts libc's wall clock (`clock.c`, built by `build.rs`), and its place in a sandbox.

use std::os::fd::{AsFd, BorrowedFd};

use crate::error::{Error, Result};
use crate::sys::{cstring, fd};

/// Empty when there was no C compiler for it.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/clock.so"));
const MARK: &[u8] = b"isolith--clock-\0";

/// Where it lies: on the private tmpfs of every sandbox.
pub(super) const PATH: &str = "/run/.isolith-clock.so";

pub(super) fn is_there() -> bool {
    place_of_seconds().is_some()
}

/// Puts the library, set to `seconds`, into the sandbox whose root is `root`.
pub(super) fn install(root: BorrowedFd<'_>, seconds: i64) -> Result<()> {
    let at = place_of_seconds()
        .ok_or_else(|| Error::machine("this isolith was built without the library that shifts clocks"))?;
    let mut library = LIBRARY.to_vec();
    library[at..at + 8].copy_from_slice(&seconds.to_le_bytes());
    let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_EXCL;
    let file = fd::open_in_root(root, &cstring(PATH)?, flags, 0o755)?;
    Ok(fd::write_all(file.as_fd(), &library)?)
}

fn place_of_seconds() -> Option<usize> {
    let at = LIBRARY.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    (at + 8 <= LIBRARY.len()).then_some(at)
}
