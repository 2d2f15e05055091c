//! Reading and hashing files on a few threads that are gone when the call returns.
//!
//! Plain scoped threads, no pool: what comes after may have to fork or enter a namespace, which needs a
//! process with a single thread.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sha2::Digest;

use super::stat_cache::Identity;
use crate::digest::ContentDigest;
use crate::error::{Error, Result};

/// The digest of each file, in the order given, with the identity it had while it was read.
/// A file that changes while it is read is an error.
pub fn hash_files(files: &[PathBuf]) -> Result<Vec<(ContentDigest, Identity)>> {
    let threads = match files.len().div_ceil(8) {
        0 | 1 => 1,
        most => std::thread::available_parallelism().map_or(1, |n| n.get()).min(most),
    };
    if threads == 1 {
        return files.iter().map(|file| hash_file(file)).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(at) else { return done };
            done.push((at, hash_file(file)));
        }
    };
    let mut all: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|w| w.join().unwrap_or_default()).collect()
    });
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, result)| result).collect()
}

fn hash_file(path: &Path) -> Result<(ContentDigest, Identity)> {
    let mut file = open(path)?;
    let before = identity(&file, path)?;
    let mut hasher = blake3::Hasher::new();
    copy(&mut file, path, |bytes| {
        hasher.update(bytes);
    })?;
    if identity(&file, path)? != before {
        return Err(changed(path));
    }
    Ok((ContentDigest::from_bytes(*hasher.finalize().as_bytes()), before))
}

/// The error for an input that does not hold still.
pub(super) fn changed(path: &Path) -> Error {
    Error::machine(format!("`{}` changed while it was read", path.display()))
        .hint("let whatever writes there finish, then build again")
}

/// The error for an input that could not be looked at: what was there a moment ago and is not any more, or
/// is something else now, has changed.
pub(super) fn lost(verb: &str, path: &Path, why: Errno) -> Error {
    match why {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL => changed(path),
        _ => unreadable(verb, path, why),
    }
}

/// The error for an input that is there and gives nothing away.
pub(super) fn unreadable(verb: &str, path: &Path, why: impl Into<std::io::Error>) -> Error {
    Error::io(verb, path, why)
        .hint("let it be readable for you, or leave it out with `exclude` or `.isolithignore`")
}

fn identity(file: &File, path: &Path) -> Result<Identity> {
    let stat = rustix::fs::fstat(file.as_fd()).map_err(|e| Error::io("stat", path, e))?;
    Ok(Identity::of(&stat))
}

/// SHA-256, in lower-case hex, of the file whose content has this digest, to check what a recipe pins.
/// Both are taken of the same bytes: another content is an error.
pub fn sha256_file(path: &Path, digest: ContentDigest) -> Result<String> {
    let mut file = open(path)?;
    let (mut sha256, mut blake3) = (sha2::Sha256::new(), blake3::Hasher::new());
    copy(&mut file, path, |bytes| {
        sha256.update(bytes);
        blake3.update(bytes);
    })?;
    if blake3.finalize().as_bytes() != digest.as_bytes() {
        return Err(changed(path));
    }
    Ok(sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Opens a file for reading; what has become a fifo since it was looked at keeps nobody waiting.
fn open(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty());
    file.map(File::from).map_err(|e| lost("read", path, e))
}

fn copy(file: &mut File, path: &Path, mut each: impl FnMut(&[u8])) -> Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => each(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read", path, e)),
        }
    }
}
