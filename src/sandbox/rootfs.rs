//! The root of a sandbox, made by its init inside its own namespaces: skeleton, overlay, and what is mounted
//! over it.
//!
//! One tmpfs serves all private directories: `lower/` is the skeleton, the lowest layer of the stack, with
//! every mount point (so that none is ever made in the upper directory and none reaches a layer); `tmp`,
//! `var/tmp`, `run`, `dev/shm` are bound over the root; `at/N` is behind mount N of the action.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::SandboxSpec;
use super::hints::explain;
use super::skeleton::Skeleton;
use super::stage::{HostPart, HostParts, tmpfs};
use crate::error::{Error, Result};
use crate::key::MountDoc;
use crate::path::GuestPath;
use crate::sys::mount::{self, FsContext, attr};
use crate::sys::{cstring, fd};

/// What overlayfs stacks at most (`OVL_MAX_STACK`).
const OVERLAY_MAX: usize = 500;

/// Places of /proc that can only be read. All of them by bind mounts: see proc(5) for what they are.
const PROC_READ_ONLY: [&CStr; 5] = [c"sys", c"irq", c"bus", c"fs", c"sysrq-trigger"];

/// Places of /proc that tell of the machine or reach into it: hidden. The same as in other containers.
const PROC_HIDDEN_FILES: [&CStr; 10] = [
    c"kcore",
    c"keys",
    c"key-users",
    c"kmsg",
    c"timer_list",
    c"timer_stats",
    c"latency_stats",
    c"sched_debug",
    c"config.gz",
    c"interrupts",
];
const PROC_HIDDEN_DIRS: [&CStr; 4] = [c"acpi", c"asound", c"scsi", c"driver"];

/// What is the same in every sandbox and can be made before its spec is known.
pub(super) struct Parts {
    skel: OwnedFd,
    proc: OwnedFd,
    pts: OwnedFd,
}

impl Parts {
    /// Makes them. The root must be the stage.
    pub(super) fn make() -> Result<Parts> {
        let skel = tmpfs(attr::NOSUID | attr::NODEV)?;
        mount::attach(&skel, fd::open_path(fd::here(), c"/skel")?, "skel").map_err(explain)?;
        Skeleton::new(skel.as_fd()).private()?;
        let proc = FsContext::open(c"proc").map_err(explain)?;
        let proc = proc.mount(attr::NOSUID | attr::NODEV | attr::NOEXEC).map_err(explain)?;
        let pts = FsContext::open(c"devpts").map_err(explain)?;
        for (key, value) in [(c"mode", c"0620"), (c"ptmxmode", c"0666"), (c"gid", c"5")] {
            pts.set(key, value).map_err(explain)?;
        }
        let pts = pts.mount(attr::NOSUID | attr::NOEXEC).map_err(explain)?;
        Ok(Parts { skel, proc, pts })
    }
}

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
    root.system()?;
    root.proc()?;
    if host.resolv.is_some() {
        root.resolv()?;
    }
    for (at, doc) in spec.action.mounts.iter().enumerate() {
        root.user_mount(spec, at, doc)?;
    }
    fd::change_dir(c"/root")?;
    mount::pivot_to_cwd().map_err(explain)
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

    fn put_skel(&self, path: &'static str, at: &'static str) -> Result<()> {
        self.put(self.skel_tree(&cstring(path)?)?, &guest(at), true)
    }

    /// Everything that every sandbox has, but /proc.
    fn system(&self) -> Result<()> {
        self.put_skel("tmp", "tmp")?;
        self.put_skel("var/tmp", "var/tmp")?;
        self.put_skel("run", "run")?;
        let sys = self.skel_tree(c"sys")?;
        mount::set_attr(sys.as_fd(), attr::RDONLY | attr::NOEXEC, false)?;
        self.put(sys, &guest("sys"), true)?;
        self.put(mount::clone_tree(fd::here(), c"/dev", true).map_err(explain)?, &guest("dev"), true)?;
        self.put(&self.parts.pts, &guest("dev/pts"), true)?;
        self.put_skel("dev/shm", "dev/shm")
    }

    fn proc(&self) -> Result<()> {
        let proc = &self.parts.proc;
        self.put(proc, &guest("proc"), true)?;
        for name in PROC_READ_ONLY {
            let Some(place) = existing(proc.as_fd(), name)? else { continue };
            let tree = mount::clone_tree(proc, name, false).map_err(explain)?;
            mount::set_attr(tree.as_fd(), attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC, false)?;
            mount::attach(tree, place, &name.to_string_lossy()).map_err(explain)?;
        }
        for name in PROC_HIDDEN_FILES {
            let Some(place) = existing(proc.as_fd(), name)? else { continue };
            let null = mount::clone_tree(fd::here(), c"/dev/null", false).map_err(explain)?;
            mount::attach(null, place, &name.to_string_lossy()).map_err(explain)?;
        }
        for name in PROC_HIDDEN_DIRS {
            let Some(place) = existing(proc.as_fd(), name)? else { continue };
            let empty = self.skel_tree(c"sys")?;
            mount::set_attr(empty.as_fd(), attr::RDONLY | attr::NOEXEC, false)?;
            mount::attach(empty, place, &name.to_string_lossy()).map_err(explain)?;
        }
        Ok(())
    }

    /// The machine's name servers, for network `host`. Many systems have a symlink into /run there.
    fn resolv(&self) -> Result<()> {
        let tree = self.skel_tree(c"resolv.conf")?;
        mount::set_attr(tree.as_fd(), attr::RDONLY, false)?;
        let path = c"etc/resolv.conf";
        // O_CREAT makes the file where a dangling symlink points to; only ever in a private tmpfs, since the
        // skeleton has the file where no layer has anything.
        let place = fd::open_in_root(self.root.as_fd(), path, libc::O_PATH, 0).or_else(|_| {
            let made = fd::open_in_root(self.root.as_fd(), path, libc::O_CREAT | libc::O_WRONLY, 0o644)?;
            drop(made);
            fd::open_in_root(self.root.as_fd(), path, libc::O_PATH, 0)
        });
        mount::attach(tree, place?, "/etc/resolv.conf").map_err(explain)
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
                self.put_made(tree, at, true)
            }
            MountDoc::Tmpfs { at } => self.put_made(self.skel_tree(&behind)?, at, true),
            MountDoc::Secret { at, .. } => {
                let tree = self.skel_tree(&behind)?;
                mount::set_attr(tree.as_fd(), attr::RDONLY | attr::NOEXEC, false)?;
                self.put_made(tree, at, false)
            }
        }
    }

    /// Like `put`, but makes a place that is missing inside another mount, such as below /run.
    fn put_made(&self, tree: impl AsFd, path: &GuestPath, dir: bool) -> Result<()> {
        if self.open(path, dir).is_err_and(|e| e.errno() == libc::ENOENT) {
            for parent in path.ancestors().skip(1) {
                self.make(&parent, true)?;
            }
            self.make(path, dir)?;
        }
        self.put(tree, path, dir)
    }

    fn make(&self, path: &GuestPath, dir: bool) -> Result<()> {
        if self.open(path, dir).is_ok() {
            return Ok(());
        }
        let parent = self.open(&path.parent().unwrap_or_default(), true)?;
        let device =
            |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|s| s.st_dev).map_err(std::io::Error::from);
        let same = device(parent.as_fd()).and_then(|parent| Ok(parent == device(self.root.as_fd())?));
        if same.map_err(|e| {
            Error::machine(format!("cannot look at the place of the mount `{path}`")).because(e)
        })? {
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

/// A path of the contract, known to be good.
fn guest(path: &str) -> GuestPath {
    GuestPath::from_relative(path).unwrap_or_default()
}

/// The entry of a directory, if this kernel has it.
fn existing(dir: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>> {
    match fd::open_path(dir, name) {
        Ok(fd) => Ok(Some(fd)),
        Err(e) if e.errno() == libc::ENOENT => Ok(None),
        Err(e) => Err(e.into()),
    }
}
