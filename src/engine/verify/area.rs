//! Where a round's store is while it is needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::arrange::Arrangement;
use super::round::PROGRAM;
use crate::error::{Error, Result};
use crate::store::{Scratch, Store, remove_tree};
use crate::sys::privilege;

/// A directory for one round.
pub struct Area {
    dir: PathBuf,
    store: PathBuf,
    /// Held so that no other process takes it for left over.
    _scratch: Option<Scratch>,
}

/// A directory of the store's temporary ones is swept up by the next process, should this one be killed.
const PREFIX: &str = "isolith-verify-";

impl Area {
    /// Makes it, for the user that the round is built as.
    pub fn new(own: &Store, arrangement: &Arrangement) -> Result<Area> {
        let scratch = if arrangement.place.is_none() { Some(own.scratch()?) } else { None };
        let above = match (&arrangement.place, &scratch) {
            (Some(place), _) => place.as_path(),
            (None, Some(scratch)) => scratch.path(),
            (None, None) => own.root(),
        };
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(above);
        let dir = dir.map_err(|e| Error::io("create a directory in", above, e))?.keep();
        let name = if arrangement.long_path {
            "another-and-longer-path/with several parts/to the store/store-of-a-round"
        } else {
            "s"
        };
        let store = dir.join(name);
        let made = || -> std::io::Result<()> {
            let mut parts = vec![dir.clone()];
            std::fs::create_dir_all(store.parent().unwrap_or(&dir))?;
            parts.extend(store.ancestors().skip(1).take_while(|path| *path != dir).map(Path::to_owned));
            if let Some((uid, gid)) = arrangement.setting.outside.user {
                for part in parts {
                    std::os::unix::fs::chown(part, Some(uid), Some(gid))?;
                }
            }
            Ok(())
        };
        made().map_err(|e| Error::io("set up", &dir, e))?;
        Ok(Area { dir, store, _scratch: scratch })
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The store in it.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Removes it before this process has the ids of its sandboxes: another process does that.
    pub fn remove_early(self) -> Result<()> {
        if privilege::effective_ids().0 != 0 {
            let cleared = Command::new(PROGRAM).args(["store", "clear", "--store"]).arg(&self.store).output();
            cleared.map_err(|e| Error::io("clear", &self.store, e))?;
        }
        remove_tree(&self.dir)
    }

    /// Removes it with everything in it. This process must have the ids of its sandboxes.
    pub fn remove(self) -> Result<()> {
        remove_tree(&self.dir)
    }
}
