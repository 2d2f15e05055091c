//! `isolith diff`: what differs between two trees.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::Context;
use super::request::RecipeArgs;
use super::target::build_of;
use crate::engine::{Part, Subject};
use crate::error::{Class, Error, Result};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A side is a layer id (or the first 4 or more digits of one), RECIPE:STEP, RECIPE#OUTPUT, RECIPE \
    (its finished stack), the same with RECIPE@NUMBER or @TAG for an earlier build, a directory, or a tar archive. Recipes have to be built. Beside a directory owners, times \
    and extended attributes do not count. Exit code 4 says that something differs."
)]
pub(super) struct Args {
    /// One side
    #[arg(value_name = "A")]
    a: String,
    /// The other side
    #[arg(value_name = "B")]
    b: String,
    #[command(flatten)]
    args: RecipeArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let settings = context.settings(None, None)?;
    let sides = [&args.a, &args.b].map(|text| subject(text, &Path::is_file, &Path::is_dir));
    for (text, side) in [&args.a, &args.b].into_iter().zip(&sides) {
        if let Some(path) = side.path().filter(|path| !path.exists()) {
            return Err(Error::usage(format!("`{text}`: there is no `{}`", path.display()))
                .hint("isolith diff --help says what a side can be"));
        }
    }
    let mut session = context.session(&settings)?;
    let set = args.args.set.into_iter().collect();
    let comparison = session.diff([&sides[0], &sides[1]], &set)?;
    context.ui.comparison([&args.a, &args.b], &comparison, args.json)?;
    match comparison.differences.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::from(Class::Difference.exit_code())),
    }
}

/// What a side names. A path that is there is meant before anything else.
fn subject(text: &str, is_file: &dyn Fn(&Path) -> bool, is_dir: &dyn Fn(&Path) -> bool) -> Subject {
    let path = PathBuf::from(text);
    if is_dir(&path) {
        return Subject::Dir(path);
    }
    if is_file(&path) {
        return if path.extension().is_some_and(|end| end == "toml") {
            Subject::Stack(path)
        } else {
            Subject::Tar(path)
        };
    }
    if let Some(side) = earlier(text, is_file) {
        return side;
    }
    for (mark, make) in [('#', Subject::Output as fn(PathBuf, String) -> Subject), (':', Subject::Step)] {
        if let Some((recipe, name)) = text.rsplit_once(mark)
            && !name.is_empty()
            && (is_file(Path::new(recipe)) || recipe.ends_with(".toml"))
        {
            return make(recipe.into(), name.to_string());
        }
    }
    if text.contains(['/', '.']) {
        // A name of something that is not there: whoever opens it says so.
        return if text.ends_with(".toml") { Subject::Stack(path) } else { Subject::Tar(path) };
    }
    Subject::Layer(text.to_string())
}

/// Something of an earlier build: `RECIPE@NUMBER`, `@TAG`, and a step or an output of one.
fn earlier(text: &str, is_file: &dyn Fn(&Path) -> bool) -> Option<Subject> {
    let parts = [('#', Part::Output as fn(String) -> Part), (':', Part::Step)];
    let of = |text: &str, part| match build_of(text, is_file) {
        (recipe, Some(build)) => Some(Subject::Earlier(recipe, build, part)),
        _ => None,
    };
    let part = parts.iter().find_map(|(mark, part)| {
        let (build, name) = text.rsplit_once(*mark).filter(|(_, name)| !name.is_empty())?;
        of(build, part(name.to_string()))
    });
    part.or_else(|| of(text, Part::Stack))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::BuildName;

    #[test]
    fn sides() {
        let is_file =
            |path: &Path| ["r.toml", "odd:name.toml", "x.tar", "plain"].iter().any(|f| Path::new(f) == path);
        let is_dir = |path: &Path| path == Path::new("abcd");
        let side = |text| subject(text, &is_file, &is_dir);
        assert_eq!(side("r.toml"), Subject::Stack("r.toml".into()));
        assert_eq!(side("odd:name.toml"), Subject::Stack("odd:name.toml".into()));
        assert_eq!(side("r.toml:s"), Subject::Step("r.toml".into(), "s".into()));
        assert_eq!(side("r.toml#o"), Subject::Output("r.toml".into(), "o".into()));
        assert_eq!(side("plain:s"), Subject::Step("plain".into(), "s".into()));
        assert_eq!(side("not/there.toml:s"), Subject::Step("not/there.toml".into(), "s".into()));
        let earlier =
            |recipe: &str, number, part| Subject::Earlier(recipe.into(), BuildName::Number(number), part);
        assert_eq!(side("r.toml@3"), earlier("r.toml", 3, Part::Stack));
        assert_eq!(side("r.toml@3:s"), earlier("r.toml", 3, Part::Step("s".into())));
        assert_eq!(side("gone.toml@3#o"), earlier("gone.toml", 3, Part::Output("o".into())));
        let tag = BuildName::Tag("v1".into());
        assert_eq!(side("@v1#o"), Subject::Earlier("@v1".into(), tag, Part::Output("o".into())));
        assert_eq!(side("x.tar"), Subject::Tar("x.tar".into()));
        assert_eq!(side("abcd"), Subject::Dir("abcd".into()));
        assert_eq!(side("0123456789ab"), Subject::Layer("0123456789ab".into()));
        assert_eq!(side("./none.tar"), Subject::Tar("./none.tar".into()));
    }
}
