//! Small things to remember (`notes/<kind>/<digest of the key>`), and the directories of cache mounts
//! (`mounts/<digest of the id>`).

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Store, io, tmp};
use crate::digest::ContentDigest;
use crate::error::Result;
use crate::layer::IdShift;

impl Store {
    /// What was noted of `key`; none when nothing was, or it cannot be read. `kind` is a file name.
    pub fn get_note<T: DeserializeOwned>(&self, kind: &str, key: &str) -> Option<T> {
        let (path, name) = self.note_file(kind, key);
        self.get_record(&path, &name).ok().flatten()
    }

    /// Notes something of `key`, in place of what was noted before.
    pub fn put_note<T: Serialize>(&self, kind: &str, key: &str, value: &T) -> Result<()> {
        let (path, name) = self.note_file(kind, key);
        self.put_record(&path, &name, value)
    }

    pub(super) fn note_file(&self, kind: &str, key: &str) -> (PathBuf, String) {
        debug_assert!(!kind.is_empty() && !kind.starts_with('.') && !kind.contains('/'));
        let name = format!("notes/{kind}/{}", ContentDigest::of(key.as_bytes()));
        (self.root.join(&name), name)
    }

    /// The directory of a cache mount, relative to the root of the store; it is made when it is not there.
    /// It belongs to the root of sandboxes.
    pub fn cache_mount(&self, id: &str, ids: IdShift) -> Result<String> {
        let name = format!("mounts/{}", ContentDigest::of(id.as_bytes()));
        let path = self.root.join(&name);
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() && ids.to_guest(meta.uid()).is_some() => return Ok(name),
            // Written when other ids were set up for this user: no sandbox could use it.
            Ok(_) => self.discard(&path)?,
            Err(e) if io::is_absent(&e) => {}
            Err(e) => return Err(io::failed("read", &path, e)),
        }
        let temp = self.temp_path()?;
        // Steps of any user may share it, like a /tmp.
        io::make_dir(&temp, 0o1777)?;
        tmp::give_to_guest_root(&temp, ids)?;
        if !io::rename_new(&temp, &path)? {
            super::remove_tree(&temp)?; // Another process was faster.
        }
        Ok(name)
    }
}
