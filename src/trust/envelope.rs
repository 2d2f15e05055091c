//! The envelope of a signed document: DSSE, version 1.0.2 (<https://github.com/secure-systems-lab/dsse>,
//! `protocol.md` and `envelope.md`), in its JSON form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{PublicKey, SecretKey};
use crate::remote::MOST_RECORD;

/// The type of a payload that is an in-toto statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// More signatures than anybody has a use for.
const MOST_SIGNATURES: usize = 16;

/// A document with signatures, which nobody has looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    signatures: Vec<[u8; 64]>,
}

/// Why bytes are no envelope.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Json {
    payload: String,
    payload_type: String,
    signatures: Vec<JsonSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonSignature {
    /// A hint that nothing here relies on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyid: Option<String>,
    sig: String,
}

impl Envelope {
    /// Signs a payload; the bytes of the envelope.
    pub fn sign(payload: &[u8], key: &SecretKey) -> Vec<u8> {
        let signature = key.sign(&authenticated(PAYLOAD_TYPE, payload));
        let json = Json {
            payload: STANDARD.encode(payload),
            payload_type: PAYLOAD_TYPE.to_string(),
            signatures: vec![JsonSignature {
                keyid: Some(key.public().writer().to_string()),
                sig: STANDARD.encode(signature),
            }],
        };
        // Strings cannot fail to become JSON.
        serde_json::to_vec(&json).unwrap_or_default()
    }

    /// Reads an envelope.
    ///
    /// # Errors
    /// Another form or payload type, more than a record may have, or base64 that is not in its one form.
    pub fn read(bytes: &[u8]) -> Result<Envelope, Unreadable> {
        let no = |why: &str| Unreadable(why.to_string());
        if bytes.len() > MOST_RECORD {
            return Err(no("it is too long"));
        }
        let json: Json =
            serde_json::from_slice(bytes).map_err(|why| Unreadable(format!("it is no envelope: {why}")))?;
        if json.payload_type != PAYLOAD_TYPE {
            return Err(no("its payload is no in-toto statement"));
        }
        if json.signatures.is_empty() || json.signatures.len() > MOST_SIGNATURES {
            return Err(no("it has no signature, or too many"));
        }
        let payload = STANDARD.decode(&json.payload).map_err(|_| no("its payload is not base64"))?;
        let signature = |signature: &JsonSignature| STANDARD.decode(&signature.sig).ok()?.try_into().ok();
        let signatures: Option<Vec<[u8; 64]>> = json.signatures.iter().map(signature).collect();
        let signatures = signatures.ok_or_else(|| no("a signature is not 64 bytes in base64"))?;
        Ok(Envelope { payload, signatures })
    }

    /// The payload, whoever may have written it: for what is not believed but looked after.
    pub(super) fn unverified(&self) -> &[u8] {
        &self.payload
    }

    /// The payload, if a signature of `key` is on it.
    pub fn verified(&self, key: &PublicKey) -> Option<&[u8]> {
        let message = authenticated(PAYLOAD_TYPE, &self.payload);
        self.signatures.iter().any(|signature| key.verifies(&message, signature)).then_some(&self.payload)
    }
}

/// What is signed: the pre-authentication encoding (`PAE`) of DSSE.
fn authenticated(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_that_of_the_specification() {
        // The test vector of protocol.md.
        let message = authenticated("http://example.com/HelloWorld", b"hello world");
        assert_eq!(message, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn one_changed_byte_is_no_signature() {
        let (key, other) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
        let bytes = Envelope::sign(b"{\"a\":1}", &key);
        let envelope = Envelope::read(&bytes).unwrap();
        assert_eq!(envelope.verified(&key.public()), Some(&b"{\"a\":1}"[..]));
        assert_eq!(envelope.verified(&other.public()), None);
        let keyid = key.public().writer().to_string();
        let keyid = bytes.windows(keyid.len()).position(|window| window == keyid.as_bytes()).unwrap();
        for at in 0..bytes.len() {
            for flip in [1, 0x20, 0x80] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                let good = Envelope::read(&changed).ok();
                let payload = good.as_ref().and_then(|envelope| envelope.verified(&key.public()));
                // The key id is a hint.
                assert!(payload.is_none() || (keyid..keyid + 32).contains(&at), "byte {at} does not count");
            }
            assert!(Envelope::read(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn only_the_one_form_is_read() {
        let key = SecretKey::from_seed(&[1; 32]);
        let text = String::from_utf8(Envelope::sign(b"payload", &key)).unwrap();
        let payload = STANDARD.encode("payload");
        for (from, to) in [
            ("vnd.in-toto+json", "json"),
            ("\"signatures\":[", "\"signatures\":[],\"more\":["),
            ("\"signatures\":[", "\"payload\":\"\",\"signatures\":["),
            (payload.as_str(), payload.trim_end_matches('=')),
            (payload.as_str(), "cGF5bG9hZB=="),
        ] {
            assert!(text.contains(from));
            assert!(Envelope::read(text.replace(from, to).as_bytes()).is_err(), "{from} {to}");
        }
        assert!(Envelope::read(format!("{text}{text}").as_bytes()).is_err());
        assert!(Envelope::read("[".repeat(100_000).as_bytes()).is_err());
        assert!(Envelope::read(&vec![b' '; MOST_RECORD + 1]).is_err());
    }
}
