//! An image into a registry: layers that are not there yet, then the configuration, then the manifest.

use std::collections::HashSet;
use std::io::{Cursor, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use oci_spec::distribution::Reference;
use oci_spec::image::{Digest, MediaType};

use super::{Blob, Image, Json, Packer, Part};
use crate::error::{Error, Result};
use crate::net::{Progress, Watch};
use crate::oci::registry::Registry;

/// Uploads under way at a time.
const UPLOADS: usize = 4;

/// Who is told how far the upload of a layer is, and whether it is still wanted.
pub struct Told<'a> {
    /// Takes the name of the layer, and how far it is.
    pub tell: &'a (dyn Fn(&str, Progress) + Sync),
    /// True when nobody wants it any more.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

struct One<'a> {
    name: &'a str,
    told: &'a Told<'a>,
}

impl Watch for One<'_> {
    fn progress(&self, progress: Progress) {
        (self.told.tell)(self.name, progress);
    }

    fn cancelled(&self) -> bool {
        (self.told.cancelled)()
    }
}

/// Puts an image under the tag of `to`. Blobs that the registry has are not sent again: those of the repository, and those of
/// a base that came out of another repository of it.
pub fn push(registry: &Registry, to: &Reference, image: &Image, packer: &Packer, told: &Told) -> Result<()> {
    let mut there = HashSet::new();
    let layers: Vec<_> = image.layers.iter().filter(|(_, blob)| there.insert(&blob.refers.digest)).collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        while let Some((part, blob)) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(why) = layer(registry, to, (part, blob), packer, told) {
                next.store(layers.len(), Ordering::Relaxed);
                failed.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(why);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..UPLOADS.min(layers.len()) {
            scope.spawn(work);
        }
    });
    if let Some(why) = failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(why);
    }
    let watch = One { name: "config", told };
    let config = digest(&image.config.digest)?;
    if !registry.has_blob(to, &config, &watch)? {
        let Json { bytes, .. } = &image.config;
        let mut open = || -> Result<Box<dyn Read>> { Ok(Box::new(Cursor::new(bytes.clone()))) };
        registry.push_blob(to, (&config, bytes.len() as u64), &watch, &mut open)?;
    }
    registry.push_manifest(to, &MediaType::ImageManifest, &image.manifest.bytes, &watch).map(drop)
}

fn layer(
    registry: &Registry,
    to: &Reference,
    (part, blob): (&Part, &Blob),
    packer: &Packer,
    told: &Told,
) -> Result<()> {
    let watch = One { name: &part.name, told };
    let (digest, size) = (digest(&blob.refers.digest)?, blob.refers.size);
    if registry.has_blob(to, &digest, &watch)? {
        return Ok(());
    }
    // The registry that a base came out of has its layers, in another repository.
    if let Some(from) = part.original.as_ref().and_then(|original| original.repository(to.registry()))
        && registry.mount_blob(to, &digest, from, &watch)?
    {
        return Ok(());
    }
    let began = std::time::Instant::now();
    let mut open = || -> Result<Box<dyn Read>> { Ok(Box::new(packer.open(part, blob)?)) };
    registry.push_blob(to, (&digest, size), &watch, &mut open)?;
    let rate = size.saturating_mul(1000) / began.elapsed().as_millis().max(1) as u64;
    watch.progress(Progress { url: format!("oci://{to}"), bytes: size, total: Some(size), rate, done: true });
    Ok(())
}

fn digest(text: &str) -> Result<Digest> {
    text.parse().map_err(|_| Error::machine(format!("`{text}` is not a digest")))
}
