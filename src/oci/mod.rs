//! Image formats in and out: references, documents, digests, and the registries that have them.
//!
//! The formats are those of the OCI image specification 1.1 and, where they differ, of Docker's image manifest
//! version 2, schema 2; the protocol is that of the OCI distribution specification 1.1.

mod digest;
mod document;
pub mod image;
mod platform;
mod receive;
mod reference;
#[cfg(feature = "net")]
pub mod registry;
pub mod source;

pub use digest::{Checked, Hasher};
pub use document::{Document, MANIFEST_TYPES, MOST_MANIFEST};
pub use oci_spec::distribution::Reference;
pub use oci_spec::image::{Descriptor, Digest, MediaType};
pub use platform::Platform;
pub use receive::receive;
pub use reference::parse_reference;
