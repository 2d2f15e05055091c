//! Inputs that are fetched: servers that misbehave, archives and repositories that mean harm, lock files.

#[path = "../common/mod.rs"]
mod common;

mod archives;
mod bounds;
mod downloads;
mod git;
mod hostile;
#[cfg(feature = "debian")]
mod indexes;
mod locks;
mod offline;
mod server;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use isolith::layer::IdShift;
use isolith::source::fetch::{Progress, Watch};
use isolith::store::Store;

/// A store of its own, and a place beside it that nothing may touch.
pub struct Place {
    dir: tempfile::TempDir,
    pub store: Store,
}

impl Place {
    pub(crate) fn new() -> Place {
        let dir =
            tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" }).unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Place { dir, store }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Nothing is left in the store's temporary directory, but for the session that is still open.
    pub fn assert_clean(&self) {
        let left: Vec<_> = std::fs::read_dir(self.store.root().join("tmp"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("session-"))
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        for session in std::fs::read_dir(self.store.root().join("tmp")).unwrap() {
            let files = std::fs::read_dir(session.unwrap().path()).unwrap().count();
            assert!(files <= 1, "the session directory has more than its lock in it");
        }
    }
}

/// Ids that any user can give files.
pub fn ids() -> IdShift {
    IdShift::by(rustix::process::geteuid().as_raw())
}

/// Remembers what it was told.
#[derive(Default)]
pub struct Ears {
    pub heard: Mutex<Vec<Progress>>,
    pub cancel: AtomicBool,
}

impl Watch for Ears {
    fn progress(&self, progress: Progress) {
        self.heard.lock().unwrap().push(progress);
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}
