//! Whether the other file system has room for a round.

use std::path::Path;

use super::Reference;
use super::report::Choice;
use super::variation::{Machine, Variation, room};
use crate::digest::LayerId;
use crate::engine::plan::{Plan, Work};
use crate::engine::state::look_up;
use crate::error::Result;
use crate::store::{Store, read_layer};

/// Bytes beside the layers.
const MORE: u64 = 64 << 20;

/// Leaves the variation of the file system out when the other one has no room for a store with all layers, and as much
/// again for what is there while steps run.
pub fn check(
    store: &Store,
    planned: &Plan,
    reference: &Reference,
    machine: &Machine,
    choices: &mut [Choice],
) -> Result<()> {
    let Ok(place) = &machine.other_place else { return Ok(()) };
    let root = reference.store.as_deref().unwrap_or(store.root());
    let mut size = 0;
    let mut add = |layer: &LayerId, root: &Path| -> Result<()> {
        size += read_layer(root, layer)?.map_or(0, |(manifest, _)| manifest.content_size());
        Ok(())
    };
    for (_, layer) in &reference.steps {
        add(layer, root)?;
    }
    let mut inputs = 0;
    for (at, node) in planned.nodes.iter().enumerate() {
        match &node.work {
            Work::Input { manifest, .. } => inputs += manifest.content_size(),
            // Compressed or not, if nothing better is known.
            Work::Tar { path, .. } => match look_up(store, planned, at)? {
                Some(known) => add(&known.layer, store.root())?,
                None => inputs += 3 * std::fs::metadata(path).map_or(0, |meta| meta.len()),
            },
            Work::Kept { .. } | Work::Fetch(_) | Work::ImageLayer(_) => {
                if let Some(known) = look_up(store, planned, at)? {
                    add(&known.layer, store.root())?;
                }
            }
            Work::ImageTop { .. } | Work::Directories(_) | Work::Step(_) | Work::Output { .. } => {}
        }
    }
    let room = room(place);
    if room < 2 * (size + inputs) + MORE {
        for choice in choices.iter_mut().filter(|c| c.applied && c.name == Variation::FileSystem) {
            let why = format!("`{}` has {} MiB of room, which is too little", place.display(), room >> 20);
            (choice.applied, choice.why_not) = (false, Some(why));
        }
    }
    Ok(())
}
