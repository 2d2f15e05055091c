//! Looking everything over: what is damaged or stray is removed, and becomes a miss.
//!
//! Layers go first, since records are only as good as the layers they name. A problem is removed by the
//! same operations that a build uses, so other processes may use the store meanwhile; what they are writing
//! is in live directories of `tmp/` and no problem.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rayon::prelude::*;
use serde::Serialize;

use super::results::{ActionRecord, DefinitionRecord};
use super::{Presence, RootRecord, Store, Tag, io, layout, record};
use crate::digest::{ActionKey, ContentDigest, DefinitionKey, LayerId};
use crate::error::Result;
use crate::layer::IdShift;

/// Something that was wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Where, relative to the root of the store.
    pub path: String,
    /// What was found.
    pub found: String,
    /// What was done about it.
    pub done: String,
}

/// What is done about things that are not isolith's.
const LEFT: &str = "left alone";

impl Problem {
    /// Whether it is a thing of somebody else's, which does no harm to the store and stays.
    pub fn is_left_alone(&self) -> bool {
        self.done == LEFT
    }
}

impl Store {
    /// Checks the whole store: every layer is hashed again, every record read and its key computed again.
    /// What is wrong is removed; an empty list says that all was well. Call it when this process has the
    /// ids of its sandboxes.
    pub fn fsck(&self, ids: IdShift) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        for (path, stayed) in self.sweep_up()? {
            let done = stayed.map_or("removed".to_string(), |why| format!("nothing: {why}"));
            problems.push(Problem { path, found: "left over from a process that is gone".to_string(), done });
        }
        self.check_top(&mut problems)?;
        self.check_layers(ids, &mut problems)?;
        self.check_records(&mut problems)?;
        self.check_files("logs", &mut problems, |path, name| {
            let key = name.strip_suffix(".zst").and_then(|hex| ActionKey::from_str(hex).ok());
            let Some(key) = key else { return Ok(Some("no log has such a name".to_string())) };
            if path != self.log_path(&key) {
                return Ok(Some("it is in the wrong place".to_string()));
            }
            let unpacked = self.open_log(&key)?.map(|mut log| std::io::copy(&mut log, &mut std::io::sink()));
            Ok(unpacked.is_some_and(|done| done.is_err()).then(|| "it is damaged".to_string()))
        })?;
        self.check_files("blobs", &mut problems, |path, name| {
            let Ok(id) = ContentDigest::from_str(name) else {
                return Ok(Some("no blob has such a name".to_string()));
            };
            let hashed = std::fs::File::open(path).and_then(|mut file| super::blobs::hash(&mut file));
            Ok((!hashed.is_ok_and(|found| found == id)).then(|| "it is damaged".to_string()))
        })?;
        self.check_files("failed", &mut problems, |path, name| {
            let state = ActionKey::from_str(name).ok().and_then(|key| self.failed(&key));
            let whole = state.is_some_and(|fs| self.root.join(fs) == path.join("fs"));
            Ok((!whole).then(|| "it is no state of a failed step".to_string()))
        })?;
        problems.sort();
        Ok(problems)
    }

    fn check_top(&self, problems: &mut Vec<Problem>) -> Result<()> {
        let known = |name: &OsStr| {
            layout::DIRS.iter().any(|(dir, _)| name == *dir) || name == "CACHEDIR.TAG" || name == "version"
        };
        for name in io::names(&self.root)? {
            // A name that is not ours to judge may be a person's: it is told, not touched.
            if name.as_encoded_bytes().starts_with(b".isolith-") {
                self.discard(&self.root.join(&name))?;
                problems.push(problem(Path::new(&name), "left over from a process that is gone", "removed"));
            } else if !known(&name) && !layout::is_harmless(&name) {
                problems.push(problem(Path::new(&name), "it is not part of a store", LEFT));
            }
        }
        for name in io::names(&self.root.join("locks"))? {
            let path = self.root.join("locks").join(&name);
            if name != "store" && name != "names" {
                self.discard(&path)?;
                problems.push(self.removed(&path, "it is not part of a store"));
            }
        }
        Ok(())
    }

    fn check_layers(&self, ids: IdShift, problems: &mut Vec<Problem>) -> Result<()> {
        let paths = self.sharded("layers", problems)?;
        let found: Vec<Result<Option<Problem>>> = paths
            .par_iter()
            .map(|path| {
                let id = name_of(path).and_then(|name| LayerId::from_str(name).ok());
                let Some(id) = id.filter(|id| self.layer_dir(id) == *path) else {
                    self.discard(path)?;
                    return Ok(Some(self.removed(path, "it is no layer")));
                };
                let _lock = self.lock_layer(&id)?;
                let damage = match self.presence(&id) {
                    Presence::Missing if !path.exists() => None, // Somebody has just removed it.
                    Presence::Missing => {
                        self.remove_layer(&id)?;
                        Some("it has no tree".to_string())
                    }
                    _ => self.inspect_layer(&id, ids)?,
                };
                Ok(damage.map(|damage| self.removed(path, &damage)))
            })
            .collect();
        for found in found {
            problems.extend(found?);
        }
        Ok(())
    }

    fn check_records(&self, problems: &mut Vec<Problem>) -> Result<()> {
        let mut whole = HashSet::new();
        let mut all_there = |layers: &[LayerId]| {
            let missing = layers.iter().find(|id| {
                !whole.contains(*id) && (self.presence(id) == Presence::Missing || !whole.insert(**id))
            });
            missing.map(|id| format!("its layer {id:#} is missing"))
        };
        self.check_files("actions", problems, |path, name| {
            let Ok(key) = ActionKey::from_str(name) else {
                return Ok(Some("no action has such a name".into()));
            };
            let record: Option<ActionRecord> = self.get_record(path, &format!("actions/{key}"))?;
            let Some(record) = record else { return Ok(Some("it is damaged".into())) };
            if canonical(&record.action).is_none_or(|json| ActionKey::of_document(&json) != key) {
                return Ok(Some("its document has another key".into()));
            }
            Ok(all_there(&[record.layer]))
        })?;
        self.check_files("definitions", problems, |path, name| {
            let Ok(key) = DefinitionKey::from_str(name) else {
                return Ok(Some("no definition has such a name".into()));
            };
            let record: Option<DefinitionRecord> = self.get_record(path, &format!("definitions/{key}"))?;
            let Some(record) = record else { return Ok(Some("it is damaged".into())) };
            if canonical(&record.document).is_none_or(|json| DefinitionKey::of_document(&json) != key) {
                return Ok(Some("its document has another key".into()));
            }
            Ok(all_there(&record.layers))
        })?;
        for name in io::names(&self.root.join("roots"))? {
            let path = self.root.join("roots").join(&name);
            let record = format!("roots/{}", name.to_string_lossy());
            if self.get_record::<Vec<RootRecord>>(&path, &record)?.is_none() && path.exists() {
                self.discard(&path)?;
                problems.push(self.removed(&path, "it is damaged"));
            }
        }
        for name in io::names(&self.root.join("tags"))? {
            let path = self.root.join("tags").join(&name);
            let record = format!("tags/{}", name.to_string_lossy());
            if self.get_record::<Tag>(&path, &record)?.is_none() && path.exists() {
                self.discard(&path)?;
                problems.push(self.removed(&path, "it is damaged"));
            }
        }
        for kind in io::names(&self.root.join("notes"))? {
            for name in io::names(&self.root.join("notes").join(&kind))? {
                let path = self.root.join("notes").join(&kind).join(&name);
                let record = format!("notes/{}/{}", kind.to_string_lossy(), name.to_string_lossy());
                let damaged = io::read(&path)?
                    .is_some_and(|bytes| record::unseal::<serde::de::IgnoredAny>(&record, &bytes).is_none());
                if damaged {
                    self.discard(&path)?;
                    problems.push(self.removed(&path, "it is damaged"));
                }
            }
        }
        for name in io::names(&self.root.join("mounts"))? {
            let path = self.root.join("mounts").join(&name);
            if name.to_str().is_none_or(|name| ContentDigest::from_str(name).is_err()) {
                self.discard(&path)?;
                problems.push(self.removed(&path, "it is no cache mount"));
            }
        }
        Ok(())
    }

    /// Looks at every `<kind>/ab/<name>`; of what `check` finds fault with, the fault is told and the file
    /// removed.
    fn check_files(
        &self,
        kind: &str,
        problems: &mut Vec<Problem>,
        mut check: impl FnMut(&Path, &str) -> Result<Option<String>>,
    ) -> Result<()> {
        for path in self.sharded(kind, problems)? {
            let found = match name_of(&path) {
                Some(name) if path.parent().and_then(name_of) == name.get(..2) => check(&path, name)?,
                _ => Some("it is in the wrong place".to_string()),
            };
            // What another process has removed meanwhile is no problem.
            if let Some(found) = found.filter(|_| path.symlink_metadata().is_ok()) {
                self.discard(&path)?;
                problems.push(self.removed(&path, &found));
            }
        }
        Ok(())
    }

    /// Every `<kind>/ab/<name>`; what is not a directory there is removed.
    fn sharded(&self, kind: &str, problems: &mut Vec<Problem>) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for name in io::names(&self.root.join(kind))? {
            let shard = self.root.join(kind).join(name);
            if shard.symlink_metadata().is_ok_and(|meta| !meta.is_dir()) {
                self.discard(&shard)?;
                problems.push(self.removed(&shard, "it is not part of a store"));
            }
            paths.extend(io::names(&shard)?.into_iter().map(|name| shard.join(name)));
        }
        Ok(paths)
    }

    fn removed(&self, path: &Path, found: &str) -> Problem {
        problem(path.strip_prefix(&self.root).unwrap_or(path), found, "removed")
    }
}

fn problem(path: &Path, found: &str, done: &str) -> Problem {
    Problem { path: path.display().to_string(), found: found.to_string(), done: done.to_string() }
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name().and_then(OsStr::to_str)
}

/// The canonical JSON of a document: keys sorted, no white space.
fn canonical(document: &impl Serialize) -> Option<Vec<u8>> {
    serde_json::to_value(document).and_then(|value| serde_json::to_vec(&value)).ok()
}
