//! Owners, where the sandbox has one id only: every `chown` is recorded, and every `stat` shows the record.
//!
//! What the kernel does besides (look-up, errors, clearing of setuid bits and capabilities, the change time, the
//! copy into the upper layer) it still does: the call is carried out on the real object with the one id.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::callee::{Here, Named, Resolver};
use super::often::Often;
use super::records::{Look, Records, hands_down, is_dir};
use super::{Answer, Answered, Asked, Handler, failed, groups, xattrs};
use crate::error::Result;
use crate::key::Network;
use crate::layer::{IdShift, StackOwners, owners};
use crate::sandbox::{SandboxSpec, seccomp};
use crate::sys::notify;
use crate::sys::seccomp::Instruction;
use crate::sys::{cstring, fd, privilege, process};

/// The value of an id argument that keeps the id.
const KEEP: u32 = u32::MAX;

/// The feature.
pub(super) struct Ids {
    stack: StackOwners,
    /// Every `chmod` is watched.
    closely: bool,
    /// The file that takes what stands nowhere else at the end.
    list: OwnedFd,
    /// By the call's number.
    kinds: Vec<Option<Kind>>,
    /// Since the start.
    state: Option<State>,
}

/// What is known while the step runs.
pub(super) struct State {
    pub(super) records: Records,
    pub(super) resolver: Resolver,
    often: Often,
}

impl Ids {
    /// Opens the list in the run directory. The root is still the stage.
    pub(super) fn prepare(spec: &SandboxSpec) -> Result<Ids> {
        let root = fd::open_path(fd::here(), c"/")?;
        let path = cstring(format!("tmp/{}/{}", spec.run, owners::LIST))?;
        let flags = libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY;
        let list = fd::open_in_root(root.as_fd(), &path, flags, 0o600)?;
        let mut kinds = vec![None; super::CALLS];
        for (nr, kind) in CALLS.iter().chain(OLD_CALLS) {
            kinds[*nr as usize] = Some(*kind);
        }
        // A person who types cannot be run again, nor what reaches out of the sandbox or outlives it.
        let closely = spec.closely
            || spec.extras.is_some()
            || !spec.caches.is_empty()
            || spec.action.network == Network::Host;
        Ok(Ids { stack: spec.owners.clone(), closely, list, kinds, state: None })
    }
}

/// What a call does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Chown,
    Stat,
    Statx,
    Chmod,
    Rename,
    Link,
    ChangeRoot,
    SetGroups,
    ListAttributes,
    NamedAttribute { write: bool },
}

/// Every call that is asked about.
const CALLS: &[(libc::c_long, Kind)] = &[
    (libc::SYS_fchown, Kind::Chown),
    (libc::SYS_fchownat, Kind::Chown),
    (libc::SYS_fstat, Kind::Stat),
    (libc::SYS_newfstatat, Kind::Stat),
    (libc::SYS_statx, Kind::Statx),
    (libc::SYS_fchmod, Kind::Chmod),
    (libc::SYS_fchmodat, Kind::Chmod),
    (FCHMODAT2, Kind::Chmod),
    (RENAMEAT, Kind::Rename),
    (libc::SYS_renameat2, Kind::Rename),
    (libc::SYS_linkat, Kind::Link),
    (libc::SYS_chroot, Kind::ChangeRoot),
    (libc::SYS_setgroups, Kind::SetGroups),
    (libc::SYS_listxattr, Kind::ListAttributes),
    (libc::SYS_llistxattr, Kind::ListAttributes),
    (libc::SYS_flistxattr, Kind::ListAttributes),
    (libc::SYS_getxattr, Kind::NamedAttribute { write: false }),
    (libc::SYS_lgetxattr, Kind::NamedAttribute { write: false }),
    (libc::SYS_fgetxattr, Kind::NamedAttribute { write: false }),
    (libc::SYS_setxattr, Kind::NamedAttribute { write: true }),
    (libc::SYS_lsetxattr, Kind::NamedAttribute { write: true }),
    (libc::SYS_fsetxattr, Kind::NamedAttribute { write: true }),
    (libc::SYS_removexattr, Kind::NamedAttribute { write: false }),
    (libc::SYS_lremovexattr, Kind::NamedAttribute { write: false }),
    (libc::SYS_fremovexattr, Kind::NamedAttribute { write: false }),
];

/// Those that newer architectures never had.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[(libc::c_long, Kind)] = &[
    (libc::SYS_chown, Kind::Chown),
    (libc::SYS_lchown, Kind::Chown),
    (libc::SYS_stat, Kind::Stat),
    (libc::SYS_lstat, Kind::Stat),
    (libc::SYS_chmod, Kind::Chmod),
    (libc::SYS_rename, Kind::Rename),
    (libc::SYS_link, Kind::Link),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[(libc::c_long, Kind)] = &[];

/// Where the calls that set a mode have it.
const MODES: &[(libc::c_long, u32)] = &[(libc::SYS_fchmod, 1), (libc::SYS_fchmodat, 2), (FCHMODAT2, 2)];
#[cfg(target_arch = "x86_64")]
const OLD_MODES: &[(libc::c_long, u32)] = &[(libc::SYS_chmod, 1)];
#[cfg(not(target_arch = "x86_64"))]
const OLD_MODES: &[(libc::c_long, u32)] = &[];

/// Missing in libc for some targets, whose kernels have it (`asm-generic/unistd.h`).
#[cfg(target_arch = "x86_64")]
pub(super) const RENAMEAT: libc::c_long = libc::SYS_renameat;
#[cfg(not(target_arch = "x86_64"))]
pub(super) const RENAMEAT: libc::c_long = 38;

/// Missing in libc.
pub(super) const FCHMODAT2: libc::c_long = 452;

/// Linux 6.13's calls on extended attributes by directory: programs have the older ones.
const NOT_THERE: [libc::c_long; 4] = [463, 464, 465, 466];

/// The numbers of all of them.
pub(super) fn calls() -> Vec<libc::c_long> {
    CALLS.iter().chain(OLD_CALLS).map(|(nr, _)| *nr).collect()
}

impl Handler for Ids {
    fn calls(&self) -> Vec<libc::c_long> {
        calls()
    }

    /// The caller's other groups stay, since the kernel does not let the step drop them. It does not see them.
    fn filter(&self) -> Vec<Instruction> {
        let mut p = seccomp::always_zero(libc::SYS_getgroups).to_vec();
        p.extend(NOT_THERE.iter().flat_map(|nr| seccomp::not_there(*nr)));
        if !self.closely {
            let modes = MODES.iter().chain(OLD_MODES);
            p.extend(modes.flat_map(|(nr, arg)| seccomp::supervised_with_bits(*nr, *arg, libc::S_ISGID)));
        }
        p
    }

    fn keeps(&self) -> Vec<RawFd> {
        vec![self.list.as_raw_fd()]
    }

    /// What the sandbox's root may do to files; sys_chroot to look paths up as a process does that has changed
    /// its root.
    fn capabilities(&self) -> u64 {
        const CHOWN: u64 = 1;
        const DAC_OVERRIDE: u64 = 1 << 1;
        const FOWNER: u64 = 1 << 3;
        const FSETID: u64 = 1 << 4;
        const SYS_CHROOT: u64 = 1 << 18;
        CHOWN | DAC_OVERRIDE | FOWNER | FSETID | SYS_CHROOT | super::CAP_SYS_PTRACE
    }

    fn begin(&mut self) -> Result<()> {
        // Each owner that is kept in memory takes a descriptor.
        let (_, most) = privilege::limit(libc::RLIMIT_NOFILE)?;
        privilege::set_limit(libc::RLIMIT_NOFILE, most, most)?;
        let resolver =
            Resolver::new().map_err(|e| failed("open(\"/\", O_PATH), chdir(\"/proc/self/fd\")", e))?;
        let records = Records::of(&self.stack, self.closely);
        self.state = Some(State { records, resolver, often: Often::default() });
        Ok(())
    }

    fn handle(&mut self, asked: &Asked<'_>) -> Answered {
        let kind = self.kinds.get(asked.call.number as usize).copied().flatten();
        let (Some(kind), Some(state)) = (kind, &mut self.state) else { return Ok(Answer::Continue) };
        match kind {
            Kind::Chown => state.chown(asked),
            Kind::ChangeRoot => {
                state.resolver.chrooted = true;
                Ok(Answer::Continue)
            }
            Kind::SetGroups => set_groups(asked),
            Kind::NamedAttribute { write } => xattrs::named(state, asked, write),
            // Most steps never get past this.
            _ if state.records.is_empty() => Ok(Answer::Continue),
            Kind::Stat | Kind::Statx => state.stat(asked, kind == Kind::Statx),
            Kind::ListAttributes => xattrs::list(state, asked),
            Kind::Chmod => groups::chmod(state, asked),
            Kind::Rename => groups::rename(state, asked),
            Kind::Link => groups::link(state, asked),
        }
    }

    fn end(&mut self) -> Result<()> {
        let Some(state) = &self.state else { return Ok(()) };
        let mut list = std::fs::File::from(self.list.try_clone().map_err(|e| failed("dup", e))?);
        list.write_all(&state.records.list()).map_err(|e| failed("write the list of owners", e))?;
        state.records.check_all();
        Ok(())
    }

    fn again(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.records.are_wrong())
    }
}

/// Groups that do no more than the one there is can be had: none, or 0. The kernel refuses all.
fn set_groups(asked: &Asked<'_>) -> Answered {
    let mut groups = [0; 64];
    let bytes = usize::try_from(asked.call.args[0]).ok().and_then(|count| count.checked_mul(4));
    let Some(list) = bytes.and_then(|bytes| groups.get_mut(..bytes)) else { return Ok(Answer::Continue) };
    match notify::read_memory(asked.call.pid, asked.call.args[1], list) {
        Ok(()) if list.iter().all(|b| *b == 0) => Ok(Answer::Value(0)),
        _ => Ok(Answer::Continue),
    }
}

impl State {
    fn chown(&mut self, asked: &Asked<'_>) -> Answered {
        let (named, at) = match asked.call.number {
            libc::SYS_fchown => (Named::Fd(asked.int(0)), 1),
            libc::SYS_fchownat => (Named::at(asked, 0, 1, asked.int(4)), 2),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chown => (Named::path(asked, 0, true), 1),
            _ => (Named::path(asked, 0, false), 1),
        };
        let (uid, gid) = (asked.int(at) as u32, asked.int(at + 1) as u32);
        // Nothing has another owner than 0:0, and this changes nothing about that.
        if self.records.is_empty() && [uid, gid].iter().all(|id| matches!(*id, 0 | KEEP)) {
            return Ok(Answer::Continue);
        }
        let Some(object) = self.resolver.open(asked, named) else { return Ok(Answer::Continue) };
        let exists = |id| id == KEEP || id <= IdShift::MAX_GUEST;
        if !exists(uid) || !exists(gid) {
            return Err(libc::EINVAL);
        }
        if !asked.is_waiting() {
            return Ok(Answer::Continue);
        }
        self.change(object.as_fd(), uid, gid).map(|()| Answer::Value(0))
    }

    fn change(&mut self, object: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<(), i32> {
        let errno = |e: rustix::io::Errno| e.raw_os_error();
        let stat = rustix::fs::fstat(object).map_err(errno)?;
        if is_dir(&stat) {
            self.often.forget();
            self.records.check(object);
            if !hands_down(&stat) {
                self.records.unshare(object);
            }
        }
        let partly = uid == KEEP || gid == KEEP;
        // To give something to another owner, nothing needs to be known of the present one.
        let before = match partly || (uid, gid) == (0, 0) || hands_down(&stat) {
            true => self.records.owner(object),
            false => None,
        };
        let kept = before.unwrap_or((0, 0));
        let owner = (if uid == KEEP { kept.0 } else { uid }, if gid == KEEP { kept.1 } else { gid });
        if hands_down(&stat) && owner.1 != kept.1 {
            self.records.settle(object).map_err(errno)?;
        }
        let one = |id| if id == KEEP { KEEP } else { 0 };
        let set = (uid, gid) != (KEEP, KEEP) && (owner != (0, 0) || before.is_some());
        if set && self.records.suffice(&stat) && self.records.write(object, owner).is_ok() {
            return Ok(());
        }
        notify::chown(object, one(uid), one(gid)).map_err(|e| e.errno())?;
        if set {
            self.records.set(object, owner).map_err(errno)?;
        }
        if hands_down(&stat) && owner.1 != 0 {
            self.records.share(object).map_err(errno)?;
        }
        Ok(())
    }

    fn stat(&mut self, asked: &Asked<'_>, extended: bool) -> Answered {
        let (named, to) = match asked.call.number {
            libc::SYS_fstat => (Named::Fd(asked.int(0)), 1),
            libc::SYS_newfstatat => (Named::at(asked, 0, 1, asked.int(3)), 2),
            libc::SYS_statx => (Named::at(asked, 0, 1, asked.int(2)), 4),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_stat => (Named::path(asked, 0, true), 1),
            _ => (Named::path(asked, 0, false), 1),
        };
        let mut here = self.resolver.here(asked, named);
        if !extended
            && let Some(here) = &here
            && let Some((numbers, owner)) = self.often.guess(here)
            && let Ok(stat) = notify::stat(&here.path, here.follow)
            && (stat.st_dev, stat.st_ino) == numbers
        {
            return tell(asked, to, &notify::stat_bytes(stat, owner));
        }
        let owner = match here.as_ref().map(|here| self.records.look(here)) {
            Some(Look::Nothing) => return Ok(Answer::Continue),
            Some(Look::Owner(owner)) => Some(owner),
            _ => None,
        };
        // As long as it is open, its name here leads to the object.
        let object;
        let (here, owner) = match (&here, owner) {
            (Some(here), Some(owner)) => (here, owner),
            _ => {
                object = match here.take() {
                    Some(here) => here.open(),
                    None => self.resolver.open(asked, named),
                };
                let Some(object) = &object else { return Ok(Answer::Continue) };
                let Some(owner) = self.records.owner(object.as_fd()) else { return Ok(Answer::Continue) };
                (&*here.insert(Here::of(object.as_fd())), owner)
            }
        };
        if extended {
            let keep = libc::AT_STATX_FORCE_SYNC | libc::AT_STATX_DONT_SYNC;
            let flags = asked.int(2) & keep | if here.follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
            let bytes = notify::statx_bytes(&here.path, flags, asked.int(3) as u32, owner);
            return tell(asked, to, &bytes.map_err(|e| e.errno())?);
        }
        let stat = notify::stat(&here.path, here.follow).map_err(|e| e.errno())?;
        if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
            self.often.asked(here, &self.records);
        }
        tell(asked, to, &notify::stat_bytes(stat, owner))
    }
}

/// Answers a call with what it wants to have stored at its argument `to`.
fn tell(asked: &Asked<'_>, to: usize, bytes: &[u8]) -> Answered {
    if !asked.is_waiting() {
        return Ok(Answer::Continue);
    }
    match process::write_memory(asked.call.pid, asked.call.args[to], bytes) {
        Ok(()) => Ok(Answer::Value(0)),
        Err(e) => Err(e.errno()),
    }
}
