//! `isolith store`: where it is, what is in it, whether it is whole, and away with it.

use std::process::ExitCode;

use super::Context;
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print the directory of the store
    Path,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let settings = context.settings(None, None)?;
    match args.action {
        Action::Path => context.ui.print(format!("{}\n", settings.store.value.display()).as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}
