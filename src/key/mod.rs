//! The action document, the keys made from it, and the difference between two of them.

mod action;
mod canonical;
mod definition;
mod difference;

pub use action::{ActionDocument, CONTRACT, HostView, MountDoc, Network, UserDoc};
pub use canonical::canonical_json;
pub use definition::Definition;
pub use difference::{Difference, difference};
