//! Records: small JSON documents that tell by themselves whether they are whole.
//!
//! Two lines: a checksum and the JSON. The checksum is BLAKE3 (derive-key, context `isolith record v1`) of
//! the record's name (`actions/<key>`), a newline, and the JSON: a record that was cut short, changed, or
//! put under another name does not check out, and counts as missing. One file may hold several records of
//! different names, one after the other; each reader takes the one that checks out under the name it wants.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Store, io};
use crate::error::{Error, Result};

fn checksum(name: &str, json: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key("isolith record v1");
    hasher.update(name.as_bytes()).update(b"\n").update(json);
    hasher.finalize()
}

/// The bytes of a record's file.
pub(super) fn seal(name: &str, value: &impl Serialize) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(value)
        .map_err(|e| Error::machine(format!("cannot write the record {name}")).because(e))?;
    let mut bytes = Vec::with_capacity(json.len() + 66);
    bytes.extend_from_slice(checksum(name, &json).to_hex().as_bytes());
    bytes.push(b'\n');
    bytes.extend_from_slice(&json);
    bytes.push(b'\n');
    Ok(bytes)
}

/// The value of the record `name` in a file; none when it is not there, or anything about it is wrong.
pub(super) fn unseal<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Option<T> {
    let (mut rest, mut found) = (bytes, None);
    // To the end: a file with something else behind its records was not written by us.
    while !rest.is_empty() {
        let (sum, after) = rest.split_at_checked(64)?;
        let after = after.strip_prefix(b"\n")?;
        let end = after.iter().position(|byte| *byte == b'\n')?;
        let json = &after[..end];
        if found.is_none() && checksum(name, json).to_hex().as_bytes() == sum {
            found = Some(json);
        }
        rest = &after[end + 1..];
    }
    serde_json::from_slice(found?).ok()
}

impl Store {
    /// Reads a record; none when it is missing or damaged.
    pub(super) fn get_record<T: DeserializeOwned>(&self, path: &Path, name: &str) -> Result<Option<T>> {
        Ok(io::read(path)?.and_then(|bytes| unseal(name, &bytes)))
    }

    /// Writes a record in place of an older one.
    pub(super) fn put_record(&self, path: &Path, name: &str, value: &impl Serialize) -> Result<()> {
        self.write(path, &seal(name, value)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_cut_changed_or_moved_does_not_check_out() {
        let bytes = seal("notes/a", &vec![1, 2, 3]).unwrap();
        assert_eq!(unseal::<Vec<u32>>("notes/a", &bytes), Some(vec![1, 2, 3]));
        assert_eq!(unseal::<Vec<u32>>("notes/b", &bytes), None);
        assert_eq!(unseal::<String>("notes/a", &bytes), None);
        for cut in 0..bytes.len() {
            assert_eq!(unseal::<Vec<u32>>("notes/a", &bytes[..cut]), None, "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(unseal::<Vec<u32>>("notes/a", &changed), None, "changed at {at}");
        }
        for more in [&b"x"[..], b"\n", b"{}\n", &bytes[..bytes.len() - 1]] {
            assert_eq!(unseal::<Vec<u32>>("notes/a", &[&bytes, more].concat()), None);
        }
        let both = [bytes, seal("notes/b", &"text").unwrap()].concat();
        assert_eq!(unseal::<Vec<u32>>("notes/a", &both), Some(vec![1, 2, 3]));
        assert_eq!(unseal::<String>("notes/b", &both).as_deref(), Some("text"));
    }
}
