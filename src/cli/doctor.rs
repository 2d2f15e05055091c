//! `isolith doctor`: can this machine run sandboxes, and if not, what mends it.

use std::process::ExitCode;

use super::Context;
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One JSON object a requirement, one a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(_context: &Context, _args: Args) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
