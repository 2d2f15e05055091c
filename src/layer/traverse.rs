//! Visits a file tree in parallel. Every directory is a task of its own and none waits for another, so a tree
//! may be as deep as it likes: neither stack nor descriptors grow with the depth.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::Scope;
use rustix::fs::{FileType, OFlags};

use super::disk;
use crate::path::GuestPath;

/// How many entries of one directory a thread takes at a time.
const PART: usize = 64;

/// A name in a directory, and what it is if the file system tells.
pub(super) type Name = (CString, FileType);

/// A directory that is being visited.
pub(super) struct Dir<C> {
    /// Open for reading.
    pub fd: OwnedFd,
    /// Where it is.
    pub path: GuestPath,
    /// What the visitor knows of it.
    pub context: C,
}

/// What is done at each path. Everything found goes into `items`, in no order.
pub(super) trait Visitor: Sync {
    /// What is known of a directory on the way down.
    type Context: Send + Sync;
    /// What is found.
    type Item: Send;

    /// What is known of the directory `path` in `dir`, before it is opened.
    fn descend(&self, dir: &Dir<Self::Context>, path: &GuestPath) -> Self::Context;

    /// A directory, before what is in it.
    fn directory(
        &self,
        dir: &mut Dir<Self::Context>,
        names: &[Name],
        items: &mut Vec<Self::Item>,
    ) -> io::Result<()>;

    /// Anything else.
    fn other(
        &self,
        dir: &Dir<Self::Context>,
        name: &CStr,
        path: &GuestPath,
        kind: FileType,
        items: &mut Vec<Self::Item>,
    ) -> io::Result<()>;

    /// Something that could not be looked at.
    fn failed(&self, path: &GuestPath, why: io::Error) -> Self::Item;
}

/// Visits the directory `root` and everything below it.
pub(super) fn traverse<V: Visitor>(visitor: &V, root: OwnedFd, context: V::Context) -> Vec<V::Item> {
    let walk = Walk { visitor, items: Mutex::new(Vec::new()) };
    let dir = Dir { fd: root, path: GuestPath::root(), context };
    let entered = walk.enter(dir);
    // Nothing in it: no reason to wake threads.
    if let Some((dir, names)) = entered.filter(|(_, names)| !names.is_empty()) {
        rayon::scope(|scope| walk.children(scope, dir, names));
    }
    walk.items.into_inner().unwrap_or_else(PoisonError::into_inner)
}

struct Walk<'a, V: Visitor> {
    visitor: &'a V,
    items: Mutex<Vec<V::Item>>,
}

impl<V: Visitor> Walk<'_, V> {
    fn add(&self, mut items: Vec<V::Item>) {
        self.items.lock().unwrap_or_else(PoisonError::into_inner).append(&mut items);
    }

    fn enter(&self, mut dir: Dir<V::Context>) -> Option<(Dir<V::Context>, Vec<Name>)> {
        let mut items = Vec::new();
        let names = disk::names(dir.fd.as_fd())
            .and_then(|names| self.visitor.directory(&mut dir, &names, &mut items).map(|()| names));
        let entered = match names {
            Ok(names) => Some((dir, names)),
            Err(why) => {
                items.push(self.visitor.failed(&dir.path, why));
                None
            }
        };
        self.add(items);
        entered
    }

    fn children<'s>(&'s self, scope: &Scope<'s>, dir: Dir<V::Context>, mut names: Vec<Name>)
    where
        V::Context: 's,
    {
        let dir = Arc::new(dir);
        while names.len() > PART {
            let (part, dir) = (names.split_off(names.len() - PART), dir.clone());
            scope.spawn(move |scope| self.part(scope, &dir, part));
        }
        self.part(scope, &dir, names);
    }

    fn part<'s>(&'s self, scope: &Scope<'s>, dir: &Arc<Dir<V::Context>>, names: Vec<Name>)
    where
        V::Context: 's,
    {
        let mut items = Vec::with_capacity(names.len());
        for (name, kind) in names {
            let path = dir.path.join(name.to_bytes());
            let kind = match kind {
                FileType::Unknown => disk::stat(dir.fd.as_fd(), &name)
                    .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
                known => known,
            };
            if kind == FileType::Directory {
                let dir = dir.clone();
                scope.spawn(move |scope| self.descend(scope, dir, &name, path));
            } else if let Err(why) = self.visitor.other(dir, &name, &path, kind, &mut items) {
                items.push(self.visitor.failed(&path, why));
            }
        }
        self.add(items);
    }

    fn descend<'s>(&'s self, scope: &Scope<'s>, above: Arc<Dir<V::Context>>, name: &CStr, path: GuestPath)
    where
        V::Context: 's,
    {
        let fd = match disk::open(above.fd.as_fd(), name, OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(why) => return self.add(vec![self.visitor.failed(&path, why)]),
        };
        let context = self.visitor.descend(&above, &path);
        // Closes the directory above, if this was the last in it.
        drop(above);
        if let Some((dir, names)) = self.enter(Dir { fd, path, context }) {
            self.children(scope, dir, names);
        }
    }
}
