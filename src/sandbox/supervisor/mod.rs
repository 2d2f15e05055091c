//! Calls of a step that its init answers in the kernel's place, through seccomp user notification.
//!
//! There is one filter and one loop, in the init. What is switched on for a step decides which calls go there;
//! a step for which nothing is on has no listener and no cost. A further feature is a [`Handler`] of its own
//! and a line in [`Supervisor::handlers`].
//!
//! The step's process is asleep in its call while a handler looks at it. It can be killed at any moment, and
//! other threads of it can change its memory: a handler reads each argument once, and an answer nobody waits
//! for any more is thrown away.

mod dirs;

use std::os::fd::{AsFd, OwnedFd};

use super::Conditions;
use crate::error::Result;
use crate::sys::seccomp::{self, Call, Instruction, Listened};
use crate::sys::{fd, process, socket};

/// Of the capabilities over the sandbox's user namespace, what a supervisor needs to reach into processes.
pub(super) const CAP_SYS_PTRACE: u64 = 1 << 19;

/// What becomes of a call.
pub(super) enum Answer {
    /// It returns this value.
    Value(i64),
    /// The kernel does it as if nobody had looked.
    Continue,
}

/// One feature.
pub(super) trait Handler {
    /// The numbers of the calls it answers.
    fn calls(&self) -> &'static [libc::c_long];
    /// Answers one of them. An error number is what the caller gets.
    fn handle(&mut self, call: &Call) -> Result<Answer, i32>;
}

/// The two ends over which the listener comes from the command's process to its init.
pub(super) struct Handover {
    ours: OwnedFd,
    pub(super) theirs: OwnedFd,
    /// The filter with the supervised calls in it.
    pub(super) filter: Vec<Instruction>,
    handlers: Vec<Box<dyn Handler>>,
}

impl Handover {
    /// None when nothing has to be supervised under these conditions.
    pub(super) fn new(conditions: &Conditions, filter: &[Instruction]) -> Result<Option<Handover>> {
        let handlers = handlers(conditions);
        if handlers.is_empty() {
            return Ok(None);
        }
        let calls: Vec<libc::c_long> = handlers.iter().flat_map(|h| h.calls()).copied().collect();
        let (ours, theirs) = socket::pair()?;
        Ok(Some(Handover { ours, theirs, filter: super::seccomp::supervised(filter, &calls), handlers }))
    }

    /// In the command's process: loads the filter and sends the listener over.
    pub(super) fn load(&self) -> Result<(), crate::sys::SysError> {
        let listener = seccomp::load_with_listener(&self.filter)?;
        socket::send(self.theirs.as_fd(), b"listener", &[listener.as_fd()])
    }

    /// In the init, when the command has started: none when it ended before it came that far.
    pub(super) fn take(self) -> Result<Option<Supervisor>> {
        drop(self.theirs);
        let received = socket::receive(self.ours.as_fd(), &mut [0; 16])?;
        let listener = received.and_then(|(_, fds)| fds.into_iter().next());
        Ok(listener.map(|listener| {
            // Only speeds up; kernels before 6.6 do not have it.
            let _ = seccomp::wake_synchronously(listener.as_fd());
            Supervisor { listener, handlers: self.handlers }
        }))
    }
}

fn handlers(conditions: &Conditions) -> Vec<Box<dyn Handler>> {
    let mut handlers: Vec<Box<dyn Handler>> = Vec::new();
    if let Some(order) = conditions.dir_order {
        handlers.push(Box::new(dirs::Dirs::new(order)));
    }
    handlers
}

/// Answers the supervised calls of one sandbox.
pub(super) struct Supervisor {
    listener: OwnedFd,
    handlers: Vec<Box<dyn Handler>>,
}

impl Supervisor {
    /// Readable when a call waits.
    pub(super) fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    /// Answers one call; false when no process is left that could make any.
    pub(super) fn serve(&mut self) -> Result<bool> {
        let call = match seccomp::receive(self.listener.as_fd())? {
            Listened::Call(call) => call,
            Listened::Nothing => return Ok(true),
            Listened::Over => return Ok(false),
        };
        let handler = self.handlers.iter_mut().find(|h| h.calls().contains(&call.number));
        let answer = handler.map_or(Ok(Answer::Continue), |handler| handler.handle(&call));
        match answer {
            Ok(Answer::Value(value)) => seccomp::answer(self.listener.as_fd(), call.id, value)?,
            Err(errno) => {
                seccomp::answer(self.listener.as_fd(), call.id, -i64::from(errno))?;
            }
            Ok(Answer::Continue) => seccomp::pass(self.listener.as_fd(), call.id)?,
        }
        Ok(true)
    }
}

/// The descriptor `number` of the process that makes a call: the same open file, position and all.
pub(super) fn descriptor_of(call: &Call, number: i32) -> Result<OwnedFd, i32> {
    // A thread that is not its process's first one has no pidfd of its own on kernels before 6.9.
    let pidfd = process::pidfd(call.pid).or_else(|_| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", call.pid)).unwrap_or_default();
        let group = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
        process::pidfd(group.unwrap_or(call.pid))
    });
    let pidfd = pidfd.map_err(|e| e.errno())?;
    fd::of_process(pidfd.as_fd(), number).map_err(|e| e.errno())
}
