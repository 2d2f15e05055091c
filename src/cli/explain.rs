//! `isolith explain`: why each step would hit or miss.

use std::process::ExitCode;

use super::Context;
use super::request::OneRecipe;
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    recipe: OneRecipe,
    /// One JSON object a step, one a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let (mut session, request) = args.recipe.look(context)?;
    let explanations = session.explain(&request)?;
    if args.json {
        context.ui.json_lines(&explanations)?;
    } else {
        context.ui.explanations(&explanations)?;
    }
    Ok(ExitCode::SUCCESS)
}
