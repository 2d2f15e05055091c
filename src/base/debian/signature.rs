//! Signatures of an archive: which text a key of the keyring has signed.
//!
//! The library does the arithmetic; what counts as good is decided here (`docs/design/debian.md`, "Trust").

use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{KeyDetails, PublicParams, Tag, VerifyingKey};

/// A clock that is late by less than this does no harm, in seconds.
const SKEW: i64 = 3600;
/// RSA keys with a shorter encoding than this (a modulus of 2048 bits has 256 bytes) are too weak.
const SHORTEST_RSA: usize = 256;

/// Keys that are trusted.
#[derive(Debug, Default)]
pub struct Keys(Vec<SignedPublicKey>);

impl Keys {
    /// Adds the keys of a keyring, binary or armored.
    ///
    /// # Errors
    /// Why it is no keyring.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), String> {
        // An armored file may hold several blocks.
        let start = b"-----BEGIN PGP PUBLIC KEY BLOCK-----";
        let mut starts: Vec<usize> = memchr::memmem::find_iter(bytes, start).collect();
        if starts.is_empty() {
            starts.push(0);
        }
        let mut found = 0;
        for (at, from) in starts.iter().enumerate() {
            let block = &bytes[*from..starts.get(at + 1).copied().unwrap_or(bytes.len())];
            let (keys, _) = SignedPublicKey::from_reader_many(block).map_err(|why| why.to_string())?;
            // A key of a kind that is not known is no reason to refuse the others.
            let keys: Vec<_> = keys.filter_map(Result::ok).collect();
            found += keys.len();
            self.0.extend(keys);
        }
        if found == 0 { Err("there is no public key in it".to_string()) } else { Ok(()) }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text of a cleartext-signed message (RFC 9580, section 7) that one of these keys has signed. All of the
    /// message is the text: nothing stands before or behind it. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// Why no signature on it counts.
    pub fn verified(&self, message: &str, now: i64) -> Result<String, String> {
        let (signed, _) = CleartextSignedMessage::from_string(message)
            .map_err(|why| format!("it is not a signed message: {why}"))?;
        let text = signed.signed_text();
        let mut troubles = Vec::new();
        for signature in signed.signatures() {
            match self.check(signature, text.as_bytes(), now) {
                Ok(()) => return Ok(text.replace("\r\n", "\n")),
                Err(why) => troubles.push(why),
            }
        }
        if troubles.is_empty() {
            troubles.push("there is no signature".to_string());
        }
        Err(troubles.join("; "))
    }

    fn check(&self, signature: &Signature, text: &[u8], now: i64) -> Result<(), String> {
        is_strong(signature)?;
        if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
            return Err("a signature is not one of a text".to_string());
        }
        let made = i64::from(signature.created().ok_or("a signature has no date")?.as_secs());
        if made > now + SKEW {
            return Err("a signature was made in the future".to_string());
        }
        let lasts = signature.signature_expiration_time().map_or(0, |time| i64::from(time.as_secs()));
        if lasts > 0 && made + lasts <= now {
            return Err("a signature has expired".to_string());
        }
        let mut why = format!("the key {} is not in the keyring", issuer(signature));
        for key in &self.0 {
            let subkeys = key.public_subkeys.iter().filter(|subkey| is_by(signature, *subkey));
            for subkey in subkeys {
                match signing_subkey(key, subkey, now).and_then(|()| verify(signature, subkey, text)) {
                    Ok(()) => return Ok(()),
                    Err(trouble) => why = trouble,
                }
            }
            if is_by(signature, key) {
                match signing_primary(key, now).and_then(|()| verify(signature, &key.primary_key, text)) {
                    Ok(()) => return Ok(()),
                    Err(trouble) => why = trouble,
                }
            }
        }
        Err(why)
    }
}

fn verify(signature: &Signature, key: &impl VerifyingKey, text: &[u8]) -> Result<(), String> {
    signature
        .verify(key, text)
        .map_err(|_| format!("the signature of the key {} is not one of this text", key.fingerprint()))
}

/// Whether a signature says that it was made by this key.
fn is_by(signature: &Signature, key: &impl KeyDetails) -> bool {
    let (ids, prints) = (signature.issuer_key_id(), signature.issuer_fingerprint());
    match prints.is_empty() {
        false => prints.contains(&&key.fingerprint()),
        true => ids.contains(&&key.legacy_key_id()),
    }
}

fn issuer(signature: &Signature) -> String {
    let print = signature.issuer_fingerprint().first().map(ToString::to_string);
    let id = || signature.issuer_key_id().first().map(ToString::to_string);
    print.or_else(id).unwrap_or_else(|| "that nobody names".to_string())
}

/// Digests that can be forged, and what only its maker understands, do not count.
fn is_strong(signature: &Signature) -> Result<(), String> {
    use HashAlgorithm::{Sha3_256, Sha3_512, Sha256, Sha384, Sha512};
    match signature.hash_alg() {
        Some(Sha256 | Sha384 | Sha512 | Sha3_256 | Sha3_512) => {}
        Some(weak) => {
            return Err(format!(
                "the signature of the key {} uses the weak digest {weak}",
                issuer(signature)
            ));
        }
        None => return Err("a signature is of an unknown kind".to_string()),
    }
    let critical = signature.config().into_iter().flat_map(|config| config.hashed_subpackets());
    for part in critical.filter(|part| part.is_critical) {
        if matches!(
            part.data,
            SubpacketData::Notation(_) | SubpacketData::Experimental(..) | SubpacketData::Other(..)
        ) {
            return Err("a signature has a condition that is not known".to_string());
        }
    }
    Ok(())
}

/// Whether the primary key holds at `now`, by its newest self-signature; which is returned.
fn primary(key: &SignedPublicKey, now: i64) -> Result<&Signature, String> {
    let print = key.fingerprint();
    is_strong_key(key)?;
    if key
        .details
        .revocation_signatures
        .iter()
        .any(|signature| signature.verify_key(&key.primary_key).is_ok())
    {
        return Err(format!("the key {print} has been revoked"));
    }
    let of_users = key.details.users.iter().flat_map(|user| {
        let by_itself = |signature: &&Signature| {
            signature.is_certification()
                && signature.verify_certification(&key.primary_key, Tag::UserId, &user.id).is_ok()
        };
        user.signatures.iter().filter(by_itself)
    });
    let direct = key.details.direct_signatures.iter();
    let direct = direct.filter(|signature| signature.verify_key(&key.primary_key).is_ok());
    let newest = newest(of_users.chain(direct), now);
    let newest = newest.ok_or_else(|| format!("the key {print} has no good signature of its own"))?;
    expired(&key.primary_key, newest, now)?;
    Ok(newest)
}

fn signing_primary(key: &SignedPublicKey, now: i64) -> Result<(), String> {
    let newest = primary(key, now)?;
    let mut parts = newest.config().into_iter().flat_map(|config| config.hashed_subpackets());
    let says = parts.any(|part| matches!(part.data, SubpacketData::KeyFlags(_)));
    if says && !newest.key_flags().sign() {
        return Err(format!("the key {} is not one for signing", key.fingerprint()));
    }
    Ok(())
}

fn signing_subkey(key: &SignedPublicKey, subkey: &SignedPublicSubKey, now: i64) -> Result<(), String> {
    primary(key, now)?;
    let print = subkey.fingerprint();
    is_strong_key(subkey)?;
    let good = |signature: &&Signature, typ: SignatureType| {
        signature.typ() == Some(typ) && signature.verify_subkey_binding(&key.primary_key, &subkey.key).is_ok()
    };
    if subkey.signatures.iter().any(|signature| good(&signature, SignatureType::SubkeyRevocation)) {
        return Err(format!("the key {print} has been revoked"));
    }
    let bindings = subkey.signatures.iter().filter(|signature| good(signature, SignatureType::SubkeyBinding));
    let binding = newest(bindings, now).ok_or_else(|| format!("the key {print} belongs to no other"))?;
    // The subkey has to agree, or somebody could pass a stranger's key off as their own.
    let back = binding.embedded_signature().filter(|back| is_strong(back).is_ok());
    let agrees =
        back.is_some_and(|back| back.verify_primary_key_binding(&subkey.key, &key.primary_key).is_ok());
    if !binding.key_flags().sign() || !agrees {
        return Err(format!("the key {print} is not one for signing"));
    }
    expired(&subkey.key, binding, now)
}

/// The last of the strong ones that have been made by `now`.
fn newest<'k>(all: impl Iterator<Item = &'k Signature>, now: i64) -> Option<&'k Signature> {
    let made = |signature: &Signature| i64::from(signature.created().map_or(0, |made| made.as_secs()));
    let good = |signature: &&Signature| {
        let lasts = signature.signature_expiration_time().map_or(0, |time| i64::from(time.as_secs()));
        is_strong(signature).is_ok()
            && made(signature) <= now + SKEW
            && (lasts == 0 || made(signature) + lasts > now)
    };
    all.filter(good).max_by_key(|signature| made(signature))
}

fn expired(key: &impl KeyDetails, by: &Signature, now: i64) -> Result<(), String> {
    let lasts = by.key_expiration_time().map_or(0, |time| i64::from(time.as_secs()));
    let until = i64::from(key.created_at().as_secs()) + lasts;
    match lasts > 0 && until <= now {
        true => Err(format!("the key {} expired at {}", key.fingerprint(), super::release::shown(until))),
        false => Ok(()),
    }
}

fn is_strong_key(key: &impl KeyDetails) -> Result<(), String> {
    let weak = match key.public_params() {
        PublicParams::RSA(_) => key.public_params().write_len() < SHORTEST_RSA,
        PublicParams::DSA(_) | PublicParams::Elgamal(_) | PublicParams::Unknown { .. } => true,
        _ => false,
    };
    if weak { Err(format!("the key {} is too weak", key.fingerprint())) } else { Ok(()) }
}
