//! Calls of a step that its init answers in the kernel's place, through seccomp user notification.
//!
//! There is one filter and one loop, in the init. What is switched on for a step decides which calls go there;
//! a step for which nothing is on has no listener and no cost. A further feature is a [`Handler`] of its own
//! and a line in [`handlers`]. The init has the sandbox's own root: whatever a handler looks up is in there.
//!
//! The step's process is asleep in its call while a handler looks at it. It can be killed at any moment, and
//! other threads of it can change its memory: a handler reads each argument once, and an answer nobody waits
//! for any more is thrown away.

mod callee;
mod dirs;
mod groups;
mod ids;
mod often;
mod records;
mod xattrs;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::SandboxSpec;
use super::init::Watch;
use crate::error::{Error, Result};
use crate::sys::door::Door;
use crate::sys::seccomp::{self, Call, Instruction};
use crate::sys::{fd, notify, process, socket};

/// What a supervisor needs to reach into processes, of the capabilities over the sandbox's user namespace.
const CAP_SYS_PTRACE: u64 = 1 << 19;

/// Calls have lower numbers than this.
const CALLS: usize = 1024;

/// What becomes of a call.
pub(super) enum Answer {
    /// It returns this value.
    Value(i64),
    /// The kernel does it as if nobody had looked.
    Continue,
}

/// What a handler says: an answer, or the error number that the caller gets.
pub(super) type Answered = Result<Answer, i32>;

/// One feature.
pub(super) trait Handler {
    /// The numbers of the calls it answers.
    fn calls(&self) -> Vec<libc::c_long>;

    /// More of the filter: pieces that find the call's number loaded and leave it so.
    fn filter(&self) -> Vec<Instruction> {
        Vec::new()
    }

    /// Descriptors that have to stay open.
    fn keeps(&self) -> Vec<RawFd> {
        Vec::new()
    }

    /// Capabilities over the sandbox's user namespace that it needs.
    fn capabilities(&self) -> u64 {
        CAP_SYS_PTRACE
    }

    /// Comes before the first call, in the finished root.
    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    /// Answers one call. Nothing may be changed on its behalf unless [`Asked::is_waiting`] after it was looked at.
    fn handle(&mut self, asked: &Asked<'_>) -> Answered;

    /// Comes when no process of the step is left.
    fn end(&mut self) -> Result<()> {
        Ok(())
    }

    /// True when what the step saw or left may be wrong, so that it has to be run again.
    fn again(&self) -> bool {
        false
    }
}

/// A call, and the way to who waits for its answer.
pub(super) struct Asked<'a> {
    /// The call.
    pub(super) call: Call,
    listener: BorrowedFd<'a>,
}

impl Asked<'_> {
    /// Whether somebody still waits, so that what was read of the process is really its own.
    pub(super) fn is_waiting(&self) -> bool {
        notify::is_waiting(self.listener, &self.call)
    }

    /// Argument `n` as the kernel takes an `int`.
    pub(super) fn int(&self, n: usize) -> i32 {
        self.call.args[n] as i32
    }
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
    /// None when nothing has to be supervised for this sandbox. The root is still the stage.
    pub(super) fn new(
        spec: &SandboxSpec,
        recorded: bool,
        filter: &[Instruction],
    ) -> Result<Option<Handover>> {
        let handlers = handlers(spec, recorded)?;
        if handlers.is_empty() {
            return Ok(None);
        }
        let calls: Vec<_> = handlers.iter().flat_map(|h| h.calls()).collect();
        let first: Vec<_> = handlers.iter().flat_map(|h| h.filter()).collect();
        let filter = super::seccomp::supervised(filter, &first, &calls);
        let (ours, theirs) = socket::pair()?;
        Ok(Some(Handover { ours, theirs, filter, handlers }))
    }

    /// In the command's process: loads the filter and sends the listener over. None of the calls may follow
    /// before `execve` has let the init go on.
    pub(super) fn load(&self) -> Result<(), crate::sys::SysError> {
        let listener = seccomp::load_with_listener(&self.filter)?;
        socket::send(self.theirs.as_fd(), b"listener", &[listener.as_fd()])
    }

    /// In the init, when the command has started: none when it ended before it came that far.
    pub(super) fn take(self) -> Result<Option<Supervisor>> {
        drop(self.theirs);
        let received = socket::receive(self.ours.as_fd(), &mut [0; 16])?;
        let Some(listener) = received.and_then(|(_, fds)| fds.into_iter().next()) else { return Ok(None) };
        // Only speeds up; kernels before 6.6 do not have it.
        let _ = seccomp::wake_synchronously(listener.as_fd());
        let mut by_call = vec![None; CALLS];
        for (at, handler) in self.handlers.iter().enumerate() {
            for number in handler.calls() {
                by_call[number as usize].get_or_insert(at);
            }
        }
        Ok(Some(Supervisor { listener, handlers: self.handlers, by_call }))
    }
}

fn handlers(spec: &SandboxSpec, recorded: bool) -> Result<Vec<Box<dyn Handler>>> {
    let mut handlers: Vec<Box<dyn Handler>> = Vec::new();
    if let Some(order) = spec.conditions.dir_order {
        handlers.push(Box::new(dirs::Dirs::new(order)));
    }
    if recorded {
        handlers.push(Box::new(ids::Ids::prepare(spec)?));
    }
    Ok(handlers)
}

/// Answers the supervised calls of one sandbox.
pub(super) struct Supervisor {
    listener: OwnedFd,
    handlers: Vec<Box<dyn Handler>>,
    /// Which handler answers, by the call's number.
    by_call: Vec<Option<usize>>,
}

impl Supervisor {
    /// Descriptors that have to stay open.
    pub(super) fn keeps(&self) -> Vec<RawFd> {
        let kept = self.handlers.iter().flat_map(|handler| handler.keeps());
        kept.chain([self.listener.as_raw_fd()]).collect()
    }

    /// Capabilities that it needs.
    pub(super) fn capabilities(&self) -> u64 {
        self.handlers.iter().fold(0, |all, handler| all | handler.capabilities())
    }

    /// Answers calls and reaps until the command has ended; none when no process is left that could be
    /// supervised and the command has still to be waited for.
    pub(super) fn serve(&mut self, watch: &Watch) -> Result<Option<process::Ended>> {
        self.handlers.iter_mut().try_for_each(|handler| handler.begin())?;
        if let Some(signals) = &watch.signals {
            return self.serve_attended(watch, signals);
        }
        let door = Door::new(self.listener.as_fd())?;
        loop {
            match seccomp::receive(door.as_fd())? {
                Some(call) => self.answer(call)?,
                None => {
                    door.open()?;
                    if let Some(ended) = watch.look()? {
                        return Ok(Some(ended));
                    }
                }
            }
        }
    }

    /// The same where signals are passed on as well.
    fn serve_attended(&mut self, watch: &Watch, signals: &OwnedFd) -> Result<Option<process::Ended>> {
        loop {
            let [news, asked] = fd::wait_events([signals.as_fd(), self.listener.as_fd()])?;
            if news != 0
                && let Some(ended) = watch.look()?
            {
                return Ok(Some(ended));
            }
            if asked & libc::POLLIN != 0 {
                if let Some(call) = seccomp::receive(self.listener.as_fd())? {
                    self.answer(call)?;
                }
            } else if asked != 0 {
                return Ok(None);
            }
        }
    }

    fn answer(&mut self, call: Call) -> Result<()> {
        let listener = self.listener.as_fd();
        let asked = Asked { call, listener };
        let handler = self.by_call.get(call.number as usize).copied().flatten();
        let answered = handler.map_or(Ok(Answer::Continue), |at| self.handlers[at].handle(&asked));
        if handler.is_some_and(|at| self.handlers[at].again()) {
            // Nobody is to act upon a wrong answer.
            process::kill_all_others();
        }
        match answered {
            Ok(Answer::Value(value)) => seccomp::answer(listener, call.id, value)?,
            Ok(Answer::Continue) => seccomp::pass(listener, call.id)?,
            Err(errno) => seccomp::answer(listener, call.id, -i64::from(errno))?,
        }
        Ok(())
    }

    /// When no process of the step is left.
    pub(super) fn end(&mut self) -> Result<()> {
        self.handlers.iter_mut().try_for_each(|handler| handler.end())
    }

    /// Whether the step has to be run again, closely watched.
    pub(super) fn again(&self) -> bool {
        self.handlers.iter().any(|handler| handler.again())
    }
}

/// An error of a handler's own work.
fn failed(what: &str, why: impl std::fmt::Display) -> Error {
    Error::machine(format!("cannot supervise a step: {what}")).because(why.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_denied_is_never_supervised() {
        let dirs = dirs::Dirs::new(crate::sandbox::conditions::DirOrder::Reversed);
        let calls = dirs.calls().into_iter().chain(ids::calls());
        for call in calls {
            assert!(!crate::sandbox::seccomp::is_denied(call), "{call}");
            assert!((call as usize) < CALLS);
        }
    }
}
