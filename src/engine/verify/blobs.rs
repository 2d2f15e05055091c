//! What is fetched is fetched once: every round gets the blobs of the store, and the mirrors of git repositories that
//! the first round has.

use std::cell::OnceCell;
use std::io;
use std::path::{Path, PathBuf};

use super::area::Area;
use crate::digest::ContentDigest;
use crate::engine::pins::Pinner;
use crate::engine::plan::{Fetch, From, Plan, Work};
use crate::error::{Error, Result};
use crate::source::Pin;
use crate::store::{MIRRORS, Store};
use crate::sys::privilege;

/// What rounds share.
pub struct Blobs {
    /// Each with the pin that names it.
    blobs: Vec<(ContentDigest, String)>,
    /// Whether the recipe has sources from git.
    git: bool,
    /// The mirrors of a round that has been built and is kept.
    mirrors: OnceCell<PathBuf>,
}

impl Blobs {
    /// Everything that a plan fetches by digest, in the store. Layers of images are not kept as blobs.
    pub fn fetch(plan: &Plan, pinner: &Pinner<'_>) -> Result<Blobs> {
        let (mut blobs, mut git) = (Vec::new(), false);
        let mut add = |blob, pin: &Pin| blobs.push((blob, pin.to_string()));
        for node in &plan.nodes {
            let Work::Fetch(fetch) = &node.work else { continue };
            let Fetch { what, from } = &**fetch;
            match from {
                From::Base(remote, pin) | From::Archive(remote, pin, ..) | From::File(remote, pin, _) => {
                    add(pinner.blob(what, remote, pin)?, pin);
                }
                From::Package(package) => add(pinner.package_blob(package)?, &package.sha256),
                From::Packages(packages) => {
                    for package in packages {
                        add(pinner.package_blob(package)?, &package.sha256);
                    }
                }
                From::SourcePackage(package, _) => {
                    for file in &package.files {
                        add(pinner.source_blob(package, file)?, &file.sha256);
                    }
                }
                From::Git(..) => git = true,
            }
        }
        Ok(Blobs { blobs, git, mirrors: OnceCell::new() })
    }

    /// Puts them into the store of a round, which belongs to `user`: as further names of the same files, or as copies
    /// where those cannot be, or where the user could write to them.
    pub fn share(
        &self,
        from: &Store,
        area: &Area,
        user: Option<(u32, u32)>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        if self.blobs.is_empty() && !self.git {
            return Ok(());
        }
        let failed = |e| Error::io("set the owner of", area.store(), e);
        if user.is_some() {
            // Until it is filled: nobody opens the store of another user.
            let (uid, gid) = privilege::effective_ids();
            std::os::unix::fs::chown(area.store(), Some(uid), Some(gid)).map_err(failed)?;
        }
        let to = Store::open(area.store())?;
        for (blob, pin) in &self.blobs {
            let scratch = to.scratch()?;
            let new = scratch.path().join("blob");
            double(&from.blob_path(blob), &new, user.is_none())?;
            to.add_blob(&new, blob, [pin.clone()])?;
        }
        if self.git {
            // Nobody else uses those of a round.
            let held = if self.mirrors.get().is_none() { from.mirrors(cancelled)? } else { Vec::new() };
            let mirrors = self.mirrors.get().cloned().unwrap_or_else(|| from.root().join(MIRRORS));
            if mirrors.is_dir() {
                double(&mirrors, &area.store().join(MIRRORS), user.is_none())?;
            }
            drop(held);
        }
        drop(to);
        match user {
            Some(user) => give(area.store(), user).map_err(failed),
            None => Ok(()),
        }
    }

    /// The first round has been built: those after it get its mirrors.
    pub fn built(&self, area: &Area) {
        let mirrors = area.store().join(MIRRORS);
        if self.git && mirrors.is_dir() {
            let _ = self.mirrors.set(mirrors);
        }
    }
}

/// Makes another file or tree of the same content; of the same files, if they may be.
fn double(from: &Path, to: &Path, same: bool) -> Result<()> {
    if !from.is_dir() {
        if !same || std::fs::hard_link(from, to).is_err() {
            std::fs::copy(from, to).map_err(|e| Error::io("copy", from, e))?;
        }
        return Ok(());
    }
    match std::fs::create_dir(to) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(Error::io("create", to, e)),
        _ => {}
    }
    for entry in std::fs::read_dir(from).map_err(|e| Error::io("read", from, e))? {
        let entry = entry.map_err(|e| Error::io("read", from, e))?;
        double(&entry.path(), &to.join(entry.file_name()), same)?;
    }
    Ok(())
}

/// Gives a tree of plain files and directories to a user.
fn give(path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give(&entry?.path(), (uid, gid))?;
        }
    }
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))
}
