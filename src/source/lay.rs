//! How a fetched source is laid in as a layer that looks the same whoever packed it.

use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::git::Fetcher;
use super::patterns::Patterns;
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::layer::{Extract, IdShift, Limits, extract};
use crate::path::GuestPath;
use crate::store::Store;

/// Where and how a fetched source is laid in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lay {
    /// Where.
    pub at: GuestPath,
    /// What is left out: patterns with the rules of `.dockerignore`.
    pub exclude: Vec<String>,
    /// The mtime of everything.
    pub epoch: i64,
}

impl Lay {
    /// Makes a layer in the store. `fill` puts into the tree what there is.
    fn layer(
        &self,
        store: &Store,
        ids: IdShift,
        strip: usize,
        limits: Limits,
        fill: impl FnOnce(&mut Extract) -> Result<()>,
    ) -> Result<LayerId> {
        let scratch = store.scratch()?;
        let tree = scratch.tree()?;
        let patterns =
            Patterns::parse(self.exclude.iter().map(String::as_str), "the `exclude` list of the recipe")?;
        let excludes = |path: &str| patterns.excludes(path);
        let mut extract =
            Extract::new(&tree, ids, &self.at, self.epoch, limits)?.strip(strip).exclude(&excludes);
        fill(&mut extract)?;
        let manifest = extract.finish()?;
        store.add_layer(&tree, &manifest)
    }

    /// Makes a layer of what `fill` puts into the tree.
    pub fn fill(
        &self,
        store: &Store,
        ids: IdShift,
        limits: Limits,
        fill: impl FnOnce(&mut Extract) -> Result<()>,
    ) -> Result<LayerId> {
        self.layer(store, ids, 0, limits, fill)
    }

    /// Unpacks an archive: tar (plain, gzip, xz, bzip2, zstd) or zip.
    pub fn archive(
        &self,
        store: &Store,
        archive: File,
        strip: usize,
        limits: Limits,
        ids: IdShift,
    ) -> Result<LayerId> {
        self.layer(store, ids, strip, limits, |tree| extract(archive, tree))
    }

    /// Lays in the tree of a git commit, fetched if need be.
    pub fn git(
        &self,
        fetcher: &Fetcher,
        url: &str,
        commit: &str,
        submodules: bool,
        ids: IdShift,
    ) -> Result<LayerId> {
        self.layer(fetcher.store, ids, 0, fetcher.limits, |tree| fetcher.lay(url, commit, submodules, tree))
    }

    /// Lays a file in as it is, with mode 0644.
    pub fn file(&self, store: &Store, mut file: File, ids: IdShift) -> Result<LayerId> {
        let size = file.metadata().map_err(|e| Error::io("read", Path::new("blob"), e))?.len();
        self.layer(store, ids, 0, Limits::default(), |tree| tree.whole(size, &mut file))
    }
}
