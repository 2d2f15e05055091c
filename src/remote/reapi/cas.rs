//! The content-addressable storage: what the server can do, what it has, and small blobs, many at a time.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::ops::Range;

use re::batch_update_blobs_request::Request as Update;
use re::compressor::Value as Compressor;
use re::digest_function::Value::Sha256;
use re::{
    BatchReadBlobsRequest, BatchUpdateBlobsRequest, Digest, FindMissingBlobsRequest, GetCapabilitiesRequest,
};
use tonic::{Code, Status};

use super::super::settings::Deadline;
use super::re;
use super::record::{EMPTY, digest};
use super::server::Server;
use crate::error::{Error, Result};

/// What a gRPC message may have where nothing else was agreed upon is 4 MiB; some of it is not content.
const MOST_BATCH: usize = (4 << 20) - (64 << 10);
/// The most digests in a message: less than a megabyte.
const MOST_DIGESTS: usize = 10_000;
/// Blobs of fewer bytes are not worth compressing.
const LEAST_COMPRESSED: usize = 128;
/// How blobs are compressed that are not yet: quickly.
pub(super) const LEVEL: i32 = 1;

/// What a server can do.
pub(super) struct Abilities {
    /// The most bytes of blobs in one message.
    pub batch: usize,
    /// It takes compressed blobs in batches.
    pub zstd_batch: bool,
    /// It sends and takes compressed blobs in streams.
    pub zstd_stream: bool,
    /// The largest blob that it takes, where it has said so.
    pub most_blob: Option<u64>,
    /// Results may be put into its action cache.
    pub updates: bool,
}

impl Server {
    /// Asks what the server can do.
    pub fn abilities(&self, deadline: Deadline) -> Result<Abilities> {
        let client = self.capabilities();
        let answer = self.ask(deadline, 0, || {
            let (mut client, instance_name) = (client.clone(), self.instance.clone());
            async move { client.get_capabilities(GetCapabilitiesRequest { instance_name }).await }
        });
        let answer = answer.map_err(|why| self.failed("ask for the abilities of", &why, deadline))?;
        let cache = answer.cache_capabilities.ok_or_else(|| {
            Error::machine(format!("{} is no cache", self.name))
                .because("its capabilities have no `cache_capabilities`")
        })?;
        if !cache.digest_functions.contains(&(Sha256 as i32)) {
            return Err(Error::machine(format!("{} cannot be used", self.name))
                .because("it does not name blobs by SHA-256")
                .hint("ask for an instance that does: layers have SHA-256 names, as in images"));
        }
        let zstd = |list: &[i32]| list.contains(&(Compressor::Zstd as i32));
        Ok(Abilities {
            batch: match usize::try_from(cache.max_batch_total_size_bytes) {
                Ok(most @ 1..) => most.min(MOST_BATCH),
                _ => MOST_BATCH,
            },
            zstd_batch: zstd(&cache.supported_batch_update_compressors),
            zstd_stream: zstd(&cache.supported_compressors),
            most_blob: u64::try_from(cache.max_cas_blob_size_bytes).ok().filter(|most| *most > 0),
            updates: cache.action_cache_update_capabilities.is_some_and(|can| can.update_enabled),
        })
    }

    /// The hashes of those that are not there.
    pub fn missing(&self, digests: &[Digest], deadline: Deadline) -> Result<HashSet<String>> {
        let client = self.cas();
        let mut missing = HashSet::new();
        // Nothing is always there.
        let asked: Vec<&Digest> = digests.iter().filter(|digest| digest.hash != EMPTY).collect();
        for some in asked.chunks(MOST_DIGESTS) {
            let request = FindMissingBlobsRequest {
                instance_name: self.instance.clone(),
                blob_digests: some.iter().copied().cloned().collect(),
                digest_function: Sha256 as i32,
            };
            let answer = self.ask(deadline, 0, || {
                let (mut client, request) = (client.clone(), request.clone());
                async move { client.find_missing_blobs(request).await }
            });
            let answer = answer.map_err(|why| self.failed("look for blobs in", &why, deadline))?;
            missing.extend(answer.missing_blob_digests.into_iter().map(|digest| digest.hash));
        }
        Ok(missing)
    }

    /// Puts small blobs there, none larger than a batch.
    pub fn put_small(&self, can: &Abilities, blobs: &[(Digest, Vec<u8>)], deadline: Deadline) -> Result<()> {
        let client = self.cas();
        for some in batches(blobs.iter().map(|(_, bytes)| bytes.len()), can.batch) {
            let some = &blobs[some];
            let request = BatchUpdateBlobsRequest {
                instance_name: self.instance.clone(),
                requests: some.iter().map(|(digest, bytes)| update(can, digest, bytes)).collect(),
                digest_function: Sha256 as i32,
            };
            let size = some.iter().map(|(_, bytes)| bytes.len()).sum();
            let answer = self.ask(deadline, size, || {
                let (mut client, request) = (client.clone(), request.clone());
                async move { client.batch_update_blobs(request).await }
            });
            let answer = answer.map_err(|why| self.failed("put blobs into", &why, deadline))?;
            for (digest, _) in some {
                let said = answer.responses.iter().find(|said| said.digest.as_ref() == Some(digest));
                let status = match said.map(|said| said.status.clone().unwrap_or_default()) {
                    Some(status) if status.code == 0 => continue,
                    Some(status) => Status::new(Code::from(status.code), status.message),
                    None => Status::internal(format!("nothing is said of {}", digest.hash)),
                };
                return Err(self.failed("put blobs into", &status, deadline));
            }
        }
        Ok(())
    }

    /// Gets small blobs, none larger than a batch: those that are there and have the right bytes, by their hash.
    pub fn get_small(
        &self,
        can: &Abilities,
        digests: &[Digest],
        deadline: Deadline,
    ) -> Result<HashMap<String, Vec<u8>>> {
        let client = self.cas();
        let mut found = HashMap::new();
        for some in batches(digests.iter().map(|digest| digest.size_bytes as usize), can.batch) {
            let some = &digests[some];
            let mut acceptable_compressors = vec![Compressor::Identity as i32];
            acceptable_compressors.extend(can.zstd_stream.then_some(Compressor::Zstd as i32));
            let request = BatchReadBlobsRequest {
                instance_name: self.instance.clone(),
                digests: some.to_vec(),
                acceptable_compressors,
                digest_function: Sha256 as i32,
            };
            let size = some.iter().map(|digest| digest.size_bytes as usize).sum();
            let answer = self.ask(deadline, size, || {
                let (mut client, request) = (client.clone(), request.clone());
                async move { client.batch_read_blobs(request).await }
            });
            let answer = answer.map_err(|why| self.failed("get blobs from", &why, deadline))?;
            for one in answer.responses {
                let Some(wanted) = one.digest else { continue };
                match Code::from(one.status.as_ref().map_or(0, |status| status.code)) {
                    Code::Ok => {
                        if let Some(bytes) = plain(one.data, one.compressor, wanted.size_bytes)
                            && digest(&bytes) == wanted
                        {
                            found.insert(wanted.hash, bytes);
                        }
                    }
                    Code::NotFound => {}
                    code => {
                        let status = Status::new(code, one.status.unwrap_or_default().message);
                        return Err(self.failed("get blobs from", &status, deadline));
                    }
                }
            }
        }
        Ok(found)
    }
}

/// A blob of a batch, compressed where the server takes that and it helps.
fn update(can: &Abilities, digest: &Digest, bytes: &[u8]) -> Update {
    let packed = match can.zstd_batch && bytes.len() >= LEAST_COMPRESSED {
        true => zstd::bulk::compress(bytes, LEVEL).ok().filter(|packed| packed.len() < bytes.len()),
        false => None,
    };
    let compressor = if packed.is_some() { Compressor::Zstd } else { Compressor::Identity };
    Update {
        digest: Some(digest.clone()),
        data: packed.unwrap_or_else(|| bytes.to_vec()),
        compressor: compressor as i32,
    }
}

/// The bytes of a blob of a batch; none when they cannot be had, or are too many.
fn plain(data: Vec<u8>, compressor: i32, size: i64) -> Option<Vec<u8>> {
    match Compressor::try_from(compressor).ok()? {
        Compressor::Identity => Some(data),
        Compressor::Zstd => {
            let mut bytes = Vec::new();
            let from = zstd::stream::read::Decoder::new(&data[..]).ok()?;
            from.take(size as u64 + 1).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        }
        _ => None,
    }
}

/// Parts of a list that together have at most `most` bytes each. What is larger goes alone.
fn batches(sizes: impl Iterator<Item = usize>, most: usize) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut full = 0;
    for (at, size) in sizes.enumerate() {
        match parts.last_mut() {
            Some(part) if full + size <= most && part.len() < MOST_DIGESTS => {
                part.end = at + 1;
                full += size;
            }
            _ => {
                parts.push(at..at + 1);
                full = size;
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_within_the_limit() {
        assert!(batches([].into_iter(), 10).is_empty());
        assert_eq!(batches([4, 6, 1, 9, 1, 11, 0].into_iter(), 10), [0..2, 2..4, 4..5, 5..6, 6..7]);
        assert_eq!(batches([0; 5].into_iter(), 10).first(), Some(&(0..5)));
    }
}
