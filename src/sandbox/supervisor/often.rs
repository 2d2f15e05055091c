//! Directories that a step asks about again and again: who unpacks an archive asks for those above every file.
//!
//! A path that comes for the second time is a good guess at the object. Its `stat`, which is needed anyway, says
//! whether it is that: the object is kept open, so nothing else has its numbers.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use super::callee::Here;
use super::records::{Records, is_dir, key};
use crate::layer::owners::Owner;

/// Paths that are remembered.
const MOST: usize = 16;

/// Device and inode number.
type Key = (u64, u64);

struct Place {
    path: CString,
    follow: bool,
    /// What was there when it was asked about for the second time.
    known: Option<(OwnedFd, Key, Owner)>,
}

/// Those of late.
#[derive(Default)]
pub(super) struct Often {
    places: Vec<Place>,
    oldest: usize,
}

impl Often {
    /// What is likely to be there: its numbers, and its owner if they are right.
    pub(super) fn guess(&self, here: &Here) -> Option<(Key, Owner)> {
        let place = self.places.iter().find(|place| place.is(here))?;
        place.known.as_ref().map(|(_, key, owner)| (*key, *owner))
    }

    /// Notes that a directory with an owner of its own was asked about.
    pub(super) fn asked(&mut self, here: &Here, records: &Records) {
        match self.places.iter().position(|place| place.is(here)) {
            Some(at) => self.places[at].known = known(here, records),
            None => {
                let place = Place { path: here.path.clone(), follow: here.follow, known: None };
                match self.places.get_mut(self.oldest) {
                    Some(oldest) => *oldest = place,
                    None => self.places.push(place),
                }
                self.oldest = (self.oldest + 1) % MOST;
            }
        }
    }

    /// The owner of a directory changes.
    pub(super) fn forget(&mut self) {
        (self.places, self.oldest) = (Vec::new(), 0);
    }
}

impl Place {
    fn is(&self, here: &Here) -> bool {
        self.path == here.path && self.follow == here.follow
    }
}

fn known(here: &Here, records: &Records) -> Option<(OwnedFd, Key, Owner)> {
    let object = here.open()?;
    let stat = rustix::fs::fstat(&object).ok().filter(is_dir)?;
    let owner = records.own(object.as_fd())?;
    Some((object, key(&stat), owner))
}
