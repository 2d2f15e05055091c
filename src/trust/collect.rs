//! Takes out of a remote what is of no use to anybody.

use std::collections::BTreeSet;

use super::record::refers;
use crate::error::Result;
use crate::remote::{Remote, Swept};

/// Records that are read at once.
const AT_ONCE: usize = 256;

/// What [`collect`] took out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Collected {
    /// Records that stay.
    pub kept: usize,
    /// Records that nobody can read, or that refer to blobs that are gone.
    pub records: usize,
    /// Blobs that no record refers to; none when this remote cannot list blobs, or sees to them itself.
    pub swept: Option<Swept>,
}

/// Removes records that nobody can read or whose blobs are gone, and then blobs that no record refers to and that are
/// older than `before` (seconds since 1970): one that was put there just now may get its record yet.
///
/// # Errors
/// The remote cannot be asked; no blob has been removed then.
pub fn collect(remote: &dyn Remote, before: i64) -> Result<Collected> {
    let (mut collected, mut wanted) = (Collected::default(), BTreeSet::new());
    for keys in remote.keys()?.chunks(AT_ONCE) {
        for (key, bytes) in keys.iter().zip(remote.records(keys)?) {
            let blobs = bytes.as_deref().and_then(refers);
            let whole = match &blobs {
                Some(blobs) => remote.has_blobs(blobs)?.iter().all(|there| *there),
                None => false,
            };
            match blobs {
                Some(blobs) if whole => {
                    collected.kept += 1;
                    wanted.extend(blobs.into_iter().map(|blob| blob.digest.to_string()));
                }
                _ => collected.records += usize::from(remote.remove(key)?),
            }
        }
    }
    collected.swept = remote.sweep(&|digest| wanted.contains(digest.as_ref()), before)?;
    Ok(collected)
}
