//! `isolith shell`: a command in a step's sandbox, with this terminal.

use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use super::Context;
use super::request::OneRecipe;
use crate::config::Progress;
use crate::engine::State;
use crate::error::{Error, Result};
use crate::sandbox::Status;
use crate::ui::Terminal;

#[derive(Debug, clap::Args)]
#[command(after_help = "Without a step it is the last one of the recipe.")]
pub(super) struct Args {
    #[command(flatten)]
    recipe: OneRecipe,
    /// The state the step left, whether it failed or not, instead of the one it starts from
    #[arg(long)]
    after: bool,
    /// The command (default: the shell of the step)
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let settings = context.settings(None, None)?;
    let request = args.recipe.request(&settings)?;
    let state = if args.after { State::After } else { State::Before };
    let mut session = context.session(&settings)?;
    // The relay is a thread, and nothing may fork or enter namespaces once there are threads.
    session.prepare()?;
    let term = context.surroundings.term.iter().map(|term| ("TERM".to_string(), term.clone()));
    let (stdio, env, terminal) = if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        let (terminal, stdio) = Terminal::start()?;
        (stdio, term.collect(), Some(terminal))
    } else {
        (own_stdio()?, Vec::new(), None)
    };
    // Standard output is the command's.
    let mode =
        if settings.progress.value == Progress::Json { Progress::Quiet } else { settings.progress.value };
    let progress = context.ui.progress(mode, session.cancel_flag());
    let status = session.shell(&request, state, &args.command, stdio, &env, progress.as_ref());
    if let Some(terminal) = terminal {
        terminal.finish();
    }
    Ok(ExitCode::from(match status? {
        Status::Exited(code) => code as u8,
        Status::Signaled(signal) => 128u8.wrapping_add(signal as u8),
    }))
}

/// This process's own three descriptors, passed through.
fn own_stdio() -> Result<[OwnedFd; 3]> {
    let dup = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned()
            .map_err(|why| Error::machine("cannot duplicate a standard descriptor").because(why))
    };
    Ok([dup(std::io::stdin().as_fd())?, dup(std::io::stdout().as_fd())?, dup(std::io::stderr().as_fd())?])
}
