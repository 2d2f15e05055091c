//! Random trees on real file systems: what the library says of a tree must be what is there.
//!
//! Needs root, for owners, devices and overlay mounts; without it these tests pass and say so.

mod commits;
mod look;
mod mount;
mod oci;
mod ops;
mod round_trip;
mod stacks;
mod wild;

use proptest::prelude::ProptestConfig;

/// A directory in memory, where mounts and attributes are quick.
pub fn scratch() -> tempfile::TempDir {
    let place = ["/dev/shm", "/var/tmp"].into_iter().find(|dir| std::path::Path::new(dir).is_dir()).unwrap();
    tempfile::Builder::new().prefix("isolith-property-").tempdir_in(place).unwrap()
}

/// So many cases; `PROPTEST_CASES` says otherwise.
pub fn cases(count: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(count);
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 300,
        max_shrink_time: 10_000,
        ..Default::default()
    }
}

/// Whether these tests can run.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}
