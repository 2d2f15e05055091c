//! The canonical manifest of a layer: a sorted list of entries (DESIGN section 3, docs/format.md).

use super::codec;
use super::entry::{Entry, Kind};
use crate::digest::LayerId;
use crate::path::GuestPath;

/// A layer's entries, sorted by path bytes, each path once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    entries: Vec<Entry>,
    /// Positions of the whiteouts: few or none, and asked for on every mount.
    whiteouts: Vec<u32>,
}

/// Why entries or bytes are not a manifest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    /// The bytes do not start with the magic of this version.
    #[error("not a layer manifest of version 1")]
    Magic,
    /// The bytes end in the middle of something.
    #[error("the manifest is cut off at byte {0}")]
    Truncated(usize),
    /// There are bytes after the last entry.
    #[error("the manifest has {0} bytes too many")]
    Trailing(usize),
    /// A path is not in its one normal form, or a component is longer than 255 bytes.
    #[error("`{0}` is not a valid path of a layer")]
    Path(String),
    /// Two entries have the same path, or (when decoding) they are not in order.
    #[error("{0} is listed twice or out of order")]
    Order(GuestPath),
    /// The directory that an entry is in is not an entry, or not a directory.
    #[error("{0} is listed, the directory it is in is not")]
    Parent(GuestPath),
    /// `/` is something else than a directory.
    #[error("the root of the layer is not a directory")]
    Root,
    /// A hard link does not lead to an earlier file, symlink, fifo or device.
    #[error("the hard link {0} does not lead to an earlier file of the layer")]
    HardLink(GuestPath),
    /// A whiteout below an opaque directory: nothing is left there that it could hide.
    #[error("the whiteout {0} is below an opaque directory")]
    Whiteout(GuestPath),
    /// A field has a value that entries of this kind cannot have.
    #[error("{0} has a wrong {1}")]
    Field(GuestPath, &'static str),
}

impl Manifest {
    /// A manifest of these entries, in any order. They have to be a tree: each path once, every ancestor
    /// of an entry an entry and a directory, hard links leading to an earlier node.
    pub fn new(mut entries: Vec<Entry>) -> Result<Manifest, ManifestError> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Self::from_sorted(entries)
    }

    fn from_sorted(entries: Vec<Entry>) -> Result<Manifest, ManifestError> {
        let whiteouts = (0u32..).zip(&entries).filter(|(_, e)| e.kind == Kind::Whiteout).map(|(at, _)| at);
        let manifest = Manifest { whiteouts: whiteouts.collect(), entries };
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        let Some(root) = self.entries.first() else { return Ok(()) };
        if !root.path.is_root() {
            return Err(ManifestError::Parent(root.path.clone()));
        }
        if !matches!(root.kind, Kind::Dir { .. }) {
            return Err(ManifestError::Root);
        }
        root.check()?;
        let mut known_dir: &[u8] = b"";
        for pair in self.entries.windows(2) {
            let entry = &pair[1];
            if pair[0].path >= entry.path {
                return Err(ManifestError::Order(entry.path.clone()));
            }
            entry.check()?;
            let parent = parent_bytes(entry.path.as_bytes());
            if parent != known_dir {
                match self.position(parent).map(|at| &self.entries[at].kind) {
                    Some(Kind::Dir { .. }) => known_dir = parent,
                    _ => return Err(ManifestError::Parent(entry.path.clone())),
                }
            }
            if let Kind::HardLink { target } = &entry.kind {
                match self.get(target).map(|node| &node.kind) {
                    None | Some(Kind::HardLink { .. } | Kind::Dir { .. } | Kind::Whiteout) => {
                        return Err(ManifestError::HardLink(entry.path.clone()));
                    }
                    Some(_) if *target >= entry.path => {
                        return Err(ManifestError::HardLink(entry.path.clone()));
                    }
                    Some(_) => {}
                }
            }
        }
        for whiteout in self.whiteouts() {
            let opaque = |path| matches!(self.get(&path), Some(e) if e.kind == Kind::Dir { opaque: true });
            if whiteout.path.ancestors().any(opaque) {
                return Err(ManifestError::Whiteout(whiteout.path.clone()));
            }
        }
        Ok(())
    }

    /// All entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Takes the entries out, in order.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// True for the layer that changes nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry at exactly this path.
    pub fn get(&self, path: &GuestPath) -> Option<&Entry> {
        self.position(path.as_bytes()).map(|at| &self.entries[at])
    }

    /// The entry that carries kind, mode, owner and xattrs for `entry`: for a hard link the one it leads to.
    pub fn node<'a>(&'a self, entry: &'a Entry) -> &'a Entry {
        match &entry.kind {
            Kind::HardLink { target } => self.get(target).unwrap_or(entry),
            _ => entry,
        }
    }

    /// The entries directly in the directory `dir`, in order.
    pub fn children<'a>(&'a self, dir: &GuestPath) -> Children<'a> {
        let mut prefix = dir.as_bytes().to_vec();
        if !dir.is_root() {
            prefix.push(b'/');
        }
        let start = self.entries.partition_point(|e| e.path.as_bytes() < &prefix[..]);
        let rest = &self.entries[start..];
        // The root itself has the empty prefix of its own children.
        let rest = if dir.is_root() && !rest.is_empty() { &rest[1..] } else { rest };
        Children { rest, prefix }
    }

    /// The whiteouts, in order.
    pub fn whiteouts(&self) -> impl Iterator<Item = &Entry> {
        self.whiteouts.iter().map(|at| &self.entries[*at as usize])
    }

    /// The one encoding of these entries (docs/format.md).
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&self.entries)
    }

    /// Reads an encoding. Accepts exactly what [`Manifest::encode`] gives, so that no two encodings stand
    /// for the same layer.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        Self::from_sorted(codec::decode(bytes)?)
    }

    /// The layer's id.
    pub fn id(&self) -> LayerId {
        LayerId::of_manifest(&self.encode())
    }

    /// The id of the empty layer.
    pub fn empty_id() -> LayerId {
        Manifest::default().id()
    }

    /// Bytes of content of all files; each hard-link group once.
    pub fn content_size(&self) -> u64 {
        let size = |e: &Entry| if let Kind::File { size, .. } = e.kind { size } else { 0 };
        self.entries.iter().map(size).fold(0, u64::saturating_add)
    }

    fn position(&self, path: &[u8]) -> Option<usize> {
        self.entries.binary_search_by(|e| e.path.as_bytes().cmp(path)).ok()
    }
}

/// The entries directly in one directory; see [`Manifest::children`].
pub struct Children<'a> {
    rest: &'a [Entry],
    prefix: Vec<u8>,
}

impl<'a> Iterator for Children<'a> {
    type Item = &'a Entry;

    fn next(&mut self) -> Option<&'a Entry> {
        loop {
            let (first, rest) = self.rest.split_first()?;
            let name = first.path.as_bytes().strip_prefix(&self.prefix[..])?;
            match name.iter().position(|b| *b == b'/') {
                None => {
                    self.rest = rest;
                    return Some(first);
                }
                Some(slash) => {
                    // Everything below one child lies together: jump over it.
                    let below = &first.path.as_bytes()[..self.prefix.len() + slash + 1];
                    let skip = self.rest.partition_point(|e| e.path.as_bytes().starts_with(below));
                    self.rest = &self.rest[skip..];
                }
            }
        }
    }
}

/// The path of the directory that a path is in.
fn parent_bytes(path: &[u8]) -> &[u8] {
    &path[..path.iter().rposition(|b| *b == b'/').unwrap_or(0)]
}
