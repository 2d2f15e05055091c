//! `isolith log`: what a step wrote when it last ran.

use std::process::ExitCode;

use super::Context;
use super::request::RecipeArgs;
use super::target::RecipeRef;
use crate::engine::Session;
use crate::error::Result;
use crate::sys::signals;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The recipe file, and maybe one of its steps
    #[arg(value_name = "RECIPE[:STEP]")]
    target: RecipeRef,
    #[command(flatten)]
    args: RecipeArgs,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    signals::die_on_broken_pipe();
    let settings = context.settings(None, None)?;
    let one = args.target.step.is_some();
    let request = args.args.request(args.target.recipe, args.target.step, &settings)?;
    let logs = Session::open(&settings.store.value)?.logs(&request)?;
    context.ui.logs(&logs, one)?;
    Ok(ExitCode::SUCCESS)
}
