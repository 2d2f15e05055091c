//! A layer that isolith packed comes in with what other layers have already: only the rest is fetched, by ranges of its
//! blob (docs/format.md, "Packed layers").

use std::io::{self, Write};
use std::path::PathBuf;

use oci_spec::distribution::Reference;
use oci_spec::image::Descriptor;

use super::{Blob, ImageLayer, Place};
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::layer::{Entry, IdShift, Kind, Limits, Ranges, Table, pack};
use crate::net::Watch;
use crate::oci::digest::Hasher;
use crate::oci::receive::rebuild_into;
use crate::oci::registry::Registry;
use crate::store::{Store, read_layer};

/// The annotation with the id of a layer.
const LAYER: &str = "dev.isolith.layer";

/// Gets a layer in parts. None when it is not worth it or cannot be done: then the whole of it has to be fetched, which
/// also finds out what is wrong with it.
///
/// The annotation is only a hint. A layer counts as that of the image when the archive that is packed of it has the
/// digest that the image's configuration names, so what is believed is the same as when the whole archive comes.
pub(super) fn import(
    (registry, store): (&Registry, &Store),
    place: &Place,
    layer: &ImageLayer,
    (limits, ids): (Limits, IdShift),
    watch: &dyn Watch,
) -> Option<LayerId> {
    let (Place::Registry(image), Blob::Named(blob)) = (place, &layer.blob) else { return None };
    let id: LayerId = blob.annotations().as_ref()?.get(LAYER)?.parse().ok()?;
    if !blob.media_type().to_string().ends_with("zstd") {
        return None;
    }
    let parts = Parts { registry, image, blob, watch };
    let table = Table::read(&parts, &id).ok()?;
    let entries = table.manifest().entries();
    let bytes = entries.iter().fold(0u64, |sum, entry| match entry.kind {
        Kind::File { size, .. } => sum.saturating_add(size),
        _ => sum,
    });
    // What unpacking would refuse has to be refused whichever way it comes.
    let foreign = |entry: &Entry| entry.uid > IdShift::MAX_GUEST || entry.gid > IdShift::MAX_GUEST;
    let too_much = bytes > limits.bytes || entries.len() as u64 > limits.entries;
    if bytes == 0 || too_much || entries.iter().any(foreign) {
        return None;
    }
    // Where most of it has to be fetched, one stream is faster than many requests, and hashing the archive is for nothing.
    rebuild_into(store, &table, &parts, ids, bytes / 2).ok()?;
    let same = digest_of(store, &id, layer).ok()? == layer.diff_id.as_ref();
    same.then_some(id)
}

/// The digest of the archive that is packed of a layer, of the kind that the image's configuration has.
fn digest_of(store: &Store, id: &LayerId, layer: &ImageLayer) -> Result<String> {
    let hasher = Hasher::like(&layer.diff_id).ok_or_else(|| Error::recipe("its digest is of no use"))?;
    let Some((manifest, fs)) = read_layer(store.root(), id)? else {
        return Err(Error::machine("a layer vanished from the store"));
    };
    let content = |entry: &Entry| -> Result<PathBuf> { Ok(fs.join(entry.path.as_relative())) };
    let mut out = Hashing(hasher);
    pack(&manifest, &content, &mut out)?;
    Ok(out.0.text())
}

struct Hashing(Hasher);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blob in a registry, by ranges.
struct Parts<'a> {
    registry: &'a Registry,
    image: &'a Reference,
    blob: &'a Descriptor,
    watch: &'a dyn Watch,
}

impl Ranges for Parts<'_> {
    fn size(&self) -> u64 {
        self.blob.size()
    }

    fn read(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let range = at..at + length as u64;
        let there = self.registry.blob_part(self.image, self.blob, range, self.watch, &mut |from| {
            let cut_off = |why| Error::machine(format!("cannot read {}", self.blob.digest())).because(why);
            from.read_exact(&mut bytes).map_err(cut_off)
        })?;
        match there {
            true => Ok(bytes),
            false => Err(Error::machine(format!("{} is not there", self.blob.digest()))),
        }
    }
}
