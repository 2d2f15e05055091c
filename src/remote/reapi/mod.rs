//! A cluster or cache that speaks the Remote Execution API of Bazel, version 2, as a remote: blobs are in its
//! content-addressable storage under their SHA-256, records in its action cache (docs/format.md, "Remotes").
//!
//! The API: <https://github.com/bazelbuild/remote-apis>, `build/bazel/remote/execution/v2/remote_execution.proto`;
//! large blobs go through the byte streams of `google/bytestream/bytestream.proto`.

mod cas;
mod connection;
mod headers;
mod record;
mod refusal;
mod server;
mod stream;

use std::collections::HashMap;
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::sync::OnceLock;

use bazel_remote_apis::build::bazel::remote::execution::v2 as re;
use re::digest_function::Value::Sha256;
use re::{ActionResult, Digest, GetActionResultRequest, UpdateActionResultRequest};
use tonic::{Code, Status};

use self::cas::Abilities;
use self::record::{EMPTY, Held, action, held, of_blob};
use self::server::Server;
use super::address::Address;
use super::settings::Deadline;
use super::{Blob, Reader, RecordKey, Remote, Settings, Source};
use crate::error::{Error, Result};
use crate::oci::Checked;

/// Blobs up to this size go in one message, in bytes.
const MOST_SMALL: usize = 1 << 20;

/// Records as results of actions, blobs in the storage beside them.
pub(super) struct Reapi {
    server: Server,
    /// Asked for when it first matters.
    abilities: OnceLock<Abilities>,
}

impl Reapi {
    pub fn open(address: &Address, settings: &Settings) -> Result<Reapi> {
        address.expect(&[], true)?;
        Ok(Reapi { server: Server::open(address, settings)?, abilities: OnceLock::new() })
    }

    fn deadline(&self, bytes: u64) -> Deadline {
        Deadline::moving(bytes, self.server.limits)
    }

    fn can(&self, deadline: Deadline) -> Result<&Abilities> {
        if let Some(can) = self.abilities.get() {
            return Ok(can);
        }
        let can = self.server.abilities(deadline)?;
        Ok(self.abilities.get_or_init(|| can))
    }

    /// What is kept for each of these records.
    fn results(&self, keys: &[RecordKey], deadline: Deadline) -> Result<Vec<Held>> {
        let client = self.server.actions();
        let answers = self.server.ask_all(deadline, keys.len(), |at| {
            let request = GetActionResultRequest {
                instance_name: self.server.instance.clone(),
                action_digest: Some(action(&keys[at]).digest),
                inline_stdout: true,
                digest_function: Sha256 as i32,
                ..GetActionResultRequest::default()
            };
            let mut client = client.clone();
            async move { client.get_action_result(request).await }
        });
        let one = |answer: Result<ActionResult, Status>| match answer {
            Ok(result) => Ok(held(result)),
            Err(why) if why.code() == Code::NotFound => Ok(Held::Nothing),
            Err(why) => Err(self.server.failed("ask for records in", &why, deadline)),
        };
        answers.into_iter().map(one).collect()
    }

    fn put_result(&self, key: &RecordKey, result: ActionResult, deadline: Deadline) -> Result<()> {
        let client = self.server.actions();
        let request = UpdateActionResultRequest {
            instance_name: self.server.instance.clone(),
            action_digest: Some(action(key).digest),
            action_result: Some(result),
            digest_function: Sha256 as i32,
            ..UpdateActionResultRequest::default()
        };
        let answer = self.server.ask(deadline, 0, || {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.update_action_result(request).await }
        });
        answer
            .map(drop)
            .map_err(|why| self.server.failed(&format!("put the record {key} into"), &why, deadline))
    }

    fn expect_updates(&self, can: &Abilities) -> Result<()> {
        match can.updates {
            true => Ok(()),
            false => Err(Error::machine(format!("{} takes no records", self.server.name))
                .because("its action cache may not be updated, it says")
                .hint("give the credentials of somebody who may, or set `write = false` for this remote")),
        }
    }

    /// Puts bytes there that are in memory.
    fn put_bytes(&self, can: &Abilities, blobs: Vec<(Digest, Vec<u8>)>, deadline: Deadline) -> Result<()> {
        let (small, large): (Vec<_>, Vec<_>) =
            blobs.into_iter().partition(|(_, bytes)| bytes.len() <= can.batch);
        self.server.put_small(can, &small, deadline)?;
        large.into_iter().try_for_each(|(digest, bytes)| {
            let mut source = || Ok(Box::new(Cursor::new(bytes.clone())) as Box<dyn Read>);
            self.server.send(can, &as_blob(&digest)?, &mut source, deadline)
        })
    }

    /// Gets what fits into memory: what is there and has the right bytes, by its hash.
    fn get_bytes(&self, digests: &[Digest], deadline: Deadline) -> Result<HashMap<String, Vec<u8>>> {
        if digests.is_empty() {
            return Ok(HashMap::new());
        }
        let can = self.can(deadline)?;
        let (small, large): (Vec<_>, Vec<_>) =
            digests.iter().cloned().partition(|digest| digest.size_bytes as usize <= can.batch);
        let mut found = self.server.get_small(can, &small, deadline)?;
        for digest in large {
            let mut bytes = Vec::new();
            let mut read = |from: &mut dyn Read| {
                // More than there should be shows in the digest; a broken end is told below.
                let _ = from.take(digest.size_bytes as u64 + 1).read_to_end(&mut bytes);
                Ok(())
            };
            if self.server.receive(can, &as_blob(&digest)?, None, &mut read, deadline)?
                && record::digest(&bytes) == digest
            {
                found.insert(digest.hash, bytes);
            }
        }
        Ok(found)
    }
}

impl Remote for Reapi {
    fn name(&self) -> String {
        self.server.name.clone()
    }

    fn records(&self, keys: &[RecordKey]) -> Result<Vec<Option<Vec<u8>>>> {
        let deadline = self.deadline(0);
        let results = self.results(keys, deadline)?;
        let elsewhere = |held: &Held| match held {
            Held::Elsewhere(digest) => Some(digest.clone()),
            _ => None,
        };
        let wanted: Vec<Digest> = results.iter().filter_map(elsewhere).collect();
        let found = self.get_bytes(&wanted, deadline)?;
        let bytes = |held| match held {
            Held::Nothing => None,
            Held::Bytes(bytes) => Some(bytes),
            Held::Elsewhere(digest) => found.get(&digest.hash).cloned(),
        };
        Ok(results.into_iter().map(bytes).collect())
    }

    fn put_record(&self, key: &RecordKey, bytes: &[u8], blobs: &[Blob]) -> Result<()> {
        super::expect_short(key, bytes)?;
        let deadline = self.deadline(0);
        let can = self.can(deadline)?;
        self.expect_updates(can)?;
        let digests: Vec<Digest> = blobs.iter().map(of_blob).collect::<Result<_>>()?;
        let mut messages: Vec<_> = action(key).messages.into();
        messages.push((record::digest(bytes), bytes.to_vec()));
        let asked: Vec<Digest> =
            digests.iter().chain(messages.iter().map(|(digest, _)| digest)).cloned().collect();
        let missing = self.server.missing(&asked, deadline)?;
        let has: Vec<bool> = digests.iter().map(|digest| !missing.contains(&digest.hash)).collect();
        super::expect_all(&self.server.name, key, blobs, &has)?;
        messages.retain(|(digest, _)| missing.contains(&digest.hash));
        self.put_bytes(can, messages, deadline)?;
        self.put_result(key, record::result(bytes, blobs)?, deadline)
    }

    fn has_blobs(&self, blobs: &[Blob]) -> Result<Vec<bool>> {
        let digests: Vec<Digest> = blobs.iter().map(of_blob).collect::<Result<_>>()?;
        let missing = self.server.missing(&digests, self.deadline(0))?;
        Ok(digests.iter().map(|digest| !missing.contains(&digest.hash)).collect())
    }

    fn blob(&self, blob: &Blob, range: Option<Range<u64>>, read: Reader) -> Result<bool> {
        let digest = of_blob(blob)?;
        let all = range.as_ref().is_none_or(|range| *range == (0..blob.size));
        if let Some(range) = &range
            && (range.start > range.end || range.end > blob.size)
        {
            return Ok(false);
        }
        if range.as_ref().is_some_and(|range| range.is_empty()) || blob.size == 0 {
            let there = match blob.size {
                0 => all && digest.hash == EMPTY,
                _ => self.has_blobs(std::slice::from_ref(blob))?[0],
            };
            return if there { read(&mut io::empty()).map(|()| true) } else { Ok(false) };
        }
        let deadline = self.deadline(blob.size);
        self.server.receive(self.can(deadline)?, blob, range, read, deadline)
    }

    fn put_blob(&self, blob: &Blob, source: Source) -> Result<()> {
        let deadline = self.deadline(blob.size);
        let can = self.can(deadline)?;
        let digest = of_blob(blob)?;
        if self.server.missing(std::slice::from_ref(&digest), deadline)?.is_empty() {
            return Ok(());
        }
        if let Some(most) = can.most_blob.filter(|most| *most < blob.size) {
            return Err(Error::machine(format!("{} does not fit into {}", blob.digest, self.server.name))
                .because(format!("it has {} bytes, and the server takes at most {most} in one", blob.size))
                .hint(
                    "use another remote for layers as large as this, or let the server take larger blobs",
                ));
        }
        if blob.size > can.batch.min(MOST_SMALL) as u64 {
            return self.server.send(can, blob, source, deadline);
        }
        let unread =
            |why| Error::machine(format!("cannot send {} to {}", blob.digest, self.server.name)).because(why);
        let mut bytes = Vec::new();
        Checked::new(source()?, blob.digest.clone(), Some(blob.size))
            .and_then(|mut from| from.read_to_end(&mut bytes))
            .map_err(unread)?;
        self.server.put_small(can, &[(digest, bytes)], deadline)
    }

    fn keys(&self) -> Result<Vec<RecordKey>> {
        Err(Error::usage(format!("{} cannot be listed", self.server.name))
            .hint("the Remote Execution API has no list of results; its server drops what nobody has asked for long"))
    }

    fn remove(&self, key: &RecordKey) -> Result<bool> {
        let deadline = self.deadline(0);
        let there = self.results(std::slice::from_ref(key), deadline)?;
        if there.iter().all(|held| matches!(held, Held::Nothing)) {
            return Ok(false);
        }
        self.expect_updates(self.can(deadline)?)?;
        self.put_result(key, record::removed(), deadline).map(|()| true)
    }
}

fn as_blob(digest: &Digest) -> Result<Blob> {
    let name = format!("sha256:{}", digest.hash);
    let name = name.parse().map_err(|_| Error::machine("the server names a record by what is no SHA-256"))?;
    Ok(Blob { digest: name, size: digest.size_bytes as u64 })
}
