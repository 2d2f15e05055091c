//! `isolith export`: build (or take from the store) and write one output.

use std::process::ExitCode;

use super::remotes::RemoteArgs;
use super::request::RecipeArgs;
use super::target::RecipeRef;
use super::{Context, build, outputs, target};
use crate::config::Progress;
use crate::engine::{ImageOptions, Layers, Request, Target, Wanted};
use crate::error::{Error, Result};
use crate::layer::Compression;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The recipe file (or an earlier build: RECIPE@NUMBER, @TAG), and maybe one of its outputs
    #[arg(value_name = "RECIPE[@BUILD][:OUTPUT]")]
    recipe: RecipeRef,
    /// Where to: a tree, an archive of it, or a container image
    #[arg(value_name = "TARGET", value_parser = target::parse_target, long_help = TARGET)]
    target: Target,
    #[command(flatten)]
    how: How,
}

/// What is written of a recipe, and how: the same for an export and a push.
#[derive(Debug, clap::Args)]
pub(super) struct How {
    #[command(flatten)]
    pub of: Of,
    #[command(flatten)]
    pub image: ImageArgs,
    #[command(flatten)]
    pub args: RecipeArgs,
    #[command(flatten)]
    pub remotes: RemoteArgs,
    /// How progress is shown
    #[arg(long, value_enum, value_name = "HOW")]
    pub progress: Option<Progress>,
}

const TARGET: &str = "Where to:\n\
    dir:DIR (or just DIR): a directory; files belong to you\n\
    tar:FILE: a tar archive with the owners of the sandbox\n\
    oci-layout:DIR[:TAG]: a container image as an OCI layout\n\
    oci-archive:FILE[:TAG]: the same in one file\n\
    docker-archive:FILE[:[NAME:]TAG]: what `docker load` takes";

/// What of the recipe is written.
#[derive(Debug, clap::Args)]
pub(super) struct Of {
    /// Which output (default: `default`, or the only one, or the whole stack)
    #[arg(long, value_name = "OUTPUT")]
    name: Option<String>,
    /// The whole finished stack, whatever outputs there are
    #[arg(long, conflicts_with = "name")]
    stack: bool,
}

impl Of {
    /// What is written, and where to.
    pub fn choose(
        &self,
        built: &crate::engine::Built,
        output: Option<&str>,
        target: &Target,
    ) -> Result<Vec<outputs::Wanted>> {
        match self.stack {
            true => Ok(outputs::stack(built, target)),
            false => outputs::choose(built, self.name.as_deref().or(output), target),
        }
    }

    /// The same, for the build: what has to be in the store.
    pub fn look(&self, output: Option<&str>) -> Wanted {
        match (self.stack, self.name.as_deref().or(output)) {
            (true, _) => Wanted::Stack,
            (false, Some(name)) => Wanted::Output(name.to_string()),
            (false, None) => Wanted::Outputs,
        }
    }

    /// Refuses an output that is named twice.
    pub fn check(&self, output: Option<&str>) -> Result<()> {
        match (output, self.stack || self.name.is_some()) {
            (Some(output), true) => Err(Error::usage(format!(
                "the output `{output}` is named behind the recipe, and `--name` or `--stack` says it again"
            ))
            .hint("say it once")),
            _ => Ok(()),
        }
    }
}

/// How an image is made.
#[derive(Debug, clap::Args)]
pub(super) struct ImageArgs {
    /// Layers of an image: one, or one for the base, each dep, source and step
    #[arg(long, value_name = "one|step", value_parser = layers, default_value = "step")]
    layers: Layers,
    /// Compression of an image's layers; programs from before 2021 read gzip only
    #[arg(long, value_name = "zstd|gzip", value_parser = compression, default_value = "zstd")]
    compress: Compression,
}

impl ImageArgs {
    pub fn options(&self) -> ImageOptions {
        ImageOptions { layers: self.layers, compression: self.compress }
    }
}

fn layers(text: &str) -> Result<Layers, String> {
    match text {
        "one" => Ok(Layers::One),
        "step" => Ok(Layers::Step),
        _ => Err("expected `one` or `step`".to_string()),
    }
}

fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        _ => Err("expected `gzip` or `zstd`".to_string()),
    }
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    target::check(&args.target)?;
    let output = args.recipe.step.clone();
    let How { of, image, args: common, remotes, progress } = args.how;
    of.check(output.as_deref())?;
    let settings = context.settings(None, progress)?;
    let wanted = of.look(output.as_deref());
    let request = Request { wanted, ..common.request(RecipeRef { step: None, ..args.recipe }, &settings)? };
    let remotes = remotes.remotes(context, &settings)?;
    let task = build::Task { settings: &settings, request: &request, set: &common.set, remotes };
    build::build_and_export(context, task, image.options(), |built| {
        of.choose(built, output.as_deref(), &args.target)
    })
}
