//! The identities (docs/format.md) as newtypes over a 32-byte BLAKE3 digest.
//!
//! Every id prints as 64 lower-case hex digits and, with `{:#}`, as the first 12.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a string is not an id.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an id: 64 lower-case hexadecimal digits are expected")]
pub struct ParseIdError(String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The id with these raw bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The raw digest.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// All 64 hex digits.
            pub fn to_hex(&self) -> String {
                blake3::Hash::from_bytes(self.0).to_hex().to_string()
            }

            /// The first 12 hex digits, for people.
            pub fn short(&self) -> String {
                self.to_hex()[..12].to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if f.alternate() {
                    f.write_str(&self.short())
                } else {
                    f.write_str(&self.to_hex())
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(s: &str) -> Result<Self, ParseIdError> {
                let lower = !s.bytes().any(|b| b.is_ascii_uppercase());
                match blake3::Hash::from_hex(s) {
                    Ok(hash) if lower => Ok(Self(*hash.as_bytes())),
                    _ => Err(ParseIdError(s.to_string())),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.to_hex())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// Plain BLAKE3 of a file's bytes.
    ContentDigest
}
id! {
    /// A layer, named by its canonical manifest (context `isolith layer v1`).
    LayerId
}
id! {
    /// A step with every input resolved to a digest (context `isolith action v1`).
    ActionKey
}
id! {
    /// A step known by what makes its inputs (context `isolith definition v1`).
    DefinitionKey
}

impl ContentDigest {
    /// The digest of a byte string.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl LayerId {
    /// The id of a layer whose encoded manifest is `manifest`.
    pub fn of_manifest(manifest: &[u8]) -> Self {
        Self(blake3::derive_key("isolith layer v1", manifest))
    }
}

impl ActionKey {
    /// The key of an action whose canonical JSON document is `document`.
    pub fn of_document(document: &[u8]) -> Self {
        Self(blake3::derive_key("isolith action v1", document))
    }
}

impl DefinitionKey {
    /// The key of a definition whose canonical JSON document is `document`.
    pub fn of_document(document: &[u8]) -> Self {
        Self(blake3::derive_key("isolith definition v1", document))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_parse_and_reject() {
        let id = ContentDigest::of(b"");
        assert_eq!(id.to_hex(), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
        assert_eq!(format!("{id:#}"), "af1349b9f5f9");
        assert_eq!(id.to_hex().parse::<ContentDigest>().unwrap(), id);
        assert!(id.to_hex().to_uppercase().parse::<ContentDigest>().is_err());
        assert!("af13".parse::<ContentDigest>().is_err());
    }

    #[test]
    fn each_identity_has_its_own_domain() {
        let doc = b"same bytes";
        assert_ne!(ActionKey::of_document(doc).as_bytes(), DefinitionKey::of_document(doc).as_bytes());
        assert_ne!(LayerId::of_manifest(doc).as_bytes(), ActionKey::of_document(doc).as_bytes());
    }
}
