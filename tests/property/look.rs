//! What is in a directory, found out without the library: the judge of what the library says.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use isolith::digest::ContentDigest;
use isolith::layer::{Kind, Manifest, View};
use isolith::path::GuestPath;

/// One path.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    pub what: What,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    File(u64, ContentDigest),
    Dir { opaque: bool },
    Symlink(Vec<u8>),
    Fifo,
    Whiteout,
    Device(char, u32, u32),
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { what, mode, uid, gid, mtime, xattrs } = self;
        write!(f, "{what:?} {mode:o} {uid}:{gid} @{mtime}")?;
        for (name, value) in xattrs {
            write!(f, " {}={}", name.escape_ascii(), value.escape_ascii())?;
        }
        Ok(())
    }
}

/// Paths without a leading slash; the root is the empty one.
pub type Tree = BTreeMap<Vec<u8>, Seen>;

/// A path of a tree as a path below `root`.
pub fn at(root: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(path)) }
}

/// Everything below a directory and itself. Sockets are nobody's: they are skipped.
pub fn look(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let host = at(root, &path);
        let stat = std::fs::symlink_metadata(&host).unwrap_or_else(|why| panic!("{host:?}: {why}"));
        if stat.file_type().is_socket() {
            continue;
        }
        if stat.is_dir() {
            for entry in std::fs::read_dir(&host).unwrap() {
                let name = entry.unwrap().file_name();
                let between: &[u8] = if path.is_empty() { b"" } else { b"/" };
                todo.push([&path[..], between, name.as_bytes()].concat());
            }
        }
        tree.insert(path, seen(&host, &stat));
    }
    tree
}

fn seen(host: &Path, stat: &std::fs::Metadata) -> Seen {
    let mut xattrs = BTreeMap::new();
    let mut opaque = false;
    for name in xattr::list(host).into_iter().flatten() {
        let value = xattr::get(host, &name).unwrap().unwrap_or_default();
        match name.as_bytes() {
            b"user.overlay.opaque" => opaque = value == b"y",
            name if name.starts_with(b"user.overlay.") => {}
            name => _ = xattrs.insert(name.to_vec(), value),
        }
    }
    let kind = stat.file_type();
    let (major, minor) = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
    let what = match kind {
        _ if kind.is_dir() => What::Dir { opaque },
        _ if kind.is_symlink() => {
            What::Symlink(std::fs::read_link(host).unwrap().as_os_str().as_bytes().to_vec())
        }
        _ if kind.is_fifo() => What::Fifo,
        _ if kind.is_char_device() && stat.rdev() == 0 => What::Whiteout,
        _ if kind.is_char_device() => What::Device('c', major, minor),
        _ if kind.is_block_device() => What::Device('b', major, minor),
        _ => What::File(stat.len(), ContentDigest::of(&std::fs::read(host).unwrap())),
    };
    let mut seen = Seen {
        mode: stat.mode() & 0o7777,
        uid: stat.uid(),
        gid: stat.gid(),
        mtime: stat.mtime(),
        what,
        xattrs,
    };
    match seen.what {
        // All 0777 and of no meaning.
        What::Symlink(_) => seen.mode = 0,
        What::Whiteout => (seen.mode, seen.uid, seen.gid, seen.mtime) = (0, 0, 0, 0),
        _ => {}
    }
    seen
}

/// The sets of names that are one file.
pub fn groups(root: &Path, tree: &Tree) -> BTreeSet<BTreeSet<Vec<u8>>> {
    let mut all: BTreeMap<u64, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for path in tree.iter().filter(|(_, seen)| !matches!(seen.what, What::Dir { .. } | What::Whiteout)) {
        let stat = std::fs::symlink_metadata(at(root, path.0)).unwrap();
        all.entry(stat.ino()).or_default().insert(path.0.clone());
    }
    all.into_values().filter(|names| names.len() > 1).collect()
}

/// The same according to a manifest.
pub fn described_groups(manifest: &Manifest) -> BTreeSet<BTreeSet<Vec<u8>>> {
    let mut all: BTreeMap<&GuestPath, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for entry in manifest.entries() {
        if let Kind::HardLink { target } = &entry.kind {
            let names = all.entry(target).or_default();
            names.extend([target.as_bytes().to_vec(), entry.path.as_bytes().to_vec()]);
        }
    }
    all.into_values().collect()
}

/// The tree that a manifest says its directory has.
pub fn described(manifest: &Manifest) -> Tree {
    let of = |entry| {
        (GuestPath::as_bytes(&isolith::layer::Entry::clone(entry).path).to_vec(), node(manifest.node(entry)))
    };
    manifest.entries().iter().map(of).collect()
}

/// The tree that a view says a mount shows.
pub fn shown(view: &View) -> Tree {
    let of = |(path, found): (GuestPath, isolith::layer::Found)| {
        let mut seen = node(found.node);
        if let What::Dir { opaque } = &mut seen.what {
            *opaque = false;
        }
        (path.as_bytes().to_vec(), seen)
    };
    view.walk(&GuestPath::root()).into_iter().map(of).collect()
}

fn node(entry: &isolith::layer::Entry) -> Seen {
    let what = match &entry.kind {
        Kind::File { size, digest } => What::File(*size, *digest),
        Kind::Dir { opaque } => What::Dir { opaque: *opaque },
        Kind::Symlink { target } => What::Symlink(target.clone()),
        Kind::Fifo => What::Fifo,
        Kind::Whiteout => What::Whiteout,
        Kind::CharDevice { major, minor } => What::Device('c', *major, *minor),
        Kind::BlockDevice { major, minor } => What::Device('b', *major, *minor),
        Kind::HardLink { target } => panic!("{target:?} is not resolved"),
    };
    let (mode, uid, gid, mtime) = (entry.mode.into(), entry.uid, entry.gid, entry.mtime);
    Seen { what, mode, uid, gid, mtime, xattrs: entry.xattrs.clone() }
}

/// The tree without times.
pub fn timeless(tree: &Tree) -> Tree {
    tree.iter().map(|(path, seen)| (path.clone(), Seen { mtime: 0, ..seen.clone() })).collect()
}

/// The first difference between two trees, to be read by people; none when there is none.
pub fn difference(wanted: &Tree, found: &Tree) -> Option<String> {
    let paths: BTreeSet<_> = wanted.keys().chain(found.keys()).collect();
    let path = paths.into_iter().find(|path| wanted.get(*path) != found.get(*path))?;
    let (wanted, found) = (wanted.get(path), found.get(path));
    Some(format!("/{}\n   wanted {wanted:?}\n    found {found:?}", path.escape_ascii()))
}
