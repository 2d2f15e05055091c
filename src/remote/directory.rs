//! A plain directory as a remote: of another disk, of a network file system, of a group of users.
//!
//! ```text
//! <dir>/isolith-remote           "1\n"
//! <dir>/records/ab/<record key>  ab: the first two digits of the key
//! <dir>/blobs/ab/<sha256>
//! <dir>/tmp/                     what is being written
//! ```
//!
//! What has a name was renamed into place when it was whole and had reached the disk. No locks: any number of
//! machines may write, and two that write one blob write the same bytes. Whoever may write there may also put
//! anything there, so links are not followed and only plain files are read.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::{Blob, MOST_RECORD, Reader, RecordKey, Remote, Source, Swept};
use crate::error::{Error, Result};
use crate::oci::{Checked, Digest};

const MARK: &str = "isolith-remote";
const VERSION: &[u8] = b"1\n";

/// A directory that is shared.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Uses the directory at `root` to read and write; it is made when it is not there.
    ///
    /// # Errors
    /// Something else is in it (class `Usage`), or it cannot be made.
    pub fn create(root: &Path) -> Result<Directory> {
        fs::create_dir_all(root).map_err(|why| Error::io("create directory", root, why))?;
        let fresh = fs::read_dir(root).map_err(|why| Error::io("read", root, why))?.next().is_none();
        let directory = Directory { root: root.to_path_buf() };
        if fresh {
            for name in ["records", "blobs", "tmp"] {
                let dir = root.join(name);
                fs::create_dir_all(&dir).map_err(|why| Error::io("create directory", &dir, why))?;
            }
            directory.write(&root.join(MARK), |file| file.write_all(VERSION))?;
        }
        directory.expect_mark()
    }

    /// Uses the directory at `root`; nothing is made.
    ///
    /// # Errors
    /// No remote is there (class `Usage`).
    pub fn open(root: &Path) -> Result<Directory> {
        Directory { root: root.to_path_buf() }.expect_mark()
    }

    fn expect_mark(self) -> Result<Directory> {
        let found = read_small(&self.root.join(MARK), VERSION.len())?;
        match found.as_deref() {
            Some(VERSION) => Ok(self),
            _ => Err(Error::usage(format!("`{}` is no remote of isolith", self.root.display()))
                .because(match found {
                    Some(_) => "it is of another version",
                    None => "it has no file `isolith-remote`",
                })
                .hint("name an empty directory, one that is not there yet, or one that isolith has made")),
        }
    }

    fn record(&self, key: &RecordKey) -> PathBuf {
        let name = key.to_string();
        self.root.join("records").join(&name[4..6]).join(name)
    }

    fn blob_path(&self, blob: &Blob) -> Result<PathBuf> {
        let hex = super::hex(blob)?;
        Ok(self.root.join("blobs").join(&hex[..2]).join(hex))
    }

    /// Writes a file beside and renames it into place, for all that the umask would let read it.
    fn write(&self, path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
        let failed = |why| Error::io("write", path, why);
        let mut temporary = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(self.root.join("tmp"))
            .map_err(failed)?;
        fill(temporary.as_file_mut()).and_then(|()| temporary.as_file().sync_all()).map_err(failed)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|why| Error::io("create directory", parent, why))?;
        }
        temporary.persist(path).map(drop).map_err(|why| failed(why.error))
    }

    /// Opens a blob that has the right length.
    fn open_blob(&self, blob: &Blob) -> Result<Option<File>> {
        let path = self.blob_path(blob)?;
        let Some(file) = open_plain(&path)? else { return Ok(None) };
        let length = file.metadata().map_err(|why| Error::io("stat", &path, why))?.len();
        Ok((length == blob.size).then_some(file))
    }
}

impl Remote for Directory {
    fn name(&self) -> String {
        format!("file://{}", self.root.display())
    }

    fn records(&self, keys: &[RecordKey]) -> Result<Vec<Option<Vec<u8>>>> {
        keys.iter().map(|key| read_small(&self.record(key), MOST_RECORD)).collect()
    }

    fn put_record(&self, key: &RecordKey, bytes: &[u8], blobs: &[Blob]) -> Result<()> {
        super::expect_short(key, bytes)?;
        super::expect_all(&self.name(), key, blobs, &self.has_blobs(blobs)?)?;
        self.write(&self.record(key), |file| file.write_all(bytes))
    }

    fn has_blobs(&self, blobs: &[Blob]) -> Result<Vec<bool>> {
        blobs.iter().map(|blob| Ok(self.open_blob(blob)?.is_some())).collect()
    }

    fn blob(&self, blob: &Blob, range: Option<Range<u64>>, read: Reader) -> Result<bool> {
        let Some(mut file) = self.open_blob(blob)? else { return Ok(false) };
        let Range { start, end } = range.unwrap_or(0..blob.size);
        if start > end || end > blob.size {
            return Ok(false);
        }
        file.seek(SeekFrom::Start(start)).map_err(|why| Error::io("read", &self.root, why))?;
        read(&mut file.take(end - start)).map(|()| true)
    }

    fn put_blob(&self, blob: &Blob, source: Source) -> Result<()> {
        if self.open_blob(blob)?.is_some() {
            return Ok(());
        }
        let bytes = source()?;
        self.write(&self.blob_path(blob)?, |file| {
            let mut bytes = Checked::new(bytes, blob.digest.clone(), Some(blob.size))?;
            io::copy(&mut bytes, file).map(drop)
        })
    }

    fn keys(&self) -> Result<Vec<RecordKey>> {
        let mut keys = Vec::new();
        for shard in names(&self.root.join("records"))? {
            for path in names(&shard)? {
                let key = path.file_name().and_then(|name| name.to_str()?.parse().ok());
                keys.extend(key.filter(|key| self.record(key) == path));
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }

    fn remove(&self, key: &RecordKey) -> Result<bool> {
        let path = self.record(key);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(why) if is_absent(&why) => Ok(false),
            Err(why) => Err(Error::io("remove", &path, why)),
        }
    }

    fn sweep(&self, wanted: &dyn Fn(&Digest) -> bool, before: i64) -> Result<Option<Swept>> {
        let mut swept = Swept::default();
        let blobs = names(&self.root.join("blobs"))?.into_iter().map(|shard| names(&shard));
        // What a writer has left behind that was killed is no blob, and goes too.
        let left = names(&self.root.join("tmp"));
        for path in blobs.chain([left]).collect::<Result<Vec<_>>>()?.concat() {
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let digest = format!("sha256:{name}").parse::<Digest>();
            if meta.is_dir() || meta.mtime() >= before || digest.is_ok_and(|digest| wanted(&digest)) {
                continue;
            }
            fs::remove_file(&path).map_err(|why| Error::io("remove", &path, why))?;
            swept.blobs += 1;
            swept.bytes += meta.len();
        }
        Ok(Some(swept))
    }
}

/// The paths in a directory; none in a name that is no directory, which is none of ours.
fn names(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |why| Error::io("read", dir, why);
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| entry.map(|e| e.path()).map_err(failed)).collect(),
        Err(why) if is_absent(&why) => Ok(Vec::new()),
        Err(why) => Err(failed(why)),
    }
}

/// Opens a plain file; none when there is none. Links are not followed, and a pipe does not make us wait.
fn open_plain(path: &Path) -> Result<Option<File>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path) {
        Ok(file) => file,
        Err(why) if is_absent(&why) => return Ok(None),
        Err(why) => return Err(Error::io("read", path, why)),
    };
    let plain = file.metadata().map_err(|why| Error::io("stat", path, why))?.is_file();
    Ok(plain.then_some(file))
}

/// Reads a plain file; none when there is none, or it is longer than `most` bytes.
fn read_small(path: &Path, most: usize) -> Result<Option<Vec<u8>>> {
    let Some(file) = open_plain(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|why| Error::io("read", path, why))?;
    Ok((bytes.len() <= most).then_some(bytes))
}

fn is_absent(why: &io::Error) -> bool {
    // A link (ELOOP) or a socket (ENXIO) is not what is wanted either.
    let other = [rustix::io::Errno::LOOP, rustix::io::Errno::NXIO];
    matches!(why.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
        || why.raw_os_error().is_some_and(|code| other.iter().any(|errno| errno.raw_os_error() == code))
}
