//! Why a step was not found: its action against the nearest earlier one.

use std::collections::BTreeMap;

use super::pins::Pinning;
use super::plan::{NodeId, Plan, Work};
use super::session::Silent;
use super::stack::Resolver;
use super::state::{Knowledge, look_up};
use super::worker::may_use_cache;
use super::{Explanation, Request, Session, Verdict, demand, history};
use crate::digest::{ActionKey, LayerId};
use crate::error::Result;
use crate::key::{ActionDocument, Difference, difference};
use crate::layer::{Kind, Manifest};
use crate::store::{ActionRecord, Presence, RootRecord, Store};

/// How many changed paths of an input are named.
const NAMED_PATHS: usize = 8;

/// Knows what the recipes of a plan produced before.
pub struct Explainer<'a> {
    store: &'a Store,
    plan: &'a Plan,
    knowledge: &'a Knowledge,
    /// By recipe of the plan, newest first.
    earlier: Vec<Vec<RootRecord>>,
}

impl<'a> Explainer<'a> {
    /// Reads the history of every recipe of the plan.
    pub fn new(store: &'a Store, plan: &'a Plan, knowledge: &'a Knowledge) -> Result<Self> {
        let earlier = plan.recipes.iter().map(|planned| store.roots(&history::name(&planned.recipe.path)));
        Ok(Self { store, plan, knowledge, earlier: earlier.collect::<Result<_>>()? })
    }

    /// The nearest earlier action of the same step, and every difference to it.
    pub fn reasons(&self, node: NodeId, action: &ActionDocument) -> (Option<ActionKey>, Vec<String>) {
        let Some(step) = self.plan.step(node) else { return (None, Vec::new()) };
        let key = action.key();
        let mut nearest: Option<(usize, ActionKey, ActionRecord, &RootRecord)> = None;
        for root in &self.earlier[step.recipe] {
            let earlier = root.steps.iter().find(|s| s.name == step.step.name).and_then(|s| s.action);
            let Some(earlier) = earlier else { continue };
            let Ok(Some(record)) = self.store.action(&earlier) else { continue };
            let distance = difference(&record.action, action).len();
            if nearest.as_ref().is_none_or(|(best, ..)| distance < *best) {
                nearest = Some((distance, earlier, record, root));
            }
        }
        if self.store.failed(&key).is_some() {
            return (None, vec!["its last run failed, and what failed is not cached".to_string()]);
        }
        let Some((_, earlier, record, root)) = nearest else {
            return (None, vec!["this step has not been run before".to_string()]);
        };
        if earlier == key {
            return (
                Some(earlier),
                vec!["its inputs are the same; its result is no longer in the store".to_string()],
            );
        }
        let mut reasons = Vec::new();
        for item in difference(&record.action, action) {
            match item {
                Difference::Stack(..) => reasons.extend(self.stack_reasons(node, &record, root, action)),
                other => reasons.push(sentence(other)),
            }
        }
        (Some(earlier), reasons)
    }

    /// Names what in the stack is not what it was: an input and its files, or a step and what that wrote.
    fn stack_reasons(
        &self,
        node: NodeId,
        record: &ActionRecord,
        root: &RootRecord,
        action: &ActionDocument,
    ) -> Vec<String> {
        let mut reasons = Vec::new();
        for need in self.plan.needs(node) {
            let name = &self.plan.nodes[need].name;
            let Some(now) = self.knowledge.get(need).map(|known| known.layer) else { continue };
            let Some(before) = self.before(need, root) else {
                if !record.action.stack.contains(&now.to_hex()) && now != Manifest::empty_id() {
                    reasons.push(format!("{} is new in its stack", self.kind(need, name)));
                }
                continue;
            };
            let used = record.action.stack.contains(&before.to_hex()) || before == Manifest::empty_id();
            if !used {
                reasons.push(format!("{} is new in its stack", self.kind(need, name)));
            } else if before != now {
                let paths = self.changed_paths(need, &before, &now);
                reasons.push(format!("{} changed: {paths}", self.kind(need, name)));
            }
        }
        if reasons.is_empty() {
            let gone = record.action.stack.iter().filter(|id| !action.stack.contains(id)).count();
            let new = action.stack.iter().filter(|id| !record.action.stack.contains(id)).count();
            reasons.push(format!("its stack changed: {gone} layers less, {new} layers more, or their order"));
        }
        reasons
    }

    fn kind(&self, node: NodeId, name: &str) -> String {
        match self.plan.nodes[node].work {
            Work::Step(_) => format!("the layer of step `{name}`"),
            _ => name.to_string(),
        }
    }

    /// The layer a node had in an earlier build.
    fn before(&self, node: NodeId, root: &RootRecord) -> Option<LayerId> {
        if let Some(step) = self.plan.step(node) {
            // A step of another recipe is found in that recipe's own history.
            let records = std::iter::once(root).chain(self.earlier[step.recipe].iter());
            let name = history::name(&self.plan.recipes[step.recipe].recipe.path);
            let mut same = records.filter(|r| r.recipe == name);
            return same.find_map(|r| r.steps.iter().find(|s| s.name == step.step.name)?.layer);
        }
        let planned = self.plan.recipes.iter().find(|planned| planned.inputs.values().any(|n| *n == node))?;
        let name = planned.inputs.iter().find(|(_, n)| **n == node)?.0;
        root.inputs.get(name)?.first().copied()
    }

    fn changed_paths(&self, node: NodeId, before: &LayerId, now: &LayerId) -> String {
        let manifest = |id: &LayerId| self.store.manifest(id).ok().flatten();
        let new = match &self.plan.nodes[node].work {
            Work::Input { manifest, .. } => Some(manifest.clone()),
            _ => manifest(now),
        };
        match (manifest(before), new) {
            (Some(old), Some(new)) => changes(&old, &new),
            _ => format!("{before:#} is now {now:#}"),
        }
    }
}

/// The paths in which two manifests differ, in words.
fn changes(old: &Manifest, new: &Manifest) -> String {
    let by_path = |m: &Manifest| -> BTreeMap<_, _> {
        m.entries().iter().map(|entry| (entry.path.clone(), entry.clone())).collect()
    };
    let (old, new) = (by_path(old), by_path(new));
    let mut all = Vec::new();
    for (path, entry) in &new {
        match old.get(path) {
            None => all.push(format!("{path} was added")),
            Some(before) if before != entry => {
                let content = matches!((&before.kind, &entry.kind), (Kind::File { digest: a, .. }, Kind::File { digest: b, .. }) if a != b);
                all.push(match content {
                    true => format!("{path} has other content"),
                    false => format!("{path} has other attributes"),
                });
            }
            Some(_) => {}
        }
    }
    all.extend(old.keys().filter(|path| !new.contains_key(path)).map(|path| format!("{path} was removed")));
    let more = all.len().saturating_sub(NAMED_PATHS);
    all.truncate(NAMED_PATHS);
    let mut text = all.join(", ");
    if more > 0 {
        text.push_str(&format!(", and {more} more"));
    }
    text
}

fn sentence(item: Difference) -> String {
    match item {
        Difference::Field(name, old, new) => format!("{name} was `{old}`, is `{new}`"),
        Difference::Command(old, new) => match old.iter().zip(&new).find(|(a, b)| a != b) {
            Some((a, b)) => {
                let line = a.lines().zip(b.lines()).find(|(a, b)| a != b);
                let (a, b) = line.unwrap_or((a.as_str(), b.as_str()));
                format!("the command changed: `{}` is now `{}`", clip(a), clip(b))
            }
            None => "the command has more or fewer arguments".to_string(),
        },
        Difference::Env(name, None, Some(new)) => format!("env {name} was not set, is `{}`", clip(&new)),
        Difference::Env(name, Some(old), None) => format!("env {name} was `{}`, is not set", clip(&old)),
        Difference::Env(name, old, new) => {
            let text = |value: Option<String>| clip(&value.unwrap_or_default());
            format!("env {name} was `{}`, is `{}`", text(old), text(new))
        }
        Difference::Host(old, new) if old == new => {
            "the files of this machine that base `host` shows have changed".to_string()
        }
        Difference::Host(old, new) => format!(
            "base `host` was {}, is {}",
            old.unwrap_or_else(|| "not there".into()),
            new.unwrap_or_else(|| "not there".into())
        ),
        Difference::Stack(..) => "its stack changed".to_string(),
        Difference::Mounts(old, new) => format!("mounts were {old}, are {new}"),
    }
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}

impl Session {
    /// Says of each step (or of `request.until` alone) whether it would hit, and why not. Runs nothing.
    pub fn explain(&mut self, request: &Request) -> Result<Vec<Explanation>> {
        let plan = self.plan(request, Pinning::Required, &Silent)?;
        let until = request.until.as_deref().map(|name| plan.find_step(name)).transpose()?;
        let knowledge = Knowledge::new(&plan);
        let goals = demand::goals(&plan, until);
        demand::missing(&self.store, &plan, &request.cache, &goals, &knowledge)?;
        // What nobody has to know may be known all the same: the steps of a dep whose output is.
        for node in 0..plan.nodes.len() {
            if knowledge.get(node).is_none()
                && may_use_cache(&plan, &request.cache, node)
                && let Some(known) = look_up(&self.store, &plan, node)?
            {
                knowledge.set(node, known);
            }
        }
        let explainer = Explainer::new(&self.store, &plan, &knowledge)?;
        let mut out = Vec::new();
        let steps: Vec<NodeId> = match until {
            Some(step) => vec![step],
            None => (0..plan.nodes.len()).filter(|node| plan.step(*node).is_some()).collect(),
        };
        // Steps below the one that was asked for may have to be known by their ActionKey first.
        for node in 0..plan.nodes.len() {
            let Some(step) = plan.step(node) else { continue };
            let explanation = match knowledge.get(node) {
                Some(known) => Explanation {
                    step: plan.nodes[node].name.clone(),
                    verdict: Verdict::Hit,
                    key: known.action,
                    nearest: known.action,
                    reasons: Vec::new(),
                },
                None => {
                    let unknown: Vec<NodeId> =
                        plan.needs(node).into_iter().filter(|need| knowledge.get(*need).is_none()).collect();
                    explain_miss(self.store(), &plan, &knowledge, &explainer, node, step, &unknown)?
                }
            };
            if steps.contains(&node) {
                out.push(explanation);
            }
        }
        Ok(out)
    }
}

fn explain_miss(
    store: &Store,
    plan: &Plan,
    knowledge: &Knowledge,
    explainer: &Explainer,
    node: NodeId,
    step: &super::plan::StepNode,
    unknown: &[NodeId],
) -> Result<Explanation> {
    let name = plan.nodes[node].name.clone();
    if !unknown.is_empty() {
        let below: Vec<_> = unknown.iter().map(|need| format!("`{}`", plan.nodes[*need].name)).collect();
        let mut reasons = vec![format!("it depends on what {} will yield", below.join(", "))];
        // What is known already may differ too.
        let known_part = ActionDocument { stack: Vec::new(), ..step.document.clone() };
        let (nearest, own) = explainer.reasons(node, &known_part);
        if nearest.is_some() {
            reasons.extend(own.into_iter().filter(|reason| !reason.starts_with("its stack changed")));
        }
        return Ok(Explanation { step: name, verdict: Verdict::Unknown, key: None, nearest, reasons });
    }
    let resolver = Resolver { plan, knowledge, store, ids: None };
    let stack = resolver.layers(&step.stack)?.iter().map(LayerId::to_hex).collect();
    let action = ActionDocument { stack, ..step.document.clone() };
    let key = action.key();
    if let Some(record) = store.action(&key)?
        && store.presence(&record.layer) != Presence::Missing
    {
        let known = super::state::Known::hit(record.layer, Some(key), super::OutcomeKind::CutoffHit);
        knowledge.set(node, known);
        let reasons =
            vec!["what it sees is the same as before, although something below ran again".to_string()];
        return Ok(Explanation {
            step: name,
            verdict: Verdict::CutoffHit,
            key: Some(key),
            nearest: Some(key),
            reasons,
        });
    }
    let (nearest, reasons) = explainer.reasons(node, &action);
    Ok(Explanation { step: name, verdict: Verdict::Miss, key: Some(key), nearest, reasons })
}
