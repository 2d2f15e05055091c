//! `isolith ci`: for continuous integration.

use std::process::ExitCode;

use super::Context;
use super::target::RecipeRef;
use crate::engine::Session;
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// What the last build of a recipe did, in Markdown: steps, hits, time saved, what remotes moved
    Summary {
        /// The recipe file
        recipe: RecipeRef,
    },
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let Action::Summary { recipe } = args.action;
    let settings = context.settings(None, None)?;
    let session = Session::open(&settings.store.value)?;
    context.ui.report(&session.report(&recipe.recipe)?)?;
    Ok(ExitCode::SUCCESS)
}
