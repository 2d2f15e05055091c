//! `isolith push`: build (or take from the store) and push a container image to a registry.

use std::process::ExitCode;

use super::export::How;
use super::target::RecipeRef;
use super::{Context, build};
use crate::engine::{Event, ImageForm, ImageTarget, Request, Target};
use crate::error::{Error, Result};
use crate::oci::registry::Credentials;
use crate::oci::{Reference, parse_reference};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The recipe file (or an earlier build: RECIPE@NUMBER, @TAG), and maybe one of its outputs
    #[arg(value_name = "RECIPE[@BUILD][:OUTPUT]")]
    recipe: RecipeRef,
    /// Where to: the tag is `latest` when it is not said
    #[arg(value_name = "oci://HOST/REPOSITORY[:TAG]", value_parser = parse_to)]
    to: Reference,
    #[command(flatten)]
    how: How,
}

/// A place in a registry. The registry is always said: a push to a public one should be no slip of the pen.
fn parse_to(text: &str) -> Result<Reference, String> {
    let name = text.strip_prefix("oci://").ok_or("expected oci://HOST/REPOSITORY[:TAG]")?;
    let host = name.split('/').next().unwrap_or_default();
    if !name.contains('/') || !(host.contains(['.', ':']) || host == "localhost") {
        return Err("the host is missing: oci://HOST/REPOSITORY[:TAG]".to_string());
    }
    match parse_reference(name)? {
        reference if reference.digest().is_some() => {
            Err("an image is pushed under a tag, and its digest comes out".to_string())
        }
        reference => Ok(reference),
    }
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let output = args.recipe.step.clone();
    let How { of, image, args: common, remotes, progress } = args.how;
    of.check(output.as_deref())?;
    let settings = context.settings(None, progress)?;
    if settings.inputs.offline.as_ref().is_some_and(|offline| offline.value) || context.global.offline {
        return Err(Error::usage("cannot push: `offline` says that no socket is opened")
            .hint("write the image to a file instead: isolith export RECIPE oci-archive:FILE"));
    }
    let wanted = of.look(output.as_deref());
    let request = Request { wanted, ..common.request(RecipeRef { step: None, ..args.recipe }, &settings)? };
    let options = image.options();
    let credentials = Credentials { files: context.surroundings.auth_files.clone() };
    // Of the target only its kind counts for the choice of an output.
    let target = ImageTarget { form: ImageForm::OciArchive, path: args.to.to_string().into(), tag: None };
    let target = Target::Image(target);
    let remotes = remotes.remotes(context, &settings)?;
    let task = build::Task { settings: &settings, request: &request, set: &common.set, remotes };
    build::build_and(context, task, |session, built, observer| {
        for wanted in of.choose(built, output.as_deref(), &target)? {
            let output = wanted.name;
            let name = output.as_deref();
            let digest = session.push_image(built, name, &args.to, credentials.clone(), options, observer)?;
            let to = format!("oci://{}", args.to);
            observer.event(Event::Exported { output, to, digest: Some(digest) });
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::parse_to;

    #[test]
    fn a_push_says_where_to() {
        let to = |text| parse_to(text).map(|reference| reference.to_string());
        assert_eq!(to("oci://r.example/a/b:1").unwrap(), "r.example/a/b:1");
        assert_eq!(to("oci://localhost:5000/a").unwrap(), "localhost:5000/a:latest");
        let digest =
            "oci://r.example/a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for bad in
            ["r.example/a", "oci://a", "oci://team/a", "oci://r.example/A", "docker://r.example/a", digest]
        {
            assert!(parse_to(bad).is_err(), "{bad}");
        }
    }
}
