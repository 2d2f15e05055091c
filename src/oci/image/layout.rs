//! An image as an OCI layout: a directory, or an archive of one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::blobs::Packer;
use super::config::{INDEX, MANIFEST};
use super::{Image, Json};
use crate::error::{Error, Result};

/// The content of the file `oci-layout`.
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The annotation that has the tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An index that may have been written by another program; what is not known here stays as it is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    manifests: Vec<Value>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// The index entry of an image.
fn listed(image: &Image, tag: &str) -> Result<Value> {
    let mut refers = image.manifest.refers(MANIFEST);
    refers.annotations.insert(REF_NAME.to_string(), tag.to_string());
    serde_json::to_value(refers).map_err(|why| Error::machine("cannot write the index").because(why))
}

fn index(manifests: Vec<Value>) -> Index {
    Index { schema_version: 2, media_type: Some(INDEX.to_string()), manifests, rest: BTreeMap::new() }
}

/// Writes an image into the layout at `dir`, which is made when it is not there. Other images that it has stay; one
/// with the same tag loses it.
///
/// # Errors
/// Something else is there.
pub fn write_layout(dir: &Path, image: &Image, tag: &str, packer: &Packer) -> Result<()> {
    let blobs = dir.join("blobs/sha256");
    let (marker, list) = (dir.join("oci-layout"), dir.join("index.json"));
    let is_empty = match fs::read_dir(dir) {
        Ok(mut names) => names.next().is_none(),
        Err(why) if why.kind() == io::ErrorKind::NotFound => true,
        Err(why) => return Err(Error::io("read", dir, why).hint("name a directory, or one to be made")),
    };
    if !is_empty && !marker.is_file() {
        return Err(Error::usage(format!("`{}` is no OCI layout, and something is in it", dir.display()))
            .hint("name an empty or a new directory"));
    }
    fs::create_dir_all(&blobs).map_err(|why| Error::io("create directory", &blobs, why))?;
    for (part, blob) in &image.layers {
        let to = dir.join(blob_path(&blob.refers.digest));
        if fs::metadata(&to).is_ok_and(|there| there.is_file() && there.len() == blob.refers.size) {
            continue;
        }
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir).map_err(|why| Error::io("create directory", dir, why))?;
        }
        write(&to, &mut packer.open(part, blob)?)?;
    }
    for json in [&image.config, &image.manifest] {
        write(&blobs.join(hex(&json.digest)), &mut &json.bytes[..])?;
    }
    let old = match fs::read(&list) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|why| {
            Error::usage(format!("`{}` is not the index of a layout", list.display()))
                .because(why)
                .hint("name an empty or a new directory")
        })?,
        Err(why) if why.kind() == io::ErrorKind::NotFound => index(Vec::new()),
        Err(why) => return Err(Error::io("read", &list, why)),
    };
    let mut new = old;
    new.manifests.retain(|entry| entry["annotations"][REF_NAME] != tag);
    new.manifests.push(listed(image, tag)?);
    let json = Json::of(&new)?;
    write(&list, &mut &json.bytes[..])?;
    // Last: a directory with it is a whole layout.
    write(&marker, &mut LAYOUT.as_bytes())
}

/// Where a blob lies in a layout.
fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

/// The hex digits of a digest.
pub(super) fn hex(digest: &str) -> &str {
    digest.split_once(':').map_or(digest, |(_, hex)| hex)
}

/// Writes a file whole or not at all.
fn write(path: &Path, from: &mut dyn Read) -> Result<()> {
    whole_file(path, |out| io::copy(from, out).map(drop).map_err(|why| Error::io("write", path, why)))
}

/// Lets `fill` write a file that takes the place of `path` in the end.
pub(super) fn whole_file(path: &Path, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let refused = |why: io::Error| {
        Error::io("write", path, io::Error::from(why.kind()))
            .hint("free some space there, or name another place that you can write to")
    };
    let mut temporary = tempfile::NamedTempFile::new_in(dir).map_err(refused)?;
    fill(temporary.as_file_mut())?;
    let mode = fs::Permissions::from_mode(0o644);
    temporary.as_file().set_permissions(mode).map_err(|why| Error::io("set the mode of", path, why))?;
    temporary.persist(path).map_err(|why| Error::io("write", path, why.error))?;
    Ok(())
}

/// Writes an image as a tar archive of a layout. The same image gives the same bytes.
pub fn write_archive(file: &Path, image: &Image, tag: &str, packer: &Packer) -> Result<()> {
    let index = Json::of(&index(vec![listed(image, tag)?]))?;
    whole_file(file, |out| {
        let mut tar = Archive::new(out, file);
        tar.directory("blobs/")?;
        tar.directory("blobs/sha256/")?;
        for json in [&image.config, &image.manifest] {
            tar.file(
                &format!("blobs/sha256/{}", hex(&json.digest)),
                json.bytes.len() as u64,
                &mut &json.bytes[..],
            )?;
        }
        let mut there = std::collections::HashSet::new();
        for (part, blob) in image.layers.iter().filter(|(_, blob)| there.insert(&blob.refers.digest)) {
            tar.file(&blob_path(&blob.refers.digest), blob.refers.size, &mut packer.open(part, blob)?)?;
        }
        tar.file("index.json", index.bytes.len() as u64, &mut &index.bytes[..])?;
        tar.file("oci-layout", LAYOUT.len() as u64, &mut LAYOUT.as_bytes())?;
        tar.finish()
    })
}

/// A tar archive without anything of this machine in it.
pub(super) struct Archive<'a> {
    out: io::BufWriter<&'a mut File>,
    path: &'a Path,
}

impl<'a> Archive<'a> {
    pub fn new(out: &'a mut File, path: &'a Path) -> Self {
        Self { out: io::BufWriter::with_capacity(1 << 20, out), path }
    }

    fn header(&mut self, name: &str, size: u64, kind: tar::EntryType, mode: u32) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size); // In binary where it does not fit octal digits.
        let named = header.set_path(name).map_err(|why| Error::io("write", self.path, why));
        header.set_cksum();
        named.and_then(|()| self.put(header.as_bytes()))
    }

    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|why| Error::io("write", self.path, why))
    }

    pub fn directory(&mut self, name: &str) -> Result<()> {
        self.header(name, 0, tar::EntryType::Directory, 0o755)
    }

    /// A file whose size is known when `fill` has written it.
    pub fn file_of(&mut self, name: &str, fill: impl FnOnce(&mut dyn Write) -> Result<u64>) -> Result<()> {
        let at = self.seek(io::SeekFrom::Current(0))?;
        self.header(name, 0, tar::EntryType::Regular, 0o644)?;
        let size = fill(&mut self.out)?;
        self.end(size)?;
        let end = self.seek(io::SeekFrom::Start(at))?;
        self.header(name, size, tar::EntryType::Regular, 0o644)?;
        self.seek(io::SeekFrom::Start(end)).map(drop)
    }

    /// Goes to another place. Gives the one where it was.
    fn seek(&mut self, to: io::SeekFrom) -> Result<u64> {
        let seek = |out: &mut io::BufWriter<&mut File>| {
            let at = out.stream_position()?;
            out.seek(to).map(|_| at)
        };
        seek(&mut self.out).map_err(|why| Error::io("write", self.path, why))
    }

    fn end(&mut self, size: u64) -> Result<()> {
        let padding = (512 - size % 512) % 512;
        self.put(&[0; 512][..padding as usize])
    }

    pub fn file(&mut self, name: &str, size: u64, from: &mut dyn Read) -> Result<()> {
        self.header(name, size, tar::EntryType::Regular, 0o644)?;
        let copied = io::copy(&mut from.take(size), &mut self.out)
            .map_err(|why| Error::io("write", self.path, why))?;
        if copied != size {
            return Err(Error::machine(format!("`{name}` became shorter while it was written")));
        }
        self.end(size)
    }

    pub fn finish(mut self) -> Result<()> {
        self.put(&[0; 1024])?;
        self.out.flush().map_err(|why| Error::io("write", self.path, why))
    }
}
