//! `isolith log`: what a step wrote when it last ran.

use std::process::ExitCode;

use super::Context;
use super::request::OneRecipe;
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    recipe: OneRecipe,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let one = args.recipe.target.step.is_some();
    let (mut session, request) = args.recipe.look(context)?;
    for (step, key) in session.logs(&request)? {
        let heading = (!one).then_some(&*step);
        let log = session.store().open_log(&key)?;
        context.ui.log(heading, log, |why| session.store().damaged_log(&key, why))?;
    }
    Ok(ExitCode::SUCCESS)
}
