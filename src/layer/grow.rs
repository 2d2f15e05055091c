//! A layer's file tree that grows member by member, and never outside its directory: every directory is
//! opened below the root without following symlinks.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, XattrFlags};

use super::canonical::{self, Node};
use super::{Entry, IdShift, Kind, Manifest, Xattrs, disk, owners};
use crate::digest::ContentDigest;
use crate::error::{Error, Result};
use crate::path::GuestPath;

/// Why a member cannot be unpacked.
pub(super) enum Problem {
    /// The archive says something impossible; with a hint.
    Refused(String, &'static str),
    /// The system refused.
    Failed(&'static str, io::Error),
}

impl Problem {
    /// The error about the member of this name.
    pub fn into_error(self, name: &str) -> Error {
        match self {
            Self::Refused(why, hint) => {
                Error::machine(format!("cannot unpack the archive member `{name}`: {why}")).hint(hint)
            }
            Self::Failed(verb, why) => {
                let denied = why.kind() == io::ErrorKind::PermissionDenied && verb == "make the device";
                let error =
                    Error::machine(format!("cannot {verb} for the archive member `{name}`")).because(why);
                match denied {
                    true => error.hint("devices can be made by root only: run as root, or leave it out"),
                    false => error,
                }
            }
        }
    }
}

/// What came of a member.
pub(super) type Outcome<T> = std::result::Result<T, Problem>;

/// For `map_err`: the system refused to `verb`.
pub(super) fn failing<E: Into<io::Error>>(verb: &'static str) -> impl Fn(E) -> Problem {
    move |why| Problem::Failed(verb, why.into())
}

/// The archive says something impossible; `hint` is what to do about it.
pub(super) fn refused<T>(why: impl Into<String>, hint: &'static str) -> Outcome<T> {
    Err(Problem::Refused(why.into(), hint))
}

/// The tree and what is known of it.
pub(super) struct Tree {
    root: OwnedFd,
    ids: IdShift,
    buffer: Vec<u8>,
    /// What has been made so far; with every path its ancestors, all directories.
    nodes: BTreeMap<GuestPath, Node>,
    /// Whiteouts.
    gone: BTreeSet<GuestPath>,
    /// Directories that were made because something is in them.
    implied: BTreeSet<GuestPath>,
    /// How many files have several names.
    shared: u64,
    /// The directory that was used last.
    parent: Option<(GuestPath, OwnedFd)>,
}

impl Tree {
    /// An empty tree in an empty directory.
    pub fn new(root: OwnedFd, ids: IdShift) -> Self {
        let buffer = vec![0; 256 * 1024];
        let (nodes, gone, implied) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { root, ids, buffer, nodes, gone, implied, shared: 0, parent: None }
    }

    /// What is at a path.
    pub fn kind(&self, path: &GuestPath) -> Option<&Kind> {
        self.nodes.get(path).map(|node| &node.entry.kind)
    }

    /// The permission bits of what is at a path.
    pub fn mode(&self, path: &GuestPath) -> Option<u16> {
        self.nodes.get(path).map(|node| node.entry.mode)
    }

    /// Opens a file that has been made.
    pub fn open(&self, path: &GuestPath) -> Outcome<std::fs::File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&self.root, path.as_relative(), flags, Mode::empty(), resolve)
            .map(std::fs::File::from)
            .map_err(failing("read an earlier member"))
    }

    /// Hides a path of lower layers.
    pub fn hide(&mut self, path: GuestPath) -> Outcome<()> {
        self.make_ancestors(&path)?;
        self.gone.insert(path);
        Ok(())
    }

    /// Hides everything that lower layers have in the directory that `path` is in.
    pub fn hide_siblings(&mut self, path: &GuestPath) -> Outcome<()> {
        self.make_ancestors(path)?;
        let dir = self.nodes.get_mut(&path.parent().unwrap_or_default());
        if let Some(Node { entry: Entry { kind: Kind::Dir { opaque }, .. }, .. }) = dir {
            *opaque = true;
        }
        Ok(())
    }

    /// Makes a file of the next `size` bytes of `data`.
    pub fn file(&mut self, mut entry: Entry, size: u64, data: &mut impl Read) -> Outcome<()> {
        self.clear(&entry.path)?;
        let parent = self.parent(&entry.path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, entry.path.name(), flags, Mode::RUSR | Mode::WUSR)
            .map_err(failing("create a file"))?;
        let mut file = std::fs::File::from(file);
        let mut hasher = blake3::Hasher::new();
        let mut left = size;
        while left > 0 {
            let most = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = match data.read(&mut self.buffer[..most]) {
                Ok(0) => return Err(Problem::Failed("read the data", io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => n,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(why) => return Err(Problem::Failed("read the data", why)),
            };
            hasher.update(&self.buffer[..n]);
            file.write_all(&self.buffer[..n]).map_err(failing("write a file"))?;
            left -= n as u64;
        }
        entry.kind = Kind::File { size, digest: ContentDigest::from_bytes(*hasher.finalize().as_bytes()) };
        self.dress(file.as_fd(), &mut entry)?;
        self.add(entry);
        Ok(())
    }

    /// Makes or keeps the directory; it gets its attributes in the end, when nothing changes below any more
    /// and its default access list cannot spread.
    pub fn directory(&mut self, mut entry: Entry) -> Outcome<()> {
        let opaque = match self.nodes.get(&entry.path).map(|node| &node.entry.kind) {
            Some(Kind::Dir { opaque }) => *opaque,
            _ => {
                self.clear(&entry.path)?;
                if !entry.path.is_root() {
                    let parent = self.parent(&entry.path)?;
                    rustix::fs::mkdirat(parent, entry.path.name(), Mode::RWXU)
                        .map_err(failing("make a directory"))?;
                }
                false
            }
        };
        entry.kind = Kind::Dir { opaque };
        self.add(entry);
        Ok(())
    }

    /// Makes another name for what an earlier member brought.
    pub fn hard_link(&mut self, path: GuestPath, target: &[u8]) -> Outcome<()> {
        let hint = "a hard link comes after the file it leads to, and in the same archive";
        let link = String::from_utf8_lossy(target).into_owned();
        let Ok(target) = GuestPath::from_relative(target) else {
            return refused(format!("it links to the impossible name `{link}`"), hint);
        };
        if target == path {
            return Ok(());
        }
        match self.nodes.get_mut(&target) {
            None => return refused(format!("it links to `{link}`, which is not there"), hint),
            Some(Node { entry: Entry { kind: Kind::Dir { .. }, .. }, .. }) => {
                return refused(format!("it links to the directory `{link}`"), hint);
            }
            Some(node) if node.inode.is_none() => {
                node.inode = Some(self.shared);
                self.shared += 1;
            }
            Some(_) => {}
        }
        self.clear(&path)?;
        let Some(node) = self.nodes.get(&target) else {
            return refused(format!("it replaces `{link}`, which it links to"), hint);
        };
        let node =
            Node { entry: Entry { path: path.clone(), ..node.entry.clone() }, inode: node.inode, kept: true };
        let from = self.open_directory(&target.parent().unwrap_or_default())?;
        let parent = self.parent(&path)?;
        rustix::fs::linkat(from, target.name(), parent, path.name(), AtFlags::empty())
            .map_err(failing("make a hard link"))?;
        self.nodes.insert(path, node);
        Ok(())
    }

    /// A symlink, fifo or device.
    pub fn special(&mut self, mut entry: Entry) -> Outcome<()> {
        self.clear(&entry.path)?;
        let ids = self.ids;
        let parent = self.parent(&entry.path)?;
        let name = entry.path.name();
        let device = |kind, major, minor| {
            let (ours, number) = (Mode::RUSR | Mode::WUSR, rustix::fs::makedev(major, minor));
            rustix::fs::mknodat(parent, name, kind, ours, number)
        };
        match &entry.kind {
            Kind::Symlink { target } => {
                rustix::fs::symlinkat(&target[..], parent, name).map_err(failing("make a symlink"))?;
            }
            Kind::CharDevice { major, minor } => {
                device(FileType::CharacterDevice, *major, *minor).map_err(failing("make the device"))?;
            }
            Kind::BlockDevice { major, minor } => {
                device(FileType::BlockDevice, *major, *minor).map_err(failing("make the device"))?;
            }
            _ => device(FileType::Fifo, 0, 0).map_err(failing("make a fifo"))?,
        }
        if entry.kind == Kind::Fifo {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fifo =
                rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failing("open a fifo"))?;
            self.dress(fifo.as_fd(), &mut entry)?;
        } else {
            // Symlinks and devices cannot have attributes of a layer.
            entry.xattrs.clear();
            owners::give_at(parent, name, (entry.uid, entry.gid), ids).map_err(failing("set the owner"))?;
            if !matches!(entry.kind, Kind::Symlink { .. }) {
                let mode = Mode::from_raw_mode(u32::from(entry.mode));
                rustix::fs::chmodat(parent, name, mode, AtFlags::empty()).map_err(failing("set the mode"))?;
            }
            rustix::fs::utimensat(parent, name, &disk::times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failing("set the time"))?;
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
            if !disk::is_plain_time(entry.mtime) && stat.is_ok_and(|stat| stat.st_mtime != entry.mtime) {
                return Err(Problem::Failed("set the time", disk::wrong_time(entry.mtime)));
            }
        }
        self.add(entry);
        Ok(())
    }

    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.nodes.len() + self.gone.len()
    }

    /// A directory that only what is in it says something of.
    fn imply(&mut self, dir: GuestPath) {
        self.add(plain_directory(dir.clone()));
        self.implied.insert(dir);
    }

    fn add(&mut self, entry: Entry) {
        self.implied.remove(&entry.path);
        self.nodes.insert(entry.path.clone(), Node { entry, inode: None, kept: true });
    }

    /// Removes what is at a path, with all that is in it.
    fn clear(&mut self, path: &GuestPath) -> Outcome<()> {
        if !self.nodes.contains_key(path) {
            return Ok(());
        }
        self.parent = None;
        let inside = self.nodes.range(path.clone()..).map(|(at, _)| at);
        // Between a directory and what is in it, byte order has its siblings that go on with a byte below `/`.
        let inside: Vec<_> = inside
            .take_while(|at| at.as_bytes().starts_with(path.as_bytes()))
            .filter(|at| at.starts_with(path))
            .cloned()
            .collect();
        for path in inside.iter().rev() {
            let dir =
                matches!(self.nodes.get(path), Some(node) if matches!(node.entry.kind, Kind::Dir { .. }));
            let flags = if dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            let parent = self.open_directory(&path.parent().unwrap_or_default())?;
            rustix::fs::unlinkat(parent, path.name(), flags).map_err(failing("replace an earlier member"))?;
            self.nodes.remove(path);
            self.implied.remove(path);
        }
        Ok(())
    }

    /// The directory that `path` is in, made if need be.
    fn parent(&mut self, path: &GuestPath) -> Outcome<BorrowedFd<'_>> {
        let dir = path.parent().unwrap_or_default();
        if self.parent.as_ref().is_none_or(|(at, _)| *at != dir) {
            self.make_ancestors(path)?;
            self.parent = Some((dir.clone(), self.open_directory(&dir)?));
        }
        match &self.parent {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Ok(self.root.as_fd()),
        }
    }

    /// Makes the directories above a path that the archive has not brought (yet).
    fn make_ancestors(&mut self, path: &GuestPath) -> Outcome<()> {
        for dir in path.ancestors() {
            match self.nodes.get(&dir).map(|node| &node.entry.kind) {
                Some(Kind::Dir { .. }) => {}
                Some(_) => {
                    return refused(
                        format!("`{dir}` is not a directory"),
                        "an archive member cannot be below a file or symlink of the same archive",
                    );
                }
                None if dir.is_root() => self.imply(dir),
                None => {
                    let parent = self.open_directory(&dir.parent().unwrap_or_default())?;
                    rustix::fs::mkdirat(parent, dir.name(), Mode::RWXU)
                        .map_err(failing("make a directory"))?;
                    self.imply(dir);
                }
            }
        }
        Ok(())
    }

    fn open_directory(&self, dir: &GuestPath) -> Outcome<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&self.root, dir.as_relative(), flags, Mode::empty(), resolve)
            .map_err(failing("open its directory"))
    }

    /// Gives an open file what its entry says, and the entry what the file system made of it.
    fn dress(&self, file: BorrowedFd, entry: &mut Entry) -> Outcome<()> {
        entry.xattrs.retain(|name, _| entry.kind.carries(name));
        disk::dress(file, entry, self.ids).map_err(failing("set owner, mode, time or attributes"))?;
        if entry.kind == (Kind::Dir { opaque: true }) {
            rustix::fs::fsetxattr(file, disk::OPAQUE, b"y", XattrFlags::empty())
                .map_err(failing("mark a directory as opaque"))?;
        }
        if !entry.xattrs.is_empty() {
            // Mode and access list are two views of one thing.
            entry.xattrs = disk::attributes(file, self.ids).map_err(failing("read attributes back"))?.kept;
        }
        Ok(())
    }

    /// Whiteouts, then the attributes of directories, and the manifest.
    pub fn finish(self) -> Result<Manifest> {
        self.finish_with_implied().map(|(manifest, _)| manifest)
    }

    /// The same, with the directories that have no member of their own.
    pub fn finish_with_implied(mut self) -> Result<(Manifest, Vec<GuestPath>)> {
        self.parent = None;
        self.whiteouts()?;
        let mut nodes: Vec<Node> = std::mem::take(&mut self.nodes).into_values().collect();
        for node in nodes.iter_mut().rev().filter(|node| matches!(node.entry.kind, Kind::Dir { .. })) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let path = node.entry.path.as_relative();
            rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)
                .map_err(failing("open the directory"))
                .and_then(|dir| self.dress(dir.as_fd(), &mut node.entry))
                .map_err(|problem| problem.into_error(&node.entry.path.to_string()))?;
        }
        let implied = std::mem::take(&mut self.implied).into_iter().collect();
        canonical::manifest(nodes)
            .map(|manifest| (manifest, implied))
            .map_err(|why| Error::machine("the archive cannot be a layer").because(why))
    }

    fn whiteouts(&mut self) -> Result<()> {
        let ids = self.ids;
        // In order, so that a directory is known to be opaque before what is below it comes.
        for path in std::mem::take(&mut self.gone) {
            if let Some(node) = self.nodes.get_mut(&path) {
                if let Kind::Dir { opaque } = &mut node.entry.kind {
                    *opaque = true;
                }
                // What was there is gone: this is another directory, and a plain one.
                self.implied.remove(&path);
            } else if !path.ancestors().any(|dir| self.is_opaque(&dir)) {
                self.parent(&path)
                    .and_then(|dir| {
                        disk::make_whiteout(dir, path.name(), ids).map_err(failing("make a whiteout"))
                    })
                    .map_err(|problem| problem.into_error(&path.to_string()))?;
                self.nodes.insert(path.clone(), Node::whiteout(path));
            }
        }
        Ok(())
    }

    fn is_opaque(&self, dir: &GuestPath) -> bool {
        matches!(self.nodes.get(dir), Some(node) if node.entry.kind == Kind::Dir { opaque: true })
    }
}

/// A directory that an archive implies.
fn plain_directory(path: GuestPath) -> Entry {
    let kind = Kind::Dir { opaque: false };
    Entry { path, mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new(), kind }
}
