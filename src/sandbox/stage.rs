//! The executor's mounts: a small private tree, the *stage*, from which inits build their roots.
//!
//! ```text
//! /layers /tmp /mounts /failed   those of the store; its own top directory is not in the way
//! /proc                          the machine's: id maps are written there, and the kernel gives a new
//!                                procfs only to those who see a whole one
//! /dev                           the contract's /dev, ready to be cloned
//! /skel /root                    where inits mount
//! ```
//!
//! The less is mounted here, the less has to be copied for every step's mount namespace. The machine's own
//! mounts are in a second namespace that the executor visits for base `host`.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::hints::explain;
use super::server::STORE_DIRS;
use super::{Bind, ids};
use crate::error::{Error, Result};
use crate::key::Network;
use crate::layer::IdShift;
use crate::path::GuestPath;
use crate::sys::mount::{self, FsContext, attr};
use crate::sys::{self, cstring, fd, process};

/// The devices of the contract.
const DEVICES: [&CStr; 6] = [c"null", c"zero", c"full", c"random", c"urandom", c"tty"];

/// Symlinks of /dev: name and target.
const LINKS: [(&CStr, &CStr); 5] = [
    (c"ptmx", c"pts/ptmx"),
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
];

/// The two mount namespaces of the executor.
pub(super) struct Stage {
    machine: OwnedFd,
    own: OwnedFd,
}

/// What one sandbox shows of the machine.
#[derive(Default)]
pub(super) struct HostParts {
    /// Base `host`: the places and what is there.
    pub(super) view: Vec<(GuestPath, HostPart)>,
    /// The machine's /etc/resolv.conf, for network `host`.
    pub(super) resolv: Option<Vec<u8>>,
    /// What else was asked to be shown, as detached mounts.
    pub(super) binds: Vec<OwnedFd>,
}

/// One path of base `host`.
pub(super) enum HostPart {
    /// A directory, as a detached read-only mount.
    Dir(OwnedFd),
    /// Another file, as a detached read-only mount.
    File(OwnedFd),
    /// A symlink and its target.
    Link(Vec<u8>),
}

impl HostPart {
    /// Its mount, if it has one.
    pub(super) fn tree(&self) -> Option<&OwnedFd> {
        match self {
            HostPart::Dir(tree) | HostPart::File(tree) => Some(tree),
            HostPart::Link(_) => None,
        }
    }
}

impl Stage {
    /// Makes both namespaces; the working directory and root of this process become the stage.
    pub(super) fn build(store: &Path, ids: IdShift) -> Result<Stage> {
        process::unshare(libc::CLONE_NEWNS).map_err(explain)?;
        mount::make_private().map_err(explain)?;
        let machine = open_namespace()?;
        process::unshare(libc::CLONE_NEWNS).map_err(explain)?;

        let here = fd::here();
        let stage = tmpfs(attr::NOSUID | attr::NODEV)?;
        let trees = STORE_DIRS.map(|dir| (dir, store.join(dir)));
        let trees =
            trees.iter().map(|(name, path)| (*name, path.as_path())).chain([("proc", Path::new("/proc"))]);
        let mut parts = Vec::new();
        for (name, path) in trees {
            let (name, path) = (cstring(name)?, cstring(path.as_os_str().as_bytes())?);
            parts.push((name, mount::clone_tree(here, &path, true).map_err(explain)?));
        }
        let dev = device_tree(here, ids)?;

        let top = cstring(store.as_os_str().as_bytes())?;
        mount::attach(&stage, fd::open_path(here, &top)?, "the store").map_err(explain)?;
        for (name, tree) in &parts {
            fd::make_dir(stage.as_fd(), name, 0o755)?;
            attach_at(tree.as_fd(), stage.as_fd(), name)?;
        }
        for name in [c"dev", c"skel", c"root"] {
            fd::make_dir(stage.as_fd(), name, 0o755)?;
        }
        attach_devices(&dev, &stage, here)?;
        mount::set_attr(stage.as_fd(), attr::RDONLY, false)?;
        fd::change_dir(&top)?;
        mount::pivot_to_cwd().map_err(explain)?;
        let own = open_namespace()?;
        Ok(Stage { machine, own })
    }

    /// Opens what the sandbox of the init `pid` is to show beside that, ready to be attached.
    pub(super) fn binds(&self, binds: &[Bind], pid: i32) -> Result<Vec<OwnedFd>> {
        if binds.is_empty() {
            return Ok(Vec::new());
        }
        // Who really is root has a sandbox without an id of their own in it: then the machine's ids 0..65535 are
        // those of the sandbox on this mount.
        let ids = match ids::is_direct() {
            true => Some(namespace(&format!("/proc/{pid}/ns/user"))?),
            false => None,
        };
        process::enter_namespace(self.machine.as_fd(), libc::CLONE_NEWNS)?;
        let trees = binds.iter().map(|bind| {
            let path = cstring(bind.host.as_os_str().as_bytes())?;
            let tree = mount::clone_tree(fd::here(), &path, true).map_err(|e| {
                Error::from(e).within(format!("cannot show `{}` in a sandbox", bind.host.display()))
            })?;
            let read_only = if bind.read_only { attr::RDONLY } else { 0 };
            mount::set_attr(tree.as_fd(), attr::NOSUID | attr::NODEV | read_only, true).map_err(explain)?;
            if let Some(ids) = &ids {
                mount::map_ids(tree.as_fd(), ids.as_fd()).map_err(|e| {
                    Error::from(e)
                        .within(format!("cannot map the owners of `{}`", bind.host.display()))
                        .hint("its file system, or one below it, has no id-mapped mounts; run isolith as another user than root, or copy the files")
                })?;
            }
            Ok(tree)
        });
        let trees = trees.collect();
        process::enter_namespace(self.own.as_fd(), libc::CLONE_NEWNS)?;
        trees
    }

    /// Opens what a sandbox shows of the machine.
    pub(super) fn host_parts(&self, paths: &[GuestPath], network: Network) -> Result<HostParts> {
        if paths.is_empty() && network == Network::None {
            return Ok(HostParts::default());
        }
        process::enter_namespace(self.machine.as_fd(), libc::CLONE_NEWNS)?;
        let parts = (|| {
            let view =
                paths.iter().map(|path| Ok((path.clone(), host_part(path)?))).collect::<Result<_>>()?;
            let resolv = match network {
                // A machine without the file resolves by its own defaults, and so will the step.
                Network::Host => Some(std::fs::read("/etc/resolv.conf").unwrap_or_default()),
                Network::None => None,
            };
            Ok(HostParts { view, resolv, binds: Vec::new() })
        })();
        process::enter_namespace(self.own.as_fd(), libc::CLONE_NEWNS)?;
        parts
    }
}

fn open_namespace() -> Result<OwnedFd> {
    namespace("/proc/self/ns/mnt")
}

fn namespace(path: &str) -> Result<OwnedFd> {
    Ok(std::fs::File::open(path).map_err(|e| Error::io("open", Path::new(path), e))?.into())
}

/// A new tmpfs, attached nowhere yet; its root has mode 0755.
pub(super) fn tmpfs(attrs: u64) -> Result<OwnedFd> {
    let fs = FsContext::open(c"tmpfs").map_err(explain)?;
    fs.set(c"mode", c"0755")?;
    fs.mount(attrs).map_err(explain)
}

fn attach_at(tree: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let place = fd::open_path(dir, name)?;
    mount::attach(tree, place, &name.to_string_lossy()).map_err(explain)
}

/// The directory that becomes /dev, still without the devices: a mount can only be put on an attached one.
fn device_tree(here: BorrowedFd<'_>, ids: IdShift) -> Result<OwnedFd> {
    let _ = here;
    let dev = tmpfs(attr::NOSUID | attr::NOEXEC)?;
    let dir = dev.as_fd();
    for device in DEVICES {
        let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_EXCL;
        fd::open_in_root(dir, device, flags, 0o666)?;
    }
    for (name, target) in LINKS {
        fd::symlink(target, dir, name)?;
        fd::chown(dir, name, ids.offset, ids.offset)?;
    }
    for name in [c"pts", c"shm"] {
        fd::make_dir(dir, name, 0o755)?;
    }
    fd::chown(dir, c".", ids.offset, ids.offset)?;
    Ok(dev)
}

fn attach_devices(dev: &OwnedFd, stage: &OwnedFd, here: BorrowedFd<'_>) -> Result<()> {
    attach_at(dev.as_fd(), stage.as_fd(), c"dev")?;
    for device in DEVICES {
        let host = [b"/dev/", device.to_bytes()].concat();
        let node = mount::clone_tree(here, &cstring(host)?, false)
            .map_err(|e| Error::from(e).hint("the machine's own /dev lacks a device that every step gets"))?;
        mount::set_attr(node.as_fd(), attr::NOSUID | attr::NOEXEC, false)?;
        attach_at(node.as_fd(), dev.as_fd(), device)?;
    }
    Ok(mount::set_attr(dev.as_fd(), attr::RDONLY, false)?)
}

fn host_part(path: &GuestPath) -> Result<HostPart> {
    let host = Path::new("/").join(path.as_relative());
    let missing = |e| {
        Error::io("show the host's", &host, e)
            .hint("take the path out of the `host` list of the recipe's base")
    };
    let meta = std::fs::symlink_metadata(&host).map_err(missing)?;
    if meta.is_symlink() {
        let target = std::fs::read_link(&host).map_err(missing)?;
        return Ok(HostPart::Link(target.as_os_str().as_bytes().to_vec()));
    }
    let tree =
        mount::clone_tree(fd::here(), &cstring(host.as_os_str().as_bytes())?, true).map_err(explain)?;
    sys::mount::set_attr(tree.as_fd(), attr::RDONLY | attr::NOSUID | attr::NODEV, true).map_err(explain)?;
    Ok(if meta.is_dir() { HostPart::Dir(tree) } else { HostPart::File(tree) })
}
