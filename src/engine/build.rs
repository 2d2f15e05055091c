//! A whole build: look everything up at once, make what is missing, record what came of it.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::demand::Demand;
use super::explain::Explainer;
use super::plan::{NodeId, Plan, Work};
use super::remotes::Sharing;
use super::schedule::{self, step_report};
use super::stack::Resolver;
use super::state::{Knowledge, Known};
use super::workshop::{Task, Workshop};
use super::{
    Built, Event, Failure, Observer, Remotes, Request, Session, StepReport, demand, history, image, worker,
};
use crate::base::fingerprint;
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::key::ActionDocument;
use crate::recipe::Mount;
use crate::store::{Presence, Store};

impl Session {
    /// Builds a recipe. A failed step is `Ok` with `failure` set; everything else that stops a build is an
    /// error. Once steps were planned, the last event is `Finished`, whatever happens.
    pub fn build(&mut self, request: &Request, observer: &dyn Observer) -> Result<Built> {
        let began = Instant::now();
        let plan = self.plan(request, request.pinning(), observer)?;
        let until = request.until.as_deref().map(|name| plan.find_step(name)).transpose()?;
        if let super::CachePolicy::IgnoreFrom(name) = &request.cache {
            plan.find_step(name)?;
        }
        observer.event(Event::Planned { steps: names(&plan, until) });
        let mut knowledge = Knowledge::new(&plan);
        let (store, remotes, cancel) = (self.store.clone(), self.remotes_for(request), self.cancel.clone());
        let sharing = Sharing::new(&remotes, (&store, &plan), observer, &cancel);
        let result = self.come_by(request, (&plan, &sharing), until, &mut knowledge, observer);
        let steps = reports(&plan, &knowledge);
        let remotes = sharing.reports();
        drop(sharing);
        let finish = |status, stack: &[LayerId]| {
            observer.event(Event::Finished {
                status,
                wall_ms: began.elapsed().as_millis() as u64,
                steps: steps.clone(),
                stack: stack.to_vec(),
                remotes: remotes.clone(),
            });
        };
        let (mut made, mut made_outputs) = Default::default();
        let (stack, outputs, failure) = match result {
            Ok(End::Done(stack, outputs)) => {
                if until.is_none() {
                    (made, made_outputs) = image::made(&plan, &knowledge);
                }
                (stack, outputs, None)
            }
            Ok(End::Failed(failure)) => (Vec::new(), BTreeMap::new(), Some(failure)),
            Err(e) => {
                finish("failed", &[]);
                return Err(e);
            }
        };
        finish(if failure.is_none() { "ok" } else { "failed" }, &stack);
        let wall_ms = began.elapsed().as_millis() as u64;
        let recipe = plan.recipes.into_iter().next_back().map(|planned| planned.recipe);
        let recipe = recipe.ok_or_else(|| crate::Error::machine("a plan without a recipe"))?;
        Ok(Built { recipe, steps, stack, outputs, made, made_outputs, failure, remotes, wall_ms })
    }

    /// The remotes that a request may use: what runs under other conditions than those of the contract is nobody's
    /// result.
    pub(super) fn remotes_for(&self, request: &Request) -> Arc<Remotes> {
        if request.conditions.are_normal() { self.remotes.clone() } else { Arc::default() }
    }

    fn come_by(
        &mut self,
        request: &Request,
        (plan, sharing): (&Plan, &Sharing),
        until: Option<NodeId>,
        knowledge: &mut Knowledge,
        observer: &dyn Observer,
    ) -> Result<End> {
        let goals = demand::goals(plan, until);
        let mut missing = demand::missing(&self.store, plan, &request.cache, &goals, knowledge)?;
        if !missing.is_empty() && sharing.reads() {
            // A remote that hangs leaves a thread behind, and ids are entered by a process of one thread.
            self.prepare()?;
            let demand = self.demand(plan, request, sharing)?;
            missing = demand.find(&goals, missing, knowledge)?;
            if until.is_none() && sharing.has_any() {
                missing = demand.resolvable(missing, knowledge)?;
            }
        }
        for node in 0..plan.nodes.len() {
            if let (Some(_), Some(known)) = (plan.step(node), knowledge.get(node)) {
                observer.event(Event::Step(step_report(&plan.nodes[node].name, known, true)));
            }
        }
        let here: Vec<(NodeId, Known)> = goals
            .iter()
            .filter_map(|node| Some((*node, knowledge.get(*node)?.clone())))
            .filter(|(node, known)| !sharing.has(&known.layer) && sharing.goes(*node, known))
            .collect();
        let offers = || !(here.is_empty() || sharing.is_shared(&goals));
        let shares = sharing.writes() && (!missing.is_empty() || sharing.passes_on() || offers());
        if !missing.is_empty() || sharing.has_any() || shares {
            self.prepare()?;
            let there = if sharing.has_any() { demand::wanted(plan, &request.wanted) } else { Vec::new() };
            let failure = sharing.while_sharing(shares, &goals, || {
                here.iter().for_each(|(node, known)| sharing.offer(*node, known));
                self.make(request, (plan, sharing), missing, &there, knowledge, observer)
            })?;
            if let Some(failure) = failure {
                return Ok(End::Failed(failure));
            }
        } else if self.store.needs_sweep() {
            // A build that was killed at its very end has left everything known, and nobody else to clean up. Where
            // ids cannot be entered, that is no reason to withhold what is known.
            let _ = self.prepare();
        }
        if until.is_some() {
            return Ok(End::Done(Vec::new(), BTreeMap::new()));
        }
        self.copy_in(plan, &demand::wanted(plan, &request.wanted), knowledge)?;
        let resolver = Resolver { plan, knowledge, store: &self.store, ids: None };
        let stack = resolver.layers(&plan.root().finished)?;
        let outputs: BTreeMap<String, LayerId> =
            plan.root().outputs.iter().map(|(name, node)| (name.clone(), knowledge.layer(*node))).collect();
        if request.conditions.are_normal() && !request.is_earlier() {
            history::record(&self.store, plan, knowledge, &stack, &outputs)?;
        }
        Ok(End::Done(stack, outputs))
    }

    /// Copies in the inputs among `nodes` that no step has asked for, as in a recipe without steps.
    fn copy_in(&mut self, plan: &Plan, nodes: &[NodeId], knowledge: &Knowledge) -> Result<()> {
        let away = |node: &NodeId| match &plan.nodes[*node].work {
            Work::Input { id, .. } => self.store.presence(id) == Presence::Missing,
            _ => false,
        };
        let away: Vec<NodeId> = nodes.iter().copied().filter(away).collect();
        if away.is_empty() {
            return Ok(());
        }
        let (store, _, ids) = self.parts()?;
        worker::fetch(store, plan, knowledge, ids, &Mutex::default(), &away)
    }

    /// Who finds out what is wanted, once ids are entered.
    pub(super) fn demand<'a>(
        &'a mut self,
        plan: &'a Plan,
        request: &'a Request,
        sharing: &'a Sharing<'a>,
    ) -> Result<Demand<'a>> {
        let most = self.inputs.unpack.bytes;
        let (store, _, ids) = self.parts()?;
        Ok(Demand { store, plan, policy: &request.cache, sharing, ids, most })
    }

    /// Makes `missing`, and what turns out to be lost, of that and of `there`.
    pub(super) fn make(
        &mut self,
        request: &Request,
        (plan, sharing): (&Plan, &Sharing),
        missing: Vec<NodeId>,
        there: &[NodeId],
        knowledge: &mut Knowledge,
        observer: &dyn Observer,
    ) -> Result<Option<Failure>> {
        let cancel = self.cancel.clone();
        let inputs = self.inputs.clone();
        let missing = self.demand(plan, request, sharing)?.with_lost(missing, there, knowledge)?;
        let (store, executor, ids) = self.parts()?;
        has_secrets(request, plan, &missing)?;
        let explainer = Explainer::new(store, plan, knowledge)?;
        let stop = AtomicBool::new(false);
        let reasons = |node, action: &ActionDocument| match explainer.reasons(node, action) {
            (Some(_), reasons) => reasons,
            // Run for the first time: nothing to compare with, nothing to say.
            (None, _) => Vec::new(),
        };
        let task = Task { plan, knowledge, request, observer, stop: &stop, reasons: &reasons, sharing };
        let shop = Workshop::new((store, executor, ids), &inputs, task).needed_by(&missing, there);
        let failure = schedule::run(&shop, &missing, request.jobs.max(1), &cancel);
        host_held_still(store, plan, knowledge)?;
        let failure = failure?;
        if failure.is_none() && !plan.root().finished.steps.is_empty() {
            // A fix-up layer on top of the finished stack has no step to make it.
            let finished = &plan.root().finished;
            if finished.nodes().iter().all(|node| knowledge.get(*node).is_some()) {
                shop.resolver().layers(finished)?;
            }
        }
        Ok(failure)
    }
}

/// Every secret that a step may need is there, said before the first one runs.
fn has_secrets(request: &Request, plan: &Plan, missing: &[NodeId]) -> Result<()> {
    for node in missing {
        let mounts = plan.step(*node).map(|step| &step.step.mounts[..]).unwrap_or_default();
        for mount in mounts {
            if let Mount::Secret { name, .. } = mount
                && !request.secrets.contains_key(name)
            {
                let step = &plan.nodes[*node].name;
                return Err(Error::usage(format!(
                    "step `{step}` needs the secret `{name}`, which was not given"
                ))
                .hint(format!(
                    "add `--secret {name}` (from the environment), `--secret {name}=env:VARIABLE` or \
                         `--secret {name}=file:PATH`"
                )));
            }
        }
    }
    Ok(())
}

/// A step on base `host` is recorded under the fingerprint that the machine had before it ran. If the machine
/// has changed since, what it gave is taken back: it may be made from either state.
fn host_held_still(store: &Store, plan: &Plan, knowledge: &Knowledge) -> Result<()> {
    for (index, planned) in plan.recipes.iter().enumerate() {
        let ran = |node: &&NodeId| {
            plan.step(**node).is_some_and(|step| step.recipe == index)
                && knowledge.get(**node).is_some_and(|known| known.how == super::OutcomeKind::Executed)
        };
        let ran: Vec<&NodeId> = planned.steps.iter().filter(ran).collect();
        let Some(host) = planned.host.as_ref().filter(|_| !ran.is_empty()) else { continue };
        if fingerprint(&host.paths)? == *host {
            continue;
        }
        for node in ran {
            if let Some(key) = knowledge.get(*node).and_then(|known| known.action) {
                store.forget_result(&key, &plan.nodes[*node].key)?;
            }
        }
        return Err(Error::machine(
            "the files of this machine that base `host` shows changed during the build",
        )
        .hint("let whatever installs or updates programs finish, then build again"));
    }
    Ok(())
}

enum End {
    Done(Vec<LayerId>, BTreeMap<String, LayerId>),
    Failed(Failure),
}

/// The steps whose layer has to be known.
fn names(plan: &Plan, until: Option<NodeId>) -> Vec<String> {
    let steps = demand::goals(plan, until).into_iter().filter(|node| plan.step(*node).is_some());
    steps.map(|node| plan.nodes[node].name.clone()).collect()
}

fn reports(plan: &Plan, knowledge: &Knowledge) -> Vec<StepReport> {
    let steps = (0..plan.nodes.len()).filter(|node| plan.step(*node).is_some());
    steps
        .filter_map(|node| {
            let known = knowledge.get(node)?;
            Some(step_report(&plan.nodes[node].name, known, known.how != super::OutcomeKind::Failed))
        })
        .collect()
}
