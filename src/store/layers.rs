//! Layers: `layers/ab/<id>/` with the tree `fs/` and its `manifest.<boot id>`. The name says under which
//! boot of the machine the tree was written or last hashed, so one look tells whether it can be used.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, OnceLock};

use super::lock::NameLock;
use super::{Store, io};
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::layer::{IdShift, Manifest, verify};

const MANIFEST: &str = "manifest.";

/// What the store has of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It can be used.
    Ready,
    /// It was written under another boot, so its bytes may not have reached the disk; see [`Store::ready`].
    Unverified,
    /// It is not there.
    Missing,
}

/// The id of the layer without entries, which is never stored and always there.
fn empty_layer() -> &'static LayerId {
    static EMPTY: OnceLock<LayerId> = OnceLock::new();
    EMPTY.get_or_init(Manifest::empty_id)
}

impl Store {
    /// The directory of a layer, whether it is there or not.
    pub fn layer_dir(&self, id: &LayerId) -> PathBuf {
        self.shard("layers", &id.to_hex())
    }

    /// The tree of a layer, as overlayfs takes it.
    pub fn layer_fs(&self, id: &LayerId) -> PathBuf {
        self.layer_dir(id).join("fs")
    }

    /// What the store has of a layer, by two looks at names.
    pub fn presence(&self, id: &LayerId) -> Presence {
        if id == empty_layer() {
            return Presence::Ready;
        }
        let dir = self.layer_dir(id);
        match (exists(&dir.join("fs")), self.manifest_name()) {
            (false, _) => Presence::Missing,
            (true, Ok(name)) if exists(&dir.join(&name)) => Presence::Ready,
            (true, _) => Presence::Unverified,
        }
    }

    /// The name of the manifests of layers that can be used.
    fn manifest_name(&self) -> Result<String> {
        Ok(format!("{MANIFEST}{}", self.boot()?))
    }

    /// The manifest file of a layer, of this or another boot.
    fn manifest_file(&self, dir: &Path) -> Result<Option<PathBuf>> {
        let name = self.manifest_name()?;
        if exists(&dir.join(&name)) {
            return Ok(Some(dir.join(name)));
        }
        let mut names = io::names(dir)?.into_iter();
        Ok(names
            .find(|name| name.as_encoded_bytes().starts_with(MANIFEST.as_bytes()))
            .map(|name| dir.join(name)))
    }

    /// The manifest of a layer; none when the store does not have the layer. A layer whose manifest is
    /// damaged is removed.
    pub fn manifest(&self, id: &LayerId) -> Result<Option<Arc<Manifest>>> {
        if let Some(manifest) = self.load_manifest(id)? {
            return Ok(Some(manifest));
        }
        if !self.layer_dir(id).exists() {
            return Ok(None);
        }
        // It may just have been put there, or changed for a whole one: look again where nobody changes it.
        let _lock = self.lock_layer(id)?;
        let manifest = self.load_manifest(id)?;
        if manifest.is_none() && self.layer_dir(id).exists() {
            self.remove_layer(id)?;
        }
        Ok(manifest)
    }

    /// The manifest of a layer, from memory or the disk; none when it is missing or damaged.
    fn load_manifest(&self, id: &LayerId) -> Result<Option<Arc<Manifest>>> {
        if id == empty_layer() {
            return Ok(Some(Arc::default()));
        }
        if let Some(manifest) = self.known_manifests().get(id) {
            return Ok(Some(manifest.clone()));
        }
        let file = self.manifest_file(&self.layer_dir(id))?;
        let bytes = file.map(|file| io::read(&file)).transpose()?.flatten();
        let bytes = bytes.as_deref().filter(|bytes| LayerId::of_manifest(bytes) == *id);
        let manifest = bytes.and_then(|bytes| Manifest::decode(bytes).ok()).map(Arc::new);
        if let Some(manifest) = &manifest {
            self.known_manifests().insert(*id, manifest.clone());
        }
        Ok(manifest)
    }

    fn known_manifests(&self) -> MutexGuard<'_, HashMap<LayerId, Arc<Manifest>>> {
        self.manifests.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Makes sure that a layer can be used: one written under another boot is hashed again and marked, or
    /// removed when it is damaged. False when the store does not have it.
    ///
    /// # Errors
    /// When the tree cannot be read, the mark not written.
    pub fn ready(&self, id: &LayerId, ids: IdShift) -> Result<bool> {
        match self.presence(id) {
            Presence::Missing => return Ok(false),
            Presence::Ready => return self.ids_fit(id, ids),
            Presence::Unverified => {}
        }
        let _lock = self.lock_layer(id)?;
        match self.presence(id) {
            Presence::Missing => Ok(false),
            Presence::Ready => self.ids_fit(id, ids),
            Presence::Unverified => Ok(self.inspect_layer(id, ids)?.is_none()),
        }
    }

    /// Reads a layer's manifest and hashes its tree again. One that is sound is marked with this boot; of a
    /// damaged one the damage is returned, and it is removed. The caller holds the layer's lock.
    pub(super) fn inspect_layer(&self, id: &LayerId, ids: IdShift) -> Result<Option<String>> {
        self.known_manifests().remove(id);
        let damage = match self.load_manifest(id)? {
            Some(manifest) => {
                verify(&manifest, &self.layer_fs(id), ids).err().map(|damage| damage.to_string())
            }
            None => Some("the manifest is missing or damaged".to_string()),
        };
        match damage {
            Some(_) => self.remove_layer(id)?,
            None => self.mark(&self.layer_dir(id))?,
        }
        Ok(damage)
    }

    /// Renames a layer's manifest to say that its tree is good under this boot.
    fn mark(&self, dir: &Path) -> Result<()> {
        let good = dir.join(self.manifest_name()?);
        match self.manifest_file(dir)? {
            Some(file) if file != good => io::rename(&file, &good),
            _ => Ok(()),
        }
    }

    /// Takes a finished layer in. `fs` is its tree, canonical already, in a run or scratch directory of this
    /// store; it is moved, not copied. When the store has the layer, or when the layer has no entries, `fs`
    /// stays where it is.
    pub fn add_layer(&self, fs: &Path, manifest: &Manifest) -> Result<LayerId> {
        let bytes = manifest.encode();
        let id = LayerId::of_manifest(&bytes);
        if manifest.is_empty() {
            return Ok(id);
        }
        let parent = fs.parent().ok_or_else(|| Error::machine("a layer cannot be made of `/`"))?;
        let staged = parent.join(format!("layer-{}", io::unique()));
        io::make_dir(&staged, 0o755)?;
        let name = self.manifest_name()?;
        io::write_new(&staged.join(&name), &bytes)?;
        let moved = staged.join("fs");
        fs::rename(fs, &moved).map_err(|e| io::failed("move", fs, e))?;
        let target = self.layer_dir(&id);
        if !io::rename_new(&staged, &target)? {
            // The same layer is there. Unless it can be seen to be whole, ours takes its place; nobody
            // uses one that is not marked with this boot, and who is marking it holds the lock.
            let _lock = self.lock_layer(&id)?;
            let whole = self.presence(&id) == Presence::Ready
                && io::read(&target.join(&name))?.is_some_and(|there| there == bytes);
            if whole {
                fs::rename(&moved, fs).map_err(|e| io::failed("move", &moved, e))?;
                super::remove_tree(&staged)?;
            } else if io::rename_over(&staged, &target)? {
                self.discard(&staged)?;
            }
        }
        self.known_manifests().entry(id).or_insert_with(|| Arc::new(manifest.clone()));
        Ok(id)
    }

    /// Takes a layer out of the store. A sandbox that has it mounted loses it.
    pub fn remove_layer(&self, id: &LayerId) -> Result<()> {
        self.known_manifests().remove(id);
        self.discard(&self.layer_dir(id))
    }

    pub(super) fn lock_layer(&self, id: &LayerId) -> Result<NameLock> {
        self.lock_name(&format!("layer {id}"), || (), || false)
    }

    /// A layer whose root belongs to no id of a sandbox was written when other ids were set up for this
    /// user; it is of no use now and removed.
    fn ids_fit(&self, id: &LayerId, ids: IdShift) -> Result<bool> {
        if id == empty_layer() {
            return Ok(true);
        }
        match fs::symlink_metadata(self.layer_fs(id)) {
            Ok(meta) if ids.to_guest(meta.uid()).is_some() => Ok(true),
            Ok(_) => self.remove_layer(id).map(|()| false),
            Err(_) => Ok(false),
        }
    }
}

fn exists(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXISTS).is_ok()
}
