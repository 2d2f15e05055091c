//! `RECIPE[@BUILD][:STEP]`, images, and where an export goes: a tree, an archive or an image.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::engine::{BuildName, ImageForm, ImageTarget, Target, What, is_tag};
use crate::error::Error;
use crate::oci::parse_reference;
use crate::recipe::{ImageBase, image_of};
use crate::store::Tag;

/// A recipe file, or an earlier build of one, and maybe one of its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecipeRef {
    /// The recipe file; for a tag all of it, `@v1`.
    pub recipe: PathBuf,
    /// None for the recipe as it is now.
    pub build: Option<BuildName>,
    pub step: Option<String>,
}

impl RecipeRef {
    /// Splits at the last `:` unless the whole is the name of a file; `is_file` looks.
    fn split(text: &str, is_file: impl Fn(&Path) -> bool) -> RecipeRef {
        match text.rsplit_once(':') {
            Some((recipe, step)) if !recipe.is_empty() && !step.is_empty() && !is_file(Path::new(text)) => {
                let (recipe, build) = build_of(recipe, is_file);
                RecipeRef { recipe, build, step: Some(step.to_string()) }
            }
            _ => {
                let (recipe, build) = build_of(text, is_file);
                RecipeRef { recipe, build, step: None }
            }
        }
    }

    /// What a request with it is about.
    pub fn what(&self) -> What {
        self.build.clone().map_or(What::Recipe, What::Earlier)
    }
}

/// Splits `RECIPE@NUMBER`, and knows `@TAG`; what is the name of a file is nothing else.
pub(super) fn build_of(text: &str, is_file: impl Fn(&Path) -> bool) -> (PathBuf, Option<BuildName>) {
    let build = match text.rsplit_once('@') {
        _ if is_file(Path::new(text)) => None,
        Some(("", tag)) if Tag::is_name(tag) => Some((text, BuildName::Tag(tag.to_string()))),
        Some((recipe, number)) if !recipe.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => {
            number.parse().ok().map(|number| (recipe, BuildName::Number(number)))
        }
        _ => None,
    };
    build.map_or((text.into(), None), |(recipe, build)| (recipe.into(), Some(build)))
}

/// What a command can run in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Runnable {
    /// What a recipe gives.
    Recipe(RecipeRef),
    /// What is in an image.
    Image(ImageBase),
}

impl Runnable {
    /// What to call it, the output that was named, and the image if it is one.
    pub fn split(self) -> (RecipeRef, Option<String>, Option<ImageBase>) {
        match self {
            Runnable::Recipe(recipe) => {
                let output = recipe.step.clone();
                (RecipeRef { step: None, ..recipe }, output, None)
            }
            Runnable::Image(image) => {
                let recipe = PathBuf::from(&image.written);
                (RecipeRef { recipe, build: None, step: None }, None, Some(image))
            }
        }
    }
}

pub(super) fn parse_runnable(text: &str) -> Result<Runnable, String> {
    match image_of(text, Path::new("")) {
        Some(image) => image.map(Runnable::Image),
        None => {
            let recipe = RecipeRef::split(text, Path::is_file);
            let is_toml = recipe.recipe.extension().is_some_and(|end| end == "toml");
            // The name of an image, more likely than that of a recipe that is not there.
            match recipe.build.is_some() || is_toml || recipe.recipe.exists() {
                true => Ok(Runnable::Recipe(recipe)),
                false => Err(format!(
                    "there is no recipe `{}`; an image is written {IMAGES}",
                    recipe.recipe.display()
                )),
            }
        }
    }
}

/// How images are written.
const IMAGES: &str = "oci://HOST/REPOSITORY:TAG, oci-layout:DIR[:NAME] or docker-archive:FILE[:TAG]";

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
            let RecipeRef { recipe, build, step } = RecipeRef::split(text, none);
            assert_eq!(build, None);
            (recipe.to_str().unwrap().to_string(), step)
        };
        assert_eq!(split("a/b.toml"), ("a/b.toml".into(), None));
        assert_eq!(split("a/b.toml:test"), ("a/b.toml".into(), Some("test".into())));
        assert_eq!(split("odd:dir/b.toml:test"), ("odd:dir/b.toml".into(), Some("test".into())));
        assert_eq!(split("b.toml:"), ("b.toml:".into(), None));
        assert_eq!(split(":x"), (":x".into(), None));
        let whole = RecipeRef::split("odd:name.toml", |path| path == Path::new("odd:name.toml"));
        assert_eq!(whole, RecipeRef { recipe: "odd:name.toml".into(), build: None, step: None });
    }

    #[test]
    fn earlier_builds_are_numbers_behind_a_recipe_or_tags() {
        let split = |text| RecipeRef::split(text, |path| path == Path::new("odd@1"));
        let of = |recipe: &str, build, step: Option<&str>| RecipeRef {
            recipe: recipe.into(),
            build: Some(build),
            step: step.map(String::from),
        };
        assert_eq!(split("a@3"), of("a", BuildName::Number(3), None));
        assert_eq!(split("odd@1@2:s"), of("odd@1", BuildName::Number(2), Some("s")));
        assert_eq!(split("@v1"), of("@v1", BuildName::Tag("v1".into()), None));
        assert_eq!(split("@v1:s"), of("@v1", BuildName::Tag("v1".into()), Some("s")));
        for recipe in ["odd@1", "a@b", "@", "@5", "@1x/y", "a@", "a@-1"] {
            assert_eq!(split(recipe).build, None, "{recipe}");
        }
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
