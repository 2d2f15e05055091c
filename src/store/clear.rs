//! Removing a whole store.

use std::path::{Path, PathBuf};

use super::lock::{FileLock, Try, holders, try_lock};
use super::{io, layout, remove_tree};
use crate::error::{Error, Result};

use super::Store;

/// What clearing a store did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cleared {
    /// Files at the top that are not the store's and were left alone, and with them the directory.
    pub left: Vec<PathBuf>,
}

/// The lock of the store at `root`, for one process alone.
pub(super) fn alone(root: &Path) -> Result<FileLock> {
    layout::expect_store(root)?;
    let locks = root.join("locks");
    io::make_dir(&locks, 0o700)?;
    let lock_path = locks.join("store");
    match try_lock(&lock_path, true, true)? {
        Try::Got(lock) => Ok(lock),
        _ => {
            let who = match holders(&lock_path) {
                who if who.is_empty() => "another process".to_string(),
                who => who.join(", "),
            };
            Err(Error::machine(format!("the store `{}` is used by {who}", root.display()))
                .hint("wait until that has ended"))
        }
    }
}

impl Store {
    /// Removes the store at `root` with everything in it. Call it when this process has the ids of its
    /// sandboxes: files in layers belong to them.
    ///
    /// # Errors
    /// The directory is not a store, or another process uses it (the error names that).
    pub fn clear(root: &Path) -> Result<Cleared> {
        let root = &std::path::absolute(root).map_err(|e| io::failed("find", root, e))?;
        let lock = alone(root)?;
        let locks = root.join("locks");
        let lock_path = locks.join("store");
        // The version goes first and the tag last: what is left by a clear that is killed is a store
        // still, to clear again or to fill again.
        io::remove_file(&root.join("version"))?;
        for (dir, _) in layout::DIRS.iter().filter(|(dir, _)| *dir != "locks") {
            remove_tree(&root.join(dir))?;
        }
        let mut left = Vec::new();
        for name in io::names(root)? {
            let path = root.join(&name);
            match name.as_encoded_bytes() {
                b"locks" | b"CACHEDIR.TAG" => {}
                bytes if bytes.starts_with(b".isolith-") => io::remove_file(&path)?,
                _ => left.push(path),
            }
        }
        for name in io::names(&locks)?.iter().filter(|name| *name != "store") {
            io::remove_file(&locks.join(name))?;
        }
        io::remove_file(&root.join("CACHEDIR.TAG"))?;
        // From here on another process may be making a new store: its files keep these directories.
        io::remove_file(&lock_path)?;
        drop(lock);
        let _ = std::fs::remove_dir(&locks);
        let _ = std::fs::remove_dir(root);
        Ok(Cleared { left })
    }
}
