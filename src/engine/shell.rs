//! A step's sandbox, opened for a person, and the logs of steps.

use std::sync::atomic::AtomicBool;

use super::attend::Attendance;
use super::plan::{NodeId, Plan};
use super::remotes::Sharing;
use super::state::Knowledge;
use super::workshop::{Task, Workshop};
use super::{Event, Observer, Request, Session, State, demand};
use crate::digest::{ActionKey, LayerId};
use crate::error::{Class, Error, Result};
use crate::key::ActionDocument;
use crate::layer::prepare_upper;
use crate::sandbox::{Extras, Status};

impl Session {
    /// Runs a command (default: the step's shell) in a step's sandbox (default: the last step) with the
    /// given attendance; its writes are discarded. Builds what is missing below first.
    ///
    /// # Errors
    /// A step below that fails (class `Step`), and [`State::After`] of a step that has never run.
    pub fn shell(
        &mut self,
        request: &Request,
        state: State,
        command: &[String],
        with: Attendance,
        observer: &dyn Observer,
    ) -> Result<Status> {
        let plan = self.plan(request, request.pinning(), observer)?;
        let node = chosen(&plan, request)?;
        let mut knowledge = Knowledge::new(&plan);
        let goals = plan.needs(node);
        let mut missing = demand::missing(&self.store, &plan, &request.cache, &goals, &knowledge)?;
        let (store, remotes, cancel) = (self.store.clone(), self.remotes_for(request), self.cancel.clone());
        let sharing = Sharing::new(&remotes, (&store, &plan), observer, &cancel);
        let demand = self.demand(&plan, request, &sharing)?;
        missing = demand.find(&goals, missing, &knowledge)?;
        // The layers below are going to be mounted, so they have to be there, whoever made them.
        missing.push(node);
        let mut missing = demand.with_lost(missing, &[], &mut knowledge)?;
        missing.retain(|other| *other != node);
        let planned = missing.iter().filter(|node| plan.step(**node).is_some());
        observer
            .event(Event::Planned { steps: planned.map(|node| plan.nodes[*node].name.clone()).collect() });
        if !missing.is_empty()
            && let Some(failure) =
                self.make(request, (&plan, &sharing), missing, &[], &mut knowledge, observer)?
        {
            return Err(Error::new(Class::Step, format!("step `{}` failed", failure.step))
                .hint("the state of a step can be opened when all steps below it are there"));
        }
        let inputs = self.inputs.clone();
        let (store, executor, ids) = self.parts()?;
        let step = plan.step(node).ok_or_else(|| Error::machine("a step that is no step"))?;
        let stop = AtomicBool::new(false);
        let (knowledge, none) = (&knowledge, |_, _: &ActionDocument| Vec::new());
        let task = Task {
            plan: &plan,
            knowledge,
            request,
            observer,
            stop: &stop,
            reasons: &none,
            sharing: &sharing,
        };
        let shop = Workshop::new((store, executor, ids), &inputs, task);
        let mut layers = shop.resolver().layers(&step.stack)?;
        shop.fetch(&step.stack.nodes())?;
        let stack = layers.iter().map(LayerId::to_hex).collect();
        let mut action = ActionDocument { stack, ..step.document.clone() };
        let mut on_top = None;
        if state == State::After {
            let key = action.key();
            let done = store.action(&key)?.map(|record| record.layer);
            match (store.failed(&key), done) {
                (Some(left), _) => on_top = Some(left),
                (None, Some(layer)) if store.ready(&layer, ids)? => layers.push(layer),
                _ => {
                    return Err(Error::usage(format!("step `{}` has not run in this state", step.step.name))
                        .hint("build the recipe first, or leave `--after` away to see what the step starts from"));
                }
            }
        }
        action.argv = match command {
            [] => vec![own_shell(&action.argv)],
            command => command.to_vec(),
        };
        let run = store.new_run(ids)?;
        layers.retain(|layer| *layer != crate::layer::Manifest::empty_id());
        let view = shop.resolver().view(&layers)?;
        prepare_upper(&run.upper(), &view, action.epoch, ids)?;
        let mut spec = shop.spec(step, action, layers, &view, run.name())?;
        if let (Some(left), true) = (&on_top, ids.recorded) {
            spec.owners.add_list(&store.root().join(left));
        }
        spec.on_top = on_top;
        spec.extras = Some(Extras { env: with.env.clone(), ..Extras::default() });
        Ok(self.attend(&spec, with)?.status)
    }

    /// The log of each step (or of `request.until` alone) that has run in its present state: its name, and
    /// the action whose log it is.
    pub fn logs(&mut self, request: &Request) -> Result<Vec<(String, ActionKey)>> {
        let mut logs = Vec::new();
        for explanation in self.explain(request)? {
            let Some(key) = explanation.key.or(explanation.nearest) else { continue };
            // A step that printed nothing has no log file.
            if self.store.log_path(&key).exists()
                || self.store.failed(&key).is_some()
                || self.store.action(&key)?.is_some()
            {
                logs.push((explanation.step, key));
            }
        }
        if logs.is_empty() {
            let what =
                request.until.as_deref().map_or("the recipe".to_string(), |step| format!("step `{step}`"));
            return Err(Error::usage(format!("{what} of `{}` has no log yet", request.recipe.display()))
                .hint("build it first"));
        }
        Ok(logs)
    }
}

/// The shell that a step's `run` text goes to, when it has one.
fn own_shell(argv: &[String]) -> String {
    match argv {
        [shell, flags, _] if flags.starts_with('-') && flags.contains('c') => shell.clone(),
        _ => "/bin/sh".to_string(),
    }
}

/// The step that was asked for; the last one of the recipe when none was.
fn chosen(plan: &Plan, request: &Request) -> Result<NodeId> {
    match &request.until {
        Some(name) => plan.find_step(name),
        None => plan
            .root()
            .steps
            .last()
            .copied()
            .ok_or_else(|| Error::usage(format!("`{}` has no steps", request.recipe.display()))),
    }
}
