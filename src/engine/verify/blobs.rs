//! Fetched bytes are fetched once: every round gets those of the store.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::area::Area;
use crate::digest::ContentDigest;
use crate::engine::pins::Pinner;
use crate::engine::plan::{Fetch, From, Plan, Work};
use crate::error::{Error, Result};
use crate::store::Store;

/// Blobs, each with the pin that names it.
pub struct Blobs(Vec<(ContentDigest, String)>);

impl Blobs {
    /// Everything that a plan fetches by digest, in the store. Git repositories are none of that.
    pub fn fetch(plan: &Plan, pinner: &Pinner<'_>) -> Result<Blobs> {
        let mut blobs = Vec::new();
        for node in &plan.nodes {
            let Work::Fetch(fetch) = &node.work else { continue };
            let Fetch { what, from } = &**fetch;
            if let From::Base(remote, pin) | From::Archive(remote, pin, ..) | From::File(remote, pin, _) =
                from
            {
                blobs.push((pinner.blob(what, remote, pin)?, pin.to_string()));
            }
        }
        Ok(Blobs(blobs))
    }

    /// Puts them into the store of a round, which belongs to `user`: as further names of the same files, or as copies
    /// where those cannot be, or where the user could write to them.
    pub fn share(&self, from: &Store, area: &Area, user: Option<(u32, u32)>) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let to = Store::open(area.store())?;
        for (blob, pin) in &self.0 {
            let (own, scratch) = (from.blob_path(blob), to.scratch()?);
            let new = scratch.path().join("blob");
            if user.is_some() || std::fs::hard_link(&own, &new).is_err() {
                std::fs::copy(&own, &new).map_err(|e| Error::io("copy", &own, e))?;
            }
            to.add_blob(&new, blob, [pin.clone()])?;
        }
        drop(to);
        match user {
            Some(user) => {
                give(area.store(), user).map_err(|e| Error::io("set the owner of", area.store(), e))
            }
            None => Ok(()),
        }
    }
}

/// Gives a tree of plain files and directories to a user, who alone may look at it.
fn give(path: &Path, (uid, gid): (u32, u32)) -> std::io::Result<()> {
    let meta = path.symlink_metadata()?;
    if meta.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give(&entry?.path(), (uid, gid))?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(meta.permissions().mode() & 0o7700))?;
    }
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))
}
