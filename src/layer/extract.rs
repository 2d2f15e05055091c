//! A source's tree that grows name by name, in a form that does not depend on who packed it: owner 0:0, mode
//! 0755 or 0644 by the owner's execute bit, one time for all, hard links as files of their own, no attributes.
//!
//! Names come from strangers. Nothing lands outside the place of the source, nothing is written through a
//! symlink, nothing is there twice, and size and number are bounded. Symlinks themselves may lead anywhere:
//! they are followed in the sandbox only.

use std::io::Read;
use std::path::Path;

use super::grow::{Outcome, Problem, Tree, refused};
use super::{Entry, IdShift, Kind, Manifest, Xattrs, disk};
use crate::error::{Error, Result};
use crate::path::GuestPath;

/// How much one source may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Names, directories included.
    pub entries: u64,
}

impl Limits {
    /// The bytes that the archive of such a source may have: headers, padding and what follows the end are read too,
    /// and bounded with the rest.
    pub(super) fn archive_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.entries.saturating_mul(2048)).saturating_add(1 << 20)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 16 << 30, entries: 500_000 }
    }
}

/// The longest target of a symlink.
const LONGEST_TARGET: usize = 4095;

/// A source that is being laid into an empty directory.
pub struct Extract<'a> {
    tree: Tree,
    at: GuestPath,
    epoch: i64,
    strip: usize,
    exclude: Option<&'a dyn Fn(&str) -> bool>,
    pub(super) limits: Limits,
    bytes: u64,
    entries: u64,
    /// The directory that was looked at last; it and those above it are there.
    last: Option<GuestPath>,
}

impl<'a> Extract<'a> {
    /// What is put in comes to lie at `at`, in the empty directory `dest`.
    pub fn new(dest: &Path, ids: IdShift, at: &GuestPath, epoch: i64, limits: Limits) -> Result<Self> {
        let root = disk::open_root(dest).map_err(|why| Error::io("open", dest, why))?;
        let tree = Tree::new(root, ids);
        let (strip, exclude, at) = (0, None, at.clone());
        Ok(Self { tree, at, epoch, strip, exclude, limits, bytes: 0, entries: 0, last: None })
    }

    /// Names lose this many leading components; one that has no more than these is an error, unless it is a
    /// directory.
    pub fn strip(self, strip: usize) -> Self {
        Self { strip, ..self }
    }

    /// What is left out, by the path that is left of its name.
    pub fn exclude(self, exclude: &'a dyn Fn(&str) -> bool) -> Self {
        Self { exclude: Some(exclude), ..self }
    }

    /// A directory; it may be there.
    pub fn directory(&mut self, name: &[u8]) -> Result<()> {
        self.directory_named(name).map_err(|problem| say(problem, name))
    }

    /// The source itself, as a file of the next `size` bytes of `data`.
    pub fn whole(&mut self, size: u64, data: &mut impl Read) -> Result<()> {
        let at = self.at.clone();
        self.file_at(at, false, size, data).map_err(|problem| say(problem, b"."))
    }

    /// A file of the next `size` bytes of `data`.
    pub fn file(&mut self, name: &[u8], executable: bool, size: u64, data: &mut impl Read) -> Result<()> {
        self.file_named(name, executable, size, data).map_err(|problem| say(problem, name))
    }

    /// A symlink.
    pub fn symlink(&mut self, name: &[u8], target: &[u8]) -> Result<()> {
        self.symlink_named(name, target).map_err(|problem| say(problem, name))
    }

    /// A copy of a file or symlink that is there.
    pub fn copy(&mut self, name: &[u8], of: &[u8]) -> Result<()> {
        self.copy_named(name, of).map_err(|problem| say(problem, name))
    }

    /// The finished tree.
    pub fn finish(mut self) -> Result<Manifest> {
        if self.entries == 0 {
            // Empty, but there.
            let at = self.at.clone();
            self.make_directories(&at).map_err(|problem| say(problem, b""))?;
            self.dir(at).map_err(|problem| say(problem, b""))?;
        }
        self.tree.finish()
    }

    fn directory_named(&mut self, name: &[u8]) -> Outcome<()> {
        let Some(path) = self.path(name, true)? else { return Ok(()) };
        match self.tree.kind(&path) {
            Some(Kind::Dir { .. }) => Ok(()),
            Some(_) => twice(),
            None => {
                self.count(0)?;
                self.make_directories(&path)?;
                self.dir(path)
            }
        }
    }

    fn file_named(&mut self, name: &[u8], executable: bool, size: u64, data: &mut impl Read) -> Outcome<()> {
        match self.path(name, false)? {
            Some(path) => self.file_at(path, executable, size, data),
            None => Ok(()),
        }
    }

    fn file_at(&mut self, path: GuestPath, executable: bool, size: u64, data: &mut impl Read) -> Outcome<()> {
        self.vacant(&path, size)?;
        let kind = Kind::File { size, digest: crate::digest::ContentDigest::of(b"") };
        let entry = self.entry(path, if executable { 0o755 } else { 0o644 }, kind);
        self.tree.file(entry, size, data)
    }

    fn symlink_named(&mut self, name: &[u8], target: &[u8]) -> Outcome<()> {
        let Some(path) = self.path(name, false)? else { return Ok(()) };
        if target.is_empty() || target.len() > LONGEST_TARGET || target.contains(&0) {
            return refused("it is a symlink to nowhere", "get the archive from somewhere else");
        }
        self.vacant(&path, 0)?;
        let entry = self.entry(path, 0, Kind::Symlink { target: target.to_vec() });
        self.tree.special(entry)
    }

    fn copy_named(&mut self, name: &[u8], of: &[u8]) -> Outcome<()> {
        let Some(path) = self.path(name, false)? else { return Ok(()) };
        let link = String::from_utf8_lossy(of).into_owned();
        let target = match self.path(of, false) {
            Ok(Some(target)) => target,
            _ => return refused(format!("it is a hard link to `{link}`, which is outside"), LINK),
        };
        let Some((kind, mode)) = self.tree.kind(&target).cloned().zip(self.tree.mode(&target)) else {
            return refused(format!("it is a hard link to `{link}`, which is not there"), LINK);
        };
        match kind {
            Kind::File { size, .. } => {
                self.vacant(&path, size)?;
                let mut data = self.tree.open(&target)?;
                let entry = self.entry(path, mode, kind);
                self.tree.file(entry, size, &mut data)
            }
            Kind::Symlink { .. } => {
                self.vacant(&path, 0)?;
                let entry = self.entry(path, 0, kind);
                self.tree.special(entry)
            }
            _ => refused(format!("it is a hard link to the directory `{link}`"), LINK),
        }
    }

    /// Where a name comes to lie; none when it is left out.
    fn path(&self, name: &[u8], directory: bool) -> Outcome<Option<GuestPath>> {
        if name.starts_with(b"/") {
            return refused("its name is absolute", "archives of sources have plain relative names");
        }
        let whole = match GuestPath::from_relative(name) {
            Ok(path) => path,
            Err(why) => return refused(why.to_string(), "archives of sources have plain relative names"),
        };
        let parts: Vec<&[u8]> =
            whole.as_bytes().split(|b| *b == b'/').filter(|part| !part.is_empty()).collect();
        if parts.len() <= self.strip && self.strip > 0 {
            return match directory {
                true => Ok(None),
                false => refused(
                    format!("nothing is left of its name after `strip = {}`", self.strip),
                    "set `strip = 0`, or as many leading directories as all its names have",
                ),
            };
        }
        let rest = parts[self.strip..].join(&b'/');
        if rest.is_empty() && !directory {
            return refused("it would take the place of the whole source", "a source is a directory");
        }
        if self.exclude.is_some_and(|excludes| !rest.is_empty() && excludes(&String::from_utf8_lossy(&rest)))
        {
            return Ok(None);
        }
        match GuestPath::from_relative(&rest) {
            Ok(rest) => Ok(Some(self.at.join_path(&rest))),
            Err(why) => refused(why.to_string(), "archives of sources have plain relative names"),
        }
    }

    /// Sees to it that a name can be taken by something of this size.
    fn vacant(&mut self, path: &GuestPath, size: u64) -> Outcome<()> {
        if path.is_root() {
            return refused("it would be `/` itself", "a source is a directory, or a file with a name");
        }
        if self.tree.kind(path).is_some() {
            return twice();
        }
        self.count(size)?;
        self.make_directories(path)
    }

    fn count(&mut self, size: u64) -> Outcome<()> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(size);
        let (bytes, entries) = (self.limits.bytes, self.limits.entries);
        if self.entries > entries {
            return refused(format!("there are more than {entries} names"), RAISE_ENTRIES);
        }
        if self.bytes > bytes {
            return refused(format!("the files have more than {bytes} bytes together"), RAISE_BYTES);
        }
        Ok(())
    }

    /// Makes the directories above a path.
    fn make_directories(&mut self, path: &GuestPath) -> Outcome<()> {
        let parent = path.parent();
        if parent == self.last {
            return Ok(());
        }
        for dir in path.ancestors() {
            match self.tree.kind(&dir) {
                Some(Kind::Dir { .. }) => {}
                Some(_) => {
                    let why = format!("`{dir}` is not a directory");
                    return refused(why, "a name cannot be below a file or symlink of the same archive");
                }
                None => {
                    // Those above the source do not count.
                    if dir.starts_with(&self.at) {
                        self.count(0)?;
                    }
                    self.dir(dir)?;
                }
            }
        }
        self.last = parent;
        Ok(())
    }

    fn dir(&mut self, path: GuestPath) -> Outcome<()> {
        let entry = self.entry(path, 0o755, Kind::Dir { opaque: false });
        self.tree.directory(entry)
    }

    fn entry(&self, path: GuestPath, mode: u16, kind: Kind) -> Entry {
        Entry { path, mode, uid: 0, gid: 0, mtime: self.epoch, xattrs: Xattrs::new(), kind }
    }
}

const LINK: &str = "a hard link comes after the file it leads to, and in the same archive";
const RAISE_BYTES: &str = "if that is meant, raise `unpack-max-size` in the configuration";
const RAISE_ENTRIES: &str = "if that is meant, raise `unpack-max-entries` in the configuration";

fn twice<T>() -> Outcome<T> {
    refused(
        "the name is there twice",
        "get the archive from somewhere else, or leave the name out with `exclude`",
    )
}

/// The error about a name.
pub(super) fn say(problem: Problem, name: &[u8]) -> Error {
    problem.into_error(&String::from_utf8_lossy(name))
}
