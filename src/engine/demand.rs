//! What has to be known, what of it is, and what has to be made.

use std::collections::BTreeSet;

use super::plan::{NodeId, Plan, Work};
use super::remotes::Sharing;
use super::stack::Resolver;
use super::state::{Knowledge, look_up};
use super::worker::may_use_cache;
use super::{CachePolicy, Wanted};
use crate::digest::LayerId;
use crate::error::Result;
use crate::layer::IdShift;
use crate::store::{Presence, Store};

/// The nodes whose layer has to be known in the end: all that the finished stack is made of, every step and
/// every output; or, with `until`, the one step and its stack.
pub fn goals(plan: &Plan, until: Option<NodeId>) -> Vec<NodeId> {
    let mut goals = match until {
        Some(step) => {
            let mut goals = plan.needs(step);
            goals.push(step);
            goals
        }
        None => {
            let root = plan.root();
            let mut goals = root.finished.nodes();
            goals.extend(&root.steps);
            goals.extend(root.outputs.values());
            goals
        }
    };
    goals.sort_unstable();
    goals.dedup();
    goals
}

/// The nodes whose layers have to be in the store in the end.
pub fn wanted(plan: &Plan, wanted: &Wanted) -> Vec<NodeId> {
    let root = plan.root();
    match wanted {
        Wanted::Nothing => Vec::new(),
        Wanted::Outputs if !root.outputs.is_empty() => {
            let image = root.recipe.image.output.as_ref();
            let taken = |name: &String| !root.outputs.contains_key("default") || name == "default";
            let outputs = root.outputs.iter().filter(|(name, _)| taken(name) || Some(*name) == image);
            outputs.map(|(_, node)| *node).collect()
        }
        Wanted::Outputs | Wanted::Stack => root.finished.nodes(),
        Wanted::Output(name) => root.outputs.get(name).into_iter().copied().collect(),
    }
}

/// Looks the goals up, and what is below those that are not found. Gives the nodes that have to be made,
/// needed ones first.
pub fn missing(
    store: &Store,
    plan: &Plan,
    policy: &CachePolicy,
    goals: &[NodeId],
    knowledge: &Knowledge,
) -> Result<Vec<NodeId>> {
    let mut wanted = vec![false; plan.nodes.len()];
    for goal in goals {
        wanted[*goal] = true;
    }
    let mut missing = Vec::new();
    // What a node needs comes before it, so one pass from the end meets every need after those who have it.
    for node in (0..plan.nodes.len()).rev() {
        if !wanted[node] || knowledge.get(node).is_some() {
            continue;
        }
        if may_use_cache(plan, policy, node)
            && let Some(known) = look_up(store, plan, node)?
        {
            knowledge.set(node, known);
            continue;
        }
        missing.push(node);
        for need in plan.needs(node) {
            wanted[need] = true;
        }
    }
    missing.reverse();
    Ok(missing)
}

/// What [`with_lost`] works with.
pub struct Demand<'a> {
    /// The store.
    pub store: &'a Store,
    /// The plan.
    pub plan: &'a Plan,
    /// Which cached results may be used.
    pub policy: &'a CachePolicy,
    /// Who else may have layers.
    pub sharing: &'a Sharing<'a>,
    /// How guest ids lie on disk.
    pub ids: IdShift,
    /// The most content that a layer of somebody else's may have, in bytes.
    pub most: u64,
}

impl Demand<'_> {
    /// Asks remotes for what is missing; what they know is missing no more. `goals` name the plan.
    pub fn find(&self, goals: &[NodeId], missing: Vec<NodeId>, knowledge: &Knowledge) -> Result<Vec<NodeId>> {
        if missing.is_empty() || !self.sharing.reads() {
            return Ok(missing);
        }
        let may: Vec<NodeId> =
            missing.iter().copied().filter(|node| may_use_cache(self.plan, self.policy, *node)).collect();
        for (node, known) in self.sharing.find(goals, &may) {
            knowledge.set(node, known);
        }
        self::missing(self.store, self.plan, self.policy, goals, knowledge)
    }

    /// Of the nodes that were found, those that something missing is built on are looked at closely: a layer
    /// that is lost or damaged is a miss, and so may be what is below it. So are the nodes of `there`, which have to be
    /// in the store in the end; what a remote has of them is brought here. Gives the nodes to make.
    pub fn with_lost(
        &self,
        mut missing: Vec<NodeId>,
        there: &[NodeId],
        knowledge: &mut Knowledge,
    ) -> Result<Vec<NodeId>> {
        loop {
            let needs: Vec<NodeId> =
                missing.iter().flat_map(|node| self.plan.needs(*node)).chain(there.iter().copied()).collect();
            let mut lost = self.bring(&needs, knowledge)?;
            let stacks = missing.iter().filter_map(|node| self.plan.step(*node)).map(|step| &step.stack);
            let seen = stacks.flat_map(|stack| Resolver::looked_at(self.plan, stack)).collect::<Vec<_>>();
            lost.extend(self.look_at(&seen, knowledge));
            if lost.is_empty() {
                return Ok(missing);
            }
            missing = self.anew(missing, lost, knowledge)?;
        }
    }

    /// Sees to it that the finished stack can be resolved, also where layers of it are not here. Gives what has to be
    /// made first, if that cannot be.
    pub fn resolvable(&self, missing: Vec<NodeId>, knowledge: &mut Knowledge) -> Result<Vec<NodeId>> {
        let seen = Resolver::looked_at(self.plan, &self.plan.root().finished);
        let lost = self.look_at(&seen, knowledge);
        if lost.is_empty() { Ok(missing) } else { self.anew(missing, lost, knowledge) }
    }

    /// Forgets what was known of `lost`, and finds out what has to be made now.
    fn anew(
        &self,
        missing: Vec<NodeId>,
        mut lost: Vec<NodeId>,
        knowledge: &mut Knowledge,
    ) -> Result<Vec<NodeId>> {
        lost.sort_unstable();
        lost.dedup();
        for node in &lost {
            knowledge.forget(*node);
        }
        let goals: Vec<NodeId> = missing.into_iter().chain(lost).collect();
        self::missing(self.store, self.plan, self.policy, &goals, knowledge)
    }

    /// Sees to it that the layers of `nodes` are in the store. Gives the nodes whose layers are not to be had.
    fn bring(&self, nodes: &[NodeId], knowledge: &Knowledge) -> Result<Vec<NodeId>> {
        let (mut lost, mut wanted) = (Vec::new(), Vec::new());
        for node in nodes.iter().copied().collect::<BTreeSet<_>>() {
            if is_input(self.plan, node) {
                continue; // Inputs are copied in when they are needed.
            }
            if let Some(known) = knowledge.get(node)
                && !knowledge.is_ready(self.store, &known.layer, self.ids)?
            {
                match self.sharing.has(&known.layer) {
                    true => wanted.push((node, known.layer)),
                    false => lost.push(node),
                }
            }
        }
        let layers: BTreeSet<LayerId> = wanted.iter().map(|(_, layer)| *layer).collect();
        let came = self.sharing.bring(&layers.into_iter().collect::<Vec<_>>(), self.ids, self.most);
        for (node, layer) in wanted {
            match came.contains(&layer) {
                true => self.sharing.keep(node, knowledge)?,
                false => lost.push(node),
            }
        }
        Ok(lost)
    }

    /// Gets the manifests of those layers of `nodes` that are not here. Gives the nodes that there are none of.
    fn look_at(&self, nodes: &[NodeId], knowledge: &Knowledge) -> Vec<NodeId> {
        let away = |node: &NodeId| {
            let layer = knowledge.get(*node)?.layer;
            let here =
                self.store.presence(&layer) != Presence::Missing || knowledge.manifest(&layer).is_some();
            (!here && !is_input(self.plan, *node)).then_some((*node, layer))
        };
        let away: Vec<(NodeId, LayerId)> = nodes.iter().filter_map(away).collect();
        let layers: BTreeSet<LayerId> = away.iter().map(|(_, layer)| *layer).collect();
        let manifests = self.sharing.manifests(&layers.into_iter().collect::<Vec<_>>());
        let lost =
            away.iter().filter(|(_, layer)| !manifests.contains_key(layer)).map(|(node, _)| *node).collect();
        knowledge.add_manifests(manifests);
        lost
    }
}

fn is_input(plan: &Plan, node: NodeId) -> bool {
    matches!(plan.nodes[node].work, Work::Input { .. } | Work::Kept { .. })
}
