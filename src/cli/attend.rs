//! This process's terminal and descriptors, lent to a sandbox.

use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};

use super::Context;
use crate::engine::Attendance;
use crate::error::{Error, Result};
use crate::sandbox::{Outcome, Status};
use crate::ui::Terminal;

/// What a sandbox gets of this process, and the relay of its terminal if it has one. The session must have been
/// prepared: the relay is a thread, and nothing may fork or enter namespaces once there are threads.
pub(super) fn lend(context: &Context) -> Result<(Attendance, Option<Terminal>)> {
    let term = context.surroundings.term.iter().map(|term| ("TERM".to_string(), term.clone()));
    let (stdio, env, terminal) = if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        let (terminal, stdio) = Terminal::start()?;
        (stdio, term.collect(), Some(terminal))
    } else {
        (own_stdio()?, Vec::new(), None)
    };
    Ok((Attendance { stdio, env, signals: None, ports: None }, terminal))
}

/// The exit code that says how a command ended: its own, or 128 and the number of the signal that ended it.
pub(super) fn code(status: Status) -> u8 {
    match status {
        Status::Exited(code) => code as u8,
        Status::Signaled(signal) => 128u8.wrapping_add(signal as u8),
    }
}

/// The same, and a word about the limit that ended it.
pub(super) fn outcome(context: &Context, outcome: &Outcome) -> u8 {
    if let Some(limit) = outcome.limit {
        context.ui.note(&format!("the command was ended by its limit on {limit}"));
    }
    code(outcome.status)
}

/// This process's own three descriptors, passed through.
fn own_stdio() -> Result<[OwnedFd; 3]> {
    let dup = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned()
            .map_err(|why| Error::machine("cannot duplicate a standard descriptor").because(why))
    };
    Ok([dup(std::io::stdin().as_fd())?, dup(std::io::stdout().as_fd())?, dup(std::io::stderr().as_fd())?])
}
