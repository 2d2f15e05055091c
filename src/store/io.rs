//! File operations whose errors carry path, errno and a hint.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::Store;
use crate::error::{Error, Result};

/// "cannot {verb} `{path}`", its cause, and what to do where that is known.
pub(super) fn failed(verb: &str, path: &Path, why: impl Into<std::io::Error>) -> Error {
    let why = why.into();
    let hint = why.raw_os_error().map(Errno::from_raw_os_error).and_then(|errno| match errno {
        Errno::NOSPC | Errno::DQUOT => {
            Some("free some space there, or put the store elsewhere with `--store`")
        }
        Errno::ROFS => Some("the file system is read-only: put the store elsewhere with `--store`"),
        Errno::ACCESS | Errno::PERM => Some("the store must belong to the user who runs isolith"),
        Errno::MFILE | Errno::NFILE => Some("raise the limit of open files (`ulimit -n`)"),
        _ => None,
    });
    let error = Error::io(verb, path, why);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Six characters nobody else uses now, in this process or another.
pub(super) fn unique() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    static SEED: OnceLock<RandomState> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut hasher = SEED.get_or_init(RandomState::new).build_hasher();
    // The process id tells a forked copy of the seed apart.
    hasher.write_u32(std::process::id());
    hasher.write_u64(COUNT.fetch_add(1, Ordering::Relaxed));
    let mut bits = hasher.finish();
    let mut name = String::with_capacity(6);
    for _ in 0..6 {
        name.push(char::from(DIGITS[(bits % 32) as usize]));
        bits /= 32;
    }
    name
}

/// Makes a directory with exactly this mode, whatever the umask; it may be there already.
pub(super) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    match new_dir(path, mode) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(failed("create", path, e)),
        _ => Ok(()),
    }
}

/// Makes a directory that must not be there yet.
pub(super) fn new_dir(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(mode).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// The bytes of a file; none when it is not there, or when the disk cannot give them back: both are a miss.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if is_absent(&e) => return Ok(None),
        Err(e) => return Err(failed("read", path, e)),
    };
    // Not `read_to_end`, which asks for size and position first: this is the path of a cached build.
    let mut bytes = vec![0; 8 << 10];
    let mut len = 0;
    loop {
        match file.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => match Errno::from_io_error(&e) {
                Some(Errno::IO | Errno::UCLEAN | Errno::BADMSG | Errno::ISDIR) => return Ok(None),
                _ => return Err(failed("read", path, e)),
            },
        }
        if len == bytes.len() {
            bytes.resize(len * 4, 0);
        }
    }
    bytes.truncate(len);
    Ok(Some(bytes))
}

/// True when the error says that there is no such file.
pub(super) fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Removes a file; it may be gone already.
pub(super) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if !is_absent(&e) => Err(failed("remove", path, e)),
        _ => Ok(()),
    }
}

/// Names of a directory's entries, sorted; none when it is not there.
pub(super) fn names(path: &Path) -> Result<Vec<std::ffi::OsString>> {
    let listing = match fs::read_dir(path) {
        Ok(listing) => listing,
        Err(e) if is_absent(&e) => return Ok(Vec::new()),
        Err(e) => return Err(failed("list", path, e)),
    };
    let mut names = Vec::new();
    for entry in listing {
        names.push(entry.map_err(|e| failed("list", path, e))?.file_name());
    }
    names.sort();
    Ok(names)
}

/// Writes a new file of mode 0644 less the umask.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = create(path)?;
    file.write_all(bytes).map_err(|e| failed("write", path, e))
}

/// Creates a file that must not be there yet.
pub(super) fn create(path: &Path) -> Result<fs::File> {
    let open = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
    open.map_err(|e| failed("create", path, e))
}

/// Renames, making the directory the target is in (mode 0755) when it is missing. A file takes the place
/// of an older one.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    rename_flags(from, to, RenameFlags::empty()).map_err(|e| failed("write", to, e))
}

/// Renames a directory into place. What is there already changes places with it and is at `from` then:
/// the return value says so.
pub(super) fn rename_over(from: &Path, to: &Path) -> Result<bool> {
    for _ in 0..16 {
        match rename_flags(from, to, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(false),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(failed("write", to, e)),
        }
        match rename_flags(from, to, RenameFlags::EXCHANGE) {
            Ok(()) => return Ok(true),
            Err(Errno::NOENT) => {} // It has just been removed.
            Err(e) => return Err(failed("write", to, e)),
        }
    }
    Err(Error::machine(format!("`{}` comes and goes", to.display())))
}

/// Renames a directory into place unless something is there; the return value says whether it did.
pub(super) fn rename_new(from: &Path, to: &Path) -> Result<bool> {
    match rename_flags(from, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(e) => Err(failed("write", to, e)),
    }
}

fn rename_flags(from: &Path, to: &Path, flags: RenameFlags) -> rustix::io::Result<()> {
    match renameat_with(CWD, from, CWD, to, flags) {
        Err(Errno::NOENT) if !flags.contains(RenameFlags::EXCHANGE) => {}
        done => return done,
    }
    let parent = to.parent().ok_or(Errno::NOENT)?;
    match new_dir(parent, 0o755) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(Errno::from_io_error(&e).unwrap_or(Errno::IO));
        }
        _ => {}
    }
    renameat_with(CWD, from, CWD, to, flags)
}

impl Store {
    /// A path for a file that is to be renamed into place later.
    pub(super) fn temp_path(&self) -> Result<PathBuf> {
        let mut session = self.session.lock().unwrap_or_else(|e| e.into_inner());
        if session.is_none() {
            *session = Some(self.new_session()?);
        }
        match session.as_mut() {
            Some(session) => Ok(session.next_path()),
            None => Err(Error::machine("no session directory")),
        }
    }

    /// Writes a file whole or not at all.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let temp = self.temp_path()?;
        let written = write_new(&temp, bytes).and_then(|()| rename(&temp, path));
        if written.is_err() {
            let _ = fs::remove_file(&temp);
        }
        written
    }
}
