//! A remote that is only read.

use std::ops::Range;

use super::{Blob, Reader, RecordKey, Remote, Source, Swept};
use crate::error::{Error, Result};
use crate::oci::Digest;

/// Passes on what reads, and refuses what writes before anything is sent.
pub struct ReadOnly(Box<dyn Remote>);

impl ReadOnly {
    /// Only reads `remote`.
    pub fn new(remote: Box<dyn Remote>) -> ReadOnly {
        ReadOnly(remote)
    }

    fn refused<T>(&self) -> Result<T> {
        Err(Error::usage(format!("{} is read-only", self.name()))
            .hint("it is configured so: allow writing there if that is meant"))
    }
}

impl Remote for ReadOnly {
    fn name(&self) -> String {
        self.0.name()
    }

    fn records(&self, keys: &[RecordKey]) -> Result<Vec<Option<Vec<u8>>>> {
        self.0.records(keys)
    }

    fn put_record(&self, _: &RecordKey, _: &[u8], _: &[Blob]) -> Result<()> {
        self.refused()
    }

    fn has_blobs(&self, blobs: &[Blob]) -> Result<Vec<bool>> {
        self.0.has_blobs(blobs)
    }

    fn blob(&self, blob: &Blob, range: Option<Range<u64>>, read: Reader) -> Result<bool> {
        self.0.blob(blob, range, read)
    }

    fn put_blob(&self, _: &Blob, _: Source) -> Result<()> {
        self.refused()
    }

    fn moved(&self) -> Option<u64> {
        self.0.moved()
    }

    fn keys(&self) -> Result<Vec<RecordKey>> {
        self.0.keys()
    }

    fn remove(&self, _: &RecordKey) -> Result<bool> {
        self.refused()
    }

    fn sweep(&self, _: &dyn Fn(&Digest) -> bool, _: i64) -> Result<Option<Swept>> {
        self.refused()
    }
}
