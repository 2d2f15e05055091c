//! A base of Debian packages: which ones, by the archive's signed indexes (`docs/design/debian.md`).

mod lay;
mod package;
mod request;

pub use lay::{lay_all, lay_one};
pub use package::{Package, Packages};
pub use request::{Debian, Variant, architecture};
