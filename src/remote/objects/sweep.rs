//! Lists what is there, and takes out blobs that nobody wants.

use std::future::IntoFuture;
use std::time::UNIX_EPOCH;

use opendal::Entry;

use super::{Call, Objects, is_absent};
use crate::error::Result;
use crate::oci::Digest;
use crate::remote::{Swept, parallel};

impl Objects {
    /// Everything below a directory.
    pub(super) fn list(&self, dir: &str) -> Result<Vec<Entry>> {
        let call = Call::new(self.limits)?;
        match call.run_again(|| self.operator.list_with(dir).recursive(true).into_future()) {
            Ok(entries) => Ok(entries),
            Err(why) if is_absent(&why) => Ok(Vec::new()),
            Err(why) => Err(self.failed("list", dir.trim_end_matches('/'), call.deadline, &why)),
        }
    }

    /// Deletes blobs, and uploads that were left alone, that are older than `before` by the clock of the server. What has
    /// no age stays.
    pub(super) fn delete_unwanted(&self, wanted: &dyn Fn(&Digest) -> bool, before: i64) -> Result<Swept> {
        let mut entries = self.list("blobs/")?;
        entries.extend(self.list("tmp/")?);
        let old = |entry: &Entry| {
            let at = entry.metadata().last_modified().map(std::time::SystemTime::from);
            let at = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            at.is_some_and(|at| i64::try_from(at.as_secs()).is_ok_and(|at| at < before))
        };
        entries.retain(|entry| {
            let digest = format!("sha256:{}", entry.name()).parse::<Digest>();
            entry.metadata().is_file() && old(entry) && !digest.is_ok_and(|digest| wanted(&digest))
        });
        parallel::all(&entries, |entry| {
            let call = Call::new(self.limits)?;
            let gone = call.run_again(|| self.operator.delete(entry.path()));
            gone.map_err(|why| self.failed("remove", entry.path(), call.deadline, &why))
        })?;
        let bytes = entries.iter().map(|entry| entry.metadata().content_length()).sum();
        Ok(Swept { blobs: entries.len(), bytes })
    }
}
