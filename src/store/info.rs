//! What a store holds, counted and measured.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use super::{Store, io};
use crate::error::Result;

/// What a store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Info {
    /// Layers.
    pub layers: u64,
    /// Results of actions.
    pub actions: u64,
    /// Definitions.
    pub definitions: u64,
    /// Logs.
    pub logs: u64,
    /// Fetched files.
    pub blobs: u64,
    /// States of failed steps.
    pub failed: u64,
    /// Cache mounts.
    pub mounts: u64,
    /// Recipes that have been built.
    pub recipes: u64,
    /// Bytes on disk, blocks as the file system counts them.
    pub bytes: u64,
    /// Directories that could not be read, so that `bytes` is too small. 0 when this process has the ids of
    /// its sandboxes.
    pub unreadable: u64,
}

impl Store {
    /// Counts and measures what the store holds.
    pub fn info(&self) -> Result<Info> {
        let mut info = Info {
            layers: sharded(&self.root.join("layers"))?,
            actions: sharded(&self.root.join("actions"))?,
            definitions: sharded(&self.root.join("definitions"))?,
            logs: sharded(&self.root.join("logs"))?,
            blobs: sharded(&self.root.join("blobs"))?,
            failed: sharded(&self.root.join("failed"))?,
            mounts: io::names(&self.root.join("mounts"))?.len() as u64,
            recipes: io::names(&self.root.join("roots"))?.len() as u64,
            ..Info::default()
        };
        measure(&self.root, &mut HashSet::new(), &mut info);
        Ok(info)
    }
}

/// Bytes on disk of a file or a tree, but for files that were `seen` before.
pub(super) fn usage(path: &Path, seen: &mut HashSet<(u64, u64)>) -> u64 {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return 0 };
    if is_another_name(&meta, seen) {
        return 0;
    }
    let mut info = Info { bytes: meta.blocks() * 512, ..Info::default() };
    if meta.is_dir() {
        measure(path, seen, &mut info);
    }
    info.bytes
}

fn sharded(dir: &Path) -> Result<u64> {
    let mut count = 0;
    for shard in io::names(dir)? {
        count += io::names(&dir.join(shard))?.len() as u64;
    }
    Ok(count)
}

/// Adds up the blocks of a tree; files with several names count once, and what goes away meanwhile is fine.
fn measure(dir: &Path, seen: &mut HashSet<(u64, u64)>, info: &mut Info) {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if io::is_absent(&e) => return,
        Err(_) => {
            info.unreadable += 1;
            return;
        }
    };
    for entry in entries.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            measure(&entry.path(), seen, info);
        } else if is_another_name(&meta, seen) {
            continue;
        }
        info.bytes += meta.blocks() * 512;
    }
}

/// Whether a file was `seen` under another name, which may be gone by now.
fn is_another_name(meta: &std::fs::Metadata, seen: &mut HashSet<(u64, u64)>) -> bool {
    let id = (meta.dev(), meta.ino());
    !meta.is_dir() && (seen.contains(&id) || (meta.nlink() > 1 && !seen.insert(id)))
}
