//! What actions and definitions gave: `actions/ab/<key>` and `definitions/ab/<key>`.

use serde::{Deserialize, Serialize};

use super::record::seal;
use super::{Store, io};
use crate::digest::{ActionKey, DefinitionKey, LayerId};
use crate::error::Result;
use crate::key::ActionDocument;
use crate::sandbox::Usage;

/// What an action gave. Only of actions that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// The action document; its digest is the key.
    pub action: ActionDocument,
    /// What it yielded.
    pub layer: LayerId,
    /// What it used.
    pub usage: Usage,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// When it ended, in seconds since 1970.
    pub finished: i64,
    /// Name of the recipe that ran it first.
    pub recipe: String,
    /// Name of the step there.
    pub step: String,
    /// The remote that the result came from; none when the action ran here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// What a definition came to: the layers, for look-ups before anything runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefinitionRecord {
    /// The definition document; the digest of its canonical JSON is the key.
    pub document: serde_json::Value,
    /// The action it came to, when it is a step.
    pub action: Option<ActionKey>,
    /// What it yielded.
    pub layers: Vec<LayerId>,
    /// What making it took, in milliseconds, here or elsewhere.
    #[serde(default)]
    pub wall_ms: u64,
    /// The remote that it came from; none when it was made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

impl Store {
    /// The result of an action; none when it is not known, or its record is damaged.
    pub fn action(&self, key: &ActionKey) -> Result<Option<ActionRecord>> {
        let hex = key.to_hex();
        self.get_record(&self.shard("actions", &hex), &format!("actions/{hex}"))
    }

    /// Keeps the result of an action. Its layer must be in the store by now.
    pub fn put_action(&self, key: &ActionKey, record: &ActionRecord) -> Result<()> {
        let hex = key.to_hex();
        self.put_record(&self.shard("actions", &hex), &format!("actions/{hex}"), record)
    }

    /// What a definition came to; none when it is not known, or its record is damaged.
    pub fn definition(&self, key: &DefinitionKey) -> Result<Option<DefinitionRecord>> {
        let hex = key.to_hex();
        self.get_record(&self.shard("definitions", &hex), &format!("definitions/{hex}"))
    }

    /// Keeps what a definition came to. Its layers must be in the store by now.
    pub fn put_definition(&self, key: &DefinitionKey, record: &DefinitionRecord) -> Result<()> {
        let hex = key.to_hex();
        self.put_record(&self.shard("definitions", &hex), &format!("definitions/{hex}"), record)
    }

    /// Takes back a result: what it was made from turned out not to have held still.
    pub fn forget_result(&self, key: &ActionKey, definition: &DefinitionKey) -> Result<()> {
        io::remove_file(&self.shard("definitions", &definition.to_hex()))?;
        io::remove_file(&self.shard("actions", &key.to_hex()))
    }

    /// Both at once, for a step that has just run: one file under two names, which makes one inode instead
    /// of two.
    pub fn put_result(
        &self,
        (key, record): (&ActionKey, &ActionRecord),
        (definition_key, definition): (&DefinitionKey, &DefinitionRecord),
    ) -> Result<()> {
        let (hex, definition_hex) = (key.to_hex(), definition_key.to_hex());
        let mut bytes = seal(&format!("definitions/{definition_hex}"), definition)?;
        bytes.extend(seal(&format!("actions/{hex}"), record)?);
        let (temp, second) = (self.temp_path()?, self.temp_path()?);
        let put = || {
            io::write_new(&temp, &bytes)?;
            if std::fs::hard_link(&temp, &second).is_err() {
                io::write_new(&second, &bytes)?; // A file system without hard links.
            }
            io::rename(&temp, &self.shard("actions", &hex))?;
            io::rename(&second, &self.shard("definitions", &definition_hex))
        };
        put().inspect_err(|_| {
            let _ = std::fs::remove_file(&temp);
            let _ = std::fs::remove_file(&second);
        })
    }
}
