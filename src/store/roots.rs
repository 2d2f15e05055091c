//! What recipes produced: `roots/<digest of the recipe's path>`, newest first. Garbage collection starts here; the
//! mtime of the file is the time of the latest build, also of one that changed nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::lock::NameLock;
use super::{Store, io};
use crate::digest::{ActionKey, ContentDigest, DefinitionKey, LayerId};
use crate::error::Result;

/// Records kept of one recipe, at most. Every build reads them.
pub const MOST_KEPT: usize = 16;
/// Held while records come and go that say what has to stay in the store.
const ROOTS: &str = "roots";
/// The notes with the texts that records refer to, by digest.
const TEXTS: &str = "text";
/// The notes on how many numbers a recipe gave that has no records any more.
const GIVEN: &str = "given";

/// One build of a recipe that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRecord {
    /// The recipe file, absolute.
    pub recipe: PathBuf,
    /// The recipe's name.
    pub name: String,
    /// The arguments in force.
    pub args: BTreeMap<String, String>,
    /// Which one of the recipe's results it is: from 1, and never given twice.
    #[serde(default)]
    pub number: u64,
    /// How many numbers the recipe has given so far, this one among them.
    #[serde(default)]
    pub given: u64,
    /// When the result was come by first (or again, after another one), in seconds since 1970.
    pub finished: i64,
    /// What it takes to plan it again; none of what no file defined.
    #[serde(default)]
    pub definition: Option<Definition>,
    /// The steps, in the order of the recipe.
    pub steps: Vec<RootStep>,
    /// Layers of sources, deps and base, by name.
    pub inputs: BTreeMap<String, Vec<LayerId>>,
    /// The finished stack, lowest first.
    pub stack: Vec<LayerId>,
    /// The layer of each output.
    pub outputs: BTreeMap<String, LayerId>,
}

/// What a build was planned from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Of the keys of everything planned, to see that nothing else comes out of it later.
    pub plan: ContentDigest,
    /// Every recipe, the one that was built last.
    pub recipes: Vec<KeptRecipe>,
}

/// A recipe as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRecipe {
    /// Its file, absolute.
    pub path: PathBuf,
    /// How other recipes refer to it.
    pub names: BTreeSet<PathBuf>,
    /// Its text; see [`Store::text`].
    pub text: ContentDigest,
    /// The text of its lock file, if that counted.
    pub lock: Option<ContentDigest>,
    /// The layers that were made of files of this machine, by the name of the input.
    pub local: BTreeMap<String, LayerId>,
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

impl RootRecord {
    /// Every layer it came to or was made from.
    pub fn layers(&self) -> impl Iterator<Item = &LayerId> {
        let local = self.definition.iter().flat_map(|definition| &definition.recipes);
        let local = local.flat_map(|recipe| recipe.local.values());
        let made = self.steps.iter().filter_map(|step| step.layer.as_ref());
        self.stack
            .iter()
            .chain(self.outputs.values())
            .chain(self.inputs.values().flatten())
            .chain(made)
            .chain(local)
    }

    /// The texts it refers to.
    pub fn texts(&self) -> impl Iterator<Item = &ContentDigest> {
        let recipes = self.definition.iter().flat_map(|definition| &definition.recipes);
        recipes.flat_map(|recipe| std::iter::once(&recipe.text).chain(&recipe.lock))
    }

    /// Whether the other one came to the same by the same keys.
    fn is_same(&self, other: &RootRecord) -> bool {
        let RootRecord { number, given, finished, definition, .. } = self.clone();
        RootRecord { number, given, finished, definition, ..other.clone() } == *self
    }

    /// Whether it was built for its own sake, and not only as far as another recipe needed it.
    pub fn is_whole(&self) -> bool {
        self.definition.is_some() || !self.stack.is_empty()
    }
}

impl Store {
    /// What a recipe produced, newest first; at most [`MOST_KEPT`]. Damaged records count as none.
    pub fn roots(&self, recipe: &Path) -> Result<Vec<RootRecord>> {
        let (path, name) = self.roots_file(recipe);
        Ok(self.get_record(&path, &name)?.unwrap_or_default())
    }

    /// What every recipe produced, with the time of each one's latest build.
    pub fn all_roots(&self) -> Result<Vec<(SystemTime, Vec<RootRecord>)>> {
        let mut all = Vec::new();
        for name in io::names(&self.root.join("roots"))? {
            let name = format!("roots/{}", name.to_string_lossy());
            let path = self.root.join(&name);
            let Ok(latest) = std::fs::metadata(&path).and_then(|meta| meta.modified()) else { continue };
            if let Some(roots) = self.get_record(&path, &name)? {
                all.push((latest, roots));
            }
        }
        Ok(all)
    }

    /// Puts a build first. One that only repeats the newest is not written again: the file's mtime says when.
    /// `texts` are those that its definition refers to. The record gets its number here.
    pub fn push_root(&self, root: &RootRecord, texts: &[&str]) -> Result<()> {
        let (path, name) = self.roots_file(&root.recipe);
        let newest = self.roots(&root.recipe)?.into_iter().next();
        let kept = || root.texts().all(|text| self.text(text).is_some());
        if newest.is_some_and(|newest| newest.is_same(root) && newest.definition == root.definition) && kept()
        {
            let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
            let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
            let _ = rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty());
            return Ok(());
        }
        let _lock = self.lock_roots()?;
        for text in texts {
            let digest = ContentDigest::of(text.as_bytes());
            if self.text(&digest).is_none() {
                self.put_note(TEXTS, &digest.to_hex(), text)?;
            }
        }
        let mut roots = self.roots(&root.recipe)?;
        let mut root = root.clone();
        let before = || self.get_note(GIVEN, &root.recipe.to_string_lossy()).unwrap_or_default();
        let given = roots.first().map_or_else(before, |newest| newest.given);
        (root.number, root.given) = (given + 1, given + 1);
        if let Some(at) = roots.iter().position(|other| other.is_same(&root)) {
            let same = roots.remove(at);
            (root.number, root.given) = (same.number, given);
            if at == 0 {
                // Only what it is planned from reads otherwise.
                root.finished = same.finished;
            }
        }
        roots.insert(0, root);
        roots.truncate(MOST_KEPT);
        self.put_record(&path, &name, &roots)
    }

    /// Leaves a recipe, whose newest build this was, with these records alone; the numbers of the others are not given
    /// again. `latest` is when it was built last. The caller is alone in the store.
    pub(super) fn keep_roots(
        &self,
        newest: &RootRecord,
        kept: &[RootRecord],
        latest: SystemTime,
    ) -> Result<()> {
        let (path, name) = self.roots_file(&newest.recipe);
        if kept.is_empty() {
            self.put_note(GIVEN, &newest.recipe.to_string_lossy(), &newest.given)?;
            return io::remove_file(&path);
        }
        self.put_record(&path, &name, &kept)?;
        // Nothing was built now.
        if let Ok(file) = std::fs::File::open(&path) {
            let _ = file.set_modified(latest);
        }
        Ok(())
    }

    /// Removes the texts that are not among these.
    pub(super) fn drop_texts(&self, live: &HashSet<ContentDigest>) -> Result<()> {
        let live: HashSet<PathBuf> =
            live.iter().map(|text| self.note_file(TEXTS, &text.to_hex()).0).collect();
        let dir = self.root.join("notes").join(TEXTS);
        let all = io::names(&dir)?.into_iter().map(|name| dir.join(name));
        all.filter(|path| !live.contains(path)).try_for_each(|path| io::remove_file(&path))
    }

    /// A text that a record refers to; none when it is lost.
    pub fn text(&self, digest: &ContentDigest) -> Option<String> {
        let text: String = self.get_note(TEXTS, &digest.to_hex())?;
        (ContentDigest::of(text.as_bytes()) == *digest).then_some(text)
    }

    /// Held while records come and go that say what has to stay.
    pub(super) fn lock_roots(&self) -> Result<NameLock> {
        self.lock_name(ROOTS, || (), || false)
    }

    fn roots_file(&self, recipe: &Path) -> (PathBuf, String) {
        let digest = ContentDigest::of(recipe.as_os_str().as_encoded_bytes()).to_hex();
        (self.root.join("roots").join(&digest), format!("roots/{digest}"))
    }
}
