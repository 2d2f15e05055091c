//! `isolith lock`: pins what a recipe leaves open, in the lock file beside it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::Context;
use super::request::parse_set;
use crate::config::Progress;
use crate::error::{Error, Result};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The lock file of `hello.toml` is `hello.lock`. What is pinned already stays as it is; `--update` finds \
    out anew what it is now: all of it, or only the sources that are named (`base` for the base)."
)]
pub(super) struct Args {
    /// The recipe file
    recipe: Option<PathBuf>,
    /// Find out anew what these sources are (default: all)
    #[arg(long, value_name = "NAME", num_args = 0..)]
    update: Option<Vec<String>>,
    /// Override an argument of the recipe
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_set)]
    set: Vec<(String, String)>,
    /// How progress is shown
    #[arg(long, value_enum, value_name = "HOW")]
    progress: Option<Progress>,
    /// One JSON object a lock file, one a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let settings = context.settings(None, args.progress)?;
    let mut update = args.update;
    let recipe = match (args.recipe, &mut update) {
        (Some(recipe), _) => recipe,
        (None, Some(names)) if !names.is_empty() => {
            // `lock --update base hello.toml`, in either order.
            let at = names.iter().position(|name| Path::new(name).is_file()).unwrap_or_default();
            PathBuf::from(names.remove(at))
        }
        (None, _) => return Err(Error::usage("no recipe is named").hint("isolith lock RECIPE")),
    };
    let mut session = context.session(&settings)?;
    let progress = context.ui.progress(settings.progress.value, session.cancel_flag());
    let set = args.set.into_iter().collect();
    let reports = session.lock(&recipe, &set, update.as_deref(), progress.as_ref())?;
    drop(progress);
    if args.json {
        context.ui.json_lines(&reports)?;
    } else if settings.progress.value != Progress::Quiet {
        context.ui.locked(&reports, &context.surroundings.env.cwd);
    }
    Ok(ExitCode::SUCCESS)
}
