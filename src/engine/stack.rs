//! From the nodes of a stack to the layers that are mounted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::plan::{NodeId, Plan, Shared, Stack, Work};
use super::state::Knowledge;
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::layer::{IdShift, Manifest, Owners, Part, Source, View, deb, flatten, merge, place};
use crate::path::GuestPath;
use crate::store::Store;

/// What overlayfs takes at most (measured: 500 work, 501 are refused), less one for the skeleton.
const MOST_LAYERS: usize = 499;
/// How many of the lowest layers are squashed at a time. A multiple, so that the next steps find it done.
const SQUASH: usize = 250;

/// Resolves stacks. With `ids`, layers that have to be made on the way (the fix-up of a merge) are stored.
pub struct Resolver<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What is known of its nodes.
    pub knowledge: &'a Knowledge,
    /// Where manifests are.
    pub store: &'a Store,
    /// Set when the caller may write layers.
    pub ids: Option<IdShift>,
}

impl Resolver<'_> {
    /// The layers of a stack, lowest first: no empty ones, no layer twice, merged where branches meet.
    ///
    /// # Errors
    /// Branches that wrote different things to one path (class `Recipe`).
    pub fn layers(&self, stack: &Stack) -> Result<Vec<LayerId>> {
        let mut layers = match &stack.below {
            Some(below) => self.layers(below)?,
            None => Vec::new(),
        };
        layers.extend(stack.inputs.iter().chain(&stack.steps).map(|node| self.knowledge.layer(*node)));
        if !self.is_chain(&stack.steps) {
            layers.push(self.merged(&stack.steps)?);
        }
        Ok(without_repeats(layers))
    }

    /// The merged look of a list of layers.
    pub fn view(&self, layers: &[LayerId]) -> Result<View> {
        // An input that nothing has had to see yet is not in the store; its manifest is in the plan.
        let inputs: HashMap<LayerId, &Arc<Manifest>> = self
            .plan
            .nodes
            .iter()
            .filter_map(|node| match &node.work {
                Work::Input { id, manifest, .. } => Some((*id, manifest)),
                _ => None,
            })
            .collect();
        view(self.store, layers, |layer| {
            inputs.get(layer).map(|manifest| Arc::clone(manifest)).or_else(|| self.knowledge.manifest(layer))
        })
    }

    fn is_chain(&self, steps: &[NodeId]) -> bool {
        is_chain(self.plan, steps)
    }

    fn after(&self, node: NodeId) -> &[NodeId] {
        self.plan.step(node).map_or(&[], |step| &step.after)
    }

    /// The fix-up layer that makes the join of unordered steps right; often the empty layer.
    fn merged(&self, steps: &[NodeId]) -> Result<LayerId> {
        let mut manifests = Vec::new();
        let mut views = Vec::new();
        for node in steps {
            manifests.push(self.manifest(&self.knowledge.layer(*node))?);
            let below = self.plan.step(*node).map(|s| self.layers(&s.stack)).transpose()?.unwrap_or_default();
            views.push(self.view(&below)?);
        }
        let after: Vec<Vec<usize>> = steps
            .iter()
            .map(|node| {
                let before = self.after(*node);
                (0..steps.len()).filter(|at| before.contains(&steps[*at])).collect()
            })
            .collect();
        let parts: Vec<Part> = (0..steps.len())
            .map(|at| Part {
                name: &self.plan.nodes[steps[at]].name,
                layer: &manifests[at],
                below: &views[at],
                after: &after[at],
            })
            .collect();
        let fix_up = merge(&parts).map_err(|conflict| {
            Error::recipe(format!(
                "steps `{}` and `{}` both changed `{}`, and neither comes after the other",
                conflict.first, conflict.second, conflict.path
            ))
            .hint("put one `after` the other, or let only one of them write there")
        })?;
        self.keep(&fix_up)
    }

    /// The layer that makes the directories of stacked packages right; often the empty layer.
    pub fn directories(&self, shared: &Shared) -> Result<LayerId> {
        let below = self.layers(&shared.below)?;
        let installed = self.knowledge.layer(shared.installed);
        let installed: Vec<usize> = below.iter().position(|layer| *layer == installed).into_iter().collect();
        let view = self.view(&below)?;
        let manifests = shared.packages.iter().map(|(_, node)| self.manifest(&self.knowledge.layer(*node)));
        let manifests = manifests.collect::<Result<Vec<_>>>()?;
        let packages = shared.packages.iter().zip(&manifests);
        let packages: Vec<deb::Package> =
            packages.map(|((name, _), manifest)| deb::Package { name, manifest }).collect();
        self.keep(&deb::directories(&view, &installed, &packages)?)
    }

    /// Stores a layer of directories, if the caller may write.
    fn keep(&self, directories: &Manifest) -> Result<LayerId> {
        let id = directories.id();
        if let Some(ids) = self.ids
            && !self.store.ready(&id, ids)?
        {
            let scratch = self.store.scratch()?;
            let tree = scratch.tree()?;
            place(directories, &tree, Owners::Guest(ids), &|entry| {
                Err(Error::machine(format!("a layer of directories has a file: `{}`", entry.path)))
            })?;
            self.store.add_layer(&tree, directories)?;
        }
        Ok(id)
    }

    fn manifest(&self, layer: &LayerId) -> Result<Arc<Manifest>> {
        match self.knowledge.manifest(layer) {
            Some(manifest) => Ok(manifest),
            None => manifest(self.store, layer),
        }
    }

    /// The nodes whose manifests are read to resolve a stack: where branches join, the steps and all that they stand
    /// on.
    pub fn looked_at(plan: &Plan, stack: &Stack) -> Vec<NodeId> {
        let mut nodes =
            stack.below.as_ref().map(|below| Resolver::looked_at(plan, below)).unwrap_or_default();
        if !is_chain(plan, &stack.steps) {
            for node in &stack.steps {
                nodes.push(*node);
                if let Some(step) = plan.step(*node) {
                    nodes.extend(step.stack.nodes());
                    nodes.extend(Resolver::looked_at(plan, &step.stack));
                }
            }
        }
        nodes
    }
}

fn is_chain(plan: &Plan, steps: &[NodeId]) -> bool {
    let comes_after = |pair: &[NodeId]| plan.step(pair[1]).is_some_and(|step| step.after.contains(&pair[0]));
    steps.windows(2).all(comes_after)
}

/// The merged look of a list of layers, with manifests from `other` where the store has none.
pub fn view(
    store: &Store,
    layers: &[LayerId],
    other: impl Fn(&LayerId) -> Option<Arc<Manifest>>,
) -> Result<View> {
    let manifests = layers.iter().map(|layer| match other(layer) {
        Some(manifest) => Ok(manifest),
        None => manifest(store, layer),
    });
    Ok(View::new(manifests.collect::<Result<_>>()?))
}

/// The manifest of a layer that should be in the store.
pub fn manifest(store: &Store, layer: &LayerId) -> Result<Arc<Manifest>> {
    store.manifest(layer)?.ok_or_else(|| {
        Error::machine(format!("layer {layer:#} has gone from the store"))
            .hint("build again: what is lost is made anew")
    })
}

/// Drops empty layers, and all but the topmost of those that stand more than once: what lies between two
/// equal layers is overlaid by the upper one just the same.
fn without_repeats(layers: Vec<LayerId>) -> Vec<LayerId> {
    let mut seen = HashSet::from([Manifest::empty_id()]);
    let mut kept: Vec<_> = layers.into_iter().rev().filter(|layer| seen.insert(*layer)).collect();
    kept.reverse();
    kept
}

/// The layers to mount for a stack: itself, or with its lowest layers squashed into one when there are more
/// than overlayfs takes.
pub fn mountable(store: &Store, layers: Vec<LayerId>, ids: IdShift) -> Result<Vec<LayerId>> {
    if layers.len() <= MOST_LAYERS {
        return Ok(layers);
    }
    let count = (layers.len() - MOST_LAYERS + 1).div_ceil(SQUASH) * SQUASH;
    let (low, high) = layers.split_at(count);
    let key = blake3::hash(low.iter().flat_map(|layer| *layer.as_bytes()).collect::<Vec<_>>().as_slice());
    let key = key.to_hex().to_string();
    let mut squashed: Option<LayerId> = store.get_note("squash", &key);
    if let Some(layer) = squashed
        && !store.ready(&layer, ids)?
    {
        squashed = None;
    }
    let squashed = match squashed {
        Some(layer) => layer,
        None => {
            let layer = copy_of(store, low, &GuestPath::root(), 0, ids)?;
            store.put_note("squash", &key, &layer)?;
            layer
        }
    };
    Ok(without_repeats([&[squashed], high].concat()))
}

/// A new layer with the visible tree of a stack below `from`.
pub fn copy_of(
    store: &Store,
    layers: &[LayerId],
    from: &GuestPath,
    epoch: i64,
    ids: IdShift,
) -> Result<LayerId> {
    let view = view(store, layers, |_| None)?;
    let (manifest, sources) = flatten(&view, from, epoch)?;
    let id = manifest.id();
    if store.ready(&id, ids)? {
        return Ok(id);
    }
    let scratch = store.scratch()?;
    let tree = scratch.tree()?;
    place(&manifest, &tree, Owners::Guest(ids), &|entry| {
        let Source { layer, path } = sources
            .get(&entry.path)
            .ok_or_else(|| Error::machine(format!("nothing is known of the bytes of `{}`", entry.path)))?;
        Ok(store.layer_fs(&layers[*layer]).join(path.as_relative()))
    })?;
    store.add_layer(&tree, &manifest)
}
