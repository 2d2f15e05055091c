//! An image of a container as nodes of a plan (docs/design/oci.md): a layer each, and one on top that makes right what
//! their archives leave open.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::plan::{NodeId, Stack, Work};
use super::planner::Planner;
use super::stack;
use super::workshop::Workshop;
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::key::Definition;
use crate::layer::{Owners, place, settle};
use crate::oci::image::config::RunConfig;
use crate::oci::source::{FromImage, Image, Place, import};
use crate::oci::{Digest, Platform};
use crate::path::GuestPath;
use crate::recipe::ImageBase;

/// The version of how a fix-up is found out; part of its key.
const FORM: u32 = 1;
/// The notes on images in registries.
const IMAGES: &str = "image";
/// The notes on layers: which directories their archives do not have.
const IMPLIED: &str = "implied";

/// Nodes, and what each is called.
type Named = Vec<(String, NodeId)>;

/// What is noted of an imported layer. Paths need not be text.
type Implied = (LayerId, Vec<Vec<u8>>);

impl Planner<'_> {
    /// The stack of an image, what its nodes are called, and what runs in it. `digest` is what its tag is pinned to.
    pub(super) fn image(
        &mut self,
        base: &ImageBase,
        digest: Option<&Digest>,
    ) -> Result<(Arc<Stack>, Named, RunConfig)> {
        let place = match (&base.place, digest) {
            (Place::Registry(reference), Some(digest)) => {
                Place::Registry(reference.clone_with_digest(digest.to_string()))
            }
            (place, _) => place.clone(),
        };
        let image = self.layers_of(&place, base.platform.as_ref())?;
        let count = image.layers.len();
        let mut named = Vec::new();
        let mut nodes = Vec::new();
        for (at, layer) in image.layers.iter().enumerate() {
            let what = format!("layer {} of {count} of `{}`", at + 1, base.written);
            let definition = Definition::ImageLayer { diff_id: layer.diff_id.to_string() };
            let from = FromImage { what, place: place.clone(), layer: layer.clone() };
            let name = format!("base layer {}", at + 1);
            let node = self.shared(name.clone(), definition, Work::ImageLayer(Arc::new(from)));
            named.push((name, node));
            nodes.push(node);
        }
        // One layer has nothing below it that could say otherwise.
        if count > 1 {
            let layers = image.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
            let definition = Definition::ImageTop { layers, form: FORM };
            let name = "base directories".to_string();
            let top = self.shared(name.clone(), definition, Work::ImageTop { layers: nodes.clone() });
            named.push((name, top));
            nodes.push(top);
        }
        Ok((Arc::new(Stack { below: None, inputs: nodes, steps: Vec::new() }), named, image.run))
    }

    /// The layers of an image: noted when it was looked at before, if its name says which bytes it has.
    fn layers_of(&self, place: &Place, platform: Option<&Platform>) -> Result<Image> {
        let machine = Platform::of_machine();
        let key = match place {
            Place::Registry(reference) => {
                let digest = reference.digest().unwrap_or_default();
                Some(format!("{digest} {}", platform.unwrap_or(&machine)))
            }
            _ => None,
        };
        if let Some(known) = key.as_ref().and_then(|key| self.pinner.store.get_note(IMAGES, key)) {
            return Ok(known);
        }
        let what = format!("the base `{place}`");
        let image = self.pinner.images.image(place, platform, &self.pinner.watch(&what))?;
        if let Some(key) = key {
            self.pinner.store.put_note(IMAGES, &key, &image)?;
        }
        Ok(image)
    }
}

impl Workshop<'_> {
    /// Imports a layer of an image.
    pub(super) fn image_layer(&self, from: &FromImage) -> Result<LayerId> {
        let FromImage { what, place, layer } = from;
        let watch = self.pinner.watch(what);
        let to = (self.unpack, self.ids);
        let (id, implied) = import((self.pinner.images, self.store), place, layer, to, &watch)
            .map_err(|error| error.within(format!("cannot get {what}")))?;
        let note: Implied = (id, implied.iter().map(|path| path.as_bytes().to_vec()).collect());
        self.store.put_note(IMPLIED, layer.diff_id.as_ref(), &note)?;
        Ok(id)
    }

    /// Makes the layer on top of an image.
    pub(super) fn image_top(&self, layers: &[NodeId]) -> Result<LayerId> {
        let mut parts = Vec::new();
        for node in layers {
            let id = self.knowledge.layer(*node);
            let Work::ImageLayer(from) = &self.plan.nodes[*node].work else {
                return Err(Error::machine("a layer of an image is none"));
            };
            let noted = || self.store.get_note::<Implied>(IMPLIED, from.layer.diff_id.as_ref());
            let mut note = noted().filter(|(noted, _)| *noted == id);
            if note.is_none() {
                // Lost; the archive knows.
                self.image_layer(from)?;
                note = noted().filter(|(noted, _)| *noted == id);
            }
            let (_, implied) =
                note.ok_or_else(|| Error::machine(format!("{} is another one now", from.what)))?;
            let implied: Option<BTreeSet<GuestPath>> =
                implied.iter().map(|path| GuestPath::from_relative(path).ok()).collect();
            parts.push((stack::manifest(self.store, &id)?, implied.unwrap_or_default()));
        }
        let top = settle(&parts)?;
        let id = top.id();
        if self.store.ready(&id, self.ids)? {
            return Ok(id);
        }
        let scratch = self.store.scratch()?;
        let tree = scratch.tree()?;
        place(&top, &tree, Owners::Guest(self.ids), &|entry| {
            Err(Error::machine(format!("the top of an image has a file: `{}`", entry.path)))
        })?;
        self.store.add_layer(&tree, &top)
    }
}
