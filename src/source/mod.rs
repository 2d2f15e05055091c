//! Pinned inputs: files of this machine, and what is fetched and checked, as layers that look the same everywhere.

pub mod fetch;
pub mod git;
mod hashing;
mod import;
mod lay;
mod patterns;
mod pin;
mod scan;
mod stat_cache;

pub use crate::net::{Url, UrlError};
pub use hashing::{hash_files, sha256_file};
pub use import::import;
pub use lay::Lay;
pub use patterns::Patterns;
pub use pin::{Algorithm, Pin};
pub use scan::{Modes, Scan, scan};
pub use stat_cache::StatCache;
