//! `isolith doctor`: can this machine run sandboxes, and if not, what mends it.

use std::process::ExitCode;

use super::Context;
use crate::error::{Class, Result};
use crate::sandbox::doctor::{State, examine};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One JSON object a requirement, one a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let settings = context.settings(None, None)?;
    let checks = examine(&settings.store.value);
    context.ui.doctor(&checks, args.json)?;
    let works = checks.iter().all(|check| check.state != State::Fail);
    Ok(if works { ExitCode::SUCCESS } else { ExitCode::from(Class::Machine.exit_code()) })
}
