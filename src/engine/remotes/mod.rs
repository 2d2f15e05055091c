//! Results that other machines have, and that they get from this one (docs/design/remotes.md).
//!
//! A remote is a help and never a need: whatever it does costs a bounded time and a warning, and then the build goes
//! on without it. Threads that a remote keeps waiting are left behind, so nothing here may be called before ids are
//! entered, which takes a process of one thread.

mod act;
mod call;
mod clock;
mod download;
mod look_up;
mod provenance;
mod queue;
mod send;
mod status;
mod tally;
mod upload;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::plan::{NodeId, Plan, Work};
use super::{Event, Observer};
use crate::digest::LayerId;
use crate::error::Result;
use crate::remote::Remote;
use crate::store::Store;
use crate::trust::{Policy, SecretKey};

use provenance::statement;
pub(super) use provenance::{inputs, of_plan};
pub use status::{Opinion, Said, Voice};
pub use tally::RemoteReport;

use call::Line;
use download::Away;
use queue::Queue;

/// How a remote is opened; called once a build, on a thread of its own, when the remote is first asked.
pub type Opener = Arc<dyn Fn() -> Result<Box<dyn Remote>> + Send + Sync>;

/// A remote as a build uses it.
#[derive(Clone)]
pub struct RemoteSetup {
    /// What it is called in messages.
    pub name: String,
    /// How it is opened.
    pub open: Opener,
    /// Results are taken from it.
    pub read: bool,
    /// Results are put there.
    pub write: bool,
    /// Whose records count.
    pub policy: Policy,
    /// How long a build waits for it all in all, beyond what the bytes that move take at `remote::LEAST_RATE`.
    pub patience: Duration,
}

/// All remotes of a session, nearest first, and who signs what is put there.
#[derive(Clone, Default)]
pub struct Remotes {
    /// In the order in which they are asked.
    pub list: Vec<RemoteSetup>,
    /// Whose key is put under results; without one nothing is uploaded.
    pub signer: Option<SecretKey>,
}

/// The remotes of one build.
pub struct Sharing<'a> {
    lines: Vec<Line>,
    signer: Option<SecretKey>,
    store: &'a Store,
    plan: &'a Plan,
    observer: &'a dyn Observer,
    cancel: &'a AtomicBool,
    /// Layers that are known, and not here yet.
    away: Mutex<HashMap<LayerId, Away>>,
    queue: Queue,
}

impl<'a> Sharing<'a> {
    /// None of them is asked yet.
    pub fn new(
        remotes: &Remotes,
        (store, plan): (&'a Store, &'a Plan),
        observer: &'a dyn Observer,
        cancel: &'a AtomicBool,
    ) -> Self {
        let signer = remotes.signer.clone();
        let lines = remotes.list.iter().map(|setup| Line::new(setup.clone())).collect();
        Sharing {
            lines,
            signer,
            store,
            plan,
            observer,
            cancel,
            away: Mutex::default(),
            queue: Queue::default(),
        }
    }

    /// Whether any remote may have answers.
    pub fn reads(&self) -> bool {
        self.lines.iter().any(Line::reads)
    }

    /// Whether anything could be put anywhere.
    pub fn writes(&self) -> bool {
        self.lines.iter().any(Line::writes)
    }

    /// What each remote did; none that was not asked.
    pub fn reports(&self) -> Vec<RemoteReport> {
        self.lines.iter().filter_map(Line::report).collect()
    }

    fn warn(&self, message: String) {
        self.observer.event(Event::Warning { message });
    }
}

/// Whether a node's layer means the same on another machine, and is not at hand everywhere. What was made on a base
/// `host` stays here: it holds for this machine's files alone.
fn travels(plan: &Plan, node: NodeId) -> bool {
    let on_host = |node: NodeId| plan.step(node).is_some_and(|step| step.document.host.is_some());
    !matches!(plan.nodes[node].work, Work::Input { .. })
        && !on_host(node)
        && !plan.needs(node).into_iter().any(on_host)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
