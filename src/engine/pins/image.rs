//! What tags of registries are pinned to.

use super::Event;
use super::{LockChange, Pinning, Work};
use crate::error::Result;
use crate::oci::source::Place;
use crate::oci::{Digest, Reference};
use crate::recipe::ImageBase;

/// The notes on what tags stood for.
const TAGS: &str = "tag";

impl Work<'_> {
    pub(super) fn image(&mut self, base: &ImageBase) -> Result<Option<Digest>> {
        let Some(reference) = tag_of(base) else { return Ok(None) };
        let found = self.lock()?.image(&["base"], &base.written);
        if let Some(digest) = self.locked(&["base"], "the base", found) {
            return Ok(Some(digest));
        }
        if self.pinner.pinning == Pinning::Required {
            return Ok(None);
        }
        let digest = self.resolved(reference)?;
        self.lock()?.set_image(&["base"], &base.written, &digest);
        self.changes.push(LockChange { place: "base".to_string(), pin: Some(digest.to_string()) });
        Ok(Some(digest))
    }

    /// What a tag stands for now; offline, and where no lock file would take it for good, what it stood for when it was
    /// last asked for.
    fn resolved(&self, reference: &Reference) -> Result<Digest> {
        let (store, name) = (self.pinner.store, reference.to_string());
        if self.pinner.access.offline
            && self.pinner.locks.is_some()
            && let Some(known) = store.get_note::<String>(TAGS, &name).and_then(|known| known.parse().ok())
        {
            return Ok(known);
        }
        let digest = self.pinner.images.resolve(reference, &self.pinner.watch("the base"))?;
        store.put_note(TAGS, &name, &digest.to_string())?;
        self.pinner.observer.event(Event::Resolved { image: name, digest: digest.to_string() });
        Ok(digest)
    }
}

/// The name in a registry that a tag has to be looked up for; none where the recipe pins the image.
pub(super) fn tag_of(base: &ImageBase) -> Option<&Reference> {
    match &base.place {
        Place::Registry(reference) => Some(reference).filter(|reference| reference.digest().is_none()),
        _ => None,
    }
}
