//! `isolith history`, `tag` and `untag`: earlier builds, and names for them.

use std::process::ExitCode;

use super::Context;
use super::target::RecipeRef;
use crate::engine::Session;
use crate::error::{Error, Result};
use crate::store::Tag;
use crate::sys::signals;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A build is named RECIPE@NUMBER, or @TAG, wherever a recipe is: isolith build hello.toml@3, isolith diff \
    hello.toml@3 hello.toml@4, isolith run @v1."
)]
pub(super) struct Args {
    /// The recipe file
    #[arg(value_name = "RECIPE")]
    recipe: RecipeRef,
    /// One JSON object a build, one a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let session = look(context)?;
    if args.recipe.build.is_some() || args.recipe.step.is_some() {
        return Err(Error::usage("`history` is of a whole recipe").hint("name the recipe file alone"));
    }
    let builds = session.history(&args.recipe.recipe)?;
    match args.json {
        true => context.ui.json_lines(&builds)?,
        false => context.ui.history(&builds)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without arguments it lists the tags. A tagged build stays in the store, whatever `store gc` \
    removes, until the tag is taken away with `isolith untag`."
)]
pub(super) struct TagArgs {
    /// The recipe file for its newest build, or RECIPE@NUMBER, or @TAG
    #[arg(value_name = "RECIPE[@BUILD]", requires = "tag")]
    recipe: Option<RecipeRef>,
    /// The tag: letters, digits and `_.-`, and not a number
    #[arg(value_name = "TAG", value_parser = parse_tag)]
    tag: Option<String>,
    /// One JSON object a tag, one a line
    #[arg(long)]
    json: bool,
}

pub(super) fn tag(context: &Context, args: TagArgs) -> Result<ExitCode> {
    let session = look(context)?;
    let (Some(recipe), Some(tag)) = (args.recipe, args.tag) else {
        let tags = session.store().tags()?;
        match args.json {
            true => context.ui.json_lines(&tags)?,
            false => context.ui.tags(&tags, &context.surroundings.env.cwd)?,
        }
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(step) = &recipe.step {
        return Err(Error::usage(format!("`{step}` is a part of a build, and a tag is for all of it"))
            .hint("leave it away"));
    }
    let (build, before) = session.tag(&recipe.recipe, recipe.build.as_ref(), &tag)?;
    if !context.global.quiet {
        let moved = before.filter(|before| (&before.recipe, before.number) != (&build.recipe, build.number));
        let was = moved.map(|was| format!(" (it was build {} of {})", was.number, was.recipe.display()));
        let of = build.recipe.display();
        context.ui.note(&format!("@{tag} is build {} of {of}{}", build.number, was.unwrap_or_default()));
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, clap::Args)]
pub(super) struct UntagArgs {
    /// Tags to take away; the builds stay as long as those without a tag
    #[arg(value_name = "TAG", required = true, value_parser = parse_tag)]
    tags: Vec<String>,
}

pub(super) fn untag(context: &Context, args: UntagArgs) -> Result<ExitCode> {
    let session = look(context)?;
    // All or none: a slip of the pen should not be found out half way.
    for tag in &args.tags {
        session.tagged(tag)?;
    }
    for tag in &args.tags {
        session.store().remove_tag(tag)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens the store for a command that runs nothing.
fn look(context: &Context) -> Result<Session> {
    signals::die_on_broken_pipe();
    Session::open(&context.settings(None, None)?.store.value)
}

/// A tag, with the `@` that it is used with or without.
fn parse_tag(text: &str) -> Result<String, String> {
    let tag = text.strip_prefix('@').unwrap_or(text);
    match Tag::is_name(tag) {
        true => Ok(tag.to_string()),
        false => Err("expected letters, digits and `_.-`, at most 128, and not a number alone".to_string()),
    }
}
