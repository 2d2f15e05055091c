//! What the sandbox does, tried for real in children that are thrown away.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
};

use crate::sys::{Refusal, in_child};

/// The answers of the kernel.
#[derive(Debug, Clone)]
pub struct Trials {
    /// A user namespace with one id mapped, and all other namespaces of the contract in it.
    pub namespaces: Result<(), Refusal>,
    /// A time namespace.
    pub time: Result<(), Refusal>,
    /// An overlay with `userxattr` and `lowerdir+` whose layers are in the store.
    pub overlay: Result<(), Refusal>,
    /// A procfs of its own.
    pub procfs: Result<(), Refusal>,
    /// What the store's file system can do.
    pub store: Result<FileSystem, String>,
}

/// What was found out about the store's file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// Where it was tried: the store, or what exists of the path to it.
    pub at: PathBuf,
    /// Name of its type.
    pub kind: &'static str,
    /// Why `user.` extended attributes do not work; none when they do.
    pub no_xattrs: Option<String>,
    /// Whether directory listings give the kind of each entry.
    pub kinds_listed: bool,
}

impl Trials {
    /// Tries everything, with a store at `store` (which need not exist yet).
    pub fn run(store: &Path) -> Trials {
        let at = store.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        let dir = tempfile::Builder::new().prefix(".isolith-doctor-").tempdir_in(at);
        let (overlay, file_system) = match &dir {
            Ok(dir) => (in_child(|| overlay(dir.path())), file_system(at, dir.path())),
            Err(why) => (
                Err(Refusal { what: format!("mkdir in {}", at.display()), errno: libc::EACCES }),
                Err(format!("cannot write to `{}`: {why}", at.display())),
            ),
        };
        Trials {
            namespaces: in_child(|| {
                user_namespace(CloneFlags::empty())?;
                let rest = CloneFlags::CLONE_NEWNS
                    | CloneFlags::CLONE_NEWPID
                    | CloneFlags::CLONE_NEWNET
                    | CloneFlags::CLONE_NEWIPC
                    | CloneFlags::CLONE_NEWUTS
                    | CloneFlags::CLONE_NEWCGROUP;
                unshare(rest).map_err(|why| Refusal::new("unshare(mount, pid, net, ipc, uts, cgroup)", why))
            }),
            time: in_child(|| user_namespace(CloneFlags::from_bits_retain(libc::CLONE_NEWTIME))),
            overlay,
            procfs: in_child(procfs),
            store: file_system,
        }
    }
}

/// Enters a new user namespace in which the caller is root, and `others` with it.
fn user_namespace(others: CloneFlags) -> Result<(), Refusal> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    unshare(CloneFlags::CLONE_NEWUSER | others).map_err(|why| Refusal::new("unshare(CLONE_NEWUSER)", why))?;
    let write = |file: &str, text: String| {
        fs::write(file, text).map_err(|why| Refusal::new(&format!("write to {file}"), why))
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
    write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))
}

fn overlay(dir: &Path) -> Result<(), Refusal> {
    user_namespace(CloneFlags::CLONE_NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|why| Refusal::new("make / private", why))?;
    let io = |why| Refusal::new(&format!("write in {}", dir.display()), why);
    for name in ["one", "two", "upper", "work", "root"] {
        fs::create_dir(dir.join(name)).map_err(io)?;
    }
    fs::write(dir.join("one/below"), "below").map_err(io)?;
    rustix::process::chdir(dir).map_err(|why| Refusal::new("chdir", why))?;
    mount("overlay", "root", |fs| {
        fsconfig_set_flag(fs, "userxattr").map_err(|why| Refusal::new("overlay option userxattr", why))?;
        for lower in ["two", "one"] {
            fsconfig_set_string(fs, "lowerdir+", lower)
                .map_err(|why| Refusal::new("overlay option lowerdir+", why))?;
        }
        fsconfig_set_string(fs, "upperdir", "upper")
            .and_then(|()| fsconfig_set_string(fs, "workdir", "work"))
            .map_err(|why| Refusal::new("overlay options upperdir and workdir", why))
    })?;
    let through = |why| Refusal::new("use of an overlay", why);
    fs::rename("root/below", "root/moved").map_err(through)?;
    fs::read("upper/moved").map_err(through)?;
    Ok(())
}

fn procfs() -> Result<(), Refusal> {
    user_namespace(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
    // Only children are in the new pid namespace.
    in_child(|| {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .map_err(|why| Refusal::new("make / private", why))?;
        mount("proc", "/proc", |_| Ok(()))
    })
}

fn mount(
    kind: &str,
    at: &str,
    options: impl FnOnce(rustix::fd::BorrowedFd<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    use rustix::fd::AsFd;
    let refused = |call: &str, why| Refusal::new(&format!("{call}({kind})"), why);
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|why| refused("fsopen", why))?;
    options(fs.as_fd())?;
    fsconfig_create(fs.as_fd()).map_err(|why| refused("fsconfig_create", why))?;
    let mounted = fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(|why| refused("fsmount", why))?;
    move_mount(mounted.as_fd(), "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|why| refused("move_mount", why))
}

fn file_system(at: &Path, scratch: &Path) -> Result<FileSystem, String> {
    let failed = |why: &dyn std::fmt::Display| format!("cannot examine `{}`: {why}", at.display());
    let magic = rustix::fs::statfs(at).map_err(|why| failed(&why))?.f_type;
    let probe = scratch.join("probe");
    fs::write(&probe, "").map_err(|why| failed(&why))?;
    let xattr = xattr::set(&probe, "user.isolith", b"1");
    let listing = rustix::fs::open(scratch, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())
        .and_then(rustix::fs::Dir::new)
        .map_err(|why| failed(&why))?;
    let kinds_listed = listing.flatten().all(|entry| entry.file_type() != rustix::fs::FileType::Unknown);
    Ok(FileSystem {
        at: at.to_owned(),
        kind: kind_name(magic as u64 & 0xffff_ffff),
        no_xattrs: xattr.err().map(|why| why.to_string()),
        kinds_listed,
    })
}

/// The numbers are those of `linux/magic.h` and, for XFS, ZFS and bcachefs, of their own headers.
fn kind_name(magic: u64) -> &'static str {
    match magic {
        0xef53 => "ext4",
        0x0102_1994 => "tmpfs",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x2fc1_2fc1 => "zfs",
        0xca45_1a4e => "bcachefs",
        0xf2f5_2010 => "f2fs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        0x6573_5546 => "fuse",
        0xff53_4d42 | 0xfe53_4d42 => "cifs",
        0x0102_1997 => "9p",
        _ => "of an uncommon kind",
    }
}
