//! Directories of `tmp/` that live as long as their owner: each has a file `lock` that the owner holds.
//!
//! `lock` is the first thing made in such a directory and the last thing removed. So a directory whose lock
//! is free, or that is empty, is left over from a process that is gone.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::lock::{FileLock, Try, try_lock};
use super::{Store, io, layout, remove_tree};
use crate::error::{Error, Result};
use crate::layer::IdShift;

/// Beside `upper/`: the list of owners that a sandbox with one id leaves (`layer::owners`).
pub const OWNERS: &str = "owners";

const KINDS: [&str; 3] = ["run-", "scratch-", "session-"];

/// What [`Store::discard`] leaves for a later sweep when it cannot remove a tree at once.
const DEAD: &str = "dead-";

#[derive(Debug)]
pub(super) struct LiveDir {
    path: PathBuf,
    name: String,
    owner: u32,
    _lock: FileLock,
}

impl LiveDir {
    fn new(tmp: &Path, kind: &str) -> Result<LiveDir> {
        for _ in 0..100 {
            let name = format!("{kind}{}", io::unique());
            let path = tmp.join(&name);
            match io::new_dir(&path, 0o755) {
                Ok(()) => {}
                // Taken, or swept between its making and the setting of its mode.
                Err(e) if matches!(e.kind(), ErrorKind::AlreadyExists) => continue,
                Err(e) if e.kind() == ErrorKind::NotFound && tmp.is_dir() => continue,
                Err(e) => return Err(io::failed("create", &path, e)),
            }
            // A sweep may take it for left over until the lock is held; then another one is made.
            if let Try::Got(lock) = try_lock(&path.join("lock"), true, true)? {
                return Ok(LiveDir { path, name, owner: std::process::id(), _lock: lock });
            }
        }
        Err(Error::machine(format!("cannot make a directory of its own in `{}`", tmp.display())))
    }
}

impl Drop for LiveDir {
    fn drop(&mut self) {
        // A forked copy of this process is not the owner. What cannot be removed now is swept up later.
        if self.owner == std::process::id() {
            let _ = empty_and_remove(&self.path);
        }
    }
}

/// Removes everything in a directory but what has one of these names.
fn empty(path: &Path, keep: &[&str]) -> Result<()> {
    for name in io::names(path)?.iter().filter(|name| !keep.iter().any(|keep| *name == keep)) {
        remove_tree(&path.join(name))?;
    }
    Ok(())
}

/// Removes a live directory, its lock last.
fn empty_and_remove(path: &Path) -> Result<()> {
    empty(path, &["lock"])?;
    io::remove_file(&path.join("lock"))?;
    match std::fs::remove_dir(path) {
        Err(e) if !io::is_absent(&e) => Err(io::failed("remove", path, e)),
        _ => Ok(()),
    }
}

/// Where one sandbox runs: `upper/` takes what it writes, `work/` is overlayfs's own. When it is dropped
/// everything in them is removed; the directory and its `work/` serve the next run of this process, since
/// making inodes is the dearest thing a file system does.
#[derive(Debug)]
pub struct RunDir {
    /// Always there until it is dropped.
    dir: Option<LiveDir>,
    path: PathBuf,
    name: String,
    idle: IdleRuns,
}

/// Empty run directories of this process.
pub(super) type IdleRuns = Arc<Mutex<Vec<LiveDir>>>;

impl RunDir {
    /// Its name below the store's `tmp/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes `count` files in it, so that what the sandbox writes gets other inode numbers than it would have.
    pub fn use_up_inodes(&self, count: u32) -> Result<()> {
        let dir = self.path.join("ballast");
        io::make_dir(&dir, 0o700)?;
        (0..count).try_for_each(|n| io::write_new(&dir.join(n.to_string()), b""))
    }

    /// What the sandbox wrote.
    pub fn upper(&self) -> PathBuf {
        self.path.join("upper")
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // If it cannot be emptied, dropping it tries once more, and then it is left to a later sweep.
        if let Some(dir) = self.dir.take()
            && empty(&self.path, &["lock", "work"]).is_ok()
            && empty(&self.path.join("work"), &[]).is_ok()
        {
            self.idle.lock().unwrap_or_else(|e| e.into_inner()).push(dir);
        }
    }
}

/// A directory on the file system of the store, to make layers in that no sandbox wrote. Removed with
/// everything in it when dropped.
#[derive(Debug)]
pub struct Scratch(LiveDir);

impl Scratch {
    /// The directory; it has a file `lock` in it, which must stay.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// A directory in it to lay a tree in, made when it is not there.
    pub fn tree(&self) -> Result<PathBuf> {
        let tree = self.0.path.join("fs");
        io::make_dir(&tree, 0o755)?;
        Ok(tree)
    }
}

/// Where an open store writes files before they are renamed into place.
pub(super) struct Session {
    dir: LiveDir,
    count: u64,
}

impl Session {
    pub(super) fn next_path(&mut self) -> PathBuf {
        self.count += 1;
        self.dir.path.join(self.count.to_string())
    }
}

impl Store {
    /// Makes a run directory. Its `upper/` and `work/` belong to the root of the sandbox.
    pub fn new_run(&self, ids: IdShift) -> Result<RunDir> {
        let idle = self.idle_runs.lock().unwrap_or_else(|e| e.into_inner()).pop();
        let (dir, fresh) = match idle {
            Some(dir) if dir.path.join("work").is_dir() => (dir, false),
            _ => (LiveDir::new(&self.root.join("tmp"), KINDS[0])?, true),
        };
        let (path, name) = (dir.path.clone(), dir.name.clone());
        let run = RunDir { dir: Some(dir), path, name, idle: self.idle_runs.clone() };
        for (name, new) in [("upper", true), ("work", fresh)] {
            let path = run.path.join(name);
            if new {
                io::new_dir(&path, 0o755).map_err(|e| io::failed("create", &path, e))?;
                give_to_guest_root(&path, ids)?;
            }
        }
        Ok(run)
    }

    /// Makes a directory to build a layer in, for instance as `fs` below it.
    pub fn scratch(&self) -> Result<Scratch> {
        LiveDir::new(&self.root.join("tmp"), KINDS[1]).map(Scratch)
    }

    pub(super) fn new_session(&self) -> Result<Session> {
        Ok(Session { dir: LiveDir::new(&self.root.join("tmp"), KINDS[2])?, count: 0 })
    }

    /// Takes a directory out of the store at once, then removes it. If that cannot be done now, a later
    /// sweep does it.
    pub(super) fn discard(&self, path: &Path) -> Result<()> {
        let dead = self.root.join("tmp").join(format!("{DEAD}{}", io::unique()));
        match std::fs::rename(path, &dead) {
            Ok(()) => {}
            Err(e) if io::is_absent(&e) => return Ok(()),
            Err(e) => return Err(io::failed("remove", path, e)),
        }
        let _ = remove_tree(&dead);
        Ok(())
    }

    /// Makes the store ready to run things: removes what processes that are gone left in `tmp/`, and makes
    /// directories that got lost. What fails is tried again next time. Call it when this process has the ids
    /// of its sandboxes.
    pub fn sweep(&self) {
        for (dir, mode) in layout::DIRS {
            let _ = io::make_dir(&self.root.join(dir), mode);
        }
        let _ = self.sweep_up();
    }

    /// Whether [`Store::sweep`] would find anything. What cannot be told counts as such.
    pub fn needs_sweep(&self) -> bool {
        let tmp = self.root.join("tmp");
        let left_over =
            |name: &OsString| !is_live_kind(name) || !matches!(is_left_over(&tmp.join(name)), Ok(None));
        io::names(&tmp).is_ok_and(|names| names.iter().any(left_over))
    }

    /// Sweeps, and says what was found: path relative to the store, and why it stayed if it did.
    pub(super) fn sweep_up(&self) -> Result<Vec<(String, Option<Error>)>> {
        let tmp = self.root.join("tmp");
        let mut found = Vec::new();
        for name in io::names(&tmp)? {
            let path = tmp.join(&name);
            let text = name.to_string_lossy();
            let removed = if is_live_kind(&name) {
                match is_left_over(&path)? {
                    Some(_lock) => empty_and_remove(&path),
                    None => continue,
                }
            } else {
                remove_tree(&path)
            };
            found.push((format!("tmp/{text}"), removed.err()));
        }
        Ok(found)
    }
}

/// Whether what has this name is a directory with an owner.
fn is_live_kind(name: &OsStr) -> bool {
    KINDS.iter().any(|kind| name.as_encoded_bytes().starts_with(kind.as_bytes()))
}

/// The lock of a directory whose owner is gone; none when someone uses it, or when there is nothing left.
fn is_left_over(path: &Path) -> Result<Option<Option<FileLock>>> {
    for _ in 0..2 {
        match try_lock(&path.join("lock"), true, false)? {
            Try::Got(lock) => return Ok(Some(Some(lock))),
            Try::Busy => return Ok(None),
            // No lock yet, or no longer: an empty directory can go, whoever made it makes another.
            Try::Absent => match std::fs::remove_dir(path) {
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NOTEMPTY.raw_os_error()) => {}
                _ => return Ok(None),
            },
        }
    }
    // Full, and twice without a lock: no owner leaves it like that.
    Ok(Some(None))
}

/// Hands a directory to the root of sandboxes.
pub(super) fn give_to_guest_root(path: &Path, ids: IdShift) -> Result<()> {
    let root = ids.to_disk(0);
    std::os::unix::fs::chown(path, root, root).map_err(|e| {
        Error::io("hand to the root of sandboxes", path, e)
            .hint("this process must have the ids of its sandboxes: see `isolith doctor`")
    })
}
