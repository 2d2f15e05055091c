//! Every raw system call and all `unsafe`, as safe functions whose errors name the call, its arguments
//! and the errno.

pub mod door;
pub mod fd;
pub mod mount;
pub mod notify;
pub mod privilege;
pub mod process;
pub mod seccomp;
pub mod signals;
pub mod socket;

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;

/// A system call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysError {
    call: String,
    errno: i32,
}

/// `Result` with [`SysError`].
pub type Result<T> = std::result::Result<T, SysError>;

impl SysError {
    /// `call`, written like `mount("proc", "/proc")`, failed with `errno`.
    pub fn new(call: impl Into<String>, errno: i32) -> Self {
        Self { call: call.into(), errno }
    }

    /// The error number.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// The call with its arguments.
    pub fn call(&self) -> &str {
        &self.call
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, io::Error::from_raw_os_error(self.errno))
    }
}

impl std::error::Error for SysError {}

impl From<SysError> for crate::error::Error {
    fn from(e: SysError) -> Self {
        crate::error::Error::machine(format!("the system call {} failed", e.call))
            .because(io::Error::from_raw_os_error(e.errno))
    }
}

/// The result of a C-style call: -1 means look at errno.
fn check(ret: impl Into<i64>, call: impl FnOnce() -> String) -> Result<i64> {
    match ret.into() {
        -1 => Err(SysError { call: call(), errno: io::Error::last_os_error().raw_os_error().unwrap_or(0) }),
        ret => Ok(ret),
    }
}

/// Like [`check`] for calls that a signal may interrupt.
fn retry(mut f: impl FnMut() -> i64, call: impl FnOnce() -> String) -> Result<i64> {
    loop {
        match f() {
            -1 if io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => continue,
            ret => return check(ret, call),
        }
    }
}

/// A NUL-terminated copy; a NUL inside is `EINVAL`.
pub fn cstring(bytes: impl AsRef<[u8]>) -> Result<CString> {
    let bytes = bytes.as_ref();
    CString::new(bytes)
        .map_err(|_| SysError::new(format!("\"{}\" (a NUL byte)", bytes.escape_ascii()), libc::EINVAL))
}

/// For error texts: `"path"`.
fn show(s: &CStr) -> String {
    format!("\"{}\"", s.to_bytes().escape_ascii())
}
