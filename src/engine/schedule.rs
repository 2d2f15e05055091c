//! Makes what is missing, as much at once as was asked for, each node after all it needs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::plan::NodeId;
use super::worker::{Made, interrupted};
use super::workshop::Workshop;
use super::{Event, Failure, StepReport};
use crate::digest::ActionKey;
use crate::error::{Error, Result};

/// How often a request to stop is looked for.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Makes all of `missing` (needed ones first). A step that fails ends the schedule: what still runs is
/// stopped, what is finished stays.
pub fn run(shop: &Workshop, missing: &[NodeId], jobs: usize, cancel: &AtomicBool) -> Result<Option<Failure>> {
    let mut waiting: Vec<NodeId> = missing.to_vec();
    let mut failure = None;
    let mut error: Option<Error> = None;
    let mut busy = 0;
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        loop {
            let halted = shop.stop.load(Ordering::Relaxed);
            while !halted && busy < jobs {
                let ready =
                    |node: &NodeId| shop.plan.needs(*node).iter().all(|n| shop.knowledge.get(*n).is_some());
                let Some(at) = waiting.iter().position(ready) else { break };
                let node = waiting.remove(at);
                let sender = sender.clone();
                busy += 1;
                scope.spawn(move || {
                    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shop.make(node)));
                    let _ = sender.send((node, made));
                });
            }
            if busy == 0 {
                break;
            }
            match receiver.recv_timeout(LOOK_UP) {
                Ok((node, made)) => {
                    busy -= 1;
                    match made {
                        Ok(Ok(Made::Layer(known))) => {
                            report(shop, node, &known, true);
                            shop.sharing.offer(node, &known);
                            shop.knowledge.set(node, known);
                        }
                        Ok(Ok(Made::Failed(known, failed))) => {
                            report(shop, node, &known, false);
                            shop.knowledge.set(node, known);
                            failure.get_or_insert(*failed);
                            halt(shop);
                        }
                        Ok(Err(e)) => {
                            error.get_or_insert(e);
                            halt(shop);
                        }
                        Err(panic) => {
                            halt(shop);
                            std::panic::resume_unwind(panic);
                        }
                    }
                }
                Err(_) => {
                    if cancel.load(Ordering::Relaxed) {
                        error.get_or_insert_with(interrupted);
                        halt(shop);
                    }
                }
            }
        }
    });
    if cancel.load(Ordering::Relaxed) {
        return Err(interrupted());
    }
    match (failure, error) {
        // What was stopped because a step failed is not the news.
        (Some(failure), _) => Ok(Some(failure)),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(None),
    }
}

fn halt(shop: &Workshop) {
    shop.stop.store(true, Ordering::Relaxed);
    for killer in shop.running.lock().unwrap_or_else(|e| e.into_inner()).values() {
        killer.kill();
    }
}

fn report(shop: &Workshop, node: NodeId, known: &super::state::Known, done: bool) {
    if shop.plan.step(node).is_some() {
        shop.observer.event(Event::Step(step_report(&shop.plan.nodes[node].name, known, done)));
    }
}

/// What the user is told of a step.
pub fn step_report(name: &str, known: &super::state::Known, done: bool) -> StepReport {
    StepReport {
        name: name.to_string(),
        outcome: known.how,
        key: known.action.unwrap_or(ActionKey::from_bytes([0; 32])),
        layer: done.then_some(known.layer),
        wall_ms: known.wall_ms,
        saved_ms: known.saved_ms,
        remote: known.remote.clone(),
    }
}
