//! What is where, and how the directory comes to be.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::lock::{FileLock, Try, holders, try_lock};
use super::{Store, io};
use crate::error::{Error, Result};

/// Content of the `version` file. Another number is another layout.
pub(super) const VERSION: &str = "isolith store 1\n";

/// Content of CACHEDIR.TAG (<https://bford.info/cachedir/>). The second line marks a directory as ours.
pub(super) const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This directory is a store of isolith. It can be removed with `isolith store clear`.\n";

/// The directories of a store and their modes. Sandboxes get at those that are 0755, which the top
/// directory (0700) hides from other users.
pub(super) const DIRS: [(&str, u32); 13] = [
    ("layers", 0o755),
    ("actions", 0o700),
    ("definitions", 0o700),
    ("logs", 0o700),
    ("blobs", 0o700),
    ("git", 0o700),
    ("failed", 0o755),
    ("mounts", 0o755),
    ("notes", 0o700),
    ("roots", 0o700),
    ("tags", 0o700),
    ("tmp", 0o755),
    ("locks", 0o700),
];

impl Store {
    /// `<kind>/ab/<hex>`.
    pub(super) fn shard(&self, kind: &str, hex: &str) -> PathBuf {
        let mut path = PathBuf::with_capacity(self.root.as_os_str().len() + kind.len() + hex.len() + 16);
        path.push(&self.root);
        path.push(kind);
        path.push(&hex[..2]);
        path.push(hex);
        path
    }
}

/// Takes the shared lock of the store at `root`, which is made or mended first if need be.
pub(super) fn enter(root: &Path) -> Result<FileLock> {
    check_owner(root)?;
    let lock_path = root.join("locks/store");
    let patience = Instant::now() + Duration::from_secs(60);
    let mut tries = 0;
    loop {
        match try_lock(&lock_path, false, false)? {
            Try::Got(lock) => {
                // Nobody clears the store from here on.
                if !check_version(root)? {
                    initialise(root)?;
                }
                return Ok(lock);
            }
            Try::Absent => match prepare(root, &lock_path) {
                // The end of a clear can take directories away from under it.
                Err(_) if tries < 3 => tries += 1,
                done => done?,
            },
            Try::Busy => std::thread::sleep(Duration::from_millis(5)),
        }
        if Instant::now() > patience {
            let who = holders(&lock_path).join(", ");
            return Err(Error::machine(format!(
                "the store `{}` is being cleared or collected ({who})",
                root.display()
            ))
            .hint("wait until that has ended"));
        }
    }
}

/// Layers belong to the ids that the sandboxes of one user have. And whoever else may rename what is in the
/// directory could put a symlink in the place of `tmp/`, which is swept, or other bytes into a layer.
fn check_owner(root: &Path) -> Result<()> {
    let meta = match fs::metadata(root) {
        Err(e) if io::is_absent(&e) => return Ok(()),
        meta => meta.map_err(|e| io::failed("read", root, e))?,
    };
    if !meta.is_dir() {
        return Err(Error::machine(format!("the store `{}` is not a directory", root.display()))
            .hint("name an empty or a new directory with `--store`"));
    }
    let (owner, caller) = (meta.uid(), rustix::process::geteuid().as_raw());
    if owner != caller {
        let what = format!("the store `{}` belongs to user {owner}, not to user {caller}", root.display());
        return Err(Error::machine(what).hint("name another directory with `--store`"));
    }
    // One that is empty gets its mode when it becomes a store.
    if meta.mode() & 0o022 != 0 && is_store(root)? {
        let what = format!("others may write to the store `{}`", root.display());
        return Err(Error::machine(what).hint(format!(
            "if nobody has changed anything in it: `chmod 700 {}`; otherwise clear it",
            root.display()
        )));
    }
    Ok(())
}

/// True when the version file is there and right, false when it is missing.
fn check_version(root: &Path) -> Result<bool> {
    let path = root.join("version");
    let Some(found) = io::read(&path)? else { return Ok(false) };
    if found != VERSION.as_bytes() {
        let found = String::from_utf8_lossy(&found[..found.len().min(60)]).trim().to_string();
        let what = format!(
            "the store `{}` is of version `{found}`; this isolith knows `{}`",
            root.display(),
            VERSION.trim()
        );
        return Err(Error::machine(what)
            .hint("name another directory with `--store`, or remove this one with `isolith store clear`"));
    }
    Ok(true)
}

/// True when the directory says that it is a store, of whatever version.
pub(super) fn is_store(root: &Path) -> Result<bool> {
    let tag = io::read(&root.join("CACHEDIR.TAG"))?.unwrap_or_default();
    let version = io::read(&root.join("version"))?.unwrap_or_default();
    Ok(tag == TAG.as_bytes() || version.starts_with(b"isolith store "))
}

/// Refuses a directory that is no store.
pub(super) fn expect_store(root: &Path) -> Result<()> {
    match is_store(root)? {
        true => Ok(()),
        false => Err(Error::usage(format!("`{}` is not an isolith store", root.display()))
            .hint("the first build makes one; `isolith store path` prints where it will be")),
    }
}

/// Names at the top that do not make a directory somebody else's: a repository's own marks, and what is
/// there for a moment while isolith makes a store or has cleared one.
pub(super) fn is_harmless(name: &std::ffi::OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".git") || name == b"README.md" || name.starts_with(b".isolith-") || name == b"locks"
}

/// Makes the top directory, its tag and the lock file.
fn prepare(root: &Path, lock_path: &Path) -> Result<()> {
    fs::create_dir_all(root).map_err(|e| {
        let error = io::failed("create", root, e);
        match error.hint_text() {
            Some(_) => error,
            None => error.hint("name a directory, or a place where one can be made, with `--store`"),
        }
    })?;
    if !is_store(root)? {
        if let Some(name) = io::names(root)?.iter().find(|name| !is_harmless(name)) {
            // It may have become a store between the two looks.
            if !is_store(root)? {
                let what =
                    format!("`{}` is not an isolith store: it holds `{}`", root.display(), name.display());
                return Err(Error::machine(what).hint("name an empty or a new directory with `--store`"));
            }
        }
        fs::set_permissions(root, fs::Permissions::from_mode(0o700))
            .map_err(|e| io::failed("set up", root, e))?;
        // Access lists that new files inherit would end up in layers.
        let _ = rustix::fs::removexattr(root, "system.posix_acl_default");
        place(root, "CACHEDIR.TAG", TAG)?;
    }
    io::make_dir(&root.join("locks"), 0o700)?;
    match fs::OpenOptions::new().write(true).create(true).truncate(false).open(lock_path) {
        Ok(_) => Ok(()),
        Err(e) if io::is_absent(&e) => Ok(()), // A clear has just ended: the caller starts over.
        Err(e) => Err(io::failed("create", lock_path, e)),
    }
}

/// Makes everything else; the version comes last and says that all is there.
fn initialise(root: &Path) -> Result<()> {
    place(root, "CACHEDIR.TAG", TAG)?;
    for (dir, mode) in DIRS {
        io::make_dir(&root.join(dir), mode)?;
    }
    place(root, "version", VERSION)
}

/// Writes a file at the top, before there is a `tmp/`.
fn place(root: &Path, name: &str, text: &str) -> Result<()> {
    let temp = root.join(format!(".isolith-{}", io::unique()));
    io::write_new(&temp, text.as_bytes())?;
    io::rename(&temp, &root.join(name))
}
