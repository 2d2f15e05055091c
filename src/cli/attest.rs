//! `isolith attest`: signed provenance of what a recipe leaves.

use std::path::PathBuf;
use std::process::ExitCode;

use super::export::Of;
use super::remotes::RemoteArgs;
use super::request::RecipeArgs;
use super::target::RecipeRef;
use super::{Context, build, remotes};
use crate::config::Progress;
use crate::engine::{Request, Target};
use crate::error::{Error, Result};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "An in-toto statement with SLSA provenance v1 in a DSSE envelope. The SHA-256 is that of the archive \
    that `isolith export RECIPE tar:FILE` writes."
)]
pub(super) struct Args {
    /// The recipe file, and maybe one of its outputs
    #[arg(value_name = "RECIPE[:OUTPUT]")]
    recipe: RecipeRef,
    /// Write it there instead of to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    of: Of,
    #[command(flatten)]
    args: RecipeArgs,
    #[command(flatten)]
    remotes: RemoteArgs,
    /// How progress is shown
    #[arg(long, value_enum, value_name = "HOW")]
    progress: Option<Progress>,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let output = args.recipe.step.clone();
    args.of.check(output.as_deref())?;
    let settings = context.settings(None, args.progress)?;
    let signer = remotes::signer(context, &settings)?.ok_or_else(|| {
        Error::usage("there is no key to sign with")
            .hint("`isolith key generate` makes one; in CI it may be in the variable ISOLITH_KEY")
    })?;
    let wanted = args.of.look(output.as_deref());
    let request =
        Request { wanted, ..args.args.request(RecipeRef { step: None, ..args.recipe }, &settings)? };
    let remotes = args.remotes.remotes(context, &settings)?;
    let task = build::Task { settings: &settings, request: &request, set: &args.args.set, remotes };
    build::build_and(context, task, |session, built, observer| {
        // Of the target only its kind counts for the choice.
        let chosen = args.of.choose(built, output.as_deref(), &Target::Dir(PathBuf::new()))?;
        let about: Vec<_> = chosen.into_iter().map(|wanted| (wanted.name, wanted.layers)).collect();
        let mut bytes = session.attest(&request, built, &about, &signer, observer)?;
        bytes.push(b'\n');
        match &args.output {
            Some(path) => std::fs::write(path, &bytes).map_err(|why| Error::io("write", path, why)),
            None => context.ui.print(&bytes),
        }
    })
}
