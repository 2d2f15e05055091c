//! Where a round's store is while it is needed.

use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

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
    _lock: File,
}

const PREFIX: &str = "isolith-verify-";
/// Where the store is in an area: the short path and the long one.
const STORES: [&str; 2] = ["s", "another-and-longer-path/with several parts/to the store/store-of-a-round"];
/// Locked as long as the area is used.
const LOCK: &str = "lock";

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
        let path = dir.join(LOCK);
        let lock = File::create(&path).map_err(|e| Error::io("create", &path, e))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| Error::io("lock", &path, e))?;
        let store = dir.join(STORES[usize::from(arrangement.long_path)]);
        // The area stays the caller's; another user may pass through to the store, which is that user's.
        let made = || -> std::io::Result<()> {
            std::fs::create_dir_all(&store)?;
            if let Some((uid, gid)) = arrangement.setting.outside.user {
                for part in store.ancestors().skip(1).take_while(|path| path.starts_with(&dir)) {
                    std::fs::set_permissions(part, Permissions::from_mode(0o711))?;
                }
                std::os::unix::fs::chown(&store, Some(uid), Some(gid))?;
            }
            Ok(())
        };
        made().map_err(|e| Error::io("set up", &dir, e))?;
        Ok(Area { dir, store, _scratch: scratch, _lock: lock })
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
            clear(&self.store)?;
        }
        remove_tree(&self.dir)
    }

    /// Removes it with everything in it. This process must have the ids of its sandboxes.
    pub fn remove(self) -> Result<()> {
        remove_tree(&self.dir)
    }
}

/// Removes a store of the caller, whose files belong to ids that this process does not have yet.
fn clear(store: &Path) -> Result<()> {
    let cleared = Command::new(PROGRAM).args(["store", "clear", "--store"]).arg(store).output();
    cleared.map(drop).map_err(|e| Error::io("clear", store, e))
}

/// Removes what a process that was killed has left in public places; what is in a store's own directory goes with the
/// store's next sweep. Best effort.
pub fn sweep(places: &[&Path]) {
    let uid = privilege::effective_ids().0;
    for entry in places.iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        // A directory that has just been made has no lock yet; one of another user is none of ours.
        let lock = File::open(path.join(LOCK));
        let ours = entry.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == uid);
        if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) || !ours {
            continue;
        }
        if lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()) {
            if uid != 0 {
                for name in STORES {
                    let _ = clear(&path.join(name));
                }
            }
            let _ = remove_tree(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_holds_is_swept() {
        let place = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let dir = place.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            File::create(dir.join(LOCK)).unwrap()
        };
        let (held, left, other) =
            (make("isolith-verify-held"), make("isolith-verify-left"), make("other-left"));
        std::fs::create_dir(place.path().join("isolith-verify-new")).unwrap();
        flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        drop((left, other));
        sweep(&[place.path()]);
        let there = |name: &str| place.path().join(name).exists();
        assert!(there("isolith-verify-held") && there("isolith-verify-new") && there("other-left"));
        assert!(!there("isolith-verify-left"));
    }
}
