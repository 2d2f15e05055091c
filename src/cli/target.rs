//! `RECIPE[:STEP]`, and where an export goes: a tree, an archive or an image.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::engine::{ImageForm, ImageTarget, Target, is_tag};
use crate::error::Error;
use crate::oci::parse_reference;

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

/// The forms of a target.
const FORMS: &str = "DIR, dir:DIR, tar:FILE, oci-layout:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:[NAME:]TAG]";

/// Where an export goes: a directory without a prefix, or one of [`FORMS`]. Another word in front of a `:` is more
/// likely a format that somebody hopes for than a directory that they want.
pub(super) fn parse_target(text: &str) -> Result<Target, String> {
    let missing = || Err(format!("a path is missing: {FORMS}"));
    let (kind, path) = match text.split_once(':') {
        Some((kind @ ("tar" | "dir" | "oci-layout" | "oci-archive" | "docker-archive"), path)) => {
            (kind, path)
        }
        Some((kind, _))
            if !kind.is_empty()
                && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !Path::new(text).exists() =>
        {
            return Err(format!("unknown kind `{kind}`: {FORMS}"));
        }
        _ => ("dir", text),
    };
    if path.is_empty() {
        return missing();
    }
    let form = match kind {
        "dir" => return Ok(Target::Dir(path.into())),
        "tar" => return Ok(Target::Tar(path.into())),
        "oci-layout" => ImageForm::OciLayout,
        "oci-archive" => ImageForm::OciArchive,
        _ => ImageForm::DockerArchive,
    };
    let (path, tag) = match path.split_once(':') {
        Some((path, tag)) => (path, Some(tag.to_string())),
        None => (path, None),
    };
    if path.is_empty() {
        return missing();
    }
    if let Some(tag) = &tag {
        let named = form == ImageForm::DockerArchive && tag.contains([':', '/']);
        let good = if named { parse_reference(tag).is_ok() } else { is_tag(tag) };
        if !good {
            return Err(format!("`{tag}` is not a tag: letters, digits and `_.-`, at most 128"));
        }
    }
    Ok(Target::Image(ImageTarget { form, path: path.into(), tag }))
}

/// The path that a target is at.
pub(super) fn path(target: &Target) -> &Path {
    match target {
        Target::Dir(path) | Target::Tar(path) => path,
        Target::Image(image) => &image.path,
    }
}

/// Refuses a target that cannot be written, before anything is built. A directory that is not there is more likely
/// a slip of the pen than one to be made.
pub(super) fn check(target: &Target) -> Result<(), Error> {
    let path = path(target);
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
        assert!(
            parse_target("zip:e.zip").unwrap_err().starts_with("unknown kind `zip`: DIR, dir:DIR, tar:FILE")
        );
        let image = |form, path: &str, tag: Option<&str>| {
            Ok(Target::Image(ImageTarget { form, path: path.into(), tag: tag.map(String::from) }))
        };
        use ImageForm::{DockerArchive, OciArchive, OciLayout};
        assert_eq!(parse_target("oci-layout:a/b"), image(OciLayout, "a/b", None));
        assert_eq!(parse_target("oci-layout:a/b:1.0"), image(OciLayout, "a/b", Some("1.0")));
        assert_eq!(parse_target("oci-archive:x.tar:v1"), image(OciArchive, "x.tar", Some("v1")));
        assert_eq!(parse_target("docker-archive:x.tar:v1"), image(DockerArchive, "x.tar", Some("v1")));
        let named = image(DockerArchive, "x.tar", Some("r.example/a:v1"));
        assert_eq!(parse_target("docker-archive:x.tar:r.example/a:v1"), named);
        for bad in [
            "oci-layout:",
            "oci-layout::x",
            "oci-archive:x:a b",
            "oci-archive:x:a:b",
            "oci:x",
            "docker-archive:x:A:b",
        ] {
            assert!(parse_target(bad).is_err(), "{bad}");
        }
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
