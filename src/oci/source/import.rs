//! A layer of an image becomes a layer of the store, in one pass over its bytes.

use std::io::{self, Read};

use oci_spec::image::Digest;

use super::{ImageLayer, Images, Place, pipe};
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::layer::{IdShift, Limits, Manifest, decompress, unpack_layer};
use crate::net::Watch;
use crate::oci::digest::Checked;
use crate::path::GuestPath;
use crate::store::Store;

/// Gets a layer, checks it, unpacks it into the store. Gives the directories too that the archive does not have itself
/// and that it needs for what it has: those look as in lower layers, if there they are.
///
/// No more than a few pieces of it are in memory, and nothing is on disk but the unpacked tree.
///
/// # Errors
/// Class `Recipe` for bytes that are not those of the digests, or that cannot be a layer.
pub fn import(
    (images, store): (&Images, &Store),
    place: &Place,
    layer: &ImageLayer,
    (limits, ids): (Limits, IdShift),
    watch: &dyn Watch,
) -> Result<(LayerId, Vec<GuestPath>)> {
    #[cfg(feature = "net")]
    if let Some(id) = super::partial::import((&images.registry, store), place, layer, (limits, ids), watch) {
        // All directories have a member in what isolith packs.
        return Ok((id, Vec::new()));
    }
    let scratch = store.scratch()?;
    let tree = scratch.tree()?;
    let unpacked = images.layer(place, &layer.blob, watch, |packed| {
        pipe::ahead(packed, |packed| {
            let mut plain = decompress(&mut *packed)?;
            let unpacked: Result<(Manifest, Vec<GuestPath>)> = pipe::ahead(&mut plain, |plain| {
                let wrong = |why: io::Error| Error::recipe("its digest is of no use").because(why);
                let mut plain = Checked::new(plain, layer.diff_id.clone(), None).map_err(wrong)?;
                let unpacked = unpack_layer(&mut plain, &tree, ids, limits)?;
                rest(&mut plain, &layer.diff_id)?;
                Ok(unpacked)
            });
            drop(plain);
            let unpacked = unpacked?;
            rest(packed, &layer.diff_id)?;
            Ok(unpacked)
        })
    });
    let (manifest, implied) = unpacked.map_err(|error| match watch.cancelled() {
        true => crate::net::interrupted(),
        false => error.within(format!("cannot unpack the layer {}", short(&layer.diff_id))),
    })?;
    Ok((store.add_layer(&tree, &manifest)?, implied))
}

/// Reads to the end, where digests are looked at.
fn rest(from: &mut (impl Read + ?Sized), diff_id: &Digest) -> Result<()> {
    io::copy(from, &mut io::sink()).map(drop).map_err(|why| {
        let error = match why.kind() {
            io::ErrorKind::InvalidData => Error::recipe(format!("the bytes of {} are wrong", short(diff_id))),
            _ => Error::machine(format!("cannot read {}", short(diff_id))),
        };
        error.because(why)
    })
}

/// The start of a digest, for messages.
fn short(digest: &Digest) -> String {
    format!("{}:{}", digest.algorithm(), &digest.digest()[..digest.digest().len().min(12)])
}
