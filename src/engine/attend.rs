//! A sandbox with a person (or a program) at its other end.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Session;
use crate::error::Result;
use crate::sandbox::{Killer, Outcome, Ports, SandboxSpec};
use crate::sys::{fd, process, socket};

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
        let killer = sandbox.killer();
        let (over, end) = socket::pipe()?;
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| watch(&killer, &cancel, signals, has_terminal, &over));
            let outcome = sandbox.wait();
            drop(end);
            outcome
        });
        drop(ports);
        outcome
    }
}

/// Passes signals on and kills when it has to, until `over`.
fn watch(
    killer: &Killer,
    cancel: &AtomicBool,
    mut signals: Option<OwnedFd>,
    has_terminal: bool,
    over: &OwnedFd,
) {
    let mut hung_up = None;
    loop {
        let from = signals.as_ref().map_or(over.as_fd(), AsFd::as_fd);
        let Ok([is_over, asked]) = fd::wait_readable([over.as_fd(), from], Some(LOOK_EVERY)) else { return };
        if is_over {
            return;
        }
        if cancel.load(Ordering::Relaxed) || hung_up.is_some_and(|at: Instant| at.elapsed() > AFTER_HANGUP) {
            killer.kill();
        }
        if asked && let Some(from) = &signals {
            let mut numbers = [0; 16];
            match fd::read(from.as_fd(), &mut numbers) {
                Ok(n @ 1..) => {
                    for number in &numbers[..n] {
                        killer.pass_on(i32::from(*number));
                        if *number == HANGUP && has_terminal {
                            hung_up.get_or_insert_with(Instant::now);
                        }
                    }
                }
                _ => signals = None,
            }
        }
    }
}
