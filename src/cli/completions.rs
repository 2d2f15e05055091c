//! `isolith completions`: a completion script for a shell, on standard output.

use std::process::ExitCode;

use clap::CommandFactory;

use super::{Cli, Context};
use crate::error::Result;
use crate::sys::signals;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    signals::die_on_broken_pipe();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "isolith", &mut script);
    context.ui.print(&script)?;
    Ok(ExitCode::SUCCESS)
}
