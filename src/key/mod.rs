//! The action document and the keys made from it.

mod action;

pub use action::{ActionDocument, HostView, MountDoc, Network, UserDoc};
