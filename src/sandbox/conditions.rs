//! What `verify` changes about a sandbox: things that differ between machines and that a reproducible step does
//! not depend on.
//!
//! The default is the contract. Conditions are part of no key, so what ran under others is never recorded
//! as a result (`engine::worker`).

use serde::{Deserialize, Serialize};

/// The conditions of a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conditions {
    /// Only so many cpus may be used.
    pub cpus: Option<u32>,
    /// Addresses are randomised.
    pub random_addresses: bool,
    /// Seconds that libc's wall clock is ahead, for dynamically linked programs.
    pub clock_shift: i64,
    /// In which order directories are listed.
    pub dir_order: Option<DirOrder>,
    /// So many inode numbers are used up first, on the file system of the run directory and in the sandbox's
    /// private ones.
    pub used_inodes: u32,
}

/// An order of the names in a directory; `.` and `..` come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DirOrder {
    /// The file system's own, last one first.
    Reversed,
    /// By a hash of the names with this seed.
    Shuffled(u64),
}

impl Conditions {
    /// True for the sandbox of the contract.
    pub fn are_normal(&self) -> bool {
        *self == Conditions::default()
    }

    /// Whether this isolith has the library that shifts the clock.
    pub fn can_shift_clock() -> bool {
        super::clock::is_there()
    }
}
