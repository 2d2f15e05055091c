//! Records as results of actions (docs/format.md, "Remotes").
//!
//! An action cache keeps results under the digest of an action. The action of a record is a command that names the
//! record and is never run; its result has the record for its output and the blobs that it refers to for its files,
//! so a server that looks after the completeness of results keeps them, and forgets a result that has lost one.

use prost::Message;
use re::{Action, ActionResult, Command, Digest, OutputFile};

use super::super::{Blob, MOST_RECORD, RecordKey, hex};
use super::re;
use crate::error::Result;
use crate::oci::Hasher;

/// The SHA-256 of nothing: the directory in which nothing is run, and the blob that is always there.
pub(super) const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// The longest record that is also in the result itself, in bytes, so that one request is enough to read it.
const MOST_INLINE: usize = 64 << 10;
/// The exit code of the result that stands where a record was taken out: the API has no way to remove one.
const REMOVED: i32 = 1;

/// An action and what it refers to.
pub(super) struct Named {
    /// Under what the result is kept.
    pub digest: Digest,
    /// The messages that have to be in the CAS for tools to show the action.
    pub messages: [(Digest, Vec<u8>); 2],
}

/// The action that stands for a record.
pub(super) fn action(key: &RecordKey) -> Named {
    let arguments = ["isolith", "record", &key.to_string()].map(str::to_string).into();
    let command = Command { arguments, ..Command::default() }.encode_to_vec();
    let root = Digest { hash: EMPTY.to_string(), size_bytes: 0 };
    let action =
        Action { command_digest: Some(digest(&command)), input_root_digest: Some(root), ..Action::default() };
    let action = action.encode_to_vec();
    Named { digest: digest(&action), messages: [(digest(&command), command), (digest(&action), action)] }
}

/// The result that holds a record.
pub(super) fn result(bytes: &[u8], blobs: &[Blob]) -> Result<ActionResult> {
    let file = |blob: &Blob| {
        let digest = of_blob(blob)?;
        Ok(OutputFile {
            path: format!("blobs/{}", digest.hash),
            digest: Some(digest),
            ..OutputFile::default()
        })
    };
    let stdout_raw = if bytes.len() <= MOST_INLINE { bytes.to_vec() } else { Vec::new() };
    Ok(ActionResult {
        output_files: blobs.iter().map(file).collect::<Result<_>>()?,
        stdout_digest: Some(digest(bytes)),
        stdout_raw,
        ..ActionResult::default()
    })
}

/// The result where a record was taken out.
pub(super) fn removed() -> ActionResult {
    ActionResult { exit_code: REMOVED, ..ActionResult::default() }
}

/// What a result says of the record that it holds.
pub(super) enum Held {
    /// It holds none.
    Nothing,
    /// It holds it itself.
    Bytes(Vec<u8>),
    /// It is in the CAS.
    Elsewhere(Digest),
}

/// Looks into a result. What it holds is what its digest says, or nothing.
pub(super) fn held(result: ActionResult) -> Held {
    let Some(wanted) = result.stdout_digest.filter(|_| result.exit_code == 0) else { return Held::Nothing };
    if !(0..=MOST_RECORD as i64).contains(&wanted.size_bytes) {
        return Held::Nothing;
    }
    if digest(&result.stdout_raw) == wanted {
        return Held::Bytes(result.stdout_raw);
    }
    Held::Elsewhere(wanted)
}

/// The digest of bytes as the API writes it.
pub(super) fn digest(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    let text = hasher.text();
    let hash = text.strip_prefix("sha256:").unwrap_or(&text).to_string();
    Digest { hash, size_bytes: bytes.len() as i64 }
}

/// The digest of a blob as the API writes it.
///
/// # Errors
/// It is no SHA-256.
pub(super) fn of_blob(blob: &Blob) -> Result<Digest> {
    Ok(Digest { hash: hex(blob)?.to_string(), size_bytes: i64::try_from(blob.size).unwrap_or(i64::MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_one_action() {
        let named = |writer: &str| {
            let key = format!("def-{}-{}", "ab".repeat(32), writer.repeat(16));
            action(&key.parse().unwrap())
        };
        let one = named("07");
        // Written down in docs/format.md: with another encoding nobody would find what others have put there.
        let hash = "89a0bad87b46092db5898afdf321add4554ae5492b4dda6508a5454b00fa28c0";
        assert_eq!(one.digest, Digest { hash: hash.to_string(), size_bytes: 138 });
        let hash = "ac8b3a769ac0467fc0254751cebf86dfe5634af0cfb2c541b640791ccb85829a";
        assert_eq!(one.messages[0].0, Digest { hash: hash.to_string(), size_bytes: 120 });
        for (digest, bytes) in &one.messages {
            assert_eq!(super::digest(bytes), *digest);
        }
        assert_eq!(one.digest, one.messages[1].0);
        assert_ne!(one.digest, named("08").digest);
    }

    #[test]
    fn what_a_result_holds_is_what_its_digest_says() {
        let bytes = |result| match held(result) {
            Held::Bytes(bytes) => Some(bytes),
            _ => None,
        };
        assert_eq!(bytes(result(b"x", &[]).unwrap()).as_deref(), Some(&b"x"[..]));
        assert_eq!(bytes(result(b"", &[]).unwrap()).as_deref(), Some(&b""[..]));
        let wrong = ActionResult { stdout_raw: b"y".to_vec(), ..result(b"x", &[]).unwrap() };
        assert!(matches!(held(wrong), Held::Elsewhere(_)));
        assert!(matches!(held(result(&[0; MOST_INLINE + 1], &[]).unwrap()), Held::Elsewhere(_)));
        let large = ActionResult {
            stdout_digest: Some(Digest { hash: EMPTY.into(), size_bytes: MOST_RECORD as i64 + 1 }),
            ..ActionResult::default()
        };
        for none in [removed(), ActionResult::default(), large] {
            assert!(matches!(held(none), Held::Nothing));
        }
    }
}
