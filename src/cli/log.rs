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
    let mut session = Session::open(&settings.store.value)?;
    for (step, key) in session.logs(&request)? {
        let heading = (!one).then_some(&*step);
        let log = session.store().open_log(&key)?;
        context.ui.log(heading, log, |why| session.store().damaged_log(&key, why))?;
    }
    Ok(ExitCode::SUCCESS)
}
