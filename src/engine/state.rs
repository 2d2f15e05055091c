//! What is known of each node of a plan while a build goes on.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};

use super::OutcomeKind;
use super::plan::{NodeId, Plan, Work};
use crate::digest::{ActionKey, LayerId};
use crate::error::Result;
use crate::layer::Manifest;
use crate::store::{Presence, Store};

/// How a node's layer was come by.
#[derive(Debug, Clone)]
pub struct Known {
    /// The layer.
    pub layer: LayerId,
    /// The action that made it, for steps.
    pub action: Option<ActionKey>,
    /// How.
    pub how: OutcomeKind,
    /// From start to committed layer.
    pub wall_ms: u64,
    /// What it would have taken, where something known stands in for it.
    pub saved_ms: u64,
    /// The remote that it is from; none when it was made here.
    pub remote: Option<String>,
}

impl Known {
    /// A layer that was made here just now.
    pub fn made(layer: LayerId, action: Option<ActionKey>, wall_ms: u64) -> Known {
        Known { layer, action, how: OutcomeKind::Executed, wall_ms, saved_ms: 0, remote: None }
    }

    /// A layer that was known before.
    pub fn hit(layer: LayerId, action: Option<ActionKey>, how: OutcomeKind) -> Known {
        Known { layer, action, how, wall_ms: 0, saved_ms: 0, remote: None }
    }
}

/// The layers known so far. Shared by all threads of a build.
pub struct Knowledge {
    known: Vec<OnceLock<Known>>,
    /// Layers that were found present and whole in this build.
    ready: Mutex<HashSet<LayerId>>,
    /// Manifests of layers that are not here.
    manifests: Mutex<HashMap<LayerId, Arc<Manifest>>>,
}

impl Knowledge {
    /// Inputs are known from the start, everything else is not.
    pub fn new(plan: &Plan) -> Self {
        let known = plan.nodes.iter().map(|node| match &node.work {
            Work::Input { id, .. } | Work::Kept { id, .. } => {
                OnceLock::from(Known::hit(*id, None, OutcomeKind::Hit))
            }
            _ => OnceLock::new(),
        });
        Self { known: known.collect(), ready: Mutex::default(), manifests: Mutex::default() }
    }

    /// What is known of a node.
    pub fn get(&self, node: NodeId) -> Option<&Known> {
        self.known[node].get()
    }

    /// The layer of a node that has been come by.
    ///
    /// # Panics
    /// When it has not; the schedule sees to it that it has.
    pub fn layer(&self, node: NodeId) -> LayerId {
        self.known[node].get().expect("the schedule makes what a node needs before the node").layer
    }

    /// Sets what is known of a node, once.
    pub fn set(&self, node: NodeId, known: Known) {
        // A second answer for the same node cannot differ; the first one stays.
        let _ = self.known[node].set(known);
    }

    /// Takes back what was known of a node: its layer turned out to be lost.
    pub fn forget(&mut self, node: NodeId) {
        self.known[node].take();
    }

    /// The manifest of a layer that is not here, if it was asked for.
    pub fn manifest(&self, layer: &LayerId) -> Option<Arc<Manifest>> {
        self.manifests.lock().unwrap_or_else(|e| e.into_inner()).get(layer).cloned()
    }

    /// Keeps manifests of layers that are not here.
    pub fn add_manifests(&self, manifests: HashMap<LayerId, Arc<Manifest>>) {
        self.manifests.lock().unwrap_or_else(|e| e.into_inner()).extend(manifests);
    }

    /// Whether the layer is in the store and whole.
    pub fn is_ready(&self, store: &Store, layer: &LayerId, ids: crate::layer::IdShift) -> Result<bool> {
        let lock = || self.ready.lock().unwrap_or_else(|e| e.into_inner());
        if lock().contains(layer) {
            return Ok(true);
        }
        let ready = store.ready(layer, ids)?;
        if ready {
            lock().insert(*layer);
        }
        Ok(ready)
    }
}

/// Asks the store for a node by its DefinitionKey. A record whose layer is gone is no answer.
pub fn look_up(store: &Store, plan: &Plan, node: NodeId) -> Result<Option<Known>> {
    let Some(record) = store.definition(&plan.nodes[node].key)? else { return Ok(None) };
    let [layer] = record.layers[..] else { return Ok(None) };
    if store.presence(&layer) == Presence::Missing {
        return Ok(None);
    }
    let hit = Known::hit(layer, record.action, OutcomeKind::Hit);
    Ok(Some(Known { saved_ms: record.wall_ms, remote: record.from, ..hit }))
}
