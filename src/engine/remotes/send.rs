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
    /// Makes sure that a layer is there in travelling form. None when it cannot be sent.
    pub(super) fn send(&self, line: &Line, node: NodeId, layer: &LayerId) -> Result<Option<Option<Blob>>> {
        if *layer == Manifest::empty_id() {
            return Ok(Some(None));
        }
        let Some(manifest) = self.store.manifest(layer)? else { return Ok(None) };
        let fs = self.store.layer_fs(layer);
        let part = Part {
            manifest,
            content: Arc::new(move |entry| Ok(fs.join(entry.path.as_relative()))),
            name: self.plan.nodes[node].name.clone(),
            history: Default::default(),
            annotations: BTreeMap::new(),
            // What travels is isolith's own form, whatever it came in as.
            original: None,
        };
        let wanted = || !self.cancel.load(Ordering::Relaxed) && line.is_on();
        let packer = Packer {
            store: self.store,
            compression: Compression::Zstd,
            original: &|_, _| Err(Error::machine("a layer that travels is packed here")),
            tell: &|_, _, _| (),
            wanted: &wanted,
        };
        let as_blob = |packed: &crate::layer::Packed| {
            let digest = packed.digest.parse();
            let digest = digest.map_err(|_| Error::machine("the digest of a packed layer is none"))?;
            Ok::<_, Error>(Blob { digest, size: packed.size })
        };
        // One that was packed before may be there; then it is not packed again.
        if let Some(packed) = packer.known(&part) {
            let blob = as_blob(&packed)?;
            let asked = vec![blob.clone()];
            match self.ask(line, move |remote, _| remote.has_blobs(&asked)).as_deref() {
                None => return Ok(None),
                Some([true]) => return Ok(Some(Some(blob))),
                Some(_) => {}
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
            let before = moved.load(Ordering::Relaxed);
            remote.put_blob(&sent, &mut || {
                let mut file = file
                    .try_clone()
                    .map_err(|why| Error::machine("cannot read a packed layer").because(why))?;
                file.rewind().map_err(|why| Error::machine("cannot read a packed layer").because(why))?;
                Ok(Box::new(Counted { file, moved: moved.clone() }))
            })?;
            Ok(moved.load(Ordering::Relaxed) > before || sent.size == 0)
        });
        match gone {
            None => Ok(None),
            Some(sent) => {
                if sent {
                    line.tally.up(blob.size);
                    line.tally.layer_up();
                }
                Ok(Some(Some(blob)))
            }
        }
    }
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
