//! From a [`SandboxSpec`] to a finished process.
//!
//! isolith forks an *executor*, which clones an *init* for every sandbox, which forks the *command*. Each of
//! the three runs ordinary code because none of them ever has a second thread when it forks.

pub mod cgroup;
mod clock;
mod command;
mod conditions;
pub mod doctor;
mod executor;
mod hints;
pub mod ids;
mod init;
mod job;
mod parts;
mod ports;
mod rootfs;
mod seccomp;
mod server;
mod skeleton;
mod spec;
mod stage;
mod supervisor;
mod wire;

pub use conditions::{Conditions, DirOrder};
pub use executor::{Executor, Killer, Sandbox};
pub use ids::IdPlan;
pub use ports::{OpenPorts, Ports, Protocol, Publish};
pub use spec::{Bind, CacheMount, Extras, Limits, Outcome, SandboxSpec, SecretMount, Status, Usage};
