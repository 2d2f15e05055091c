//! A layer of an image that others made, which goes out again as it came in: the same bytes, the same digest.

use oci_spec::image::{Descriptor, MediaType};

use super::{Blob, ImageLayer, Place};
use crate::oci::image::config::Refers;

/// A layer of an image.
#[derive(Debug, Clone)]
pub struct FromImage {
    /// For messages: "layer 2 of 7 of `debian:12`".
    pub what: String,
    /// The image.
    pub place: Place,
    /// The layer.
    pub layer: ImageLayer,
}

impl FromImage {
    /// What a manifest says of the bytes as they came. None when only a member of an archive has them, and compressed:
    /// then nothing names them.
    pub fn refers(&self) -> Option<Refers> {
        match &self.layer.blob {
            Blob::Named(blob) => Some(Refers {
                media_type: oci_type(blob),
                digest: blob.digest().to_string(),
                size: blob.size(),
                annotations: blob
                    .annotations()
                    .iter()
                    .flatten()
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect(),
            }),
            Blob::Member { plain: Some(size), .. } => Some(Refers {
                media_type: MediaType::ImageLayer.to_string(),
                digest: self.layer.diff_id.to_string(),
                size: *size,
                annotations: Default::default(),
            }),
            Blob::Member { plain: None, .. } => None,
        }
    }

    /// The repository that has it, if that is one of the registry `host`.
    pub fn repository(&self, host: &str) -> Option<&str> {
        match &self.place {
            Place::Registry(reference) if reference.registry() == host => Some(reference.repository()),
            _ => None,
        }
    }
}

/// The media type of a layer in OCI's words; Docker has others for the same.
fn oci_type(blob: &Descriptor) -> String {
    let written = blob.media_type().to_string();
    match written.strip_prefix("application/vnd.docker.image.rootfs.diff.tar") {
        Some(end) => format!("{}{}", MediaType::ImageLayer, end.replace('.', "+")),
        None => written,
    }
}
