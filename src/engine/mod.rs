//! Plan a recipe's graph, look keys up, run what is missing, record results.

mod api;
mod event;

pub use api::{Built, CachePolicy, Explanation, Failure, Request, State, Target, Verdict};
pub use event::{Event, Observer, OutcomeKind, StepReport};

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::digest::LayerId;
use crate::error::Result;
use crate::sandbox::Status;

/// A store and, once something has to run, the executor. Start single-threaded.
pub struct Session {}

impl Session {
    /// A session on the store at `root`, which is made when it does not exist.
    pub fn open(_root: &Path) -> Result<Session> {
        todo!()
    }

    /// Set this (from a signal handler or another thread) to stop: running sandboxes are killed within
    /// 50 ms, and the call in progress returns an error of class `Interrupted`.
    pub fn cancel_flag(&self) -> Arc<AtomicBool> {
        todo!()
    }

    /// Enters the sandbox ids and starts the executor, unless that is done. Call it before starting any
    /// thread when a sandbox is sure to be needed.
    pub fn prepare(&mut self) -> Result<()> {
        todo!()
    }

    /// Builds a recipe. A failed step is `Ok` with `failure` set; everything else that stops a build is an
    /// error. The last event is always `Finished` when steps were planned.
    pub fn build(&mut self, _request: &Request, _observer: &dyn Observer) -> Result<Built> {
        todo!()
    }

    /// Says of each step (or of `request.until` alone) whether it would hit, and why not.
    pub fn explain(&mut self, _request: &Request) -> Result<Vec<Explanation>> {
        todo!()
    }

    /// The log of each step (or of `request.until` alone): name and text, of its latest run.
    pub fn logs(&mut self, _request: &Request) -> Result<Vec<(String, Vec<u8>)>> {
        todo!()
    }

    /// Writes a stack out as one tree.
    pub fn export(&mut self, _layers: &[LayerId], _target: &Target) -> Result<()> {
        todo!()
    }

    /// Runs a command (default: the step's shell) in a step's sandbox (default: the last step) with the
    /// given stdio, its writes discarded. Builds what is missing below first.
    pub fn shell(
        &mut self,
        _request: &Request,
        _state: State,
        _command: &[String],
        _stdio: [OwnedFd; 3],
        _env: &[(String, String)],
        _observer: &dyn Observer,
    ) -> Result<Status> {
        todo!()
    }
}
