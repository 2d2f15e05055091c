//! Local inputs: a directory or file of this machine as a layer, whoever checked it out, wherever.

mod hashing;
mod import;
mod patterns;
mod scan;
mod stat_cache;

pub use hashing::{hash_files, sha256_file};
pub use import::import;
pub use patterns::Patterns;
pub use scan::{Modes, Scan, scan};
pub use stat_cache::StatCache;
