//! What is mounted in every sandbox: made by an init before it has work, so off the way of the step.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::hints::explain;
use super::skeleton::Skeleton;
use super::stage::tmpfs;
use crate::error::Result;
use crate::sys::fd;
use crate::sys::mount::{self, FsContext, attr};

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

/// The mounts.
pub(super) struct Parts {
    /// The private tmpfs, at `/skel` of the stage (see [`Skeleton`]).
    pub(super) skel: OwnedFd,
    /// The others and their places in the root, in the order they are put there.
    pub(super) mounts: [(OwnedFd, &'static str); 6],
}

impl Parts {
    /// Makes them. The root must be the stage.
    pub(super) fn make(recorded: bool) -> Result<Parts> {
        let skel = tmpfs(attr::NOSUID | attr::NODEV)?;
        mount::attach(&skel, fd::open_path(fd::here(), c"/skel")?, "skel").map_err(explain)?;
        Skeleton::new(skel.as_fd()).private()?;
        let private = |path: &CStr| mount::clone_tree(&skel, path, false).map_err(explain);
        let sys = private(c"sys")?;
        mount::set_attr(sys.as_fd(), attr::RDONLY | attr::NOEXEC, false)?;
        let (tmp, var_tmp, run) = (private(c"tmp")?, private(c"var/tmp")?, private(c"run")?);
        // These two first cover their like in the stage, since only what is attached can be mounted on.
        let (dev, proc) = (dev(&private, recorded)?, proc(&private)?);
        let mounts =
            [(tmp, "tmp"), (var_tmp, "var/tmp"), (run, "run"), (sys, "sys"), (dev, "dev"), (proc, "proc")];
        Ok(Parts { skel, mounts })
    }
}

/// The stage's /dev with a devpts and a shm of its own.
fn dev(private: &impl Fn(&CStr) -> Result<OwnedFd>, recorded: bool) -> Result<OwnedFd> {
    let dev = mount::clone_tree(fd::here(), c"/dev", true).map_err(explain)?;
    mount::attach(&dev, fd::open_path(fd::here(), c"/dev")?, "dev").map_err(explain)?;
    let pts = FsContext::open(c"devpts").map_err(explain)?;
    for (key, value) in [(c"mode", c"0620"), (c"ptmxmode", c"0666")] {
        pts.set(key, value).map_err(explain)?;
    }
    // The group `tty`, as everywhere. Where there is one id only it cannot be had.
    if !recorded {
        pts.set(c"gid", c"5").map_err(explain)?;
    }
    let pts = pts.mount(attr::NOSUID | attr::NOEXEC).map_err(explain)?;
    mount::attach(pts, fd::open_path(dev.as_fd(), c"pts")?, "dev/pts").map_err(explain)?;
    mount::attach(private(c"dev/shm")?, fd::open_path(dev.as_fd(), c"shm")?, "dev/shm").map_err(explain)?;
    Ok(dev)
}

/// A new procfs with its masks.
fn proc(private: &impl Fn(&CStr) -> Result<OwnedFd>) -> Result<OwnedFd> {
    let proc = FsContext::open(c"proc").map_err(explain)?;
    let proc = proc.mount(attr::NOSUID | attr::NODEV | attr::NOEXEC).map_err(explain)?;
    mount::attach(&proc, fd::open_path(fd::here(), c"/proc")?, "proc").map_err(explain)?;
    let mask = |name: &CStr, tree: &dyn Fn() -> Result<OwnedFd>, attrs: u64| -> Result<()> {
        let Some(place) = existing(proc.as_fd(), name)? else { return Ok(()) };
        let tree = tree()?;
        mount::set_attr(tree.as_fd(), attr::NOSUID | attr::NOEXEC | attrs, false)?;
        mount::attach(tree, place, &name.to_string_lossy()).map_err(explain)
    };
    for name in PROC_READ_ONLY {
        let itself = || mount::clone_tree(&proc, name, false).map_err(explain);
        mask(name, &itself, attr::RDONLY | attr::NODEV)?;
    }
    for name in PROC_HIDDEN_FILES {
        mask(name, &|| mount::clone_tree(fd::here(), c"/dev/null", false).map_err(explain), 0)?;
    }
    for name in PROC_HIDDEN_DIRS {
        mask(name, &|| private(c"sys"), attr::RDONLY | attr::NODEV)?;
    }
    Ok(proc)
}

/// The entry of a directory, if this kernel has it.
fn existing(dir: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>> {
    match fd::open_path(dir, name) {
        Ok(fd) => Ok(Some(fd)),
        Err(e) if e.errno() == libc::ENOENT => Ok(None),
        Err(e) => Err(e.into()),
    }
}
