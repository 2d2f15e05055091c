//! What several packages make together. dpkg unpacks one after the other into the same tree; here each has been
//! unpacked on its own, and what would have met is found from the manifests.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::super::{Entry, IdShift, Kind, Manifest, View, disk};
use crate::error::{Error, Result};
use crate::path::GuestPath;

/// A package as [`super::unpack`] laid it out.
#[derive(Debug, Clone, Copy)]
pub struct Package<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// What is in it.
    pub manifest: &'a Manifest,
}

/// Moves the trees of packages, unpacked each into a directory of its own, into the empty directory `dest`.
/// All are on one file system; what is left of them is to be removed.
///
/// # Errors
/// Two packages that have different things at one path.
pub fn join(packages: &[(Package, &Path)], dest: &Path, ids: IdShift) -> Result<Manifest> {
    let root = disk::open_root(dest).map_err(|why| Error::io("open", dest, why))?;
    let mut joined: BTreeMap<GuestPath, (usize, Entry)> = BTreeMap::new();
    for (at, (package, tree)) in packages.iter().enumerate() {
        let from = disk::open_root(tree).map_err(|why| Error::io("open", tree, why))?;
        // Directories that were moved with all that is in them.
        let mut moved = HashSet::new();
        for entry in package.manifest.entries() {
            let path = &entry.path;
            let is_dir = matches!(entry.kind, Kind::Dir { .. });
            if let Some((other, there)) = joined.get_mut(path) {
                match is_dir && matches!(there.kind, Kind::Dir { .. }) {
                    true => *there = directory(there, entry),
                    false if is_same_link(there, entry) => {}
                    false => return Err(conflict(path, packages[*other].0.name, package.name)),
                }
                continue;
            }
            let inside = path.parent().is_some_and(|parent| moved.contains(&parent));
            if !inside && !path.is_root() {
                rustix::fs::renameat(&from, path.as_relative(), &root, path.as_relative())
                    .map_err(|why| Error::io("move into place", &tree.join(path.as_relative()), why))?;
            }
            if is_dir && !path.is_root() {
                moved.insert(path.clone());
            }
            joined.insert(path.clone(), (at, entry.clone()));
        }
    }
    let entries: Vec<Entry> = joined.into_values().map(|(_, entry)| entry).collect();
    for entry in entries.iter().rev().filter(|entry| matches!(entry.kind, Kind::Dir { .. })) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&root, entry.path.as_relative(), flags, Mode::empty())
            .map_err(std::io::Error::from)
            .and_then(|dir| disk::dress(dir.as_fd(), entry, ids))
            .map_err(|why| {
                Error::io("set owner, mode and time of", &dest.join(entry.path.as_relative()), why)
            })?;
    }
    Manifest::new(entries).map_err(|why| Error::machine("the packages cannot be a layer").because(why))
}

/// The layer that belongs on top of `packages`, which are stacked on `below` in this order, each as a layer of its
/// own: directories that are there already stay as they are, whatever a package that comes later says of them.
/// `installed` are the layers of `below` that packages were unpacked into, by position.
///
/// # Errors
/// A package that has something at a path where another one has something else.
pub fn directories(below: &View, installed: &[usize], packages: &[Package]) -> Result<Manifest> {
    let mut seen: HashMap<&GuestPath, (&str, &Entry, Entry)> = HashMap::new();
    for Package { name, manifest } in packages {
        for entry in manifest.entries() {
            let path = &entry.path;
            let is_dir = matches!(entry.kind, Kind::Dir { .. });
            if let Some((other, top, wanted)) = seen.get_mut(path) {
                match is_dir && matches!(top.kind, Kind::Dir { .. }) {
                    true => *wanted = directory(wanted, entry),
                    false if is_same_link(top, entry) => {}
                    false => return Err(conflict(path, other, name)),
                }
                *top = entry;
                continue;
            }
            let found = below.lookup(path).map(|found| found.node);
            let wanted = match found {
                Some(there) if is_dir && matches!(there.kind, Kind::Dir { .. }) => {
                    Entry { path: path.clone(), kind: Kind::Dir { opaque: false }, ..there.clone() }
                }
                Some(there) if is_same_link(there, entry) => entry.clone(),
                Some(there) => {
                    let owned = installed.iter().any(|layer| below.layers()[*layer].get(path).is_some());
                    // What no package owns gives way, as long as it is the same kind of thing.
                    if owned || is_dir || matches!(there.kind, Kind::Dir { .. }) {
                        return Err(conflict(path, "the packages below", name));
                    }
                    entry.clone()
                }
                None => entry.clone(),
            };
            seen.insert(path, (name, entry, wanted));
        }
    }
    let differs =
        |top: &Entry, wanted: &Entry| attributes(top) != attributes(wanted) || top.xattrs != wanted.xattrs;
    let mut fixed: BTreeMap<GuestPath, Entry> = BTreeMap::new();
    for (path, (_, top, wanted)) in &seen {
        if matches!(top.kind, Kind::Dir { .. }) && differs(top, wanted) {
            for above in path.ancestors().chain([(*path).clone()]) {
                if let Some((_, _, wanted)) = seen.get(&above) {
                    fixed.insert(above, wanted.clone());
                }
            }
        }
    }
    Manifest::new(fixed.into_values().collect())
        .map_err(|why| Error::machine("the directories of packages cannot be a layer").because(why))
}

/// A directory that two packages have. dpkg leaves one that is there alone; the order in which it would meet the
/// packages is not kept here, so the one that says something unusual is taken to mean it.
fn directory(first: &Entry, second: &Entry) -> Entry {
    let usual = |entry: &Entry| attributes(entry) == (0o755, 0, 0) && entry.xattrs.is_empty();
    let said = if usual(first) && !usual(second) { second } else { first };
    Entry { mtime: first.mtime.max(second.mtime), ..said.clone() }
}

fn attributes(entry: &Entry) -> (u16, u32, u32) {
    (entry.mode, entry.uid, entry.gid)
}

/// True for the same symlink twice: those of a merged `/usr` come with every package that needs them.
fn is_same_link(a: &Entry, b: &Entry) -> bool {
    matches!(a.kind, Kind::Symlink { .. }) && a.kind == b.kind && attributes(a) == attributes(b)
}

fn conflict(path: &GuestPath, first: &str, second: &str) -> Error {
    Error::recipe(format!("the packages `{second}` and `{first}` both have `{path}`"))
        .because("one replaces or diverts files of the other, which is not done here")
        .hint("leave one of the two out of the base, and install it in a step with dpkg")
}
