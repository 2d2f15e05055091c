//! A repository of a registry as a remote (docs/format.md, "Remotes").
//!
//! A record is an artifact (OCI image specification 1.1, "Guidelines for Artifact Usage") under a tag with its name.
//! Its first layer is the record; the others are the blobs that it refers to, so the registry keeps them. The record
//! is also in the manifest itself (the `data` of its descriptor), so that one request is enough to read it.

use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::address::Address;
use super::known::Known;
use super::settings::Deadline;
use super::{Blob, Limits, MOST_RECORD, Reader, RecordKey, Remote, Settings, Source, parallel};
use crate::error::{Error, Result};
use crate::oci::registry::{Credentials, Registry};
use crate::oci::{Checked, Descriptor, Digest, Hasher, MediaType, Reference};

/// The kind of artifact that a record is, and the media type of its bytes.
const RECORD_TYPE: &str = "application/vnd.isolith.record.v1";
/// The media type of layers in travelling form.
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The annotation with the name of the record, which also keeps two records with the same bytes apart.
const KEY: &str = "dev.isolith.record";
/// The configuration of an artifact that needs none, and its media type (image specification 1.1).
const EMPTY: (&[u8], &str) = (b"{}", "application/vnd.oci.empty.v1+json");

/// Records and blobs in one repository.
pub(super) struct Artifacts {
    registry: Registry,
    host: String,
    repository: String,
    limits: Limits,
    known: Known,
}

impl Artifacts {
    pub fn open(address: &Address, settings: &Settings) -> Result<Artifacts> {
        address.expect(&[], false)?;
        let (host, repository) = (address.host.clone(), address.path.clone());
        let whole = crate::oci::parse_reference(&format!("{host}/{repository}"));
        let good = |name: &Reference| name.registry() == host && name.repository() == repository;
        if !whole.as_ref().is_ok_and(good) {
            let error = Error::usage(format!("{} names no repository", address.shown()));
            let error = match whole {
                Err(why) => error.because(why),
                Ok(_) => error,
            };
            return Err(error.hint("write oci://registry.example/team/cache, without a tag"));
        }
        let credentials = Credentials { files: settings.registry_credentials.clone() };
        let registry = Registry::new(Arc::new(settings.patient_access()), Arc::new(credentials));
        Ok(Artifacts { registry, host, repository, limits: settings.limits, known: Known::default() })
    }

    fn tag(&self, name: String) -> Reference {
        Reference::with_tag(self.host.clone(), self.repository.clone(), name)
    }

    fn any(&self) -> Reference {
        self.tag("latest".to_string())
    }

    /// Runs a call within its time.
    fn call<T>(&self, work: impl FnOnce(&Deadline) -> Result<T>) -> Result<T> {
        self.moving(0, work)
    }

    /// Runs a call that moves so many bytes.
    fn moving<T>(&self, bytes: u64, work: impl FnOnce(&Deadline) -> Result<T>) -> Result<T> {
        let deadline = Deadline::moving(bytes, self.limits);
        work(&deadline).map_err(|error| super::late(&self.name(), deadline, error))
    }

    fn has(&self, blobs: &[Blob], deadline: &Deadline) -> Result<Vec<bool>> {
        let has = parallel::all(blobs, |blob| self.registry.has_blob(&self.any(), &blob.digest, deadline))?;
        self.known.add(blobs.iter().zip(&has).filter(|(_, has)| **has).map(|(blob, _)| blob));
        Ok(has)
    }

    fn push(&self, bytes: &[u8], deadline: &Deadline) -> Result<Blob> {
        let blob = Blob { digest: digest(bytes)?, size: bytes.len() as u64 };
        if let [other] = &self.known.others(std::slice::from_ref(&blob))[..] {
            let mut open = || -> Result<Box<dyn Read>> { Ok(Box::new(Cursor::new(bytes.to_vec()))) };
            self.registry.push_blob(&self.any(), (&other.digest, other.size), deadline, &mut open)?;
            self.known.add([other]);
        }
        Ok(blob)
    }

    /// The record in a manifest; none when there is none in it that is whole.
    fn record(&self, key: &RecordKey, manifest: &[u8], deadline: &Deadline) -> Result<Option<Vec<u8>>> {
        let Ok(manifest) = serde_json::from_slice::<Value>(manifest) else { return Ok(None) };
        let first = &manifest["layers"][0];
        let named = manifest["annotations"][KEY].as_str() == Some(&key.to_string());
        let digest: Option<Digest> = first["digest"].as_str().and_then(|text| text.parse().ok());
        let (Some(digest), Some(size)) = (digest, first["size"].as_u64()) else { return Ok(None) };
        if !named || first["mediaType"] != RECORD_TYPE || size > MOST_RECORD as u64 {
            return Ok(None);
        }
        if let Some(bytes) = first["data"].as_str().and_then(|data| STANDARD.decode(data).ok())
            && Hasher::check(&bytes, &digest).is_ok()
        {
            return Ok(Some(bytes));
        }
        let mut bytes = Vec::new();
        let blob = Descriptor::new(MediaType::Other(RECORD_TYPE.to_string()), size, digest.clone());
        let found = self.registry.blob_part(&self.any(), &blob, 0..size, deadline, &mut |from| {
            bytes.clear();
            from.read_to_end(&mut bytes).map(drop).map_err(|why| {
                Error::machine(format!("cannot read the record {key} of {}", self.name())).because(why)
            })
        })?;
        Ok((found && Hasher::check(&bytes, &digest).is_ok()).then_some(bytes))
    }
}

impl Remote for Artifacts {
    fn name(&self) -> String {
        format!("oci://{}/{}", self.host, self.repository)
    }

    fn records(&self, keys: &[RecordKey]) -> Result<Vec<Option<Vec<u8>>>> {
        self.call(|deadline| {
            parallel::all(keys, |key| match self.registry.tagged(&self.tag(key.to_string()), deadline)? {
                Some(manifest) => self.record(key, &manifest.bytes, deadline),
                None => Ok(None),
            })
        })
    }

    fn put_record(&self, key: &RecordKey, bytes: &[u8], blobs: &[Blob]) -> Result<()> {
        super::expect_short(key, bytes)?;
        self.call(|deadline| {
            let others = self.known.others(blobs);
            super::expect_all(&self.name(), key, &others, &self.has(&others, deadline)?)?;
            let config = self.push(EMPTY.0, deadline)?;
            let record = self.push(bytes, deadline)?;
            let mut layers = vec![json!({
                "mediaType": RECORD_TYPE, "digest": record.digest.as_ref(), "size": record.size, "data": STANDARD.encode(bytes),
            })];
            layers.extend(blobs.iter().map(|blob| {
                json!({ "mediaType": LAYER_TYPE, "digest": blob.digest.as_ref(), "size": blob.size })
            }));
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MediaType::ImageManifest.as_ref(),
                "artifactType": RECORD_TYPE,
                "config": { "mediaType": EMPTY.1, "digest": config.digest.as_ref(), "size": config.size },
                "layers": layers,
                "annotations": { KEY: key.to_string() },
            });
            let to = self.tag(key.to_string());
            let manifest = manifest.to_string();
            self.registry.push_manifest(&to, &MediaType::ImageManifest, manifest.as_bytes(), deadline).map(drop)
        })
    }

    fn has_blobs(&self, blobs: &[Blob]) -> Result<Vec<bool>> {
        self.call(|deadline| self.has(blobs, deadline))
    }

    fn blob(&self, blob: &Blob, range: Option<Range<u64>>, read: Reader) -> Result<bool> {
        let range = range.unwrap_or(0..blob.size);
        if range.start > range.end || range.end > blob.size {
            return Ok(false);
        }
        self.moving(range.end - range.start, |deadline| {
            if range.is_empty() && blob.size > 0 {
                let there = self.registry.has_blob(&self.any(), &blob.digest, deadline)?;
                return if there { read(&mut std::io::empty()).map(|()| true) } else { Ok(false) };
            }
            let of = Descriptor::new(MediaType::Other(LAYER_TYPE.into()), blob.size, blob.digest.clone());
            self.registry.blob_part(&self.any(), &of, range, deadline, read)
        })
    }

    fn put_blob(&self, blob: &Blob, source: Source) -> Result<()> {
        self.moving(blob.size, |deadline| {
            if self.has(std::slice::from_ref(blob), deadline)? == [true] {
                return Ok(());
            }
            self.registry.push_blob(&self.any(), (&blob.digest, blob.size), deadline, &mut || {
                let checked = Checked::new(source()?, blob.digest.clone(), Some(blob.size));
                let checked = checked.map_err(|why| Error::machine("cannot check a blob").because(why))?;
                Ok(Box::new(checked) as Box<dyn Read>)
            })?;
            self.known.add([blob]);
            Ok(())
        })
    }

    fn keys(&self) -> Result<Vec<RecordKey>> {
        self.call(|deadline| {
            let tags = self.registry.tags(&self.any(), deadline)?;
            let mut keys: Vec<RecordKey> = tags.iter().filter_map(|tag| tag.parse().ok()).collect();
            keys.sort_unstable();
            keys.dedup();
            Ok(keys)
        })
    }

    fn remove(&self, key: &RecordKey) -> Result<bool> {
        self.call(|deadline| self.registry.remove_tagged(&self.tag(key.to_string()), deadline))
    }
}

fn digest(bytes: &[u8]) -> Result<Digest> {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    hasher.text().parse().map_err(|_| Error::machine("a digest cannot be read"))
}
