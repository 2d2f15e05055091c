//! `isolith shell`: a command in a step's sandbox, with this terminal.

use std::process::ExitCode;

use super::remotes::RemoteArgs;
use super::request::OneRecipe;
use super::{Context, attend};
use crate::config::Progress;
use crate::engine::State;
use crate::error::Result;

#[derive(Debug, clap::Args)]
#[command(after_help = "Without a step it is the last one of the recipe.")]
pub(super) struct Args {
    #[command(flatten)]
    recipe: OneRecipe,
    #[command(flatten)]
    remotes: RemoteArgs,
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
    let mut session = context.session(&settings)?.with_remotes(args.remotes.remotes(context, &settings)?);
    session.prepare()?;
    let (with, terminal) = attend::lend(context)?;
    // Standard output is the command's.
    let mode =
        if settings.progress.value == Progress::Json { Progress::Quiet } else { settings.progress.value };
    let progress = context.ui.progress(mode, session.cancel_flag());
    let status = session.shell(&request, state, &args.command, with, progress.as_ref());
    if let Some(terminal) = terminal {
        terminal.finish();
    }
    Ok(ExitCode::from(attend::code(status?)))
}
