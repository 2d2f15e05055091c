//! A step that the whole recipe's look-up left open, asked for by what it sees.

use crate::engine::plan::NodeId;
use crate::engine::state::Known;
use crate::engine::workshop::Workshop;
use crate::error::Result;
use crate::key::ActionDocument;
use crate::store::Presence;

impl Workshop<'_> {
    /// What a remote knows of an action. Its layer is brought here at once if anything is going to see it: once others
    /// build on it, it cannot be taken back.
    pub(in crate::engine) fn shared_action(
        &self,
        node: NodeId,
        action: &ActionDocument,
    ) -> Result<Option<Known>> {
        let Some(known) = self.sharing.find_action(node, &action.key()) else { return Ok(None) };
        if self.needed.contains(&node) && !self.knowledge.is_ready(self.store, &known.layer, self.ids)? {
            let came = self.sharing.bring(&[known.layer], self.ids, self.unpack.bytes);
            if came.is_empty() || !self.knowledge.is_ready(self.store, &known.layer, self.ids)? {
                return Ok(None);
            }
        }
        if self.store.presence(&known.layer) != Presence::Missing {
            self.define(node, &known)?;
            self.sharing.keep_action(node, action, &known)?;
        }
        Ok(Some(known))
    }
}
