//! A place in the lower layers that moves down with a walk, so that each step asks only the layers that have
//! the directory it is in.

use super::view::{Stacked, View, stack};
use super::{Entry, Kind};
use crate::path::GuestPath;

/// What lower layers have at one path.
#[derive(Clone)]
pub(super) struct Below<'a> {
    view: &'a View,
    stacked: Stacked<'a>,
}

impl<'a> Below<'a> {
    /// At the root.
    pub fn root(view: &'a View) -> Self {
        let root = GuestPath::root();
        let entries = view.layers().iter().enumerate().rev();
        Self { view, stacked: stack(entries.filter_map(|(at, layer)| Some((at, layer.get(&root)?)))) }
    }

    /// At `path`, a child of this place.
    pub fn child(&self, path: &GuestPath) -> Self {
        let dirs = self.stacked.iter().filter(|(_, entry)| matches!(entry.kind, Kind::Dir { .. }));
        let entries = dirs.filter_map(|(at, _)| Some((*at, self.view.layers()[*at].get(path)?)));
        Self { view: self.view, stacked: stack(entries) }
    }

    /// The entry that is visible here, with hard links resolved.
    pub fn node(&self) -> Option<&'a Entry> {
        self.stacked.first().map(|(at, entry)| self.view.layers()[*at].node(entry))
    }

    /// The names visible in the directory here, sorted; none when there is none.
    pub fn names(&self) -> Vec<&[u8]> {
        self.view.merged(&self.stacked).into_keys().collect()
    }
}
