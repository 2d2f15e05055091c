//! The canonical manifest of a layer: a sorted list of entries (docs/format.md).

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
        // Overlayfs merges the roots of all layers and does not look for the mark there (measured).
        if root.kind == (Kind::Dir { opaque: true }) {
            return Err(ManifestError::Field(root.path.clone(), "opaque mark"));
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

#[cfg(test)]
mod tests {
    use super::super::Xattrs;
    use super::super::testing::*;
    use super::*;
    use ManifestError as E;

    #[test]
    fn entries_have_to_be_a_tree() {
        let root = || dir("/");
        let zero = Kind::CharDevice { major: 0, minor: 0 };
        let cases = [
            (vec![dir("/a")], E::Parent(p("/a"))),
            (vec![file("/", "")], E::Root),
            (vec![root(), file("/a", ""), dir("/a")], E::Order(p("/a"))),
            (vec![root(), file("/a/b", "")], E::Parent(p("/a/b"))),
            (vec![root(), file("/a", ""), file("/a/b", "")], E::Parent(p("/a/b"))),
            (vec![root(), gone("/a"), file("/a/b", "")], E::Parent(p("/a/b"))),
            (vec![root(), link("/a", "/b"), file("/b", "")], E::HardLink(p("/a"))),
            (vec![root(), dir("/a"), link("/b", "/a")], E::HardLink(p("/b"))),
            (vec![root(), gone("/a"), link("/b", "/a")], E::HardLink(p("/b"))),
            (vec![root(), file("/a", ""), link("/b", "/a"), link("/c", "/b")], E::HardLink(p("/c"))),
            (vec![root(), link("/b", "/a")], E::HardLink(p("/b"))),
            (vec![root(), mode(0o10000, file("/a", ""))], E::Field(p("/a"), "mode")),
            (vec![root(), mode(0o777, symlink("/a", "b"))], E::Field(p("/a"), "mode")),
            (vec![root(), symlink("/a", "")], E::Field(p("/a"), "link target")),
            (vec![root(), Entry { uid: 1, ..gone("/a") }], E::Field(p("/a"), "owner or time")),
            (vec![root(), entry("/a", zero)], E::Field(p("/a"), "device number")),
            (vec![opaque("/")], E::Field(p("/"), "opaque mark")),
            (vec![root(), opaque("/a"), dir("/a/b"), gone("/a/b/c")], E::Whiteout(p("/a/b/c"))),
        ];
        for (entries, error) in cases {
            assert_eq!(Manifest::new(entries), Err(error));
        }
        let long = format!("/{}", "n".repeat(256));
        assert!(matches!(Manifest::new(vec![root(), dir(&long)]), Err(E::Path(_))));
        assert!(Manifest::new(vec![root(), dir(&long[..256])]).is_ok());
    }

    #[test]
    fn attributes_have_to_be_those_of_a_layer_in_normal_form() {
        let with = |name: &[u8], value: &[u8]| {
            let xattrs = [(name.to_vec(), value.to_vec())].into();
            Manifest::new(vec![dir("/"), Entry { xattrs, ..file("/a", "") }]).is_ok()
        };
        let v3 = [&0x0300_0001u32.to_le_bytes()[..], &[0; 20]].concat();
        let v2 = [&0x0200_0001u32.to_le_bytes()[..], &[0; 16]].concat();
        assert!(with(b"user.x", b"") && with(b"security.capability", &v2));
        for name in
            [&b"user.overlay.opaque"[..], b"trusted.x", b"user.", b"user.\0", b"security.selinux", b""]
        {
            assert!(!with(name, b"y"), "{name:?}");
        }
        assert!(!with(b"security.capability", &v3));
        let xattrs: Xattrs = [(b"user.x".to_vec(), b"".to_vec())].into();
        for bare in [symlink("/a", "b"), entry("/a", Kind::Fifo), gone("/a")] {
            let entries = vec![dir("/"), Entry { xattrs: xattrs.clone(), ..bare }];
            assert_eq!(Manifest::new(entries), Err(E::Field(p("/a"), "extended attribute")));
        }
    }

    #[test]
    fn finds_entries_and_children() {
        let m = layer([file("/a-/x", ""), file("/a/b/c", ""), file("/a/b-", ""), dir("/a/b0"), gone("/z")]);
        let names = |of: &str| m.children(&p(of)).map(|e| e.path.to_string()).collect::<Vec<_>>();
        assert_eq!(names("/"), ["/a", "/a-", "/z"]);
        assert_eq!(names("/a"), ["/a/b", "/a/b-", "/a/b0"]);
        assert_eq!(names("/a/b"), ["/a/b/c"]);
        assert!(names("/a/b-").is_empty() && names("/q").is_empty());
        assert_eq!(m.get(&p("/a/b0")), Some(&dir("/a/b0")));
        assert_eq!(m.get(&p("/a/b1")), None);
        assert_eq!(m.whiteouts().map(|e| e.path.clone()).collect::<Vec<_>>(), [p("/z")]);
    }

    #[test]
    fn counts_content_once_for_all_names_of_a_file() {
        assert_eq!(layer([file("/a", "123"), link("/b", "/a"), file("/c", "45")]).content_size(), 5);
        assert_eq!(Manifest::default().id(), Manifest::empty_id());
    }
}
