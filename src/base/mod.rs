//! What recipes start from.

pub mod debian;
mod host;
mod tar;

pub use host::fingerprint;
pub use tar::import_tar;
