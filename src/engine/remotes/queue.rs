//! What is to go out while a build goes on.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex};

use super::call::Line;
use super::{Sharing, lock, travels};
use crate::engine::plan::NodeId;
use crate::engine::state::Known;

/// What is to go out: a list of nodes, so never longer than the plan.
#[derive(Default)]
pub(super) struct Queue {
    jobs: Mutex<Jobs>,
    more: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<(NodeId, Known)>,
    closed: bool,
}

impl Sharing<'_> {
    /// Whether there is a remote that a node's layer could go to. What was made here goes to all; what came from one
    /// goes to those that are nearer, and only to them.
    pub fn goes(&self, node: NodeId, known: &Known) -> bool {
        self.signer.is_some()
            && travels(self.plan, node)
            && (0..self.lines.len()).any(|at| self.lines[at].writes() && self.takes(at, known))
    }

    pub(super) fn takes(&self, at: usize, known: &Known) -> bool {
        match &known.remote {
            None => true,
            Some(from) => {
                self.lines.iter().position(|line| line.setup.name == *from).is_some_and(|from| at < from)
            }
        }
    }

    /// Whether a layer that is away would go to a nearer remote, should it come here.
    pub fn passes_on(&self) -> bool {
        lock(&self.away).values().any(|away| self.lines[..away.line].iter().any(Line::writes))
    }

    /// Puts a node that is done into the queue.
    pub fn offer(&self, node: NodeId, known: &Known) {
        if self.goes(node, known) {
            lock(&self.queue.jobs).waiting.push_back((node, known.clone()));
            self.queue.more.notify_one();
        }
    }

    /// Nothing more comes: once the queue is empty its threads end.
    pub(super) fn close(&self) {
        lock(&self.queue.jobs).closed = true;
        self.queue.more.notify_all();
    }

    /// Waits until there is a job; false when there is none.
    pub(super) fn any(&self) -> bool {
        let mut jobs = lock(&self.queue.jobs);
        while jobs.waiting.is_empty() && !jobs.closed {
            jobs = self.queue.more.wait(jobs).unwrap_or_else(|e| e.into_inner());
        }
        !jobs.waiting.is_empty()
    }

    /// What is in the queue now.
    pub(super) fn waiting(&self) -> Vec<(NodeId, Known)> {
        lock(&self.queue.jobs).waiting.iter().cloned().collect()
    }

    /// The next job; none when all are done, or nobody takes them.
    pub(super) fn next(&self) -> Option<(NodeId, Known)> {
        let mut jobs = lock(&self.queue.jobs);
        loop {
            if self.cancel.load(Ordering::Relaxed) || !self.writes() {
                jobs.waiting.clear();
            }
            match jobs.waiting.pop_front() {
                Some(job) => return Some(job),
                None if jobs.closed => return None,
                None => jobs = self.queue.more.wait(jobs).unwrap_or_else(|e| e.into_inner()),
            }
        }
    }
}
