//! Mirrors of git repositories: `git/<digest of the URL>/`, bare, each changed by one process at a time.

use std::path::PathBuf;

use super::lock::NameLock;
use super::{Store, io};
use crate::digest::ContentDigest;
use crate::error::Result;

/// Where they are in a store.
pub const MIRRORS: &str = "git";

/// The right to use a mirror; given up when dropped.
#[derive(Debug)]
pub struct Mirror {
    /// Its directory, which may not be there yet. Its parent is.
    pub path: PathBuf,
    _lock: NameLock,
}

impl Store {
    /// The mirror of the repository at `url`. Waits while another thread or process uses it.
    ///
    /// # Errors
    /// Class `Interrupted` when `cancelled` says so while waiting.
    pub fn mirror(&self, url: &str, cancelled: impl Fn() -> bool) -> Result<Mirror> {
        let top = self.root.join(MIRRORS);
        if !top.is_dir() {
            io::make_dir(&top, 0o700)?; // The store was made before there were mirrors.
        }
        let name = format!("{MIRRORS}/{}", ContentDigest::of(url.as_bytes()));
        let lock = self.lock_name(&name, || (), cancelled)?;
        Ok(Mirror { path: self.root.join(name), _lock: lock })
    }

    /// All of them, each held.
    ///
    /// # Errors
    /// As for [`Store::mirror`].
    pub fn mirrors(&self, cancelled: &dyn Fn() -> bool) -> Result<Vec<Mirror>> {
        let top = self.root.join(MIRRORS);
        let entries = std::fs::read_dir(&top).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .map(|name| format!("{MIRRORS}/{name}"))
            .map(|name| {
                let lock = self.lock_name(&name, || (), cancelled)?;
                Ok(Mirror { path: self.root.join(name), _lock: lock })
            })
            .collect()
    }

    /// Takes a mirror out of the store.
    pub fn drop_mirror(&self, mirror: &Mirror) -> Result<()> {
        self.discard(&mirror.path)
    }
}
