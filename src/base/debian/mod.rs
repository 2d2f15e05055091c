//! A base of Debian packages: which ones, by the archive's signed indexes (`docs/design/debian.md`).

mod archive;
mod choose;
mod control;
mod lay;
pub mod machine;
mod package;
mod patch;
mod relation;
mod release;
mod request;
mod resolve;
#[cfg(feature = "debian")]
mod signature;
mod source;
mod universe;
mod version;
mod why;

pub use archive::{Archives, Keyring, Mirror, Reader};
pub use choose::{Choice, choose};
pub use lay::{lay_all, lay_one};
pub use package::{Package, Packages};
pub use patch::{Files, apply as apply_patch};
pub use relation::{Malformed, Op, Relation, parse as relations};
pub use release::{Release, shown as utc};
pub use request::{Debian, Variant, architecture};
#[cfg(feature = "debian")]
pub use signature::Keys;
pub use source::{SourceFile, SourcePackage, SourceRequest, dsc_of, lay_source};
pub use universe::{Index, Universe};
pub use version::compare as compare_versions;
