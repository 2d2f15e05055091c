//! Removing what no build that is remembered and no tag needs (mark and sweep).
//!
//! Nobody else may use the store meanwhile: a running build counts on layers that no record names yet.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::results::{ActionRecord, DefinitionRecord};
use super::{MOST_KEPT, Presence, Store, clear, io};
use crate::digest::{ActionKey, ContentDigest, LayerId};
use crate::error::{Error, Result};

/// What has to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// So many builds of each recipe, the newest; at least 1.
    pub builds: usize,
    /// Recipes that were built within this time; all of them when it is not said. Tagged builds stay in any case.
    pub within: Option<Duration>,
    /// Fetched files, which can be fetched again but perhaps not for ever.
    pub fetched: bool,
}

impl Default for Keep {
    fn default() -> Self {
        Self { builds: MOST_KEPT, within: None, fetched: true }
    }
}

/// States of failed steps stay so long: somebody may still want to look around in them.
const FAILED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// What was removed.
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
    /// Bytes that the file system got back.
    pub bytes: u64,
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
        store.all_readable()?;
        store.sweep_up()?;
        let before = store.info()?.bytes;
        let mut gone = Swept { builds: store.forget(keep)?, ..Swept::default() };
        let (live, texts) = store.live()?;
        for path in store.all_of("layers")? {
            if name_of(&path)
                .and_then(|name| name.parse().ok())
                .is_some_and(|id: LayerId| !live.contains(&id))
            {
                store.discard(&path)?;
                gone.layers += 1;
            }
        }
        store.drop_texts(&texts)?;
        gone.results = store.drop_results()?;
        let old = |path: &Path| age(path).is_none_or(|age| age > FAILED_FOR);
        for path in store.all_of("failed")?.into_iter().filter(|path| old(path)) {
            store.discard(&path)?;
            gone.failed += 1;
        }
        for path in store.all_of("blobs")?.into_iter().filter(|_| !keep.fetched) {
            store.discard(&path)?;
            gone.fetched += 1;
        }
        gone.bytes = before.saturating_sub(store.info()?.bytes);
        Ok(gone)
    }

    /// Forgets builds beyond those that stay. Gives how many.
    fn forget(&self, keep: Keep) -> Result<usize> {
        let mut forgotten = self.shorten_roots(keep.builds)?;
        let Some(within) = keep.within else { return Ok(forgotten) };
        for (latest, roots) in self.all_roots()? {
            if latest.elapsed().is_ok_and(|age| age > within)
                && let Some(newest) = roots.first()
            {
                forgotten += roots.len();
                self.remove_roots(newest)?;
            }
        }
        Ok(forgotten)
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

    /// The layers and texts that remembered builds and tags name.
    fn live(&self) -> Result<(HashSet<LayerId>, HashSet<ContentDigest>)> {
        let (mut layers, mut texts) = (HashSet::new(), HashSet::new());
        let tagged = self.tags()?.into_iter().map(|tag| tag.build);
        for build in self.all_roots()?.into_iter().flat_map(|(_, roots)| roots).chain(tagged) {
            layers.extend(build.layers().copied());
            texts.extend(build.texts().copied());
        }
        Ok((layers, texts))
    }

    /// Removes results whose layers are gone, and logs of nothing. Gives how many results.
    fn drop_results(&self) -> Result<u64> {
        let mut gone = 0;
        let mut known: BTreeMap<LayerId, bool> = BTreeMap::new();
        let mut there =
            |id: &LayerId| *known.entry(*id).or_insert_with(|| self.presence(id) != Presence::Missing);
        for path in self.all_of("actions")? {
            let Some(name) = name_of(&path) else { continue };
            let record: Option<ActionRecord> = self.get_record(&path, &format!("actions/{name}"))?;
            if record.is_none_or(|record| !there(&record.layer)) {
                io::remove_file(&path)?;
                gone += 1;
            }
        }
        for path in self.all_of("definitions")? {
            let Some(name) = name_of(&path) else { continue };
            let record: Option<DefinitionRecord> = self.get_record(&path, &format!("definitions/{name}"))?;
            if record.is_none_or(|record| !record.layers.iter().all(&mut there)) {
                io::remove_file(&path)?;
            }
        }
        for path in self.all_of("logs")? {
            let key = name_of(&path).and_then(|name| name.strip_suffix(".zst")?.parse::<ActionKey>().ok());
            let wanted = key.is_some_and(|key| {
                self.failed(&key).is_some() || self.action(&key).is_ok_and(|record| record.is_some())
            });
            // The log of a step that failed and left nothing is of use for a day too.
            if !wanted && age(&path).is_none_or(|age| age > FAILED_FOR) {
                io::remove_file(&path)?;
            }
        }
        Ok(gone)
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

/// How long ago something was changed; none when that cannot be known.
fn age(path: &Path) -> Option<Duration> {
    let changed = std::fs::symlink_metadata(path).and_then(|meta| meta.modified()).ok()?;
    Some(SystemTime::now().duration_since(changed).unwrap_or_default())
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name().and_then(std::ffi::OsStr::to_str)
}
