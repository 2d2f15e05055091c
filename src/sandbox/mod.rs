//! From a [`SandboxSpec`] to a finished process.

mod spec;

pub use spec::{CacheMount, Limits, Outcome, SandboxSpec, SecretMount, Status, Usage};
