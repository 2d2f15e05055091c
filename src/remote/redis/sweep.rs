//! Lists what is there, and takes out blobs that nobody wants.

use std::time::{SystemTime, UNIX_EPOCH};

use super::wire::Answer;
use super::{Redis, bytes_of, number, odd, one};
use crate::error::Result;
use crate::oci::Digest;
use crate::remote::Swept;

/// Deletes a string that nobody has asked for in so many seconds, and gives how long it was; -1 where it stays. In one
/// step, so whoever finds it there before has it, and whoever comes later finds it gone.
const DELETE: &[u8] = b"local idle = redis.call('OBJECT', 'IDLETIME', KEYS[1])
if not idle or idle < tonumber(ARGV[1]) then return -1 end
local length = redis.call('STRLEN', KEYS[1])
redis.call('DEL', KEYS[1])
return length";

impl Redis {
    /// What comes after `<prefix><kind>/` in the names that begin so.
    pub(super) fn names(&self, kind: &str) -> Result<Vec<String>> {
        let prefix = format!("{}{kind}/", self.prefix);
        // What means something in a pattern is taken for itself.
        let pattern: String = prefix
            .chars()
            .flat_map(|c| if "*?[]\\".contains(c) { vec!['\\', c] } else { vec![c] })
            .chain(['*'])
            .collect();
        self.call(|connection, deadline| {
            let (mut found, mut cursor) = (Vec::new(), "0".to_string());
            loop {
                let command =
                    vec![&b"SCAN"[..], cursor.as_bytes(), b"MATCH", pattern.as_bytes(), b"COUNT", b"1000"];
                let answer = one(connection, command, deadline)?;
                let Answer::Several(parts) = answer else { return Err(odd()) };
                let Ok([next, Answer::Several(names)]) = <[Answer; 2]>::try_from(parts) else {
                    return Err(odd());
                };
                for name in names {
                    let name = String::from_utf8(bytes_of(name)?).unwrap_or_default();
                    found.extend(name.strip_prefix(&prefix).map(str::to_string));
                }
                cursor = String::from_utf8(bytes_of(next)?).map_err(|_| odd())?;
                if cursor == "0" {
                    break;
                }
            }
            // A name may come twice while the server moves things.
            found.sort_unstable();
            found.dedup();
            Ok(found)
        })
    }

    /// Deletes blobs that nobody has asked for since `before`. Uploads that were left alone expire by themselves.
    pub(super) fn delete_unwanted(&self, wanted: &dyn Fn(&Digest) -> bool, before: i64) -> Result<Swept> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        let idle = now.saturating_sub(before).max(0).to_string();
        let mut swept = Swept::default();
        for name in self.names("blobs")? {
            if format!("sha256:{name}").parse::<Digest>().is_ok_and(|digest| wanted(&digest)) {
                continue;
            }
            let key = format!("{}blobs/{name}", self.prefix);
            let command = || vec![&b"EVAL"[..], DELETE, b"1", key.as_bytes(), idle.as_bytes()];
            let length = self.call(|connection, deadline| number(one(connection, command(), deadline)?))?;
            if let Ok(length) = u64::try_from(length) {
                swept.blobs += 1;
                swept.bytes += length;
            }
        }
        Ok(swept)
    }
}
