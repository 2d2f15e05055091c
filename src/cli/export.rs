//! `isolith export`: build (or take from the store) and write one output.

use std::path::PathBuf;
use std::process::ExitCode;

use super::request::RecipeArgs;
use super::{Context, build, outputs, target};
use crate::config::Progress;
use crate::engine::Target;
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The recipe file
    recipe: PathBuf,
    /// Where to
    #[arg(value_name = "dir:DIR|tar:FILE", value_parser = target::parse_target)]
    target: Target,
    /// Which output (default: `default`, or the only one, or the whole stack)
    #[arg(long, value_name = "OUTPUT")]
    name: Option<String>,
    #[command(flatten)]
    args: RecipeArgs,
    /// How progress is shown
    #[arg(long, value_enum, value_name = "HOW")]
    progress: Option<Progress>,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    target::check(&args.target)?;
    let settings = context.settings(None, args.progress)?;
    let request = args.args.request(args.recipe, None, &settings)?;
    build::build_and_export(context, &settings, &request, &args.args.set, |built| {
        outputs::choose(built, args.name.as_deref(), &args.target)
    })
}
