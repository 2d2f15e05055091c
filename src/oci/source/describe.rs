//! From the documents of an image to its layers.

use oci_spec::image::{Descriptor, Digest, ImageManifest};
use serde::Deserialize;

use super::{Blob, Image, ImageLayer};
use crate::error::{Error, Result};
use crate::oci::image::config::RunConfig;
use crate::oci::{Document, Platform};

/// How deep indexes may refer to indexes.
const DEEPEST: usize = 4;

/// Media types of the configurations of images for containers.
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// What counts of a configuration (image specification, "Image Configuration").
#[derive(Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: Option<String>,
    rootfs: RootFs,
    #[serde(default)]
    config: Option<RunConfig>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

/// A document by its digest (none: the one that the name stands for), and what it is served as.
type Manifests<'a> = &'a dyn Fn(Option<&Digest>) -> Result<(Vec<u8>, Option<String>)>;
/// A small blob.
type Configs<'a> = &'a dyn Fn(&Descriptor) -> Result<Vec<u8>>;

/// The layers of an image for a platform, this machine's where none is given.
pub(super) fn image(platform: Option<&Platform>, manifests: Manifests, configs: Configs) -> Result<Image> {
    let machine = Platform::of_machine();
    let wanted = platform.unwrap_or(&machine);
    let (mut bytes, mut said) = manifests(None)?;
    for _ in 0..DEEPEST {
        let document =
            Document::parse(&bytes, said.as_deref()).map_err(|why| Error::recipe(why.to_string()))?;
        let index = match document {
            Document::Image(manifest) => return of_manifest(&manifest, wanted, configs),
            Document::Index(index) => index,
        };
        let chosen = wanted.choose(&index).ok_or_else(|| {
            Error::recipe(format!("it has no image for {wanted}"))
                .because(format!("it has {}", Platform::listed(&index)))
                .hint("name another one with `platform`, or use another image")
        })?;
        (bytes, said) = manifests(Some(chosen.digest()))?;
        said = said.or_else(|| Some(chosen.media_type().to_string()));
    }
    Err(Error::recipe(format!("indexes refer to indexes more than {DEEPEST} deep")))
}

fn of_manifest(manifest: &ImageManifest, wanted: &Platform, configs: Configs) -> Result<Image> {
    let kind = manifest.config().media_type().to_string();
    if !CONFIGS.contains(&kind.as_str()) {
        return Err(Error::recipe("it is not an image for containers")
            .because(format!("its configuration is of the kind `{kind}`"))
            .hint("registries hold other things too: name an image"));
    }
    let config = Config::parse(&configs(manifest.config())?)?;
    if let Some(bad) =
        manifest.layers().iter().find(|layer| layer.media_type().to_string().contains("encrypted"))
    {
        return Err(Error::recipe("its layers are encrypted").because(bad.media_type().to_string()));
    }
    config.image(manifest.layers().iter().map(|layer| Blob::Named(Box::new(layer.clone()))).collect(), wanted)
}

impl Config {
    /// Reads a configuration.
    pub(super) fn parse(bytes: &[u8]) -> Result<Config> {
        serde_json::from_slice(bytes)
            .map_err(|why| Error::recipe("its configuration cannot be read").because(why))
    }

    /// The image with this configuration and these bytes.
    pub(super) fn image(self, blobs: Vec<Blob>, wanted: &Platform) -> Result<Image> {
        if !self.os.is_empty() || !self.architecture.is_empty() {
            let variant = self.variant.filter(|variant| !variant.is_empty());
            let parts: Vec<&str> =
                [self.os.as_str(), &self.architecture].into_iter().chain(variant.as_deref()).collect();
            let own = parts.join("/");
            if !own.parse::<Platform>().is_ok_and(|own| wanted.takes(&own)) {
                return Err(Error::recipe(format!("it is for {own}, and not for {wanted}"))
                    .hint("if that is meant, say so with `platform`"));
            }
        }
        let diff_ids = self.rootfs.diff_ids.unwrap_or_default();
        if diff_ids.len() != blobs.len() {
            let (ids, layers) = (diff_ids.len(), blobs.len());
            return Err(Error::recipe(format!("it has {layers} layers, and its configuration lists {ids}")));
        }
        let layers = diff_ids.into_iter().zip(blobs).map(|(diff_id, blob)| ImageLayer { diff_id, blob });
        Ok(Image { layers: layers.collect(), run: self.config.unwrap_or_default() })
    }
}
