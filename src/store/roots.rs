//! What recipes last produced: `roots/<digest of the recipe's path>`, newest first. Garbage collection will
//! start here; the mtime of the file is the time of the latest build, also of one that changed nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Store;
use crate::digest::{ActionKey, ContentDigest, DefinitionKey, LayerId};
use crate::error::Result;

/// Records kept of one recipe.
const KEPT: usize = 16;

/// One build of a recipe that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRecord {
    /// The recipe file, absolute.
    pub recipe: PathBuf,
    /// The recipe's name.
    pub name: String,
    /// The arguments in force.
    pub args: BTreeMap<String, String>,
    /// When the build ended, in seconds since 1970.
    pub finished: i64,
    /// The steps, in the order of the recipe.
    pub steps: Vec<RootStep>,
    /// Layers of sources, deps and base, by name.
    pub inputs: BTreeMap<String, Vec<LayerId>>,
    /// The finished stack, lowest first.
    pub stack: Vec<LayerId>,
    /// The layer of each output.
    pub outputs: BTreeMap<String, LayerId>,
}

/// A step of a [`RootRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootStep {
    /// Its name.
    pub name: String,
    /// Its action key.
    pub action: Option<ActionKey>,
    /// Its definition key.
    pub definition: DefinitionKey,
    /// What it yielded.
    pub layer: Option<LayerId>,
}

impl Store {
    /// What a recipe produced, newest first; at most 16. Damaged records count as none.
    pub fn roots(&self, recipe: &Path) -> Result<Vec<RootRecord>> {
        let (path, name) = self.roots_file(recipe);
        Ok(self.get_record(&path, &name)?.unwrap_or_default())
    }

    /// Puts a build first. One that only repeats the newest is not written again: the file's mtime says when.
    pub fn push_root(&self, root: &RootRecord) -> Result<()> {
        let (path, name) = self.roots_file(&root.recipe);
        let same = |other: &RootRecord| RootRecord { finished: root.finished, ..other.clone() } == *root;
        if self.roots(&root.recipe)?.first().is_some_and(same) {
            let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
            let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
            let _ = rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty());
            return Ok(());
        }
        let _lock = self.lock_name(&name, || (), || false)?;
        let mut roots = self.roots(&root.recipe)?;
        roots.retain(|other| !same(other));
        roots.insert(0, root.clone());
        roots.truncate(KEPT);
        self.put_record(&path, &name, &roots)
    }

    fn roots_file(&self, recipe: &Path) -> (PathBuf, String) {
        let digest = ContentDigest::of(recipe.as_os_str().as_encoded_bytes()).to_hex();
        (self.root.join("roots").join(&digest), format!("roots/{digest}"))
    }
}
