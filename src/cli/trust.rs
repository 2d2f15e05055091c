//! `isolith trust`: who says what about a recipe.

use std::process::ExitCode;

use super::Context;
use super::remotes::RemoteArgs;
use super::request::RecipeArgs;
use super::target::RecipeRef;
use crate::config::Progress;
use crate::engine::{Opinion, Subject};
use crate::error::{Class, Result};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Say which layer each builder names for each step, and what differs where they disagree (exit code 4)
    Status(Status),
}

#[derive(Debug, clap::Args)]
struct Status {
    /// The recipe file
    recipe: RecipeRef,
    #[command(flatten)]
    args: RecipeArgs,
    #[command(flatten)]
    remotes: RemoteArgs,
    /// One JSON object a step, one a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let Action::Status(args) = args.action;
    let settings = context.settings(None, Some(Progress::Auto))?;
    let request = args.args.request(RecipeRef { step: None, ..args.recipe }, &settings)?;
    let remotes = args.remotes.remotes(context, &settings)?;
    let mut session = context.session(&settings)?.with_remotes(remotes);
    let progress = context.ui.progress(settings.progress.value, session.cancel_flag());
    let opinions = session.opinions(&request, progress.as_ref())?;
    drop(progress);
    if args.json {
        context.ui.json_lines(&opinions)?;
    } else {
        context.ui.opinions(&opinions)?;
    }
    let differing: Vec<&Opinion> = opinions.iter().filter(|opinion| opinion.layers.len() > 1).collect();
    if !args.json {
        for opinion in &differing {
            let [one, two, ..] = &opinion.layers[..] else { continue };
            let names = [one.layer.to_hex(), two.layer.to_hex()];
            let sides = names.clone().map(Subject::Layer);
            match session.diff([&sides[0], &sides[1]], &Default::default()) {
                Ok(found) => context.ui.comparison([&names[0], &names[1]], &found, false)?,
                Err(why) => context.ui.note(&format!("`{}` cannot be compared: {why}", opinion.name)),
            }
        }
    }
    Ok(if differing.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(Class::Difference.exit_code()) })
}
