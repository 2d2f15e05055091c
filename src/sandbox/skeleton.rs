//! What the private tmpfs of a sandbox holds before anything is mounted over the root.
//!
//! `lower/` is the skeleton, the lowest layer of the stack, with every mount point (so that none is ever made
//! in the upper directory and none reaches a layer); `tmp`, `var/tmp`, `run`, `dev/shm` and the empty `sys` are
//! bound over the root; `at/N` is behind mount N of the action; `low` is a place for the lower half of a stack
//! that overlayfs cannot take in one.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use super::SandboxSpec;
use super::stage::{HostPart, HostParts};
use crate::error::{Error, Result};
use crate::key::MountDoc;
use crate::path::GuestPath;
use crate::sys::{cstring, fd};

/// What is made at a place of the skeleton.
enum Node<'a> {
    Dir(u32),
    /// Empty: something is mounted over it.
    File,
    /// By `private`.
    Made,
    Link(&'a [u8]),
}

/// What every skeleton has, parents first.
const STANDARD: [(&str, u32); 9] = [
    ("", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o755),
    ("run", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/tmp", 0o1777),
];

/// For stacks that bring none.
const HOSTS_AT: &str = "etc/hosts";
const HOSTS: &[u8] = b"127.0.0.1\tlocalhost\n::1\tlocalhost\n";

pub(super) struct Skeleton<'a> {
    top: BorrowedFd<'a>,
}

impl<'a> Skeleton<'a> {
    pub(super) fn new(top: BorrowedFd<'a>) -> Self {
        Self { top }
    }

    /// The private directories, the same in every sandbox.
    pub(super) fn private(&self) -> Result<()> {
        for (dir, mode) in [("tmp", 0o1777), ("var", 0o755), ("var/tmp", 0o1777), ("run", 0o755)] {
            self.dir(dir, mode)?;
        }
        for (dir, mode) in [("dev", 0o755), ("dev/shm", 0o1777), ("sys", 0o755), ("low", 0o755)] {
            self.dir(dir, mode)?;
        }
        for (dir, mode) in STANDARD {
            self.dir(["lower/", dir].concat(), mode)?;
        }
        self.file(["lower/", HOSTS_AT].concat(), 0o644, HOSTS)
    }

    /// Everything else.
    pub(super) fn fill(&self, spec: &SandboxSpec, host: &HostParts) -> Result<()> {
        self.use_up_inodes(spec.conditions.used_inodes)?;
        self.lower(spec, host)?;
        if let Some(resolv) = &host.resolv {
            self.file("resolv.conf", 0o644, resolv)?;
        }
        self.behind_mounts(spec)
    }

    /// A memory file system counts its inodes and uses no number twice.
    fn use_up_inodes(&self, count: u32) -> Result<()> {
        for _ in 0..count {
            self.file("inode", 0o600, b"")?;
            rustix::fs::unlinkat(self.top, "inode", rustix::fs::AtFlags::empty())
                .map_err(|e| Error::machine("cannot remove a file of the skeleton").because(e))?;
        }
        Ok(())
    }

    /// The lowest layer. Its times are the recipe's, like those of all that lies above it.
    fn lower<'b>(&self, spec: &SandboxSpec, host: &'b HostParts) -> Result<()> {
        let mut nodes: BTreeMap<GuestPath, Node<'b>> = BTreeMap::new();
        let mut add = |path: GuestPath, node: Node<'b>| {
            // Nothing may be made through a symlink of the machine: it would lead out of the skeleton.
            let through = |at: &GuestPath| {
                Error::recipe(format!("base `host` has a symlink at `{at}`, where a step needs a directory"))
                    .hint("name the directory that the symlink leads to")
            };
            for parent in path.ancestors() {
                if let Node::Link(_) = nodes.entry(parent.clone()).or_insert(Node::Dir(0o755)) {
                    return Err(through(&parent));
                }
            }
            if matches!(node, Node::Link(_)) && nodes.contains_key(&path) {
                return Err(through(&path));
            }
            nodes.entry(path).or_insert(node);
            Ok(())
        };
        for path in STANDARD.map(|(dir, _)| dir).into_iter().chain([HOSTS_AT]) {
            add(guest(path)?, Node::Made)?;
        }
        if host.resolv.is_some() {
            add(guest("etc/resolv.conf")?, Node::File)?;
        }
        for (path, part) in &host.view {
            add(
                path.clone(),
                match part {
                    HostPart::Dir(_) => Node::Dir(0o755),
                    HostPart::File(_) => Node::File,
                    HostPart::Link(target) => Node::Link(target),
                },
            )?;
        }
        for mount in &spec.action.mounts {
            match mount {
                MountDoc::Cache { at, .. } | MountDoc::Tmpfs { at } => add(at.clone(), Node::Dir(0o755))?,
                MountDoc::Secret { at, .. } => add(at.clone(), Node::File)?,
            }
        }
        for (bind, tree) in spec.extras.iter().flat_map(|extras| &extras.binds).zip(&host.binds) {
            let dir = super::rootfs::is_dir(tree)?;
            add(bind.at.clone(), if dir { Node::Dir(0o755) } else { Node::File })?;
        }
        for dir in &spec.hidden_dirs {
            let path = GuestPath::from_relative(dir);
            let path =
                path.map_err(|e| Error::machine("a directory of the stack has a bad name").because(e))?;
            add(path, Node::Dir(0o755))?;
        }
        let at = |path: &GuestPath| [b"lower/".as_slice(), path.as_bytes()].concat();
        for (path, node) in &nodes {
            match node {
                _ if path.is_root() => {}
                Node::Dir(mode) => self.dir(at(path), *mode)?,
                Node::File => self.file(at(path), 0o644, b"")?,
                Node::Made => {}
                Node::Link(target) => fd::symlink(&cstring(target)?, self.top, &cstring(at(path))?)?,
            }
        }
        // Children before parents, whose times they change. In the reverse order of a map they are.
        for path in nodes.keys().rev() {
            fd::set_mtime(self.top, &cstring(at(path))?, spec.action.epoch)?;
        }
        Ok(())
    }

    /// What is behind the action's mounts: an empty directory for a tmpfs, the file of a secret.
    fn behind_mounts(&self, spec: &SandboxSpec) -> Result<()> {
        if spec.action.mounts.is_empty() {
            return Ok(());
        }
        self.dir("at", 0o755)?;
        for (n, mount) in spec.action.mounts.iter().enumerate() {
            let path = format!("at/{n}");
            match mount {
                MountDoc::Cache { .. } => {}
                MountDoc::Tmpfs { .. } => self.dir(&path, 0o1777)?,
                MountDoc::Secret { at, name } => {
                    let secret = spec.secrets.iter().find(|secret| secret.at == *at).ok_or_else(|| {
                        Error::machine(format!("the secret `{name}` has no value"))
                            .hint("give it on the command line")
                    })?;
                    self.file(&path, 0o400, &secret.value)?;
                    fd::chown(self.top, &cstring(&path)?, spec.action.user.uid, spec.action.user.gid)?;
                }
            }
        }
        Ok(())
    }

    fn dir(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        Ok(fd::make_dir(self.top, &cstring(path)?, mode)?)
    }

    fn file(&self, path: impl AsRef<[u8]>, mode: u32, content: &[u8]) -> Result<()> {
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
        let file = fd::open_in_root(self.top, &cstring(path)?, flags, mode)?;
        Ok(fd::write_all(file.as_fd(), content)?)
    }
}

fn guest(path: &str) -> Result<GuestPath> {
    GuestPath::from_relative(path).map_err(|e| Error::machine(format!("`{path}` is no path")).because(e))
}
