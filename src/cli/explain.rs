//! `isolith explain`: why each step would hit or miss.

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
    /// One JSON object a step, one a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    signals::die_on_broken_pipe();
    let settings = context.settings(None, None)?;
    let request = args.args.request(args.target.recipe, args.target.step, &settings)?;
    let explanations = Session::open(&settings.store.value)?.explain(&request)?;
    if args.json {
        context.ui.json_lines(&explanations)?;
    } else {
        context.ui.explanations(&explanations)?;
    }
    Ok(ExitCode::SUCCESS)
}
