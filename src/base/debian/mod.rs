//! A base of Debian packages: which ones, by the archive's signed indexes (`docs/design/debian.md`).

mod package;
mod request;

pub use package::{Package, Packages};
pub use request::{Debian, Variant, architecture};
