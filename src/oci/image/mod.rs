//! Images out: layers and a configuration, as an OCI layout, an archive, or in a registry.
//!
//! Everything in an image follows from its layers and from what the recipe says: no time of day, no name of a
//! machine or user. So whoever builds it gets the same digests.

mod blobs;
pub mod config;
mod docker;
mod layout;
#[cfg(feature = "net")]
mod push;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

pub use blobs::{Blob, Packer, Reader};
pub use docker::write_docker_archive;
pub use layout::{write_archive, write_layout};
#[cfg(feature = "net")]
pub use push::{Told, push};

use self::config::{CONFIG, Config, History, ImageManifest, MANIFEST, Refers, RootFs, RunConfig};
use crate::error::{Error, Result};
use crate::layer::{Entry, Manifest, time};
use crate::oci::source::FromImage;

/// Where the bytes of a layer's files are.
pub type Content = Arc<dyn Fn(&Entry) -> Result<PathBuf> + Send + Sync>;

/// One layer of an image.
#[derive(Clone)]
pub struct Part {
    /// What is in it.
    pub manifest: Arc<Manifest>,
    /// Its files.
    pub content: Content,
    /// What a person is told of it.
    pub name: String,
    /// What `docker history` shows of it.
    pub history: History,
    /// Annotations of the layer.
    pub annotations: BTreeMap<String, String>,
    /// The image it came out of. It goes out as it came in.
    pub original: Option<Arc<FromImage>>,
}

/// What an image is made of.
pub struct Parts {
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Who made it.
    pub author: Option<String>,
    /// As Go calls it.
    pub architecture: String,
    /// What a container starts with.
    pub run: RunConfig,
    /// The layers, lowest first.
    pub layers: Vec<Part>,
    /// What made no layer of its own.
    pub more_history: Vec<History>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// A document and its digest.
#[derive(Debug, Clone)]
pub struct Json {
    /// `sha256:<hex>`.
    pub digest: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Json {
    fn of(value: &impl serde::Serialize) -> Result<Json> {
        let bytes = serde_json::to_vec(value)
            .map_err(|why| Error::machine("cannot write a document of the image").because(why))?;
        let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Json { digest: format!("sha256:{hex}"), bytes })
    }

    fn refers(&self, media_type: &str) -> Refers {
        Refers {
            media_type: media_type.to_string(),
            digest: self.digest.clone(),
            size: self.bytes.len() as u64,
            annotations: BTreeMap::new(),
        }
    }
}

/// An image that is ready to be written: its documents, and layers that have been packed once.
pub struct Image {
    /// Its configuration.
    pub config: Json,
    /// Its manifest, whose digest is that of the image.
    pub manifest: Json,
    /// The layers, in order.
    pub layers: Vec<(Part, Blob)>,
}

impl Parts {
    /// The configuration over layers with these diff ids.
    fn config(&self, diff_ids: Vec<String>) -> Result<Json> {
        let created = time::rfc3339(self.created).ok_or_else(|| {
            Error::recipe(format!("`epoch` is {}, and images have no such time", self.created))
                .hint("choose one before the year 10000")
        })?;
        let stamped = |history: &History| History { created: Some(created.clone()), ..history.clone() };
        let layers = self.layers.iter().map(|part| &part.history);
        let history = layers.chain(&self.more_history).map(stamped).collect();
        Json::of(&Config {
            created: created.clone(),
            author: self.author.clone(),
            architecture: self.architecture.clone(),
            os: "linux".to_string(),
            config: self.run.clone(),
            rootfs: RootFs { r#type: "layers", diff_ids },
            history,
        })
    }

    /// Packs what has not been packed yet, and writes the documents.
    pub fn assemble(self, packer: &Packer) -> Result<Image> {
        let blobs = packer.all(&self.layers)?;
        let config = self.config(blobs.iter().map(|blob| blob.diff_id.clone()).collect())?;
        let layers: Vec<(Part, Blob)> = self.layers.into_iter().zip(blobs).collect();
        let manifest = Json::of(&ImageManifest {
            schema_version: 2,
            media_type: MANIFEST,
            config: config.refers(CONFIG),
            layers: layers.iter().map(|(_, blob)| blob.refers.clone()).collect(),
            annotations: self.annotations,
        })?;
        Ok(Image { config, manifest, layers })
    }
}
