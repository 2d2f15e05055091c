//! Removing what no build that is remembered and no tag needs (mark and sweep).
//!
//! Nobody else may use the store meanwhile: a running build counts on layers that no record names yet.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::info::usage;
use super::remembered::Remembered;
use super::results::{ActionRecord, DefinitionRecord};
use super::{MOST_KEPT, Presence, Store, clear, io};
use crate::digest::{ActionKey, LayerId};
use crate::error::{Error, Result};

/// What has to stay. Tagged builds do in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// So many builds of each recipe, the newest; at least 1.
    pub builds: usize,
    /// Builds that are not older; of any age when it is not said. The newest of a recipe is as old as the last time
    /// that it was asked for.
    pub within: Option<Duration>,
    /// No more bytes than these in the whole store, as far as forgetting builds helps: the oldest go first.
    pub size: Option<u64>,
    /// Fetched files, which can be fetched again but perhaps not for ever.
    pub fetched: bool,
}

impl Default for Keep {
    fn default() -> Self {
        Self { builds: MOST_KEPT, within: None, size: None, fetched: true }
    }
}

/// States of failed steps stay so long: somebody may still want to look around in them.
const FAILED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// What was removed, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Builds that are not remembered any more.
    pub builds: usize,
    /// Layers.
    pub layers: u64,
    /// Results whose layers are gone, with their logs.
    pub results: u64,
    /// Fetched files.
    pub fetched: u64,
    /// States of failed steps.
    pub failed: u64,
    /// Bytes on disk of all that.
    pub bytes: u64,
    /// Bytes on disk of what stays.
    pub left: u64,
}

/// One collection.
struct Sweep<'a> {
    store: &'a Store,
    /// Nothing is removed, only counted.
    dry: bool,
    /// Files with several names count once.
    seen: HashSet<(u64, u64)>,
    gone: Swept,
}

impl Sweep<'_> {
    /// Takes a directory or file away, and counts its bytes.
    fn remove(&mut self, path: &Path) -> Result<()> {
        self.gone.bytes += usage(path, &mut self.seen);
        match self.dry {
            true => Ok(()),
            false => self.store.discard(path),
        }
    }
}

impl Store {
    /// Collects garbage in the store at `root`. Call it when this process has the ids of its sandboxes: files in layers
    /// belong to them.
    ///
    /// # Errors
    /// The directory is not a store, or another process uses it (the error names that).
    pub fn gc(root: &Path, keep: Keep) -> Result<Swept> {
        let root = std::path::absolute(root).map_err(|e| io::failed("find", root, e))?;
        let store = Store::with_lock(root.clone(), clear::alone(&root)?);
        store.sweep_up()?;
        store.collect(keep, false)
    }

    /// What [`Store::gc`] would remove now. Others may use the store meanwhile.
    pub fn would_collect(&self, keep: Keep) -> Result<Swept> {
        self.collect(keep, true)
    }

    fn collect(&self, keep: Keep, dry: bool) -> Result<Swept> {
        self.all_readable()?;
        let all = self.info()?.bytes;
        let mut sweep = Sweep { store: self, dry, seen: HashSet::new(), gone: Swept::default() };
        let mut layers = BTreeMap::new();
        for path in self.all_of("layers")? {
            if let Some(id) = name_of(&path).and_then(|name| name.parse::<LayerId>().ok()) {
                layers.insert(id, path);
            }
        }
        let blobs = if keep.fetched { Vec::new() } else { self.all_of("blobs")? };
        let mut remembered = Remembered::of(self)?;
        remembered.keep_newest(keep.builds);
        if let Some(within) = keep.within {
            remembered.keep_younger(within);
        }
        if let Some(most) = keep.size {
            let mut sizes: BTreeMap<LayerId, u64> = BTreeMap::new();
            for (id, path) in &layers {
                sizes.insert(*id, usage(path, &mut HashSet::new()));
            }
            let of_layers: u64 = sizes.values().sum();
            let of_blobs: u64 = blobs.iter().map(|path| usage(path, &mut HashSet::new())).sum();
            let others = all.saturating_sub(of_layers).saturating_sub(of_blobs);
            remembered.fit(&sizes, most.saturating_sub(others));
        }
        sweep.gone.builds = remembered.forgotten();
        let (live, texts) = remembered.live();
        if !dry {
            remembered.write(self)?;
            self.drop_texts(&texts)?;
        }
        let mut gone = HashSet::new();
        for (id, path) in layers.into_iter().filter(|(id, _)| !live.contains(id)) {
            sweep.remove(&path)?;
            sweep.gone.layers += 1;
            gone.insert(id);
        }
        sweep.results(&gone)?;
        for path in self.all_of("failed")?.into_iter().filter(|path| is_old(path)) {
            sweep.remove(&path)?;
            sweep.gone.failed += 1;
        }
        for path in blobs {
            sweep.remove(&path)?;
            sweep.gone.fetched += 1;
        }
        sweep.gone.left = all.saturating_sub(sweep.gone.bytes);
        Ok(sweep.gone)
    }

    /// Refuses to go on where a damaged record may have said that something has to stay.
    fn all_readable(&self) -> Result<()> {
        for (kind, readable) in [("roots", self.all_roots()?.len()), ("tags", self.tags()?.len())] {
            if io::names(&self.root.join(kind))?.len() != readable {
                return Err(Error::machine(format!(
                    "a record in `{}` is damaged",
                    self.root.join(kind).display()
                ))
                .because("what it says has to stay would be removed")
                .hint("`isolith store fsck` removes damaged records; then nothing keeps what they named"));
            }
        }
        Ok(())
    }

    /// Every `<kind>/ab/<name>`.
    fn all_of(&self, kind: &str) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for shard in io::names(&self.root.join(kind))? {
            let shard = self.root.join(kind).join(shard);
            paths.extend(io::names(&shard)?.into_iter().map(|name| shard.join(name)));
        }
        Ok(paths)
    }
}

impl Sweep<'_> {
    /// Removes results whose layers are gone, among them those that `gone` names, and logs of nothing.
    fn results(&mut self, gone: &HashSet<LayerId>) -> Result<()> {
        let store = self.store;
        let mut known: BTreeMap<LayerId, bool> = BTreeMap::new();
        let mut there = |id: &LayerId| {
            let is = || !gone.contains(id) && store.presence(id) != Presence::Missing;
            *known.entry(*id).or_insert_with(is)
        };
        let mut kept = HashSet::new();
        for path in store.all_of("actions")? {
            let Some(name) = name_of(&path) else { continue };
            let record: Option<ActionRecord> = store.get_record(&path, &format!("actions/{name}"))?;
            if record.is_none_or(|record| !there(&record.layer)) {
                self.remove(&path)?;
                self.gone.results += 1;
            } else {
                kept.insert(name.to_string());
            }
        }
        for path in store.all_of("definitions")? {
            let Some(name) = name_of(&path) else { continue };
            let record: Option<DefinitionRecord> = store.get_record(&path, &format!("definitions/{name}"))?;
            if record.is_none_or(|record| !record.layers.iter().all(&mut there)) {
                self.remove(&path)?;
            }
        }
        for path in store.all_of("logs")? {
            let key = name_of(&path).and_then(|name| name.strip_suffix(".zst"));
            let failed = |key: &str| key.parse::<ActionKey>().is_ok_and(|key| store.failed(&key).is_some());
            // The log of a step that failed and left nothing is of use for a day too.
            if !key.is_some_and(|key| kept.contains(key) || failed(key)) && is_old(&path) {
                self.remove(&path)?;
            }
        }
        Ok(())
    }
}

/// Whether something was changed longer ago than [`FAILED_FOR`], or nobody knows when.
fn is_old(path: &Path) -> bool {
    let changed = std::fs::symlink_metadata(path).and_then(|meta| meta.modified());
    changed.map_or(true, |at| SystemTime::now().duration_since(at).unwrap_or_default() > FAILED_FOR)
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name().and_then(std::ffi::OsStr::to_str)
}
