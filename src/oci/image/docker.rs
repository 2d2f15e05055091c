//! An image as `docker save` writes it: layers as plain archives, the configuration, and `manifest.json`.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::layout::{Archive, hex, whole_file};
use super::{Json, Parts};
use crate::error::Result;
use crate::layer::{pack, packed_size};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes an image as an archive for `docker load`. `name` is what it is called there: `hello:1.0`. Gives the digest
/// of its configuration, which is what Docker calls the id of an image.
pub fn write_docker_archive(file: &Path, parts: &Parts, name: &str) -> Result<String> {
    let mut id = String::new();
    whole_file(file, |out| {
        let mut tar = Archive::new(out, file);
        let (mut names, mut diff_ids) = (Vec::new(), Vec::new());
        for part in &parts.layers {
            // Named by what isolith calls them, since the digest is known behind the last byte only.
            let name = format!("{}.tar", part.manifest.id().to_hex());
            let size = packed_size(&part.manifest)?;
            tar.begin(&name, size)?;
            let mut hashing = Hashing { out: tar.writer(), sha256: Sha256::new() };
            pack(&part.manifest, &*part.content, &mut hashing)?;
            let digest: String = hashing.sha256.finalize().iter().map(|b| format!("{b:02x}")).collect();
            tar.end(size)?;
            names.push(name);
            diff_ids.push(format!("sha256:{digest}"));
        }
        let config = parts.config(diff_ids)?;
        let config_name = format!("{}.json", hex(&config.digest));
        tar.file(&config_name, config.bytes.len() as u64, &mut &config.bytes[..])?;
        let saved =
            Json::of(&[Saved { config: config_name, repo_tags: vec![name.to_string()], layers: names }])?;
        tar.file("manifest.json", saved.bytes.len() as u64, &mut &saved.bytes[..])?;
        id = config.digest;
        tar.finish()
    })?;
    Ok(id)
}

struct Hashing<'a> {
    out: &'a mut dyn Write,
    sha256: Sha256,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.sha256.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
