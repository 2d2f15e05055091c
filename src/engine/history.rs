//! What recipes last produced: where `explain` looks for an earlier action, and what garbage collection
//! will start from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::plan::Plan;
use super::state::Knowledge;
use crate::digest::LayerId;
use crate::error::Result;
use crate::store::{RootRecord, RootStep, Store};

/// The path of a recipe as it is recorded, which is text.
pub fn name(recipe: &Path) -> PathBuf {
    PathBuf::from(recipe.to_string_lossy().into_owned())
}

/// Records a finished build of the recipe that was asked for, and of those it uses.
pub fn record(
    store: &Store,
    plan: &Plan,
    knowledge: &Knowledge,
    stack: &[LayerId],
    outputs: &BTreeMap<String, LayerId>,
) -> Result<()> {
    let finished = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    for (index, planned) in plan.recipes.iter().enumerate() {
        let is_root = index + 1 == plan.recipes.len();
        let steps: Vec<RootStep> = planned
            .steps
            .iter()
            .zip(&planned.recipe.steps)
            .map(|(node, step)| RootStep {
                name: step.name.clone(),
                action: knowledge.get(*node).and_then(|known| known.action),
                definition: plan.nodes[*node].key,
                layer: knowledge.get(*node).map(|known| known.layer),
            })
            .collect();
        if steps.iter().any(|step| step.layer.is_none()) {
            continue; // A recipe that was not needed to its end has nothing new to say.
        }
        let layer_of = |node: &usize| knowledge.get(*node).map(|known| known.layer).into_iter().collect();
        let mut inputs: BTreeMap<String, Vec<LayerId>> =
            planned.inputs.iter().map(|(name, node)| (name.clone(), layer_of(node))).collect();
        inputs.retain(|_, layers| !layers.is_empty());
        store.push_root(&RootRecord {
            recipe: name(&planned.recipe.path),
            name: planned.recipe.name.clone(),
            args: planned.recipe.args.clone(),
            finished,
            steps,
            inputs,
            stack: if is_root { stack.to_vec() } else { Vec::new() },
            outputs: if is_root { outputs.clone() } else { BTreeMap::new() },
        })?;
    }
    Ok(())
}
