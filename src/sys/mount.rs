//! The mount API: `fsopen` and friends, `open_tree`, `mount_setattr`, `pivot_root`.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Result, check, show};

/// Attributes of a mount, as bits for [`fsmount`] and [`set_attr`].
pub mod attr {
    /// Nothing can be written.
    pub const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
    /// Set-uid bits and file capabilities have no effect.
    pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
    /// Device nodes cannot be opened.
    pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
}

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;

fn fd_of(ret: i64) -> OwnedFd {
    // SAFETY: the kernel has just handed out this descriptor; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(ret as i32) }
}

/// A file system that is being configured.
pub struct FsContext {
    fd: OwnedFd,
    kind: &'static CStr,
}

impl FsContext {
    /// `fsopen(kind)`.
    pub fn open(kind: &'static CStr) -> Result<Self> {
        // SAFETY: `kind` is NUL-terminated and outlives the call.
        let ret = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1u32) };
        let ret = check(ret, || format!("fsopen({})", show(kind)))?;
        Ok(Self { fd: fd_of(ret), kind })
    }

    fn config(&self, cmd: u32, key: Option<&CStr>, value: Option<&CStr>) -> Result<()> {
        let key_ptr = key.map_or(std::ptr::null(), CStr::as_ptr);
        let value_ptr = value.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: both pointers are null or NUL-terminated strings that outlive the call.
        let ret =
            unsafe { libc::syscall(libc::SYS_fsconfig, self.fd.as_raw_fd(), cmd, key_ptr, value_ptr, 0) };
        check(ret, || {
            let what = match cmd {
                FSCONFIG_CMD_CREATE => "CMD_CREATE".to_string(),
                _ => format!(
                    "{}{}",
                    key.map(show).unwrap_or_default(),
                    value.map(|v| format!(", {}", show(v))).unwrap_or_default()
                ),
            };
            let log = self.log();
            let log = if log.is_empty() { log } else { format!(" (kernel: {log})") };
            format!("fsconfig({}, {what}){log}", show(self.kind))
        })?;
        Ok(())
    }

    /// Sets an option that has no value.
    pub fn flag(&self, key: &CStr) -> Result<()> {
        self.config(FSCONFIG_SET_FLAG, Some(key), None)
    }

    /// Sets `key=value`.
    pub fn set(&self, key: &CStr, value: &CStr) -> Result<()> {
        self.config(FSCONFIG_SET_STRING, Some(key), Some(value))
    }

    /// Creates the file system and gives a mount of it that is attached nowhere yet.
    pub fn mount(self, attrs: u64) -> Result<OwnedFd> {
        self.config(FSCONFIG_CMD_CREATE, None, None)?;
        // SAFETY: plain integers.
        let ret = unsafe { libc::syscall(libc::SYS_fsmount, self.fd.as_raw_fd(), 1u32, attrs as u32) };
        check(ret, || format!("fsmount({})", show(self.kind))).map(fd_of)
    }

    /// What the kernel had to say, its messages joined by `; `.
    fn log(&self) -> String {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        let mut lines = Vec::new();
        let mut buf = [0u8; 512];
        loop {
            // SAFETY: `buf` is valid for its length.
            let n = unsafe { libc::read(self.fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) };
            if n <= 0 || lines.len() > 16 {
                break;
            }
            lines.push(String::from_utf8_lossy(&buf[..n as usize]).trim().to_string());
        }
        // SAFETY: errno is this thread's own; `check` reads it after the message is made.
        unsafe { *libc::__errno_location() = errno };
        lines.join("; ")
    }
}

/// A detached copy of the mount at `path` (relative to `dir`), with everything mounted below it. A symlink
/// at the end is not followed.
pub fn clone_tree(dir: impl AsFd, path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let recurse = if recursive { libc::AT_RECURSIVE as u32 } else { 0 };
    let empty = if path.is_empty() { libc::AT_EMPTY_PATH as u32 } else { 0 };
    let flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | recurse | empty | libc::AT_SYMLINK_NOFOLLOW as u32;
    // SAFETY: `path` is NUL-terminated and outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_open_tree, dir.as_fd().as_raw_fd(), path.as_ptr(), flags) };
    check(ret, || format!("open_tree({}, OPEN_TREE_CLONE)", show(path))).map(fd_of)
}

/// Attaches a detached mount over the open place `onto`; `place` is its name for the error.
pub fn attach(tree: impl AsFd, onto: impl AsFd, place: &str) -> Result<()> {
    let flags = 0x4u32 | 0x40; // MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    let (from, to) = (tree.as_fd().as_raw_fd(), onto.as_fd().as_raw_fd());
    // SAFETY: the empty strings are NUL-terminated constants.
    let ret = unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, c"".as_ptr(), flags) };
    check(ret, || format!("move_mount(…, \"{place}\")"))?;
    Ok(())
}

/// Adds attributes to a mount, and to all below it if `recursive`.
pub fn set_attr(tree: BorrowedFd<'_>, set: u64, recursive: bool) -> Result<()> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let size = std::mem::size_of_val(&attr);
    // SAFETY: `attr` is valid for `size` bytes during the call.
    let ret = unsafe {
        libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), flags, &raw const attr, size)
    };
    check(ret, || format!("mount_setattr({set:#x}, recursive: {recursive})"))?;
    Ok(())
}

/// Maps the owners of a detached mount, and of all below it, as the user namespace does: id 0 of the file system is
/// shown as the namespace's 0 (`MOUNT_ATTR_IDMAP`, mount_setattr(2)).
pub fn map_ids(tree: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_raw_fd() as u64,
    };
    let (flags, size) = (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, size_of_val(&attr));
    // SAFETY: `attr` is valid for `size` bytes during the call.
    let ret = unsafe {
        libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), flags, &raw const attr, size)
    };
    check(ret, || "mount_setattr(MOUNT_ATTR_IDMAP)".to_string())?;
    Ok(())
}

/// `mount(source, target, kind, flags, data)`.
pub fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64, data: &CStr) -> Result<()> {
    // SAFETY: all strings are NUL-terminated and outlive the call.
    let ret = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags as libc::c_ulong,
            data.as_ptr().cast(),
        )
    };
    check(ret, || {
        format!("mount({}, {}, {}, {flags:#x}, {})", show(source), show(target), show(kind), show(data))
    })?;
    Ok(())
}

/// Stops mount events from going in or out of the whole tree of this namespace.
pub fn make_private() -> Result<()> {
    mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, c"")
}

/// Makes the working directory the root and lets go of the old root with all its mounts.
pub fn pivot_to_cwd() -> Result<()> {
    // SAFETY: constants. `pivot_root(".", ".")` stacks the old root on the new one (pivot_root(2), NOTES).
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }, || {
        "pivot_root(\".\", \".\")".to_string()
    })?;
    // SAFETY: a constant.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }, || {
        "umount2(\".\", MNT_DETACH)".to_string()
    })?;
    // SAFETY: a constant.
    check(unsafe { libc::chdir(c"/".as_ptr()) }, || "chdir(\"/\")".to_string())?;
    Ok(())
}
