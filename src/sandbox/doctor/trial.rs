//! What the sandbox does, tried for real in children that are thrown away.

use std::fs;
use std::path::{Path, PathBuf};

use super::child::in_child;
use crate::sys::mount::{self, FsContext};
use crate::sys::{Result, SysError, fd, process};

/// The answers of the kernel.
#[derive(Debug, Clone)]
pub struct Trials {
    /// A user namespace with one id mapped, and all other namespaces of the contract in it.
    pub namespaces: Result<()>,
    /// A time namespace.
    pub time: Result<()>,
    /// An overlay with `userxattr` and `lowerdir+` whose layers are in the store.
    pub overlay: Result<()>,
    /// A procfs of its own.
    pub procfs: Result<()>,
    /// What the store's file system can do.
    pub store: std::result::Result<FileSystem, String>,
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
                Err(refused(
                    format!("mkdir in \"{}\"", at.display()),
                    std::io::Error::from_raw_os_error(libc::EACCES),
                )),
                Err(format!("cannot write to `{}`: {why}", at.display())),
            ),
        };
        if let Ok(dir) = &dir {
            // A mount leaves `work/work` with mode 000, where the destructor would stop. What cannot be
            // removed all the same is no answer to what was asked.
            let _ = crate::store::remove_tree(dir.path());
        }
        Trials {
            namespaces: in_child(|| {
                user_namespace(0)?;
                process::unshare(
                    libc::CLONE_NEWNS
                        | libc::CLONE_NEWPID
                        | libc::CLONE_NEWNET
                        | libc::CLONE_NEWIPC
                        | libc::CLONE_NEWUTS
                        | libc::CLONE_NEWCGROUP,
                )
            }),
            time: in_child(|| user_namespace(libc::CLONE_NEWTIME)),
            overlay,
            procfs: in_child(procfs),
            store: file_system,
        }
    }
}

/// Enters a new user namespace in which the caller is root, and `others` with it.
fn user_namespace(others: i32) -> Result<()> {
    let (uid, gid) = crate::sys::privilege::effective_ids();
    process::unshare(libc::CLONE_NEWUSER | others)?;
    let write = |file: &str, text: String| {
        fs::write(file, text).map_err(|why| refused(format!("write(\"{file}\")"), why))
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// Mounts one as the sandbox does, and renames a file of the lowest layer through it.
fn overlay(dir: &Path) -> Result<()> {
    user_namespace(libc::CLONE_NEWNS)?;
    mount::make_private()?;
    rustix::process::chdir(dir).map_err(|why| refused(format!("chdir(\"{}\")", dir.display()), why))?;
    let here = |why| refused(format!("write in \"{}\"", dir.display()), why);
    for name in ["one", "two", "upper", "work", "root"] {
        fs::create_dir(name).map_err(here)?;
    }
    fs::write("one/below", "below").map_err(here)?;
    let fs = FsContext::open(c"overlay")?;
    fs.set(c"lowerdir+", c"two")?;
    fs.set(c"lowerdir+", c"one")?;
    fs.set(c"upperdir", c"upper")?;
    fs.set(c"workdir", c"work")?;
    fs.flag(c"volatile")?;
    fs.flag(c"userxattr")?;
    mount::attach(fs.mount(0)?, fd::open_path(fd::here(), c"root")?, "root")?;
    let through = |why| refused("use of an overlay".to_owned(), why);
    std::fs::rename("root/below", "root/moved").map_err(through)?;
    std::fs::read("upper/moved").map_err(through)?;
    Ok(())
}

fn procfs() -> Result<()> {
    user_namespace(libc::CLONE_NEWNS | libc::CLONE_NEWPID)?;
    // Only children are in the new pid namespace.
    in_child(|| {
        mount::make_private()?;
        let proc = FsContext::open(c"proc")?.mount(0)?;
        mount::attach(proc, fd::open_path(fd::here(), c"/proc")?, "/proc")
    })
}

fn refused(call: String, why: impl Into<std::io::Error>) -> SysError {
    SysError::new(call, why.into().raw_os_error().unwrap_or(0))
}

fn file_system(at: &Path, scratch: &Path) -> std::result::Result<FileSystem, String> {
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
