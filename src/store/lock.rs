//! Locks between processes and threads; all of them end with the process that holds them.
//!
//! [`FileLock`] is `flock` on a file that comes and goes. Whoever removes such a file holds its lock; whoever
//! gets a lock looks whether the file is still the one at that path, and starts over if not.
//!
//! [`NameLock`] is one byte of the file `locks/names`, at a place that the hash of the name gives, locked
//! through an open file description (`F_OFD_SETLK`, fcntl(2)). No file is made for a name, and none is left.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{Store, io};
use crate::digest::ActionKey;
use crate::error::{Class, Error, Result};

/// A held lock; given up when dropped.
#[derive(Debug)]
pub(super) struct FileLock {
    _file: File,
}

/// What a try at a lock gave.
pub(super) enum Try {
    Got(FileLock),
    /// Someone else holds it.
    Busy,
    /// The file, or the directory it should be in, is not there.
    Absent,
}

/// One try at a lock. With `create`, the file is made when it is missing.
pub(super) fn try_lock(path: &Path, exclusive: bool, create: bool) -> Result<Try> {
    let operation = match exclusive {
        true => FlockOperation::NonBlockingLockExclusive,
        false => FlockOperation::NonBlockingLockShared,
    };
    loop {
        let open = File::options().read(true).write(create).create(create).mode(0o600).open(path);
        let file = match open {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Try::Absent),
            Err(e) => return Err(io::failed("open", path, e)),
        };
        match flock(&file, operation) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Try::Busy),
            Err(Errno::INTR) => continue,
            Err(e) => return Err(io::failed("lock", path, e)),
        }
        let ours = file.metadata().map_err(|e| io::failed("read", path, e))?;
        match std::fs::metadata(path) {
            Ok(there) if there.ino() == ours.ino() && there.dev() == ours.dev() => {
                return Ok(Try::Got(FileLock { _file: file }));
            }
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(io::failed("read", path, e)),
        }
        if !create {
            return Ok(Try::Absent);
        }
    }
}

/// Processes that hold or wait for locks on a file, by what /proc/locks says; best effort.
pub(super) fn holders(path: &Path) -> Vec<String> {
    let (Ok(meta), Ok(locks)) = (std::fs::metadata(path), std::fs::read_to_string("/proc/locks")) else {
        return Vec::new();
    };
    let inode = meta.ino().to_string();
    let mut found: Vec<String> = Vec::new();
    for line in locks.lines() {
        // "1: FLOCK  ADVISORY  READ 1234 fd:00:5678 0 EOF"
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(&"FLOCK"), Some(pid), Some(file)) = (words.get(1), words.get(4), words.get(5)) else {
            continue;
        };
        if file.rsplit(':').next() != Some(inode.as_str()) || pid.parse::<u32>().is_err() {
            continue;
        }
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let holder = match name.trim() {
            "" => format!("process {pid}"),
            name => format!("process {pid} ({name})"),
        };
        if !found.contains(&holder) {
            found.push(holder);
        }
    }
    found
}

/// A lock on a name.
#[derive(Debug)]
pub(super) struct NameLock {
    file: File,
    place: i64,
}

impl NameLock {
    /// None when someone else holds it. `file` is an open file description of its own.
    fn try_new(file: File, place: i64) -> nix::Result<Result<NameLock, File>> {
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&one_byte(libc::F_WRLCK, place))) {
            Ok(_) => Ok(Ok(NameLock { file, place })),
            Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(Err(file)),
            Err(e) => Err(e),
        }
    }
}

impl Drop for NameLock {
    fn drop(&mut self) {
        // Closing is not enough while a child that has just been forked still has the file.
        let _ = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&one_byte(libc::F_UNLCK, self.place)));
    }
}

fn one_byte(kind: i32, place: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: place, l_len: 1, l_pid: 0 }
}

/// The right to run one action; no other thread or process has it meanwhile. Given up when dropped.
#[derive(Debug)]
pub struct ActionLock {
    _lock: NameLock,
}

impl Store {
    /// Waits until nobody else runs this action. `on_wait` is called once if it has to wait; `cancelled` is
    /// asked at least every 20 ms.
    ///
    /// # Errors
    /// Class `Interrupted` when `cancelled` says so while waiting.
    pub fn lock_action(
        &self,
        key: &ActionKey,
        on_wait: impl FnOnce(),
        cancelled: impl Fn() -> bool,
    ) -> Result<ActionLock> {
        Ok(ActionLock { _lock: self.lock_name(&format!("action {key}"), on_wait, cancelled)? })
    }

    /// The same for any name.
    pub(super) fn lock_name(
        &self,
        name: &str,
        on_wait: impl FnOnce(),
        cancelled: impl Fn() -> bool,
    ) -> Result<NameLock> {
        let path = self.root.join("locks/names");
        let open =
            File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = open.map_err(|e| io::failed("open", &path, e))?;
        let hash = blake3::hash(name.as_bytes());
        // Two names at one place would only wait for each other without need.
        let place = hash.as_bytes().iter().take(7).fold(0, |place, byte| place << 8 | i64::from(*byte));
        let mut on_wait = Some(on_wait);
        let mut pause = Duration::from_millis(1);
        loop {
            file = match NameLock::try_new(file, place).map_err(|e| io::failed("lock", &path, e))? {
                Ok(lock) => return Ok(lock),
                Err(file) => file,
            };
            if let Some(tell) = on_wait.take() {
                tell();
            }
            if cancelled() {
                return Err(Error::new(Class::Interrupted, format!("stopped waiting for the {name}")));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}
