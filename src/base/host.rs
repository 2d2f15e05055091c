//! The fingerprint of the `host` base: a digest over everything a sandbox could see there, without reading
//! a single file. Any change to a file changes its ctime, which no program can set.
//!
//! A sandbox's users own nothing on the host, so they see what "others" may see. Directories that others
//! cannot enter are not entered here either; that also makes the fingerprint the same for every caller.
//! One that others may enter but not list is entered all the same: who knows a name gets at what is there.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};

use crate::error::{Error, Result};
use crate::key::HostView;
use crate::path::GuestPath;

/// Fingerprints the given paths of this machine.
///
/// # Errors
/// A path that does not exist or cannot be read.
pub fn fingerprint(paths: &[GuestPath]) -> Result<HostView> {
    let mut paths = paths.to_vec();
    paths.sort();
    paths.dedup();
    let mut top = blake3::Hasher::new_derive_key("isolith host view v1");
    let queue = Mutex::new(Vec::new());
    for path in &paths {
        let host = Path::new("/").join(path.as_relative());
        let stat = rustix::fs::lstat(&host).map_err(|e| {
            Error::io("read", &host, e)
                .hint("take the path out of `base.host`, or install what should be there")
        })?;
        refuse_channel(&host, &stat)?;
        note(&mut top, path.as_bytes(), &stat);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let target =
                    rustix::fs::readlink(&host, Vec::new()).map_err(|e| Error::io("read link", &host, e))?;
                top.update(target.as_bytes());
            }
            FileType::Directory if open_to_others(&stat) => {
                queue.lock().unwrap_or_else(|e| e.into_inner()).push(path.as_bytes().to_vec());
            }
            _ => {}
        }
    }
    let mut parts = walk(queue)?;
    parts.sort();
    for (path, digest) in parts {
        top.update(&(path.len() as u64).to_le_bytes());
        top.update(&path);
        top.update(&digest);
    }
    Ok(HostView { paths, fingerprint: top.finalize().to_hex().to_string() })
}

/// Directories waiting to be read, by path without the leading slash. Paths and not descriptors: a wide tree
/// has more directories than a process may have open files.
type Queue = Mutex<Vec<Vec<u8>>>;

/// One digest for each directory below those in the queue, on as many threads as there are cpus; they are
/// gone when this returns.
fn walk(queue: Queue) -> Result<Vec<(Vec<u8>, [u8; 32])>> {
    let pending = AtomicUsize::new(queue.lock().map_or(0, |q| q.len()));
    let work = || -> Result<Vec<(Vec<u8>, [u8; 32])>> {
        let mut done = Vec::new();
        let mut own: Vec<Vec<u8>> = Vec::new();
        loop {
            let next = own.pop().or_else(|| queue.lock().unwrap_or_else(|e| e.into_inner()).pop());
            let Some(path) = next else {
                if pending.load(Ordering::Acquire) == 0 {
                    return Ok(done);
                }
                std::thread::yield_now();
                continue;
            };
            let result = directory(&path).map(|(digest, inner)| {
                pending.fetch_add(inner.len(), Ordering::AcqRel);
                own.extend(inner);
                if own.len() > 4 {
                    // Leave the older half to others.
                    let half = own.len() / 2;
                    queue.lock().unwrap_or_else(|e| e.into_inner()).extend(own.drain(..half));
                }
                done.push((path, digest));
            });
            pending.fetch_sub(1, Ordering::AcqRel);
            if let Err(e) = result {
                // The others must not wait for what this thread still had.
                pending.fetch_sub(own.len(), Ordering::AcqRel);
                return Err(e);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let results: Vec<_> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut results = vec![work()];
        results.extend(others.into_iter().filter_map(|t| t.join().ok()));
        results
    });
    let mut all = Vec::new();
    for result in results {
        all.extend(result?);
    }
    Ok(all)
}

/// The digest of one directory, and the directories in it.
fn directory(path: &[u8]) -> Result<([u8; 32], Vec<Vec<u8>>)> {
    let host = |name: &[u8]| {
        let between: &[u8] = if name.is_empty() { b"" } else { b"/" };
        let full = [b"/", path, between, name].concat();
        PathBuf::from(OsString::from_vec(full))
    };
    let failed = |e: rustix::io::Errno| {
        Error::io("read directory", &host(b""), e)
            .hint("a step could read files there: show other paths in `base.host`, or let everyone list it")
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, host(b""), flags, Mode::empty()).map_err(failed)?;
    let mut names = Vec::new();
    for item in Dir::read_from(&dir).map_err(failed)? {
        let item = item.map_err(failed)?;
        if !matches!(item.file_name().to_bytes(), b"." | b"..") {
            names.push(item.file_name().to_owned());
        }
    }
    names.sort();
    let mut hasher = blake3::Hasher::new();
    let mut inner = Vec::new();
    for name in names {
        let stat = match rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone since the directory was read: the directory's own times tell.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(e) => return Err(Error::io("stat", &host(name.as_bytes()), e)),
        };
        refuse_channel(&host(name.as_bytes()), &stat)?;
        note(&mut hasher, name.as_bytes(), &stat);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && open_to_others(&stat) {
            inner.push([path, b"/", name.as_bytes()].concat());
        }
    }
    Ok((*hasher.finalize().as_bytes(), inner))
}

fn open_to_others(stat: &Stat) -> bool {
    stat.st_mode & 0o001 != 0
}

/// What stands behind a socket or fifo is a process of the machine: it is in no fingerprint, and a read-only
/// mount does not keep a step from talking to it.
fn refuse_channel(host: &Path, stat: &Stat) -> Result<()> {
    let (kind, usable) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => ("socket", 0o002),
        FileType::Fifo => ("fifo", 0o006),
        _ => return Ok(()),
    };
    if stat.st_mode & usable == 0 {
        return Ok(());
    }
    Err(Error::recipe(format!(
        "the base would show the {kind} `{}` of this machine to steps",
        host.display()
    ))
    .hint("show smaller directories in `base.host`; what is behind it could not be part of any key"))
}

/// What tells one state of a path from another. Owners are left out: a sandbox sees every host file as
/// nobody's, and a change of owner changes ctime.
fn note(hasher: &mut blake3::Hasher, name: &[u8], stat: &Stat) {
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name);
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    // A directory's size and link count depend on its history, not on what is in it.
    let size = if directory { 0 } else { stat.st_size as u64 };
    for field in [
        u64::from(stat.st_mode),
        stat.st_ino,
        size,
        stat.st_mtime as u64,
        stat.st_mtime_nsec,
        stat.st_ctime as u64,
        stat.st_ctime_nsec,
    ] {
        hasher.update(&field.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn of(path: &Path) -> String {
        let guest = GuestPath::parse(path.as_os_str().as_bytes()).unwrap();
        fingerprint(&[guest]).unwrap().fingerprint
    }

    #[test]
    fn any_change_below_shows_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tree");
        std::fs::create_dir_all(path.join("a/b/c")).unwrap();
        std::fs::write(path.join("a/b/c/file"), "one").unwrap();
        let first = of(&path);
        assert_eq!(first, of(&path), "it is stable");
        std::fs::read(path.join("a/b/c/file")).unwrap();
        assert_eq!(first, of(&path), "reading changes nothing");
        std::fs::write(path.join("a/b/c/file"), "two").unwrap();
        let second = of(&path);
        assert_ne!(first, second, "content");
        std::fs::write(path.join("a/b/new"), "").unwrap();
        assert_ne!(second, of(&path), "a new file");
    }

    #[test]
    fn a_directory_that_cannot_be_listed_does_not_hide_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let closed = dir.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::write(closed.join("file"), "one").unwrap();
        std::fs::set_permissions(&closed, Permissions::from_mode(0o711)).unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let first = of(dir.path());
        std::fs::write(closed.join("file"), "two").unwrap();
        assert_ne!(first, of(dir.path()));
    }

    #[test]
    fn what_leads_to_a_process_of_the_machine_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("socket");
        let _server = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let shown = |mode| {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let paths = [dir.path(), &path].map(|p| GuestPath::parse(p.as_os_str().as_bytes()).unwrap());
            paths.map(|path| fingerprint(&[path]).map_err(|e| e.to_string()))
        };
        for refused in shown(0o666) {
            assert!(refused.unwrap_err().contains("socket"));
        }
        assert!(shown(0o770).iter().all(Result::is_ok), "others cannot connect");
    }

    #[test]
    fn a_missing_path_is_an_error() {
        let e = fingerprint(&[GuestPath::parse("/no/such/place").unwrap()]).unwrap_err();
        assert!(e.to_string().contains("/no/such/place"), "{e}");
    }
}
