//! The files of a directory, or of a tar archive, by name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::layer::is_compressed;
use crate::oci::MOST_MANIFEST;

/// How many members an archive may have.
const MOST_MEMBERS: usize = 100_000;
/// How many links may stand between a name and its bytes.
const MOST_LINKS: usize = 8;

/// A directory or an archive.
pub(super) struct Files {
    path: PathBuf,
    /// None for a directory.
    members: Option<BTreeMap<String, Member>>,
}

enum Member {
    /// Where its bytes are.
    File { offset: u64, size: u64 },
    /// What it is another name for, from the root of the archive.
    Link(String),
}

impl Files {
    /// Opens what is at a path.
    pub fn open(path: &Path) -> Result<Files> {
        match path.is_dir() {
            true => Ok(Files { path: path.to_path_buf(), members: None }),
            false => Files::open_tar(path),
        }
    }

    /// Lists the members of an archive; their data is not read.
    pub fn open_tar(path: &Path) -> Result<Files> {
        let failed = |why| {
            Error::recipe(format!("cannot read the archive `{}`", path.display())).because(why).hint(
                "it has to be a plain tar archive; one that is compressed as a whole has to be unpacked once (gunzip, \
                 unzstd), since its members are read in another order than they come",
            )
        };
        let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        let mut archive = tar::Archive::new(file);
        let mut members = BTreeMap::new();
        for entry in archive.entries_with_seek().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = String::from_utf8(entry.path_bytes().into_owned()) else { continue };
            let member = match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    Member::File { offset: entry.raw_file_position(), size: entry.size() }
                }
                kind @ (tar::EntryType::Symlink | tar::EntryType::Link) => {
                    let to = entry.link_name_bytes().unwrap_or_default().into_owned();
                    let Ok(to) = String::from_utf8(to) else { continue };
                    // Symlinks lead on from their directory, hard links from the root.
                    let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                    let from = if kind == tar::EntryType::Link { "" } else { dir };
                    let Some(to) = plain(&format!("{from}/{to}")) else { continue };
                    Member::Link(to)
                }
                _ => continue,
            };
            if members.len() >= MOST_MEMBERS {
                return Err(failed(std::io::Error::other(format!(
                    "it has more than {MOST_MEMBERS} members"
                ))));
            }
            if let Some(name) = plain(&name) {
                members.insert(name, member);
            }
        }
        Ok(Files { path: path.to_path_buf(), members: Some(members) })
    }

    /// Whether there is such a file.
    pub fn has(&self, name: &str) -> bool {
        match &self.members {
            None => self.path.join(name).is_file(),
            Some(members) => members.contains_key(name),
        }
    }

    /// The bytes of a file as they come.
    pub fn stream(&self, name: &str) -> Result<io::Take<File>> {
        let Some(members) = &self.members else {
            let path = self.path.join(name);
            let file = File::open(&path).map_err(|e| Error::io("read", &path, e))?;
            return Ok(file.take(u64::MAX));
        };
        let absent = || {
            Error::recipe(format!("the archive `{}` has no file `{name}`", self.path.display()))
                .hint("make it anew: `docker save`, `podman save`, `skopeo copy`")
        };
        let mut at = plain(name).ok_or_else(absent)?;
        for _ in 0..=MOST_LINKS {
            match members.get(&at).ok_or_else(absent)? {
                Member::Link(to) => at = to.clone(),
                Member::File { offset, size } => {
                    let open = || {
                        let mut file = File::open(&self.path)?;
                        file.seek(SeekFrom::Start(*offset)).map(|_| file)
                    };
                    let file = open().map_err(|e| Error::io("read", &self.path, e))?;
                    return Ok(file.take(*size));
                }
            }
        }
        Err(absent())
    }

    /// How many bytes a member has; none when they are compressed.
    pub fn plain_size(&self, name: &str) -> Result<Option<u64>> {
        let mut member = self.stream(name)?;
        let size = member.limit();
        let mut start = Vec::new();
        let read = (&mut member).take(6).read_to_end(&mut start);
        read.map_err(|e| Error::io("read", &self.path.join(name), e))?;
        Ok((!is_compressed(&start)).then_some(size))
    }

    /// A small file as a whole.
    pub fn small(&self, name: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.stream(name)?.take(MOST_MANIFEST + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::io("read", &self.path.join(name), e))?;
        match bytes.len() as u64 > MOST_MANIFEST {
            true => Err(Error::recipe(format!("`{name}` has more than {MOST_MANIFEST} bytes"))),
            false => Ok(bytes),
        }
    }
}

/// A name without `.`, `..` and doubled slashes; none when it leads outside.
fn plain(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
