//! An OCI image layout: `oci-layout`, `index.json`, `blobs/<algorithm>/<digest>`.

use oci_spec::image::{Descriptor, Digest, ImageIndex};
use serde::Deserialize;

use super::Image;
use super::describe;
use super::files::Files;
use crate::error::{Error, Result};
use crate::oci::{Document, Hasher, Platform};

/// What the name of an image is kept under.
const NAME: &str = "org.opencontainers.image.ref.name";
/// Containerd's name of it, with registry and repository.
const WHOLE_NAME: &str = "io.containerd.image.name";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    image_layout_version: String,
}

/// Where a blob lies in a layout.
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}

/// The image of a name; without one, the only image.
pub(super) fn image(files: &Files, name: Option<&str>, platform: Option<&Platform>) -> Result<Image> {
    if !files.has("oci-layout") {
        return Err(Error::recipe("it is no image layout: there is no file `oci-layout` in it").hint(
            "name the directory, or tar archive, that skopeo, buildah or umoci wrote; for `docker save` use \
                   `docker-archive`",
        ));
    }
    let header: Header = serde_json::from_slice(&files.small("oci-layout")?)
        .map_err(|why| Error::recipe("its file `oci-layout` cannot be read").because(why))?;
    if !header.image_layout_version.starts_with("1.") {
        return Err(Error::recipe(format!(
            "it is an image layout of version {}",
            header.image_layout_version
        )));
    }
    let bytes = files.small("index.json")?;
    let index = match Document::parse(&bytes, None) {
        Ok(Document::Index(index)) => index,
        Ok(Document::Image(_)) => return Err(Error::recipe("its `index.json` is not an index")),
        Err(why) => return Err(Error::recipe("its `index.json` cannot be read").because(why)),
    };
    let chosen = choose(&index, name)?.clone();
    let manifest = |digest: Option<&Digest>| match digest {
        None => checked(files, chosen.digest()).map(|bytes| (bytes, Some(chosen.media_type().to_string()))),
        Some(digest) => checked(files, digest).map(|bytes| (bytes, None)),
    };
    describe::image(platform, &manifest, &|blob| checked(files, blob.digest()))
}

fn checked(files: &Files, digest: &Digest) -> Result<Vec<u8>> {
    let bytes = files.small(&blob_path(digest))?;
    Hasher::check(&bytes, digest)
        .map_err(|why| Error::recipe(format!("its blob `{digest}` is damaged")).because(why))?;
    Ok(bytes)
}

fn choose<'i>(index: &'i ImageIndex, name: Option<&str>) -> Result<&'i Descriptor> {
    let noted = |descriptor: &Descriptor, key| {
        descriptor.annotations().as_ref().and_then(|all| all.get(key).cloned())
    };
    let all = index.manifests();
    let is = |descriptor: &&Descriptor, name: &str| {
        noted(descriptor, NAME).as_deref() == Some(name)
            || noted(descriptor, WHOLE_NAME).as_deref() == Some(name)
            || descriptor.digest().as_ref() == name
    };
    let mut names: Vec<String> = all.iter().filter_map(|descriptor| noted(descriptor, NAME)).collect();
    names.dedup();
    let names = if names.is_empty() { "none".to_string() } else { names.join(", ") };
    match (name, &all[..]) {
        (Some(name), all) => all.iter().find(|descriptor| is(descriptor, name)).ok_or_else(|| {
            Error::recipe(format!("it has no image of the name `{name}`")).because(format!("names: {names}"))
        }),
        (None, [one]) => Ok(one),
        (None, []) => Err(Error::recipe("it has no image")),
        (None, _) => Err(Error::recipe(format!("it has {} images", all.len()))
            .because(format!("names: {names}"))
            .hint("say which one: put its name behind the path, `:NAME`")),
    }
}
