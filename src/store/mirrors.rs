//! Mirrors of git repositories: `git/<digest of the URL>/`, bare, each changed by one process at a time.

use std::path::PathBuf;

use super::lock::NameLock;
use super::{Store, io};
use crate::digest::ContentDigest;
use crate::error::Result;

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
        let top = self.root.join("git");
        if !top.is_dir() {
            io::make_dir(&top, 0o700)?; // The store was made before there were mirrors.
        }
        let name = format!("git/{}", ContentDigest::of(url.as_bytes()));
        let lock = self.lock_name(&name, || (), cancelled)?;
        Ok(Mirror { path: self.root.join(name), _lock: lock })
    }

    /// Takes a mirror out of the store.
    pub fn drop_mirror(&self, mirror: &Mirror) -> Result<()> {
        self.discard(&mirror.path)
    }
}
