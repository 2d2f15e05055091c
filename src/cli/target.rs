//! `RECIPE[:STEP]` and `DIR|dir:DIR|tar:FILE`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::engine::Target;
use crate::error::Error;

/// A recipe file, and maybe one of its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecipeRef {
    pub recipe: PathBuf,
    pub step: Option<String>,
}

impl RecipeRef {
    /// Splits at the last `:` unless the whole is the name of a file; `is_file` looks.
    fn split(text: &str, is_file: impl Fn(&Path) -> bool) -> RecipeRef {
        match text.rsplit_once(':') {
            Some((recipe, step)) if !recipe.is_empty() && !step.is_empty() && !is_file(Path::new(text)) => {
                RecipeRef { recipe: recipe.into(), step: Some(step.to_string()) }
            }
            _ => RecipeRef { recipe: text.into(), step: None },
        }
    }
}

impl FromStr for RecipeRef {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::split(text, Path::is_file))
    }
}

/// Where an export goes: `dir:DIR`, `tar:FILE`, or a directory without a prefix. Another word in front of a
/// `:` is more likely a format that somebody hopes for than a directory that they want.
pub(super) fn parse_target(text: &str) -> Result<Target, String> {
    let (make, path): (fn(PathBuf) -> Target, &str) = match text.split_once(':') {
        Some(("tar", file)) => (Target::Tar, file),
        Some(("dir", dir)) => (Target::Dir, dir),
        Some((kind, _))
            if !kind.is_empty()
                && kind.bytes().all(|b| b.is_ascii_alphanumeric())
                && !Path::new(text).exists() =>
        {
            return Err(format!("unknown kind `{kind}`: DIR, dir:DIR or tar:FILE"));
        }
        _ => (Target::Dir, text),
    };
    if path.is_empty() {
        return Err("a path is missing: DIR, dir:DIR or tar:FILE".to_string());
    }
    Ok(make(path.into()))
}

/// Refuses a target that cannot be written, before anything is built. A directory that is not there is more likely
/// a slip of the pen than one to be made.
pub(super) fn check(target: &Target) -> Result<(), Error> {
    let (Target::Dir(path) | Target::Tar(path)) = target;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !dir.is_dir() {
        return Err(Error::usage(format!("cannot write `{}`: its directory does not exist", path.display()))
            .hint(format!("make it first: mkdir -p {}", dir.display())));
    }
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK)
        .map_err(|why| Error::io("write in", dir, why).hint("name another place, one that you can write to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipe_and_step_split_at_the_last_colon() {
        let none = |_: &Path| false;
        let split = |text| {
            let RecipeRef { recipe, step } = RecipeRef::split(text, none);
            (recipe.to_str().unwrap().to_string(), step)
        };
        assert_eq!(split("a/b.toml"), ("a/b.toml".into(), None));
        assert_eq!(split("a/b.toml:test"), ("a/b.toml".into(), Some("test".into())));
        assert_eq!(split("odd:dir/b.toml:test"), ("odd:dir/b.toml".into(), Some("test".into())));
        assert_eq!(split("b.toml:"), ("b.toml:".into(), None));
        assert_eq!(split(":x"), (":x".into(), None));
        let whole = RecipeRef::split("odd:name.toml", |path| path == Path::new("odd:name.toml"));
        assert_eq!(whole, RecipeRef { recipe: "odd:name.toml".into(), step: None });
    }

    #[test]
    fn targets() {
        assert_eq!(parse_target("out"), Ok(Target::Dir("out".into())));
        assert_eq!(parse_target("dir:tar:x"), Ok(Target::Dir("tar:x".into())));
        assert_eq!(parse_target("tar:x.tar"), Ok(Target::Tar("x.tar".into())));
        assert!(parse_target("tar:").is_err());
        assert!(parse_target("").is_err());
        assert_eq!(parse_target("./zip:x"), Ok(Target::Dir("./zip:x".into())));
        assert_eq!(parse_target("a/b:c"), Ok(Target::Dir("a/b:c".into())));
        assert_eq!(
            parse_target("zip:e.zip"),
            Err("unknown kind `zip`: DIR, dir:DIR or tar:FILE".to_string())
        );
    }

    #[test]
    fn targets_are_in_directories_that_exist() {
        let dir = tempfile::tempdir().unwrap();
        for make in [Target::Dir, Target::Tar] {
            assert!(check(&make(dir.path().join("new"))).is_ok() && check(&make("new".into())).is_ok());
            let error = check(&make(dir.path().join("absent/new"))).unwrap_err();
            assert!(error.hint_text().unwrap().contains("mkdir -p"), "{error}");
        }
    }
}
