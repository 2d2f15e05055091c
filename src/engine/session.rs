//! A store and, once something has to run, the executor.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::pins::{Pinner, Pinning};
use super::{Event, Observer, Remotes};
use crate::base::debian::Archives;
use crate::error::Result;
use crate::layer::{IdShift, Limits};
use crate::oci::source::Images;
use crate::sandbox::{Executor, ids};
use crate::source::fetch::Access;
use crate::store::Store;

/// How inputs are fetched.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// What may be reached, and how.
    pub access: Arc<Access>,
    /// Where Debian packages come from.
    pub archives: Arc<Archives>,
    /// Where images come from.
    pub images: Arc<Images>,
    /// How much a source may unpack to.
    pub unpack: Limits,
}

/// Takes no notice.
pub(super) struct Silent;

impl Observer for Silent {
    fn event(&self, _: Event) {}
}

/// A store and, once something has to run, the executor.
///
/// The process must have a single thread when the executor starts, which is when the first step has to run:
/// start threads of your own only after [`Session::prepare`].
pub struct Session {
    pub(super) store: Arc<Store>,
    pub(super) cancel: Arc<AtomicBool>,
    pub(super) inputs: Inputs,
    pub(super) remotes: Arc<Remotes>,
    ids: Option<IdShift>,
    executor: Option<Executor>,
}

impl Session {
    /// A session on the store at `root`, which is made when it does not exist.
    pub fn open(root: &Path) -> Result<Session> {
        Ok(Session {
            store: Arc::new(Store::open(root)?),
            cancel: Arc::default(),
            inputs: Inputs::default(),
            remotes: Arc::default(),
            ids: None,
            executor: None,
        })
    }

    /// Says how inputs are fetched and how large they may be; the default reaches everything, without proxies.
    pub fn with_inputs(self, inputs: Inputs) -> Session {
        Session { inputs, ..self }
    }

    /// Says which remotes builds share results with, and whose key signs them; the default is none.
    pub fn with_remotes(self, remotes: Remotes) -> Session {
        Session { remotes: Arc::new(remotes), ..self }
    }

    /// Who pins and fetches.
    pub(super) fn pinner<'a>(&'a self, pinning: Pinning<'a>, observer: &'a dyn Observer) -> Pinner<'a> {
        Pinner {
            store: &self.store,
            access: &self.inputs.access,
            archives: &self.inputs.archives,
            images: &self.inputs.images,
            pinning,
            locks: None,
            observer,
            cancel: &self.cancel,
        }
    }

    /// Set this (from a signal handler or another thread) to stop: running sandboxes are killed within
    /// 50 ms, and the call in progress returns an error of class `Interrupted`.
    pub fn cancel_flag(&self) -> Arc<AtomicBool> {
        self.cancel.clone()
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Enters the id mapping and starts the executor, if that has not been done. Single-threaded.
    pub fn prepare(&mut self) -> Result<()> {
        let ids = self.enter_ids()?;
        if self.executor.is_none() {
            self.executor = Some(Executor::start(self.store.root(), ids)?);
            self.store.sweep();
        }
        Ok(())
    }

    /// Enters the id mapping, which is enough to read and write layers. Single-threaded the first time.
    pub fn enter_ids(&mut self) -> Result<IdShift> {
        match self.ids {
            Some(ids) => Ok(ids),
            None => Ok(*self.ids.insert(ids::enter()?)),
        }
    }

    /// The executor and the id mapping, started.
    pub(super) fn running(&mut self) -> Result<(&Executor, IdShift)> {
        self.prepare()?;
        match (&self.executor, self.ids) {
            (Some(executor), Some(ids)) => Ok((executor, ids)),
            _ => Err(crate::Error::machine("the executor is not running")),
        }
    }

    /// The executor, store and id mapping at once, after `prepare`.
    pub(super) fn parts(&mut self) -> Result<(&Store, &Executor, IdShift)> {
        self.running()?;
        match (&self.executor, self.ids) {
            (Some(executor), Some(ids)) => Ok((&self.store, executor, ids)),
            _ => Err(crate::Error::machine("the executor is not running")),
        }
    }
}
