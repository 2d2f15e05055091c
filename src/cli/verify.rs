//! `isolith verify`: is a recipe reproducible?

use std::path::PathBuf;
use std::process::ExitCode;

use super::Context;
use super::build::at_least_one;
use super::request::RecipeArgs;
use super::target::RecipeRef;
use crate::engine::verify::{Variation, VerifyRequest, list};
use crate::error::{Class, Result};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Builds in scratch stores that are removed at the end; stored results are never touched. When the \
    store has all results of the recipe they are the reference, else the first round is. Exit code 4 says that \
    something differs."
)]
pub(super) struct Args {
    /// The recipe file, and maybe one of its steps
    #[arg(value_name = "RECIPE[:STEP]", required_unless_present = "list")]
    target: Option<RecipeRef>,
    #[command(flatten)]
    args: RecipeArgs,
    /// How often to build; at least 2 when nothing is stored
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_least_one)]
    rounds: usize,
    /// What to vary (default: all that applies here)
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    vary: Option<Vec<Variation>>,
    /// Print the variations, and why one does not apply here
    #[arg(long)]
    list: bool,
    /// Find the smallest set of variations that makes the first differing step differ
    #[arg(long)]
    bisect: bool,
    /// Write index.html, report.json and report.txt there
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Steps that may run at once (default: number of cpus)
    #[arg(short, long, value_name = "N", value_parser = at_least_one)]
    jobs: Option<usize>,
    /// What was found, as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let settings = context.settings(args.jobs, None)?;
    let Some(target) = args.target.filter(|_| !args.list) else {
        context.ui.variations(&list(&settings.store.value), args.json)?;
        return Ok(ExitCode::SUCCESS);
    };
    let pass = args.args.flags();
    let request = VerifyRequest {
        request: args.args.request(target, &settings)?,
        pass,
        rounds: args.rounds,
        vary: args.vary,
        bisect: args.bisect,
        report: args.report,
    };
    let mut session = context.session(&settings)?;
    let quiet = args.json || context.global.quiet;
    let found = session.verify(&request, &mut |progress| {
        if !quiet {
            context.ui.verify_progress(&progress);
        }
    })?;
    if let Some(dir) = &request.report {
        context.ui.write_report(dir, &found)?;
    }
    context.ui.verification(&found, args.json)?;
    match found.identical {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::from(Class::Difference.exit_code())),
    }
}
