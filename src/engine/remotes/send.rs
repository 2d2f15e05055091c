//! A layer of the store on its way to a remote, in travelling form.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Sharing;
use super::call::{Line, Moved};
use crate::digest::LayerId;
use crate::engine::plan::NodeId;
use crate::error::{Error, Result};
use crate::layer::{Compression, Manifest};
use crate::oci::image::{Packer, Part};
use crate::remote::Blob;

impl Sharing<'_> {
    /// Makes sure that a layer is there in travelling form; `there` is what is known of that. None when it cannot be
    /// sent.
    pub(super) fn send(
        &self,
        line: &Line,
        node: NodeId,
        layer: &LayerId,
        there: Option<bool>,
    ) -> Result<Option<Option<Blob>>> {
        if *layer == Manifest::empty_id() {
            return Ok(Some(None));
        }
        let Some(part) = self.part(node, layer)? else { return Ok(None) };
        let wanted = || !self.cancel.load(Ordering::Relaxed) && line.is_on();
        let packer = self.packer(&wanted);
        // One that was packed before may be there; then it is not packed again.
        if let Some(packed) = packer.known(&part) {
            let blob = as_blob(&packed)?;
            let asked = vec![blob.clone()];
            let there = there.or_else(|| {
                self.ask(line, move |remote, _| remote.has_blobs(&asked)).map(|has| has == [true])
            });
            match there {
                None => return Ok(None),
                Some(true) => return Ok(Some(Some(blob))),
                Some(false) => {}
            }
        }
        let (packed, file) = match packer.lend(&part) {
            Ok(lent) => lent,
            // It was given up because nobody takes it any more, which has been said.
            Err(_) if !wanted() => return Ok(None),
            Err(why) => return Err(why),
        };
        let (blob, sent) = (as_blob(&packed)?, as_blob(&packed)?);
        let gone = self.ask(line, move |remote, moved| {
            let mut asked = false;
            remote.put_blob(&sent, &mut || {
                asked = true;
                let mut file = file
                    .try_clone()
                    .map_err(|why| Error::machine("cannot read a packed layer").because(why))?;
                file.rewind().map_err(|why| Error::machine("cannot read a packed layer").because(why))?;
                Ok(Box::new(Counted { file, moved: moved.clone() }))
            })?;
            Ok(asked)
        });
        let Some(sent) = gone else { return Ok(None) };
        if sent {
            line.tally.up(blob.size);
            line.tally.layer_up();
        }
        Ok(Some(Some(blob)))
    }

    /// What a layer is in travelling form, if it was packed before.
    pub(super) fn packed_before(&self, node: NodeId, layer: &LayerId) -> Option<Blob> {
        let part = self.part(node, layer).ok().flatten()?;
        self.packer(&|| true).known(&part).and_then(|packed| as_blob(&packed).ok())
    }

    /// A layer of the store as it travels; none when it is not there.
    fn part(&self, node: NodeId, layer: &LayerId) -> Result<Option<Part>> {
        let Some(manifest) = self.store.manifest(layer)? else { return Ok(None) };
        let fs = self.store.layer_fs(layer);
        Ok(Some(Part {
            manifest,
            content: Arc::new(move |entry| Ok(fs.join(entry.path.as_relative()))),
            name: self.plan.nodes[node].name.clone(),
            history: Default::default(),
            annotations: BTreeMap::new(),
            // What travels is isolith's own form, whatever it came in as.
            original: None,
        }))
    }

    fn packer<'s>(&'s self, wanted: &'s (dyn Fn() -> bool + Sync)) -> Packer<'s> {
        Packer {
            store: self.store,
            compression: Compression::Zstd,
            original: &|_, _| Err(Error::machine("a layer that travels is packed here")),
            tell: &|_, _, _| (),
            wanted,
        }
    }
}

fn as_blob(packed: &crate::layer::Packed) -> Result<Blob> {
    let digest = packed.digest.parse();
    let digest = digest.map_err(|_| Error::machine("the digest of a packed layer is none"))?;
    Ok(Blob { digest, size: packed.size })
}

/// Counts what is read.
struct Counted {
    file: File,
    moved: Moved,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.moved.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
