//! What all workers of a build share.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use super::pins::{Pinner, Pinning};
use super::plan::{NodeId, Plan};
use super::remotes::Sharing;
use super::stack::Resolver;
use super::state::Knowledge;
use super::{Inputs, Observer, Request};
use crate::key::ActionDocument;
use crate::layer::{IdShift, Limits};
use crate::sandbox::{Executor, Killer};
use crate::store::Store;

/// What all workers of a build share.
pub struct Workshop<'a> {
    /// The store.
    pub store: &'a Store,
    /// The plan.
    pub plan: &'a Plan,
    /// What is known of its nodes.
    pub knowledge: &'a Knowledge,
    /// What was asked for.
    pub request: &'a Request,
    /// Who runs sandboxes.
    pub executor: &'a Executor,
    /// Who fetches.
    pub pinner: Pinner<'a>,
    /// How much a source may unpack to.
    pub unpack: Limits,
    /// How guest ids lie on disk.
    pub ids: IdShift,
    /// Where events go.
    pub observer: &'a dyn Observer,
    /// Set when everything has to stop.
    pub stop: &'a AtomicBool,
    /// The sandboxes that run now.
    pub running: Mutex<HashMap<NodeId, Killer>>,
    /// Held while an input is copied in, so that two steps do not copy the same one.
    pub importing: Mutex<()>,
    /// What the user was warned of: once a build is enough.
    pub warned: Mutex<HashSet<String>>,
    /// Why each step that may run was not found, for the user.
    pub reasons: &'a (dyn Fn(NodeId, &ActionDocument) -> Vec<String> + Sync),
    /// Who else may have results, and gets them.
    pub sharing: &'a Sharing<'a>,
    /// The nodes whose layers something is going to see.
    pub needed: HashSet<NodeId>,
}

/// What a workshop is opened for.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What is known of its nodes.
    pub knowledge: &'a Knowledge,
    /// What was asked for.
    pub request: &'a Request,
    /// Where events go.
    pub observer: &'a dyn Observer,
    /// To be set when everything has to stop.
    pub stop: &'a AtomicBool,
    /// Why a step that may run was not found.
    pub reasons: &'a (dyn Fn(NodeId, &ActionDocument) -> Vec<String> + Sync),
    /// Who else may have results.
    pub sharing: &'a Sharing<'a>,
}

impl<'a> Workshop<'a> {
    /// With what a session has.
    pub fn new(
        (store, executor, ids): (&'a Store, &'a Executor, IdShift),
        inputs: &'a Inputs,
        task: Task<'a>,
    ) -> Self {
        let Task { plan, knowledge, request, observer, stop, reasons, sharing } = task;
        let (access, archives, images) = (&*inputs.access, &*inputs.archives, &*inputs.images);
        let pinning = Pinning::Required;
        Workshop {
            store,
            plan,
            knowledge,
            request,
            executor,
            pinner: Pinner { store, access, archives, images, pinning, locks: None, observer, cancel: stop },
            unpack: inputs.unpack,
            ids,
            observer,
            stop,
            running: Mutex::default(),
            importing: Mutex::default(),
            warned: Mutex::default(),
            reasons,
            sharing,
            needed: HashSet::new(),
        }
    }

    /// Says which nodes will be made, and which layers have to be there in the end.
    pub fn needed_by(self, missing: &[NodeId], there: &[NodeId]) -> Self {
        let finished = Resolver::looked_at(self.plan, &self.plan.root().finished);
        let of_missing = missing.iter().flat_map(|node| {
            let looked_at = self.plan.step(*node).map(|step| Resolver::looked_at(self.plan, &step.stack));
            self.plan.needs(*node).into_iter().chain(looked_at.unwrap_or_default())
        });
        let needed = of_missing.chain(there.iter().copied()).chain(finished).collect();
        Workshop { needed, ..self }
    }
}
