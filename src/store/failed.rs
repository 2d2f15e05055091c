//! States that failed steps left, for `shell`: `failed/ab/<action key>/fs`, what the step wrote, as it is.

use super::{OWNERS, RunDir, Store, io};
use crate::digest::ActionKey;
use crate::error::Result;

impl Store {
    /// Keeps what a failed run wrote, in place of an older state of the same action.
    pub fn keep_failed(&self, key: &ActionKey, run: RunDir) -> Result<()> {
        let staged = run.path().join("failed");
        io::make_dir(&staged, 0o755)?;
        io::rename(&run.upper(), &staged.join("fs"))?;
        let owners = run.path().join(OWNERS);
        if owners.exists() {
            io::rename(&owners, &staged.join(OWNERS))?;
        }
        // An older state is in the run directory then, and goes with it.
        io::rename_over(&staged, &self.shard("failed", &key.to_hex())).map(drop)
    }

    /// The state the last failed run of an action left: its directory, relative to the root of the store.
    pub fn failed(&self, key: &ActionKey) -> Option<String> {
        let hex = key.to_hex();
        let dir = format!("failed/{}/{hex}/fs", &hex[..2]);
        self.root.join(&dir).is_dir().then_some(dir)
    }

    /// Forgets the state a failed run left, if there is one.
    pub fn drop_failed(&self, key: &ActionKey) -> Result<()> {
        self.discard(&self.shard("failed", &key.to_hex()))
    }
}
