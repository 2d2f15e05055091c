//! What a step may do to its root directory.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;
use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, Timespec, Timestamps};

use super::look::at;
use super::wild::{self, NAMES, SMALL, TARGETS, contents};

/// One thing that a step does; each may fail, as it may for a step.
#[derive(Debug, Clone)]
pub enum Op {
    Write(Vec<u8>, usize),
    Append(Vec<u8>),
    Truncate(Vec<u8>, u64),
    Chmod(Vec<u8>, u32),
    Chown(Vec<u8>, u32, u32),
    Mkdir(Vec<u8>),
    Unlink(Vec<u8>),
    Rmdir(Vec<u8>),
    Remove(Vec<u8>),
    Recreate(Vec<u8>),
    Rename(Vec<u8>, Vec<u8>),
    Exchange(Vec<u8>, Vec<u8>),
    Link(Vec<u8>, Vec<u8>),
    Symlink(Vec<u8>, usize),
    Fifo(Vec<u8>),
    Socket(Vec<u8>),
    SetXattr(Vec<u8>, u8),
    RemoveXattr(Vec<u8>),
    Capability(Vec<u8>),
    AccessList(Vec<u8>, bool),
}

pub fn op() -> impl Strategy<Value = Op> {
    // The root too, but for what would remove it.
    let path = || prop::collection::vec(select(NAMES), 0..4).prop_map(|names| names.join(&b'/'));
    let name = || prop::collection::vec(select(NAMES), 1..4).prop_map(|names| names.join(&b'/'));
    let id = || select(vec![0u32, 7, 1000, 65535]);
    prop_oneof![
        4 => (name(), 0..SMALL).prop_map(|(p, content)| Op::Write(p, content)),
        1 => name().prop_map(Op::Append),
        1 => (name(), 0..700u64).prop_map(|(p, len)| Op::Truncate(p, len)),
        2 => (path(), 0u32..0o10000).prop_map(|(p, mode)| Op::Chmod(p, mode)),
        2 => (path(), id(), id()).prop_map(|(p, uid, gid)| Op::Chown(p, uid, gid)),
        3 => name().prop_map(Op::Mkdir),
        3 => name().prop_map(Op::Unlink),
        1 => name().prop_map(Op::Rmdir),
        2 => name().prop_map(Op::Remove),
        2 => name().prop_map(Op::Recreate),
        4 => (name(), name()).prop_map(|(p, q)| Op::Rename(p, q)),
        1 => (name(), name()).prop_map(|(p, q)| Op::Exchange(p, q)),
        3 => (name(), name()).prop_map(|(p, q)| Op::Link(p, q)),
        2 => (name(), 0..TARGETS.len()).prop_map(|(p, target)| Op::Symlink(p, target)),
        1 => name().prop_map(Op::Fifo),
        1 => name().prop_map(Op::Socket),
        2 => (path(), any::<u8>()).prop_map(|(p, value)| Op::SetXattr(p, value)),
        1 => path().prop_map(Op::RemoveXattr),
        1 => name().prop_map(Op::Capability),
        1 => (path(), any::<bool>()).prop_map(|(p, default)| Op::AccessList(p, default)),
    ]
}

impl Op {
    /// Does it to the tree at `root`.
    pub fn apply(&self, root: &Path) -> io::Result<()> {
        let at = |path: &[u8]| at(root, path);
        let node = |path: &[u8], kind| Ok(rustix::fs::mknodat(CWD, at(path), kind, Mode::RWXU, 0)?);
        // Without waiting for somebody to read from a fifo.
        let options = || OpenOptions::new().custom_flags(libc::O_NONBLOCK).clone();
        match self {
            Op::Write(path, content) => {
                let mut file = options().write(true).create(true).truncate(true).open(at(path))?;
                file.write_all(&contents().bytes(*content))
            }
            Op::Append(path) => options().append(true).open(at(path))?.write_all(b"more"),
            Op::Truncate(path, len) => options().write(true).open(at(path))?.set_len(*len),
            Op::Chmod(path, mode) => {
                let path = at(path);
                let link = fs::symlink_metadata(&path)?.is_symlink();
                if link { Ok(()) } else { fs::set_permissions(path, Permissions::from_mode(*mode)) }
            }
            Op::Chown(path, uid, gid) => lchown(at(path), Some(*uid), Some(*gid)),
            Op::Mkdir(path) => fs::create_dir(at(path)),
            Op::Unlink(path) => fs::remove_file(at(path)),
            Op::Rmdir(path) => fs::remove_dir(at(path)),
            Op::Remove(path) => remove(&at(path)),
            Op::Recreate(path) => remove(&at(path)).and_then(|()| fs::create_dir(at(path))),
            Op::Rename(from, to) => fs::rename(at(from), at(to)),
            Op::Exchange(a, b) => {
                Ok(rustix::fs::renameat_with(CWD, at(a), CWD, at(b), RenameFlags::EXCHANGE)?)
            }
            Op::Link(from, to) => fs::hard_link(at(from), at(to)),
            Op::Symlink(path, target) => symlink(OsStr::from_bytes(TARGETS[*target]), at(path)),
            Op::Fifo(path) => node(path, FileType::Fifo),
            Op::Socket(path) => node(path, FileType::Socket),
            Op::SetXattr(path, value) => set(&at(path), "user.a", &[*value]),
            Op::RemoveXattr(path) => xattr::remove(at(path), "user.a"),
            Op::Capability(path) => set(&at(path), "security.capability", &wild::capability()),
            Op::AccessList(path, default) => {
                let mode = fs::symlink_metadata(at(path))?.mode() as u16;
                let name = if *default { "system.posix_acl_default" } else { "system.posix_acl_access" };
                set(&at(path), name, &wild::access_list(mode))
            }
        }
    }
}

/// Attributes go to files and directories: fifos and devices may have some, but nobody needs them.
fn set(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let stat = fs::symlink_metadata(path)?;
    if stat.is_file() || stat.is_dir() { xattr::set(path, name, value) } else { Ok(()) }
}

pub fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Things that leave everything as it was, for those who do not look at times: on one path.
pub fn noise(root: &Path, path: &[u8], which: u8) -> io::Result<()> {
    let path = at(root, path);
    let stat = fs::symlink_metadata(&path)?;
    let beside = root.join("beside");
    match which % 8 {
        0 => {
            let time = Timespec { tv_sec: 12345, tv_nsec: 678 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        1 if !stat.is_symlink() => {
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            fs::set_permissions(&path, stat.permissions())?;
        }
        2 if path != root => {
            fs::rename(&path, &beside)?;
            fs::rename(&beside, &path)?;
        }
        3 if stat.is_file() => _ = OpenOptions::new().write(true).open(&path)?,
        4 if !stat.is_dir() => {
            fs::hard_link(&path, &beside)?;
            fs::remove_file(&beside)?;
        }
        5 if stat.is_dir() => {
            fs::create_dir(path.join("new"))?;
            fs::write(path.join("new/file"), "x")?;
            fs::remove_dir_all(path.join("new"))?;
        }
        6 if stat.is_file() || stat.is_dir() => {
            xattr::set(&path, "user.noise", b"x")?;
            xattr::remove(&path, "user.noise")?;
        }
        7 if stat.is_dir() => lchown(&path, Some(1), Some(1)).and_then(|()| {
            lchown(&path, Some(stat.uid()), Some(stat.gid()))?;
            fs::set_permissions(&path, stat.permissions())
        })?,
        _ => {}
    }
    Ok(())
}
