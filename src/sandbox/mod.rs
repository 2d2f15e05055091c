//! From a [`SandboxSpec`] to a finished process.

pub mod cgroup;
pub mod doctor;
mod spec;

pub use spec::{CacheMount, Limits, Outcome, SandboxSpec, SecretMount, Status, Usage};
