//! From a [`SandboxSpec`] to a finished process.

pub mod cgroup;
pub mod doctor;
mod spec;

pub use spec::{CacheMount, Limits, Outcome, SandboxSpec, SecretMount, Status, Usage};

// TEMPORARY STUB
pub struct Executor;
pub struct Sandbox;
#[derive(Clone)]
pub struct Killer;
impl Killer {
    pub fn kill(&self) {}
}
impl Executor {
    pub fn start(_: &std::path::Path, _: crate::layer::IdShift) -> crate::Result<Executor> {
        todo!()
    }
    pub fn spawn(&self, _: &SandboxSpec, _: [std::os::fd::OwnedFd; 3]) -> crate::Result<Sandbox> {
        todo!()
    }
}
impl Sandbox {
    pub fn killer(&self) -> Killer {
        Killer
    }
    pub fn wait(self) -> crate::Result<Outcome> {
        todo!()
    }
}
pub mod ids {
    pub fn enter() -> crate::Result<crate::layer::IdShift> {
        todo!()
    }
}
