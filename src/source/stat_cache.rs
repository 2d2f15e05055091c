//! Digests of files that have not changed since they were last read.
//!
//! A file counts as unchanged when size, mtime, ctime and inode are the same *and* the digest was taken
//! clearly after the last change: a write within the clock's grain of the read could leave all four as they
//! were (the "racy git" problem), so such digests are not kept.

use std::collections::BTreeMap;

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use crate::digest::ContentDigest;

/// Changes this close to the moment of reading cannot be told apart by time stamps on every file system.
const GRAIN_NS: i64 = 50_000_000;

/// Digests by path relative to the root of the source.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatCache {
    files: BTreeMap<String, Known>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Known(Identity, ContentDigest);

/// Device, inode, size, mtime and ctime (nanoseconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity(u64, u64, u64, i64, i64);

impl Identity {
    /// The identity of what `stat` describes.
    pub fn of(stat: &Stat) -> Self {
        let ns = |s: i64, n: i64| s.saturating_mul(1_000_000_000).saturating_add(n);
        Self(
            stat.st_dev,
            stat.st_ino,
            stat.st_size as u64,
            ns(stat.st_mtime, stat.st_mtime_nsec as i64),
            ns(stat.st_ctime, stat.st_ctime_nsec as i64),
        )
    }

    fn settled_before(&self, now_ns: i64) -> bool {
        self.3.max(self.4) < now_ns - GRAIN_NS
    }
}

impl StatCache {
    /// The digest of the file at `path`, if it is certain to be the one that was read.
    pub fn get(&self, path: &str, identity: Identity) -> Option<ContentDigest> {
        self.files.get(path).filter(|known| known.0 == identity).map(|known| known.1)
    }

    /// Remembers a digest taken at `now_ns` (nanoseconds since 1970).
    pub fn insert(&mut self, path: String, identity: Identity, digest: ContentDigest, now_ns: i64) {
        if identity.settled_before(now_ns) {
            self.files.insert(path, Known(identity, digest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_within_the_clock_grain_is_not_trusted() {
        let mut cache = StatCache::default();
        let digest = ContentDigest::of(b"x");
        let id = Identity(1, 2, 3, 1_000, 1_000);
        cache.insert("young".into(), id, digest, 1_000 + GRAIN_NS);
        cache.insert("old".into(), id, digest, 1_001 + GRAIN_NS);
        assert_eq!(cache.get("young", id), None);
        assert_eq!(cache.get("old", id), Some(digest));
        assert_eq!(cache.get("old", Identity(1, 2, 3, 1_000, 1_001)), None);
    }
}
