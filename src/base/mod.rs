//! What recipes start from.

mod host;
mod tar;

pub use host::fingerprint;
pub use tar::import_tar;
