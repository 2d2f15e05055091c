//! A sandbox with a person (or a program) at its other end.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Session;
use crate::error::Result;
use crate::sandbox::{Killer, Outcome, Ports, SandboxSpec};
use crate::sys::{fd, process};

/// How often it is looked whether the session was cancelled.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a command with a terminal may take to end after SIGHUP: whoever watched it is gone.
const AFTER_HANGUP: Duration = Duration::from_secs(10);

/// SIGHUP, on every architecture there is.
const HANGUP: u8 = 1;

/// The other end of a sandbox.
pub struct Attendance {
    /// Standard input, output and error of the command.
    pub stdio: [OwnedFd; 3],
    /// Laid over the environment of the command: TERM of the real terminal.
    pub env: Vec<(String, String)>,
    /// Called when the command is about to start: gives a descriptor from which signals for it can be read, one
    /// byte each. Without it signals are not passed on.
    #[allow(clippy::type_complexity)]
    pub signals: Option<Box<dyn FnOnce() -> Result<OwnedFd>>>,
    /// Ports of this machine that lead to the sandbox's.
    pub ports: Option<Ports>,
}

impl Session {
    /// Runs a sandbox until it has ended, or the session is cancelled, which kills it.
    pub(super) fn attend(&mut self, spec: &SandboxSpec, with: Attendance) -> Result<Outcome> {
        let cancel = self.cancel.clone();
        let (_, executor, _) = self.parts()?;
        let has_terminal = process::is_terminal(with.stdio[0].as_fd());
        let signals = with.signals.map(|take| take()).transpose()?;
        let mut sandbox = executor.spawn(spec, with.stdio)?;
        let ports = with.ports.map(|ports| ports.open(&mut sandbox)).transpose()?;
        let mut hung_up = None;
        let outcome =
            sandbox.wait_looking(signals.as_ref().map(AsFd::as_fd), Some(LOOK_EVERY), |killer, asked| {
                let over = hung_up.is_some_and(|at: Instant| at.elapsed() > AFTER_HANGUP);
                if cancel.load(Ordering::Relaxed) || over {
                    killer.kill();
                }
                let hang_up = has_terminal.then_some(&mut hung_up);
                signals.as_ref().filter(|_| asked).is_none_or(|from| pass_on(killer, from, hang_up))
            });
        drop(ports);
        outcome
    }
}

/// Passes on the signals that have come; whether more can come. One that hangs up is noted for a command with a terminal.
fn pass_on(killer: &Killer, from: &OwnedFd, hung_up: Option<&mut Option<Instant>>) -> bool {
    let mut numbers = [0; 16];
    let Ok(n @ 1..) = fd::read(from.as_fd(), &mut numbers) else { return false };
    let numbers = &numbers[..n];
    for number in numbers {
        killer.pass_on(i32::from(*number));
    }
    if let Some(hung_up) = hung_up.filter(|_| numbers.contains(&HANGUP)) {
        hung_up.get_or_insert_with(Instant::now);
    }
    true
}
