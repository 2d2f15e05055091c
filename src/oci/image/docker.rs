//! An image as `docker save` writes it: layers as plain archives, the configuration, and `manifest.json`.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::layout::{Archive, hex, whole_file};
use super::{Json, Packer, Part, Parts};
use crate::error::{Error, Result};
use crate::layer::{decompress, pack};
use crate::oci::source::FromImage;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes an image as an archive for `docker load`. `name` is what it is called there: `hello:1.0`. Gives the digest
/// of its configuration, which is what Docker calls the id of an image.
pub fn write_docker_archive(file: &Path, parts: &Parts, name: &str, packer: &Packer) -> Result<String> {
    let mut id = String::new();
    whole_file(file, |out| {
        let mut tar = Archive::new(out, file);
        let (mut names, mut diff_ids, mut there) = (Vec::new(), Vec::new(), HashMap::new());
        for part in &parts.layers {
            // Named by what isolith calls them, since the digest is known behind the last byte only.
            let name = format!("{}.tar", part.manifest.id().to_hex());
            let diff_id = match there.get(&name) {
                Some(diff_id) => String::clone(diff_id),
                None => {
                    let mut digest = String::new();
                    tar.file_of(&name, |out| {
                        let mut out = Hashing { out, sha256: Sha256::new(), size: 0 };
                        write(part, packer, &mut out)?;
                        let hex =
                            out.sha256.finalize().iter().map(|b| format!("{b:02x}")).collect::<String>();
                        digest = format!("sha256:{hex}");
                        Ok(out.size)
                    })?;
                    there.insert(name.clone(), digest.clone());
                    digest
                }
            };
            if let Some(original) = kept(part)
                && original.layer.diff_id.as_ref() != diff_id
            {
                return Err(Error::recipe(format!("{} has other bytes now", original.what))
                    .because(format!("expected {}, got {diff_id}", original.layer.diff_id)));
            }
            names.push(name);
            diff_ids.push(diff_id);
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

/// Where a layer is from that goes out as it came in.
fn kept(part: &Part) -> Option<&FromImage> {
    part.original.as_deref().filter(|original| original.refers().is_some())
}

/// The plain archive of a layer: its own, where it came in with one.
fn write(part: &Part, packer: &Packer, out: &mut Hashing) -> Result<()> {
    let Some(original) = kept(part) else {
        return pack(&part.manifest, &*part.content, out);
    };
    let blob = packer.one(part)?;
    let failed = |why: io::Error| Error::machine(format!("cannot copy {}", original.what)).because(why);
    let mut plain = decompress(packer.open(part, &blob)?)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match plain.read(&mut buffer).map_err(failed)? {
            0 => return Ok(()),
            n => out.write_all(&buffer[..n]).map_err(failed)?,
        }
    }
}

struct Hashing<'a> {
    out: &'a mut dyn Write,
    sha256: Sha256,
    size: u64,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.sha256.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
