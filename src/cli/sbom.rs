//! `isolith sbom`: a bill of materials of everything that a recipe pins.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Context;
use super::request::parse_set;
use crate::config::Progress;
use crate::engine::SbomFormat;
use crate::error::Result;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Standard output gets it as JSON. The same recipe and lock files give the same bytes; nothing is fetched."
)]
pub(super) struct Args {
    /// The recipe file
    recipe: PathBuf,
    /// Its form: SPDX 2.3, or CycloneDX 1.6
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Form::Spdx)]
    format: Form,
    /// Override an argument of the recipe
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_set)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Form {
    Spdx,
    Cyclonedx,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let settings = context.settings(None, Some(Progress::Quiet))?;
    let mut session = context.session(&settings)?;
    let progress = context.ui.progress(settings.progress.value, session.cancel_flag());
    let format = match args.format {
        Form::Spdx => SbomFormat::Spdx,
        Form::Cyclonedx => SbomFormat::CycloneDx,
    };
    let text = session.sbom(&args.recipe, &args.set.into_iter().collect(), format, progress.as_ref())?;
    drop(progress);
    context.ui.print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
