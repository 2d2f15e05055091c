//! From a [`SandboxSpec`] to a finished process.

pub mod cgroup;
mod spec;

pub use spec::{CacheMount, Limits, Outcome, SandboxSpec, SecretMount, Status, Usage};
