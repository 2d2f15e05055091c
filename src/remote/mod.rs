//! Shared stores behind one trait (docs/design/remotes.md).
//!
//! A remote keeps two things: *records*, small signed documents that say what a key came to, and *blobs*, layers in
//! travelling form. It is believed in nothing: a record counts by its signature, a blob by its digest.

mod address;
mod directory;
mod key;
#[cfg(feature = "net")]
mod known;
#[cfg(feature = "object-store")]
mod objects;
mod open;
#[cfg(feature = "net")]
mod parallel;
mod read_only;
#[cfg(feature = "reapi")]
mod reapi;
#[cfg(feature = "object-store")]
mod redis;
#[cfg(feature = "net")]
mod registry;
mod settings;

use std::io::{self, Read};
use std::ops::Range;

pub use directory::Directory;
pub use key::{Blob, RecordKey, Subject, WriterId};
pub use open::{check, open};
pub use read_only::ReadOnly;
pub use settings::{Header, LEAST_RATE, Limits, Settings, VARIABLES};

use crate::error::{Error, Result};
use crate::oci::{Checked, Digest};

/// The most bytes that a record may have. Longer ones are neither taken nor given out.
pub const MOST_RECORD: usize = 1 << 20;

/// What reads the bytes of a blob.
pub type Reader<'a> = &'a mut dyn FnMut(&mut dyn Read) -> Result<()>;
/// What gives the bytes of a blob from the start; it is called again when a try fails.
pub type Source<'a> = &'a mut dyn FnMut() -> Result<Box<dyn Read>>;

/// What [`Remote::sweep`] took out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Swept {
    /// Blobs.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// A shared store. Every call may be made from several threads at once.
///
/// What is not there is an answer (`None`, `false`), never an error. An error says that the remote could not be
/// asked, or that what it keeps under a name cannot be read.
pub trait Remote: Send + Sync {
    /// What it is called in messages.
    fn name(&self) -> String;

    /// The records with these keys, in their order, in as few round trips as the remote allows.
    fn records(&self, keys: &[RecordKey]) -> Result<Vec<Option<Vec<u8>>>>;

    /// Puts a record in place of an older one of its writer. `blobs` are those that it refers to: a remote that throws
    /// away what nobody refers to keeps them with it.
    ///
    /// # Errors
    /// The record is too long; a blob of `blobs` is not there.
    fn put_record(&self, key: &RecordKey, bytes: &[u8], blobs: &[Blob]) -> Result<()>;

    /// Which of these blobs are there.
    fn has_blobs(&self, blobs: &[Blob]) -> Result<Vec<bool>>;

    /// Gives the bytes of a blob, or a range of them, to `read`, as they come and unchecked: see [`checked`]. False
    /// when it is not there, or has not so many bytes.
    fn blob(&self, blob: &Blob, range: Option<Range<u64>>, read: Reader) -> Result<bool>;

    /// Takes a blob in; nothing is sent when it is there.
    ///
    /// # Errors
    /// `source` gives other bytes than the blob's; nothing of them is kept.
    fn put_blob(&self, blob: &Blob, source: Source) -> Result<()>;

    /// Bytes that have gone and come so far, where the remote takes more from a source at once, or keeps more from a
    /// reader, than one would wait for. None where what sources give and readers get is what moves.
    fn moved(&self) -> Option<u64> {
        None
    }

    /// The keys of all records.
    fn keys(&self) -> Result<Vec<RecordKey>>;

    /// Takes a record out; false when it is not there. Its blobs stay.
    fn remove(&self, key: &RecordKey) -> Result<bool>;

    /// Takes out the blobs that `wanted` says no to and that were put there before that second since 1970. None when this
    /// remote cannot list its blobs, or throws away itself what nobody refers to.
    fn sweep(&self, wanted: &dyn Fn(&Digest) -> bool, before: i64) -> Result<Option<Swept>> {
        let _ = (wanted, before);
        Ok(None)
    }
}

/// The SHA-256 of a blob as 64 hexadecimal digits.
///
/// # Errors
/// Its digest is another one (class `Usage`).
fn hex(blob: &Blob) -> Result<&str> {
    let hex = blob.digest.as_ref().strip_prefix("sha256:").filter(|hex| hex.len() == 64);
    hex.ok_or_else(|| Error::usage(format!("`{}` is no SHA-256", blob.digest)))
}

/// Refuses a record that is too long.
fn expect_short(key: &RecordKey, bytes: &[u8]) -> Result<()> {
    match bytes.len() > MOST_RECORD {
        true => Err(Error::machine(format!("the record {key} has more than {MOST_RECORD} bytes"))),
        false => Ok(()),
    }
}

/// Refuses a record when a blob that it refers to is not there.
fn expect_all(remote: &str, key: &RecordKey, blobs: &[Blob], has: &[bool]) -> Result<()> {
    match blobs.iter().zip(has).find(|(_, has)| !**has) {
        Some((blob, _)) => {
            Err(Error::machine(format!("{remote} does not have {}, which {key} refers to", blob.digest)))
        }
        None => Ok(()),
    }
}

/// What stopped a call, told by its cause: it had no time left.
#[cfg(feature = "net")]
fn late(remote: &str, deadline: settings::Deadline, error: Error) -> Error {
    match deadline.left() {
        Some(_) => error,
        None => Error::machine(format!("{remote} takes too long"))
            .because(format!("a call was not done within {} s", deadline.all().as_secs_f64())),
    }
}

/// Gives the bytes of a whole blob to `read` and checks them on the way. Where they are not those of the digest and
/// the size the last read fails, and so does this, whatever `read` makes of it. False when the blob is not there.
pub fn checked(remote: &dyn Remote, blob: &Blob, read: Reader) -> Result<bool> {
    remote.blob(blob, None, &mut |bytes| {
        let refused = |why: io::Error| {
            Error::machine(format!("{} gives other bytes than those of {}", remote.name(), blob.digest))
                .because(why)
                .hint("it is damaged there, or somebody has changed it: remove it there")
        };
        let from = Checked::new(bytes, blob.digest.clone(), Some(blob.size)).map_err(refused)?;
        let mut bytes = Lasting { from, failed: None };
        let done = read(&mut bytes);
        // `read` may have stopped before the end, or not have minded an error.
        if let Err(why) = io::copy(&mut bytes, &mut io::sink()) {
            return Err(refused(bytes.failed.unwrap_or(why)));
        }
        done
    })
}

/// Fails for good once it has failed: who reads on after a wrong end is not told that it was a right one.
struct Lasting<R> {
    from: R,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Lasting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(why) = &self.failed {
            return Err(why.kind().into());
        }
        let done = self.from.read(buffer);
        match done {
            Err(why) if why.kind() != io::ErrorKind::Interrupted => {
                let kind = why.kind();
                self.failed = Some(why);
                Err(kind.into())
            }
            done => done,
        }
    }
}
