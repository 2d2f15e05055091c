//! The root of a sandbox, made by its init inside its own namespaces: skeleton, overlay, and what is mounted
//! over it.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::SandboxSpec;
use super::hints::explain;
use super::parts::Parts;
use super::skeleton::Skeleton;
use super::stage::{HostPart, HostParts};
use crate::error::{Error, Result};
use crate::key::MountDoc;
use crate::path::GuestPath;
use crate::sys::mount::{self, FsContext, attr};
use crate::sys::{cstring, fd};

/// What overlayfs stacks at most (`OVL_MAX_STACK`).
const OVERLAY_MAX: usize = 500;

/// Makes the root and changes into it. The root must be the stage.
pub(super) fn enter(spec: &SandboxSpec, host: &HostParts, parts: Parts) -> Result<()> {
    let run = cstring(format!("/tmp/{}", spec.run))?;
    fd::change_dir(&run)
        .map_err(|e| Error::from(e).hint("the run directory must be searchable by everyone (mode 0711)"))?;
    Skeleton::new(parts.skel.as_fd()).fill(spec, host)?;
    let root = overlay(spec)?;
    mount::attach(&root, fd::open_path(fd::here(), c"/root")?, "root").map_err(explain)?;
    let root = Root { root, parts };
    for (path, part) in &host.view {
        match part {
            HostPart::Dir(tree) => root.put(tree, path, true)?,
            HostPart::File(tree) => root.put(tree, path, false)?,
            HostPart::Link(_) => {}
        }
    }
    for (tree, at) in &root.parts.mounts {
        root.put(tree, &GuestPath::from_relative(at).unwrap_or_default(), true)?;
    }
    if host.resolv.is_some() {
        root.resolv()?;
    }
    for (at, doc) in spec.action.mounts.iter().enumerate() {
        root.user_mount(spec, at, doc)?;
    }
    for (bind, tree) in spec.extras.iter().flat_map(|extras| &extras.binds).zip(&host.binds) {
        root.put_made(tree, &bind.at, is_dir(tree)?, Made::Private)?;
    }
    fd::change_dir(c"/root")?;
    mount::pivot_to_cwd().map_err(explain)
}

/// Whether a detached mount is one of a directory.
pub(super) fn is_dir(tree: &OwnedFd) -> Result<bool> {
    let stat = rustix::fs::fstat(tree).map_err(|e| {
        Error::machine("cannot look at what is to be shown of the machine").because(std::io::Error::from(e))
    })?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

/// Makes the root of a sandbox read-only; what else is mounted stays as it is.
pub(super) fn lock_root() -> Result<()> {
    let root = fd::open_path(fd::here(), c"/")?;
    mount::set_attr(root.as_fd(), attr::RDONLY, false).map_err(explain)
}

/// Where a place for a mount may be made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    /// In any mount but the root.
    Mounted,
    /// In the sandbox's own memory only: nothing is made in what is shown of the machine.
    Private,
}

/// The stack with a fresh upper directory on top; the working directory is the run directory.
fn overlay(spec: &SandboxSpec) -> Result<OwnedFd> {
    // Names are relative and fixed: a step can read them in its mountinfo.
    let layer = |id: &crate::digest::LayerId| {
        let hex = id.to_hex();
        format!("../../layers/{}/{hex}/fs", &hex[..2])
    };
    let mut lowers: Vec<String> = spec.on_top.iter().map(|dir| format!("../../{dir}")).collect();
    lowers.extend(spec.layers.iter().rev().map(layer));
    lowers.push("../../skel/lower".to_string());
    if lowers.len() > OVERLAY_MAX {
        // The skeleton does not count as a layer: the lowest ones become one file system, which is a layer of
        // the other. Overlayfs may be stacked twice.
        let low = lowers.split_off(lowers.len() / 2);
        let low = stack(&low, false)?;
        mount::attach(&low, fd::open_path(fd::here(), c"/skel/low")?, "low").map_err(explain)?;
        lowers.push("../../skel/low".to_string());
    }
    stack(&lowers, true)
}

fn stack(lowers: &[String], writable: bool) -> Result<OwnedFd> {
    let fs = FsContext::open(c"overlay").map_err(explain)?;
    for lower in lowers {
        fs.set(c"lowerdir+", &cstring(lower)?).map_err(explain)?;
    }
    if writable {
        fs.set(c"upperdir", c"upper").map_err(explain)?;
        fs.set(c"workdir", c"work").map_err(explain)?;
        // Nothing is synced when the step calls fsync or ends: what it leaves is checked after a crash by other
        // means, and without this every unmount would flush the whole file system that the store is on.
        fs.flag(c"volatile").map_err(explain)?;
    }
    // One code path for every caller: only `user.*` attributes are used.
    fs.flag(c"userxattr").map_err(explain)?;
    // These default to what the kernel was built or booted with, and change what a step sees of inode numbers
    // and of hard links to lower files.
    fs.set(c"index", c"off").map_err(explain)?;
    fs.set(c"xino", c"off").map_err(explain)?;
    // Otherwise a random id is made up and written to the upper directory.
    fs.set(c"uuid", c"null").map_err(explain)?;
    fs.mount(attr::NODEV).map_err(explain)
}

struct Root {
    root: OwnedFd,
    parts: Parts,
}

impl Root {
    /// Attaches a mount over a place that must exist.
    fn put(&self, tree: impl AsFd, path: &GuestPath, dir: bool) -> Result<()> {
        let place = self.open(path, dir).map_err(|e| {
            Error::machine(format!(
                "cannot mount over `{path}`: the stack has no {} there",
                if dir { "directory" } else { "file" }
            ))
            .because(e)
        })?;
        mount::attach(tree, place, &path.to_string()).map_err(explain)
    }

    fn open(&self, path: &GuestPath, dir: bool) -> crate::sys::Result<OwnedFd> {
        let flags = libc::O_PATH | if dir { libc::O_DIRECTORY } else { 0 };
        fd::open_in_root(self.root.as_fd(), &cstring(path.as_bytes())?, flags, 0)
    }

    fn skel_tree(&self, path: &CStr) -> Result<OwnedFd> {
        mount::clone_tree(&self.parts.skel, path, false).map_err(explain)
    }

    /// The machine's name servers, for network `host`. Many systems have a symlink into /run there, to a file
    /// that a service would make.
    fn resolv(&self) -> Result<()> {
        let tree = self.skel_tree(c"resolv.conf")?;
        mount::set_attr(tree.as_fd(), attr::RDONLY, false)?;
        let path = self.follow(GuestPath::from_relative("etc/resolv.conf").unwrap_or_default())?;
        self.put_made(tree, &path, false, Made::Mounted)
    }

    /// Where a path leads to that may be a symlink to something that is not there.
    fn follow(&self, mut path: GuestPath) -> Result<GuestPath> {
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        for _ in 0..40 {
            let link = fd::open_in_root(self.root.as_fd(), &cstring(path.as_bytes())?, flags, 0);
            let Some(target) = link.ok().and_then(|link| rustix::fs::readlinkat(link, c"", Vec::new()).ok())
            else {
                return Ok(path);
            };
            let mut at = match target.as_bytes().first() {
                Some(b'/') => GuestPath::root(),
                _ => path.parent().unwrap_or_default(),
            };
            for part in target.as_bytes().split(|byte| *byte == b'/') {
                match part {
                    b"" | b"." => {}
                    b".." => at = at.parent().unwrap_or_default(),
                    name => at = at.join(name),
                }
            }
            path = at;
        }
        Err(Error::machine(format!("`{path}` is one of too many symlinks that lead to each other")))
    }

    fn user_mount(&self, spec: &SandboxSpec, at: usize, doc: &MountDoc) -> Result<()> {
        let behind = cstring(format!("at/{at}"))?;
        match doc {
            MountDoc::Cache { at, .. } => {
                let cache = spec.caches.iter().find(|cache| cache.at == *at);
                let cache = cache
                    .ok_or_else(|| Error::machine(format!("the cache mount `{at}` has no directory")))?;
                let tree = mount::clone_tree(fd::here(), &cstring(format!("/{}", cache.dir))?, false)
                    .map_err(explain)?;
                mount::set_attr(tree.as_fd(), attr::NOSUID | attr::NODEV, false).map_err(explain)?;
                self.put_made(tree, at, true, Made::Mounted)
            }
            MountDoc::Tmpfs { at } => self.put_made(self.skel_tree(&behind)?, at, true, Made::Mounted),
            MountDoc::Secret { at, .. } => {
                let tree = self.skel_tree(&behind)?;
                mount::set_attr(tree.as_fd(), attr::RDONLY | attr::NOEXEC, false)?;
                self.put_made(tree, at, false, Made::Mounted)
            }
        }
    }

    /// Like `put`, but makes a place that is missing inside another mount, such as below /run.
    fn put_made(&self, tree: impl AsFd, path: &GuestPath, dir: bool, made: Made) -> Result<()> {
        if self.open(path, dir).is_err_and(|e| e.errno() == libc::ENOENT) {
            for parent in path.ancestors().skip(1) {
                self.make(&parent, true, made)?;
            }
            self.make(path, dir, made)?;
        }
        self.put(tree, path, dir)
    }

    fn make(&self, path: &GuestPath, dir: bool, made: Made) -> Result<()> {
        if self.open(path, dir).is_ok() {
            return Ok(());
        }
        let parent = self.open(&path.parent().unwrap_or_default(), true)?;
        let device = |fd: BorrowedFd<'_>| {
            rustix::fs::fstat(fd).map(|s| s.st_dev).map_err(|e| {
                Error::machine(format!("cannot look at the place of the mount `{path}`"))
                    .because(std::io::Error::from(e))
            })
        };
        let at = device(parent.as_fd())?;
        if made == Made::Private && at != device(self.parts.skel.as_fd())? && at != device(self.root.as_fd())?
        {
            return Err(Error::machine(format!("there is no place for the mount `{path}`"))
                .hint("it is inside another one: make the place there first"));
        }
        if at == device(self.root.as_fd())? {
            return Err(Error::machine(format!(
                "there is no place for the mount `{path}`: a symlink of the stack leads elsewhere"
            ))
            .hint("mount it at the path that the symlink points to"));
        }
        let name = cstring(path.name())?;
        if dir {
            fd::make_dir(parent.as_fd(), &name, 0o755)?;
        } else {
            fd::open_in_root(parent.as_fd(), &name, libc::O_CREAT | libc::O_WRONLY, 0o644)?;
        }
        Ok(())
    }
}
