//! What has to be known, what of it is, and what has to be made.

use super::CachePolicy;
use super::plan::{NodeId, Plan};
use super::state::{Knowledge, look_up};
use super::worker::may_use_cache;
use crate::error::Result;
use crate::layer::IdShift;
use crate::store::Store;

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

/// Of the nodes that were found, those that something missing is built on are looked at closely: a layer
/// that is lost or damaged is a miss, and so may be what is below it. So are the nodes of `there`, which have to be
/// in the store in the end. Gives the nodes to make.
pub fn with_lost(
    store: &Store,
    plan: &Plan,
    policy: &CachePolicy,
    mut missing: Vec<NodeId>,
    there: &[NodeId],
    knowledge: &mut Knowledge,
    ids: IdShift,
) -> Result<Vec<NodeId>> {
    loop {
        let mut lost = Vec::new();
        let needs = missing.iter().flat_map(|node| plan.needs(*node)).chain(there.iter().copied());
        for need in needs {
            if is_input(plan, need) {
                continue; // Inputs are copied in when they are needed.
            }
            if let Some(known) = knowledge.get(need)
                && !knowledge.is_ready(store, &known.layer.clone(), ids)?
            {
                lost.push(need);
            }
        }
        lost.sort_unstable();
        lost.dedup();
        if lost.is_empty() {
            return Ok(missing);
        }
        for node in &lost {
            knowledge.forget(*node);
        }
        let goals: Vec<NodeId> = missing.iter().copied().chain(lost.iter().copied()).collect();
        missing = self::missing(store, plan, policy, &goals, knowledge)?;
    }
}

fn is_input(plan: &Plan, node: NodeId) -> bool {
    matches!(plan.nodes[node].work, super::plan::Work::Input { .. })
}
