//! Answers system calls of a step that the kernel alone would answer wrongly (seccomp user notification).
//!
//! The supervisor is the init: it has the sandbox's own root and can reach nothing else. What it does is made of
//! [`Feature`]s, each for some calls; a step that needs none has no second filter and no listener.

mod callee;
mod groups;
mod ids;
mod records;
mod xattrs;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::SandboxSpec;
use super::seccomp;
use crate::error::{Error, Result};
use crate::sys::notify::{self, Answer, Call};
use crate::sys::seccomp::Instruction;
use crate::sys::{fd, process, socket};

/// What the init still may do while it supervises, beside [`super::init`]'s own needs: chown, dac_override,
/// fowner, fsetid, sys_chroot (to look paths up as a step does that has changed its root), sys_ptrace (to
/// read and write its memory). All of it inside the sandbox's user namespace.
pub(super) const CAPABILITIES: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 18 | 1 << 19;

/// Calls have lower numbers than this.
const CALLS: usize = 1024;

/// Something that is done to system calls.
pub(super) trait Feature {
    /// The calls that are asked about.
    fn calls(&self) -> Vec<libc::c_long>;

    /// More of the filter, to run before: complete statements that begin with the call's number loaded and
    /// leave it so.
    fn filter(&self) -> Vec<Instruction> {
        Vec::new()
    }

    /// Descriptors that have to stay open.
    fn keeps(&self) -> Vec<RawFd> {
        Vec::new()
    }

    /// Comes first, in the finished root.
    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    /// Answers a call. Nothing may be changed on its behalf unless [`Asked::is_waiting`] after it was looked at.
    fn answer(&mut self, asked: &Asked<'_>) -> Answer;

    /// Comes last, when no process of the step is left.
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A call and the way back to who asks.
pub(super) struct Asked<'a> {
    /// The call.
    pub(super) call: Call,
    listener: BorrowedFd<'a>,
}

impl Asked<'_> {
    /// Whether the caller still waits.
    pub(super) fn is_waiting(&self) -> bool {
        notify::is_waiting(self.listener, &self.call)
    }

    /// Argument `n` as the kernel takes an `int`.
    pub(super) fn int(&self, n: usize) -> i32 {
        self.call.args[n] as i32
    }
}

/// The features of a step, before it runs.
pub(super) struct Supervisor {
    features: Vec<Box<dyn Feature>>,
    /// Which of them answers a call, by the call's number.
    by_call: Vec<Option<u8>>,
    /// Where the listener comes from the command, and how it gets there.
    ours: OwnedFd,
    /// Until the command has started.
    theirs: Option<OwnedFd>,
}

/// What the command needs to be supervised.
pub(super) struct Tether<'a> {
    program: Vec<Instruction>,
    to: BorrowedFd<'a>,
}

impl Tether<'_> {
    /// The descriptor that has to be open in the command's process until [`Tether::attach`].
    pub(super) fn descriptor(&self) -> RawFd {
        self.to.as_raw_fd()
    }

    /// Loads the filter on this process and hands the listener over. None of the calls may follow before
    /// `execve` has let the init go on.
    pub(super) fn attach(&self) -> crate::sys::Result<()> {
        let listener = notify::load(&self.program)?;
        socket::send(self.to, b"listener", &[listener.as_fd()])
    }
}

impl Supervisor {
    /// What this step needs; none if it needs nothing. The root is still the stage.
    pub(super) fn of(spec: &SandboxSpec, recorded: bool) -> Result<Option<Supervisor>> {
        let mut features: Vec<Box<dyn Feature>> = Vec::new();
        if recorded {
            features.push(Box::new(ids::Ids::prepare(spec)?));
        }
        if features.is_empty() {
            return Ok(None);
        }
        let mut by_call = vec![None; CALLS];
        for (at, feature) in (0u8..).zip(&features) {
            for nr in feature.calls() {
                by_call[nr as usize].get_or_insert(at);
            }
        }
        let (ours, theirs) = socket::pair()?;
        Ok(Some(Supervisor { features, by_call, ours, theirs: Some(theirs) }))
    }

    /// For the command, before it starts.
    pub(super) fn tether(&self) -> Option<Tether<'_>> {
        let calls: Vec<_> = self.features.iter().flat_map(|feature| feature.calls()).collect();
        let extra: Vec<_> = self.features.iter().flat_map(|feature| feature.filter()).collect();
        Some(Tether { program: seccomp::notifying(&extra, &calls), to: self.theirs.as_ref()?.as_fd() })
    }

    /// When the command has started: descriptors of this process that are still needed.
    pub(super) fn keeps(&mut self) -> Vec<RawFd> {
        // With this open here, the end of a command that did not come that far would go unnoticed.
        self.theirs = None;
        let own = self.features.iter().flat_map(|feature| feature.keeps());
        own.chain([self.ours.as_raw_fd()]).collect()
    }

    /// Serves until the command ends. Its descriptors but [`Supervisor::keeps`] are closed already.
    pub(super) fn serve(&mut self, command: i32) -> Result<process::Ended> {
        let signals = process::child_signals()?;
        let mut buf = [0; 16];
        // A command that failed before its filter sends none; it has ended then.
        let sent = socket::receive(self.ours.as_fd(), &mut buf)?;
        let listener = sent.and_then(|(_, fds)| fds.into_iter().next());
        if let Some(listener) = &listener {
            notify::wake_on_same_cpu(listener.as_fd());
            for feature in &mut self.features {
                feature.begin()?;
            }
        }
        loop {
            let [ended, called] = match &listener {
                Some(listener) => fd::wait_readable([signals.as_fd(), listener.as_fd()], None)?,
                None => [fd::wait_readable([signals.as_fd()], None)?[0], false],
            };
            if ended {
                fd::read(signals.as_fd(), &mut [0; 1024])?;
                while let Some((pid, ended)) = process::wait(-1, false)? {
                    if pid == command {
                        return Ok(ended);
                    }
                }
            }
            if let (true, Some(listener)) = (called, &listener) {
                self.answer(listener.as_fd())?;
            }
        }
    }

    fn answer(&mut self, listener: BorrowedFd<'_>) -> Result<()> {
        let Some(call) = notify::receive(listener)? else { return Ok(()) };
        let asked = Asked { call, listener };
        let feature = self.by_call.get(call.nr as usize).copied().flatten();
        let answer = feature.map_or(Answer::Continue, |at| self.features[usize::from(at)].answer(&asked));
        Ok(notify::answer(listener, &call, answer)?)
    }

    /// When no process of the step is left.
    pub(super) fn end(&mut self) -> Result<()> {
        self.features.iter_mut().try_for_each(|feature| feature.end())
    }
}

/// An error of the supervisor's own work.
fn failed(what: &str, why: impl std::fmt::Display) -> Error {
    Error::machine(format!("cannot supervise a step: {what}")).because(why.to_string())
}
