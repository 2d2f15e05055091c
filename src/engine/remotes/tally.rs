//! What came of a remote in one build.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::call::Line;

/// Counts for a [`RemoteReport`].
#[derive(Default)]
pub(super) struct Tally {
    calls: AtomicU64,
    hits: AtomicU64,
    down: AtomicU64,
    up: AtomicU64,
    layers_down: AtomicU64,
    layers_up: AtomicU64,
    refused: AtomicU64,
}

/// What one remote did for a build, and the build for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteReport {
    /// Its name.
    pub name: String,
    /// How often it was asked.
    pub calls: u64,
    /// Layers that it knew: of steps and of everything else.
    pub hits: u64,
    /// Bytes of records and layers that came from there.
    pub bytes_down: u64,
    /// Layers that came from there.
    pub layers_down: u64,
    /// Bytes of records and layers that went there.
    pub bytes_up: u64,
    /// Layers that went there.
    pub layers_up: u64,
    /// Records and layers that were refused.
    pub refused: u64,
    /// It was not used to the end of the build.
    pub off: bool,
    /// Milliseconds that were spent waiting for it, beyond what its bytes take at 100 KiB a second.
    #[serde(default)]
    pub waited_ms: u64,
}

impl Tally {
    pub fn asked(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub fn down(&self, bytes: u64) {
        self.down.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn up(&self, bytes: u64) {
        self.up.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn layer_down(&self) {
        self.layers_down.fetch_add(1, Ordering::Relaxed);
    }

    pub fn layer_up(&self) {
        self.layers_up.fetch_add(1, Ordering::Relaxed);
    }
}

impl Line {
    pub fn report(&self) -> Option<RemoteReport> {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Tally { calls, hits, down, up, layers_down, layers_up, refused } = &self.tally;
        (get(calls) > 0).then(|| RemoteReport {
            name: self.setup.name.clone(),
            calls: get(calls),
            hits: get(hits),
            bytes_down: get(down),
            layers_down: get(layers_down),
            bytes_up: get(up),
            layers_up: get(layers_up),
            refused: get(refused),
            off: !self.is_on(),
            waited_ms: self.waited().as_millis() as u64,
        })
    }
}
