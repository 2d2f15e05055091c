//! A tree of this machine as a canonical manifest.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};

use super::hashing::{changed, hash_files, lost, unreadable};
use super::patterns::{IGNORE_FILE, Patterns};
use super::stat_cache::{Identity, StatCache};
use crate::digest::ContentDigest;
use crate::error::{Error, Result};
use crate::layer::{Entry, Kind, Manifest, Xattrs};
use crate::path::GuestPath;

/// What becomes of permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modes {
    /// 0755 for directories and for files their owner may execute, 0644 for all other files: a checkout's
    /// umask does not count. For sources.
    Normalised,
    /// As they are. For `dir` bases.
    Kept,
}

/// What a scan found.
#[derive(Debug)]
pub struct Scan {
    /// The tree, laid in at its place. Everything is owned by 0:0 and has the epoch as mtime.
    pub manifest: Manifest,
    /// Where the bytes of each file are.
    pub files: BTreeMap<GuestPath, PathBuf>,
    /// The cache with what was learned; none when there is nothing new in it.
    pub cache: Option<StatCache>,
}

/// Describes the file or directory `root` as it would lie at `at`.
///
/// Only files that `cache` does not know are read. Hard links are told apart as files of their own; extended
/// attributes are not taken.
///
/// # Errors
/// Sockets and devices, names that are not reachable, and files that change while they are read.
pub fn scan(
    root: &Path,
    at: &GuestPath,
    exclude: &[String],
    modes: Modes,
    epoch: i64,
    cache: &StatCache,
) -> Result<Scan> {
    let mut walk =
        Walk { modes, epoch, patterns: patterns(root, exclude)?, entries: Vec::new(), files: Vec::new() };
    let stat = rustix::fs::stat(root).map_err(|e| Error::io("read", root, e))?;
    for parent in at.ancestors() {
        walk.entries.push(walk.entry(parent, 0o755, Kind::Dir { opaque: false }));
    }
    match FileType::from_raw_mode(stat.st_mode) {
        // What is copied later is never reached through a symlink; the root may be named by one.
        FileType::RegularFile => {
            let real = std::fs::canonicalize(root).map_err(|e| Error::io("read", root, e))?;
            walk.node(&real, "", at.clone(), &stat)?;
        }
        _ => walk.node(root, "", at.clone(), &stat)?,
    }
    walk.finish(cache)
}

fn patterns(root: &Path, exclude: &[String]) -> Result<Patterns> {
    let file = root.join(IGNORE_FILE);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            String::new()
        }
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            return Err(Error::recipe(format!("`{}` is not UTF-8 text", file.display()))
                .hint("save it as UTF-8; a `?` matches a character that cannot be written so"));
        }
        Err(e) => return Err(unreadable("read", &file, e)),
    };
    let mut patterns = Patterns::parse(text.lines(), &file.display().to_string())?;
    patterns.extend(exclude.iter().map(String::as_str), "the `exclude` list of the recipe")?;
    Ok(patterns)
}

struct Walk {
    modes: Modes,
    epoch: i64,
    patterns: Patterns,
    entries: Vec<Entry>,
    files: Vec<Found>,
}

/// A regular file, not yet an entry.
struct Found {
    host: PathBuf,
    relative: String,
    at: GuestPath,
    mode: u16,
    identity: Identity,
    size: u64,
}

impl Walk {
    fn entry(&self, path: GuestPath, mode: u16, kind: Kind) -> Entry {
        Entry { path, mode, uid: 0, gid: 0, mtime: self.epoch, xattrs: Xattrs::new(), kind }
    }

    fn node(&mut self, host: &Path, relative: &str, at: GuestPath, stat: &Stat) -> Result<()> {
        let bits = (stat.st_mode & 0o7777) as u16;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                self.files.push(Found {
                    host: host.to_path_buf(),
                    relative: relative.to_string(),
                    at,
                    mode: self.mode(bits, false),
                    identity: Identity::of(stat),
                    size: stat.st_size as u64,
                });
                return Ok(());
            }
            FileType::Directory => return self.directory(host, relative, at, stat),
            FileType::Symlink => {
                let target =
                    rustix::fs::readlink(host, Vec::new()).map_err(|e| lost("read link", host, e))?;
                Kind::Symlink { target: target.into_bytes() }
            }
            FileType::Fifo => Kind::Fifo,
            other => {
                return Err(Error::recipe(format!(
                    "`{}` is a {other:?}, which cannot be a source",
                    host.display()
                ))
                .hint("leave it out with `exclude`, or bring it in as a `tar` base"));
            }
        };
        let mode = if matches!(kind, Kind::Symlink { .. }) { 0 } else { self.mode(bits, false) };
        self.entries.push(self.entry(at, mode, kind));
        Ok(())
    }

    fn mode(&self, bits: u16, directory: bool) -> u16 {
        match self.modes {
            Modes::Kept => bits,
            Modes::Normalised if directory || bits & 0o100 != 0 => 0o755,
            Modes::Normalised => 0o644,
        }
    }

    fn directory(&mut self, host: &Path, relative: &str, at: GuestPath, stat: &Stat) -> Result<()> {
        let bits = (stat.st_mode & 0o7777) as u16;
        self.entries.push(self.entry(at.clone(), self.mode(bits, true), Kind::Dir { opaque: false }));
        let failed = |e: rustix::io::Errno| lost("read directory", host, e);
        let dir = rustix::fs::open(
            host,
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(failed)?;
        // A symlink may have taken its place, or that of a directory above.
        let opened = rustix::fs::fstat(&dir).map_err(failed)?;
        if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
            return Err(changed(host));
        }
        for item in rustix::fs::Dir::read_from(&dir).map_err(failed)? {
            let item = item.map_err(failed)?;
            let name = item.file_name().to_bytes();
            if name == b"." || name == b".." || (relative.is_empty() && name == IGNORE_FILE.as_bytes()) {
                continue;
            }
            // Patterns are text; a name that is not UTF-8 can only be matched by its readable part.
            let text = String::from_utf8_lossy(name);
            let inner = if relative.is_empty() { text.into_owned() } else { format!("{relative}/{text}") };
            let excluded = !self.patterns.is_empty() && self.patterns.excludes(&inner);
            let path = host.join(std::ffi::OsStr::from_bytes(name));
            let stat = rustix::fs::statat(&dir, item.file_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| lost("stat", &path, e))?;
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if excluded && !(is_dir && self.patterns.takes_back_any()) {
                continue;
            }
            let kept = self.entries.len() + self.files.len();
            self.node(&path, &inner, at.join(name), &stat)?;
            if excluded && self.entries.len() + self.files.len() == kept + 1 {
                // An excluded directory in which nothing was taken back.
                self.entries.pop();
            }
        }
        Ok(())
    }

    /// Finds every file's digest and puts the manifest together.
    fn finish(mut self, cache: &StatCache) -> Result<Scan> {
        let cached: Vec<Option<ContentDigest>> =
            self.files.iter().map(|f| cache.get(&f.relative, f.identity)).collect();
        let unknown: Vec<usize> = (0..cached.len()).filter(|i| cached[*i].is_none()).collect();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let paths: Vec<PathBuf> = unknown.iter().map(|i| self.files[*i].host.clone()).collect();
        let mut digests = cached;
        for (index, (digest, identity)) in unknown.iter().zip(hash_files(&paths)?) {
            let file = &mut self.files[*index];
            if identity != file.identity {
                return Err(changed(&file.host));
            }
            digests[*index] = Some(digest);
        }
        let fresh = !unknown.is_empty();
        let mut learned = StatCache::default();
        let mut files = BTreeMap::new();
        for (file, digest) in std::mem::take(&mut self.files).into_iter().zip(digests) {
            let digest = digest.expect("every file was hashed or known");
            if fresh {
                learned.insert(file.relative, file.identity, digest, now.as_nanos() as i64);
            }
            let kind = Kind::File { size: file.size, digest };
            let entry = self.entry(file.at.clone(), file.mode, kind);
            self.entries.push(entry);
            files.insert(file.at, file.host);
        }
        let manifest =
            Manifest::new(self.entries).map_err(|e| Error::machine("a source has no manifest").because(e))?;
        Ok(Scan { manifest, files, cache: fresh.then_some(learned) })
    }
}
