//! Images as bases: where they are, what layers they have, and the bytes of those.

mod describe;
mod docker;
mod files;
mod import;
mod layout;
mod original;
#[cfg(feature = "net")]
mod partial;
mod pipe;

use std::io::Read;
use std::path::PathBuf;

use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, Digest};
use serde::{Deserialize, Serialize};

use self::files::Files;
use super::Platform;
use super::digest::Checked;
use super::image::config::RunConfig;
use crate::error::{Error, Result};
use crate::net::Watch;

pub use import::import;
pub use original::FromImage;

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a registry.
    Registry(Reference),
    /// In an OCI image layout (image specification, "Image Layout Specification"): a directory, or a tar archive of one.
    Layout {
        /// Absolute.
        path: PathBuf,
        /// Which, by `org.opencontainers.image.ref.name`; needed where there are several.
        name: Option<String>,
    },
    /// In a tar archive as `docker save` writes it.
    DockerArchive {
        /// Absolute.
        path: PathBuf,
        /// Which, by its tag; needed where there are several.
        tag: Option<String>,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Registry(reference) => write!(f, "{reference}"),
            Place::Layout { path, name: which } | Place::DockerArchive { path, tag: which } => {
                write!(f, "{}", path.display())?;
                which.iter().try_for_each(|which| write!(f, ":{which}"))
            }
        }
    }
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Lowest first; at least one.
    pub layers: Vec<ImageLayer>,
    /// What a container of it starts with.
    pub run: RunConfig,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLayer {
    /// Digest of the plain tar archive: what names the layer, however it is packed.
    pub diff_id: Digest,
    /// Where its bytes are.
    pub blob: Blob,
}

/// Where the bytes of a layer are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Blob {
    /// Under their digest.
    Named(Box<Descriptor>),
    /// A member of a tar archive.
    Member {
        /// Its name.
        name: String,
        /// How many bytes it has when it is a plain tar archive. Its digest is that of the layer then.
        plain: Option<u64>,
    },
}

/// Gives images and their bytes. Connections are kept as long as it lives.
#[derive(Default)]
pub struct Images {
    #[cfg(feature = "net")]
    registry: super::registry::Registry,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").finish_non_exhaustive()
    }
}

impl Images {
    /// With this client for registries.
    #[cfg(feature = "net")]
    pub fn new(registry: super::registry::Registry) -> Images {
        Images { registry }
    }

    /// What a tag of a registry stands for now.
    pub fn resolve(&self, reference: &Reference, watch: &dyn Watch) -> Result<Digest> {
        #[cfg(feature = "net")]
        return self.registry.resolve(reference, watch).map(|fetched| fetched.digest);
        #[cfg(not(feature = "net"))]
        return Err(no_registries(reference, watch));
    }

    /// The layers of an image. Of one in a registry the reference has to have a digest.
    ///
    /// # Errors
    /// Class `Recipe` for what is no image, or none for the platform; whatever reading gives.
    pub fn image(&self, place: &Place, platform: Option<&Platform>, watch: &dyn Watch) -> Result<Image> {
        match place {
            Place::Registry(reference) => self.image_of_registry(reference, platform, watch),
            Place::Layout { path, name } => {
                let files = Files::open(path)?;
                layout::image(&files, name.as_deref(), platform).map_err(|error| about(place, error))
            }
            Place::DockerArchive { path, tag } => {
                let files = Files::open_tar(path)?;
                docker::image(&files, tag.as_deref(), platform).map_err(|error| about(place, error))
            }
        }
    }

    #[cfg(feature = "net")]
    fn image_of_registry(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        watch: &dyn Watch,
    ) -> Result<Image> {
        let manifest = |digest: Option<&Digest>| {
            let fetched = match digest {
                Some(digest) => self.registry.manifest(reference, digest, watch)?,
                None => self.registry.resolve(reference, watch)?,
            };
            Ok((fetched.bytes, Some(fetched.media_type)))
        };
        let config = |blob: &Descriptor| self.registry.small_blob(reference, blob, watch);
        describe::image(platform, &manifest, &config)
            .map_err(|error| about(&Place::Registry(reference.clone()), error))
    }

    #[cfg(not(feature = "net"))]
    fn image_of_registry(
        &self,
        reference: &Reference,
        _: Option<&Platform>,
        watch: &dyn Watch,
    ) -> Result<Image> {
        Err(no_registries(reference, watch))
    }

    /// Gives the bytes of a layer, as they are packed, to `read`, which reads them to the end. Those with a digest
    /// are checked on the way.
    pub fn layer<T>(
        &self,
        place: &Place,
        blob: &Blob,
        watch: &dyn Watch,
        read: impl FnOnce(&mut (dyn Read + Send)) -> Result<T>,
    ) -> Result<T> {
        match (place, blob) {
            #[cfg(feature = "net")]
            (Place::Registry(reference), Blob::Named(blob)) => {
                self.registry.blob(reference, blob, watch, read)
            }
            #[cfg(not(feature = "net"))]
            (Place::Registry(reference), Blob::Named(_)) => Err(no_registries(reference, watch)),
            (Place::Layout { path, .. } | Place::DockerArchive { path, .. }, blob) => {
                let files = Files::open(path)?;
                match blob {
                    Blob::Named(blob) => {
                        let file = files.stream(&layout::blob_path(blob.digest()))?;
                        let checked = Checked::new(file, blob.digest().clone(), Some(blob.size()));
                        read(&mut checked.map_err(|why| Error::io("read", path, why))?)
                    }
                    Blob::Member { name, .. } => read(&mut files.stream(name)?),
                }
            }
            (Place::Registry(_), Blob::Member { .. }) => {
                Err(Error::machine("a registry has no members of archives"))
            }
        }
    }
}

#[cfg(not(feature = "net"))]
fn no_registries(reference: &Reference, _: &dyn Watch) -> Error {
    Error::machine(format!("cannot get `{reference}`: this isolith was built without the feature `net`"))
}

/// The error with the name of the image in front.
fn about(place: &Place, error: Error) -> Error {
    error.within(format!("cannot use the image `{place}`"))
}
