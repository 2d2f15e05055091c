//! `base.oci`, `base.oci-layout` and `base.docker-archive`: images of containers.

use std::path::{Path, PathBuf};

use super::context::{Context, Kind};
use super::model::{Base, ImageBase};
use super::reader::{Text, Value};
use crate::oci::source::Place;
use crate::oci::{Platform, parse_reference};

/// Reads one of the three.
pub fn read(value: &Value<'_>) -> Option<Base> {
    let cx = value.cx;
    let is_registry = value.key == "oci";
    let named = if is_registry { "image" } else { "path" };
    if !value.is_table() {
        let text = value.string()?;
        let (place, written) = match is_registry {
            true => registry(cx, &text)?,
            false => local(cx, value.key, &text, None)?,
        };
        return Some(Base::Image(ImageBase { place, platform: None, written }));
    }
    let form = match is_registry {
        true => {
            "write `oci = \"registry.example/debian:12\"`, or `oci = { image = \"…\", platform = \"linux/arm64\" }`"
        }
        false => "write the path: `\"image.tar\"`, or `{ path = \"image.tar\", name = \"app:1\" }`",
    };
    let mut table = value.table(form)?;
    let text = table.required_string(named, form);
    let name = (!is_registry).then(|| table.string("name")).flatten();
    let platform = table.string("platform");
    table.finish();
    let platform = match platform {
        None => None,
        Some(text) => match cx.expand(&text)?.parse::<Platform>() {
            Ok(platform) => Some(platform),
            Err(why) => {
                cx.error(&text.span, why, "it is operating system, architecture and maybe variant");
                return None;
            }
        },
    };
    let (place, written) = match is_registry {
        true => registry(cx, &text?)?,
        false => local(cx, value.key, &text?, Some(name))?,
    };
    Some(Base::Image(ImageBase { place, platform, written }))
}

fn registry(cx: &Context<'_>, text: &Text) -> Option<(Place, String)> {
    let written = cx.expand(text)?;
    match parse_reference(&written) {
        Ok(reference) => Some((Place::Registry(reference), written)),
        Err(why) => {
            let hint = "write it as `registry.example/repository:tag`, or with `@sha256:…` to pin it";
            cx.error(&text.span, format!("`{written}` does not name an image: {why}"), hint);
            None
        }
    }
}

/// An image as the command line names one: `oci://registry.example/debian:12`, `oci-layout:PATH[:NAME]` or
/// `docker-archive:FILE[:TAG]`, with paths from `dir`. None when it names none.
pub fn image_of(word: &str, dir: &Path) -> Option<Result<ImageBase, String>> {
    let (kind, rest) = word.split_once(':')?;
    let place = match kind {
        "oci" => parse_reference(rest.strip_prefix("//")?).map(Place::Registry),
        "oci-layout" | "docker-archive" => {
            let (path, which) = split(rest, dir);
            let real = dir.join(&path).canonicalize();
            real.map_err(|why| format!("`{path}`: {why}")).map(|path| match kind {
                "oci-layout" => Place::Layout { path, name: which },
                _ => Place::DockerArchive { path, tag: which },
            })
        }
        _ => return None,
    };
    Some(place.map(|place| ImageBase { place, platform: None, written: word.to_string() }))
}

/// A path, maybe with `:NAME` behind it where the whole is not there.
fn split(written: &str, dir: &Path) -> (String, Option<String>) {
    let whole = (written.to_string(), None);
    if dir.join(written).exists() {
        return whole;
    }
    // The shortest start that is there: names have `:` in them too.
    let at = written.match_indices(':').find(|(at, _)| dir.join(&written[..*at]).exists());
    at.map_or(whole, |(at, _)| (written[..at].to_string(), Some(written[at + 1..].to_string())))
}

/// A path, maybe with a name.
fn local(cx: &Context<'_>, key: &str, text: &Text, name: Option<Option<Text>>) -> Option<(Place, String)> {
    let written = cx.expand(text)?;
    let dir = cx.directory();
    let (path, mut which) = match name {
        Some(_) => (written.clone(), None),
        None => split(&written, dir),
    };
    if let Some(Some(name)) = &name {
        which = Some(cx.expand(name)?);
    }
    let kind = if key == "oci-layout" { Kind::Either } else { Kind::File };
    let path: PathBuf = cx.host_path(&Text { text: path, span: text.span.clone() }, kind)?;
    let place = match key {
        "oci-layout" => Place::Layout { path, name: which },
        _ => Place::DockerArchive { path, tag: which },
    };
    Some((place, written))
}
