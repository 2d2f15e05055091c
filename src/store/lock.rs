//! Advisory locks (`flock`) on files that come and go.
//!
//! Whoever removes a lock file holds its lock; whoever gets a lock looks whether the file is still the one
//! at that path, and starts over if not. So lock files do not pile up and two holders never meet.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// The right to run one action; no other thread or process has it meanwhile.
#[derive(Debug)]
pub struct ActionLock {
    path: PathBuf,
    _lock: FileLock,
}

impl Drop for ActionLock {
    fn drop(&mut self) {
        // While the lock is held: see the head of this file.
        let _ = std::fs::remove_file(&self.path);
    }
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
        self.lock_name(&key.to_hex(), on_wait, cancelled)
    }

    /// The same for any name.
    pub(super) fn lock_name(
        &self,
        name: &str,
        on_wait: impl FnOnce(),
        cancelled: impl Fn() -> bool,
    ) -> Result<ActionLock> {
        let path = self.root.join("locks").join(name);
        let mut on_wait = Some(on_wait);
        let mut pause = Duration::from_millis(1);
        loop {
            match try_lock(&path, true, true)? {
                Try::Got(lock) => return Ok(ActionLock { path, _lock: lock }),
                Try::Busy => {}
                Try::Absent => io::make_dir(&self.root.join("locks"), 0o700)?,
            }
            if let Some(tell) = on_wait.take() {
                tell();
            }
            if cancelled() {
                return Err(Error::new(
                    Class::Interrupted,
                    format!("stopped waiting for the lock `{}`", path.display()),
                ));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}
