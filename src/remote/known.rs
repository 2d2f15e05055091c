//! Blobs that are known to be there, so that nobody asks for them twice.

use std::collections::HashSet;
use std::sync::Mutex;

use super::Blob;

/// What this process has put, or found.
#[derive(Default)]
pub(super) struct Known(Mutex<HashSet<String>>);

impl Known {
    /// These are there.
    pub fn add<'b>(&self, blobs: impl IntoIterator<Item = &'b Blob>) {
        let mut known = self.0.lock().unwrap_or_else(|e| e.into_inner());
        known.extend(blobs.into_iter().map(name));
    }

    /// Those of `blobs` that nothing is known of.
    pub fn others(&self, blobs: &[Blob]) -> Vec<Blob> {
        let known = self.0.lock().unwrap_or_else(|e| e.into_inner());
        blobs.iter().filter(|blob| !known.contains(&name(blob))).cloned().collect()
    }
}

fn name(blob: &Blob) -> String {
    format!("{} {}", blob.digest, blob.size)
}
