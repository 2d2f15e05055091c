//! A tar archive as `docker save` and `podman save` write it: `manifest.json` (Docker image specification 1.2,
//! "Combined Image JSON + Filesystem Changeset Format").

use serde::Deserialize;

use super::describe::Config;
use super::files::Files;
use super::{Blob, Image};
use crate::error::{Error, Result};
use crate::oci::Platform;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The image of a tag; without one, the only image.
pub(super) fn image(files: &Files, tag: Option<&str>, platform: Option<&Platform>) -> Result<Image> {
    if !files.has("manifest.json") {
        return Err(Error::recipe("it is not of `docker save`: there is no file `manifest.json` in it")
            .hint("for an image layout of skopeo, buildah or umoci use `oci-layout`"));
    }
    let items: Vec<Item> = serde_json::from_slice(&files.small("manifest.json")?)
        .map_err(|why| Error::recipe("its `manifest.json` cannot be read").because(why))?;
    let all: Vec<&str> =
        items.iter().flat_map(|item| item.repo_tags.iter().flatten()).map(String::as_str).collect();
    let names = if all.is_empty() { "none".to_string() } else { all.join(", ") };
    // `debian:12` may be written for `docker.io/library/debian:12`, by whoever saved it or by whoever asks.
    let whole =
        |name: &str| crate::oci::parse_reference(name).map_or(name.to_string(), |name| name.to_string());
    let is = |item: &&Item, tag: &str| {
        let tags = item.repo_tags.iter().flatten();
        tags.into_iter().any(|known| known == tag || whole(known) == whole(tag))
    };
    let item = match (tag, &items[..]) {
        (Some(tag), items) => items.iter().find(|item| is(item, tag)).ok_or_else(|| {
            Error::recipe(format!("it has no image with the tag `{tag}`")).because(format!("tags: {names}"))
        })?,
        (None, [one]) => one,
        (None, []) => return Err(Error::recipe("it has no image")),
        (None, _) => {
            return Err(Error::recipe(format!("it has {} images", items.len()))
                .because(format!("tags: {names}"))
                .hint("say which one: put its tag behind the path, `:NAME:TAG`"));
        }
    };
    let machine = Platform::of_machine();
    let blobs = item.layers.iter().flatten().map(|name| blob(files, name)).collect::<Result<_>>()?;
    Config::parse(&files.small(&item.config)?)?.image(blobs, platform.unwrap_or(&machine))
}

fn blob(files: &Files, name: &str) -> Result<Blob> {
    Ok(Blob::Member { name: name.to_string(), plain: files.plain_size(name)? })
}
