//! What records and blobs are called.

use std::fmt;
use std::str::FromStr;

use crate::digest::{ActionKey, DefinitionKey};
use crate::oci::Digest;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// What one definition came to.
    Definition(DefinitionKey),
    /// What one action gave.
    Action(ActionKey),
    /// What all definitions of a plan came to: see [`Subject::plan`].
    Plan([u8; 32]),
}

impl Subject {
    /// The subject of a whole plan: BLAKE3 (derive-key, context `isolith plan v1`) of its definition keys, each once,
    /// in ascending order.
    pub fn plan(keys: impl IntoIterator<Item = DefinitionKey>) -> Subject {
        let mut keys: Vec<DefinitionKey> = keys.into_iter().collect();
        keys.sort_unstable();
        keys.dedup();
        let mut hasher = blake3::Hasher::new_derive_key("isolith plan v1");
        for key in keys {
            hasher.update(key.as_bytes());
        }
        Subject::Plan(*hasher.finalize().as_bytes())
    }

    /// `def`, `act` or `all`.
    pub fn kind(&self) -> &'static str {
        match self {
            Subject::Definition(_) => "def",
            Subject::Action(_) => "act",
            Subject::Plan(_) => "all",
        }
    }

    /// The key, 64 hex digits.
    pub fn hex(&self) -> String {
        match self {
            Subject::Definition(key) => key.to_hex(),
            Subject::Action(key) => key.to_hex(),
            Subject::Plan(bytes) => blake3::Hash::from_bytes(*bytes).to_hex().to_string(),
        }
    }
}

/// `<kind>-<64 hex digits>`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kind(), self.hex())
    }
}

/// Who wrote a record: the first 16 bytes of the BLAKE3 (derive-key, context `isolith writer v1`) of an ed25519
/// public key, as 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterId([u8; 16]);

impl WriterId {
    /// The writer with this public key.
    pub fn of(public: &[u8; 32]) -> WriterId {
        let digest = blake3::derive_key("isolith writer v1", public);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        WriterId(id)
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The name of a record: `<kind>-<64 hex digits>-<writer>`, which is also a tag of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// What it is about.
    pub subject: Subject,
    /// Who wrote it. Writers do not overwrite each other's records, so that they can be compared.
    pub writer: WriterId,
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.subject, self.writer)
    }
}

impl FromStr for RecordKey {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<RecordKey, NoKey> {
        let parse = || {
            let (kind, rest) = text.split_once('-')?;
            let (hex, writer) = rest.split_once('-')?;
            let key: ActionKey = hex.parse().ok()?;
            let subject = match kind {
                "def" => Subject::Definition(DefinitionKey::from_bytes(*key.as_bytes())),
                "act" => Subject::Action(key),
                "all" => Subject::Plan(*key.as_bytes()),
                _ => return None,
            };
            let mut id = [0; 16];
            for (at, byte) in id.iter_mut().enumerate() {
                *byte = u8::from_str_radix(writer.get(2 * at..2 * at + 2)?, 16).ok()?;
            }
            let key = RecordKey { subject, writer: WriterId(id) };
            // One key has one name.
            (key.to_string() == text).then_some(key)
        };
        parse().ok_or(NoKey)
    }
}

/// Why a string is not the name of a record.
#[derive(Debug, thiserror::Error)]
#[error("it is not the name of a record: `def-`, `act-` or `all-`, a key, `-`, and a writer are expected")]
pub struct NoKey;

/// A blob: the bytes with this digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// SHA-256 of the bytes, as in images.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_name() {
        let writer = WriterId::of(&[7; 32]);
        assert_ne!(writer, WriterId::of(&[8; 32]));
        let hash = [0xab; 32];
        for subject in [
            Subject::Definition(DefinitionKey::from_bytes(hash)),
            Subject::Action(ActionKey::from_bytes(hash)),
            Subject::Plan(hash),
        ] {
            let key = RecordKey { subject, writer };
            let name = key.to_string();
            assert!(name.len() <= 128, "longer than a tag may be: {name}");
            assert_eq!(name.parse::<RecordKey>().unwrap(), key);
            let upper = name.to_uppercase();
            let long = format!("{name}0");
            let plus = name.replace(&writer.to_string(), &format!("+1{}", &writer.to_string()[2..]));
            for bad in [&name[1..], &name[..name.len() - 1], &upper, &long, &plus, "", "def--", "act-../x-y"]
            {
                assert!(bad.parse::<RecordKey>().is_err(), "{bad}");
            }
        }
    }

    #[test]
    fn a_plan_is_named_by_the_set_of_its_keys() {
        let key = |n| DefinitionKey::from_bytes([n; 32]);
        let plan = Subject::plan([key(1), key(2)]);
        assert_eq!(plan, Subject::plan([key(2), key(1), key(2)]));
        assert_ne!(plan, Subject::plan([key(1)]));
        assert_ne!(plan, Subject::plan([key(1), key(2), key(3)]));
    }
}
