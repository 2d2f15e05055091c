//! A finished stack, or an output, as a tree or an archive outside the store.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::stack::view;
use super::{Session, Target};
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::layer::{Entry, Kind, Manifest, Owners, Source, flatten, pack, place};
use crate::path::GuestPath;
use crate::store::Store;

/// What was last written to a directory.
#[derive(Serialize, Deserialize)]
struct Mark {
    /// The flattened tree.
    tree: LayerId,
    /// Every path of it, escaped, so that what is no longer part of it can be removed next time.
    paths: Vec<String>,
}

impl Session {
    /// Writes a stack out as one tree.
    ///
    /// Into a directory: files get the caller as owner and lose setuid and setgid; what an earlier export to
    /// the same directory wrote and this one has not is removed; a file that lies where this one has one is
    /// replaced, whoever's it was, and counts as exported from then on; anything else stays.
    /// As an archive: with the owners of the sandbox, the same bytes wherever it is made.
    pub fn export(&mut self, layers: &[LayerId], target: &Target) -> Result<()> {
        let look = view(&self.store, layers, |_| None)?;
        let (manifest, sources) = flatten(&look, &GuestPath::root(), 1)?;
        if let Target::Dir(dir) = target
            && is_intact(&self.store, dir, &manifest)
        {
            return Ok(());
        }
        let ids = self.enter_ids()?;
        for layer in layers {
            if !self.store.ready(layer, ids)? {
                return Err(Error::machine(format!("layer {layer:#} is lost or damaged"))
                    .hint("build again: what is lost is made anew"));
            }
        }
        let content = |entry: &Entry| -> Result<PathBuf> {
            let Source { layer, path } = sources.get(&entry.path).ok_or_else(|| {
                Error::machine(format!("nothing is known of the bytes of `{}`", entry.path))
            })?;
            Ok(self.store.layer_fs(&layers[*layer]).join(path.as_relative()))
        };
        match target {
            Target::Tar(file) => write_tar(file, &manifest, &content),
            Target::Dir(dir) => write_dir(&self.store, dir, &manifest, &content),
            Target::Image(_) => Err(Error::machine("an image is more than one tree")),
        }
    }
}

type Content<'a> = &'a (dyn Fn(&Entry) -> Result<PathBuf> + Sync);

fn write_tar(file: &Path, manifest: &Manifest, content: Content) -> Result<()> {
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    fs::create_dir_all(dir).map_err(|e| Error::io("create directory", dir, e))?;
    let temporary = tempfile::NamedTempFile::new_in(dir).map_err(|e| refused(file, e))?;
    let mut out = BufWriter::with_capacity(1 << 20, temporary.as_file());
    pack(manifest, content, &mut out).map_err(|e| {
        let hint = e.hint_text().unwrap_or(ELSEWHERE).to_string();
        e.within(format!("cannot write `{}`", file.display())).hint(hint)
    })?;
    out.flush().map_err(|e| Error::io("write", file, e))?;
    drop(out);
    temporary
        .as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))
        .map_err(|e| Error::io("set the mode of", file, e))?;
    temporary.persist(file).map_err(|e| Error::io("write", file, e.error))?;
    Ok(())
}

/// Places the tree beside `dir` and moves it in, entry by entry or, where nothing is yet, as a whole.
fn write_dir(store: &Store, dir: &Path, manifest: &Manifest, content: Content) -> Result<()> {
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(|e| Error::io("create directory", parent, e))?;
    let fresh =
        tempfile::Builder::new().prefix(".isolith-").tempdir_in(parent).map_err(|e| refused(dir, e))?;
    let tree = fresh.path().join("tree");
    fs::create_dir(&tree).map_err(|e| Error::io("create directory", &tree, e))?;
    place(manifest, &tree, Owners::Caller, content).map_err(|e| {
        // As if it had been written where it goes.
        let what = e.what().replace(&*tree.to_string_lossy(), &dir.to_string_lossy());
        let hint = e.hint_text().unwrap_or(ELSEWHERE).to_string();
        Error::new(e.class(), what).because(e.causes().join(": ")).hint(hint)
    })?;
    let old = mark(store, dir);
    match fs::symlink_metadata(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            fs::rename(&tree, dir).map_err(|e| Error::io("create directory", dir, e))?;
        }
        Err(e) => return Err(Error::io("stat", dir, e)),
        Ok(found) if !found.is_dir() => {
            return Err(Error::usage(format!("`{}` is there and is not a directory", dir.display()))
                .hint("name another place, or remove it"));
        }
        Ok(_) => {
            let stale = old.map(|mark| stale(&mark, manifest)).unwrap_or_default();
            remove_stale(dir, stale);
            move_in(&tree, dir, manifest)?;
        }
    }
    let paths = manifest.entries().iter().map(|e| e.path.as_bytes().escape_ascii().to_string()).collect();
    store.put_note("export", &key(dir), &Mark { tree: manifest.id(), paths })
}

const ELSEWHERE: &str = "free some space there, or export to another place that you can write to";

/// The error for a target whose directory takes nothing new. The text of `why` has a name in it that only exists
/// for a moment, so its kind has to do.
fn refused(target: &Path, why: std::io::Error) -> Error {
    Error::io("write", target, std::io::Error::from(why.kind())).hint(ELSEWHERE)
}

fn key(dir: &Path) -> String {
    let absolute = fs::canonicalize(dir).unwrap_or_else(|_| std::path::absolute(dir).unwrap_or(dir.into()));
    blake3::hash(absolute.as_os_str().as_encoded_bytes()).to_hex().to_string()
}

fn mark(store: &Store, dir: &Path) -> Option<Mark> {
    store.get_note("export", &key(dir))
}

/// Whether the last export to `dir` was this very tree and nothing there has been changed since, as far as
/// kind, size, mode and time tell.
fn is_intact(store: &Store, dir: &Path, manifest: &Manifest) -> bool {
    let same = |entry: &Entry| {
        let Ok(found) = fs::symlink_metadata(dir.join(entry.path.as_relative())) else { return false };
        let mode = found.mode() & 0o7777 == u32::from(entry.mode) & 0o1777;
        match &entry.kind {
            Kind::File { size, .. } => {
                found.is_file() && found.len() == *size && mode && found.mtime() == entry.mtime
            }
            Kind::Dir { .. } => found.is_dir() && mode,
            Kind::Symlink { .. } => found.is_symlink() && found.mtime() == entry.mtime,
            Kind::HardLink { .. } => found.is_file(),
            _ => false,
        }
    };
    mark(store, dir).is_some_and(|mark| mark.tree == manifest.id()) && manifest.entries().iter().all(same)
}

/// Paths of the last export that this one does not have, deepest first.
fn stale(mark: &Mark, manifest: &Manifest) -> Vec<PathBuf> {
    let now: BTreeSet<String> =
        manifest.entries().iter().map(|e| e.path.as_bytes().escape_ascii().to_string()).collect();
    let gone = mark.paths.iter().rev().filter(|path| !now.contains(*path));
    gone.filter_map(|path| unescape(path)).collect()
}

fn unescape(path: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let mut out = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next()? {
            b'x' => {
                let hex = [bytes.next()?, bytes.next()?];
                out.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
            }
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            other => out.push(other),
        }
    }
    Some(std::ffi::OsString::from_vec(out).into())
}

/// Best effort: what the user has put into a directory of ours keeps that directory.
fn remove_stale(dir: &Path, stale: Vec<PathBuf>) {
    for path in stale {
        let path = dir.join(path);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => drop(fs::remove_dir(&path)),
            Ok(_) => drop(fs::remove_file(&path)),
            Err(_) => {}
        }
    }
}

fn move_in(tree: &Path, dir: &Path, manifest: &Manifest) -> Result<()> {
    for entry in manifest.entries() {
        let (from, to) = (tree.join(entry.path.as_relative()), dir.join(entry.path.as_relative()));
        let there = fs::symlink_metadata(&to).ok();
        if let Kind::Dir { .. } = entry.kind {
            if !there.as_ref().is_some_and(fs::Metadata::is_dir) {
                if there.is_some() {
                    fs::remove_file(&to).map_err(|e| Error::io("remove", &to, e))?;
                }
                fs::create_dir(&to).map_err(|e| Error::io("create directory", &to, e))?;
            }
            continue;
        }
        if there.is_some_and(|found| found.is_dir()) {
            return Err(Error::usage(format!(
                "`{}` is a directory, and the export has a file there",
                to.display()
            ))
            .hint("remove it, or export to another place"));
        }
        fs::rename(&from, &to).map_err(|e| Error::io("write", &to, e))?;
    }
    // Times and modes of directories last, when nothing is written into them any more.
    for entry in manifest.entries().iter().rev() {
        if let Kind::Dir { .. } = entry.kind {
            let to = dir.join(entry.path.as_relative());
            fs::set_permissions(&to, fs::Permissions::from_mode(u32::from(entry.mode) & 0o1777))
                .map_err(|e| Error::io("set the mode of", &to, e))?;
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(entry.mtime.max(0) as u64);
            let _ = File::open(&to).and_then(|f| f.set_times(fs::FileTimes::new().set_modified(time)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_paths_come_back() {
        for raw in [b"a/b".as_slice(), b"tab\tnew\nline", b"\xff\xfe", b"back\\slash", b"quote'\""] {
            let back = unescape(&raw.escape_ascii().to_string()).unwrap();
            assert_eq!(back.as_os_str().as_encoded_bytes(), raw);
        }
    }
}
