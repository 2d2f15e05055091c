//! The local store: layout, locks, layers, results, logs, blobs, roots, fsck (docs/store.md).
//!
//! Plain files under one directory, any number of processes and threads at once. Three rules keep it
//! whole through `kill -9` and power loss, without one fsync:
//!
//! 1. what has a name in the store was renamed into place complete;
//! 2. what is being written lives in a directory of `tmp/` whose `lock` its writer holds, so the next
//!    process can tell what is left over;
//! 3. nothing is believed because it is there: records carry a checksum, manifests are named by their
//!    hash, and a layer written under another boot is hashed again before it is used.

mod blobs;
mod clear;
mod failed;
mod find;
mod fsck;
mod gc;
mod info;
mod io;
mod layers;
mod layout;
mod lock;
mod log;
mod mirrors;
mod notes;
mod record;
mod remembered;
mod remove;
mod results;
mod roots;
mod tags;
mod tmp;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

pub use clear::Cleared;
pub use find::read_layer;
pub use fsck::Problem;
pub use gc::{Keep, Swept};
pub use info::Info;
pub use layers::Presence;
pub use lock::ActionLock;
pub use log::LogWriter;
pub use mirrors::{MIRRORS, Mirror};
pub use remove::remove_tree;
pub use results::{ActionRecord, DefinitionRecord};
pub use roots::{Definition, KeptRecipe, MOST_KEPT, RootRecord, RootStep};
pub use tags::Tag;
pub use tmp::{OWNERS, RunDir, Scratch};

use crate::digest::LayerId;
use crate::error::Result;
use crate::layer::Manifest;

/// An open store. Shared between threads; as long as it lives, nobody can clear the directory.
pub struct Store {
    root: PathBuf,
    /// The boot id layers are marked with; read when first needed.
    boot: OnceLock<String>,
    manifests: Mutex<HashMap<LayerId, Arc<Manifest>>>,
    /// Where files are written before they are renamed into place; made when first needed. It and
    /// `idle_runs` are dropped before `_lock`.
    session: Mutex<Option<tmp::Session>>,
    idle_runs: tmp::IdleRuns,
    _lock: lock::FileLock,
}

impl Store {
    /// Opens the store at `root`, which is made (with its parents) when it is not there. Waits while
    /// another process clears it.
    ///
    /// # Errors
    /// The directory holds something else, a store of another version, or a store of another user.
    pub fn open(root: &Path) -> Result<Store> {
        let root = std::path::absolute(root).map_err(|e| io::failed("find", root, e))?;
        let lock = layout::enter(&root)?;
        Ok(Self::with_lock(root, lock))
    }

    fn with_lock(root: PathBuf, lock: lock::FileLock) -> Store {
        Store {
            root,
            boot: OnceLock::new(),
            manifests: Mutex::default(),
            session: Mutex::default(),
            idle_runs: Arc::default(),
            _lock: lock,
        }
    }

    /// Opens the store at `root` if there is one; makes nothing.
    ///
    /// # Errors
    /// Those of [`Store::open`]; class `Usage` when no store is there.
    pub fn open_existing(root: &Path) -> Result<Store> {
        layout::expect_store(root)?;
        Self::open(root)
    }

    /// Opens the store as if the machine had been booted under the id `boot`: for tests of the boot rule.
    pub fn open_under_boot(root: &Path, boot: &str) -> Result<Store> {
        let store = Self::open(root)?;
        let _ = store.boot.set(boot.to_string());
        Ok(store)
    }

    /// The directory of the store; absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The id of this boot of the machine.
    fn boot(&self) -> Result<&str> {
        if let Some(boot) = self.boot.get() {
            return Ok(boot);
        }
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let text = std::fs::read_to_string(path).map_err(|e| io::failed("read", path, e))?;
        Ok(self.boot.get_or_init(|| text.trim().to_string()))
    }
}
