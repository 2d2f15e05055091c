//! Which ids of the machine stand behind the ids 0..65535 of a sandbox.
//!
//! Root stays where it is and maps a range of its own. An ordinary user enters a user namespace (the
//! *holder*) in which it is root over itself and its subordinate range: 0 is the caller, 1.. is the range.
//! Every step gets one more user namespace on top, so the root of a sandbox is never the caller's own id.
//!
//! A user without such a range enters a holder that has the caller's own id alone; then owners are recorded
//! (`layer::owners`, [`super::supervisor`]) and the sandbox's root is the caller.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::layer::IdShift;
use crate::sys::{self, process};

/// Ids that a sandbox has.
pub(super) const COUNT: u32 = IdShift::MAX_GUEST + 1;

/// What the caller is in a sandbox that shows some of the caller's files, where the caller has a range of ids and
/// so is none of 0..65535.
pub const CALLER: u32 = COUNT;

/// For root without a range of its own: the last block of those that systemd sets aside for containers
/// (<https://systemd.io/UIDS-GIDS/>).
const ROOT_DEFAULT: u32 = 0x6FFF_0000;

/// How ids will be mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdPlan {
    /// The process may map these itself and stays in its user namespace.
    Direct(IdShift),
    /// The process enters a user namespace where 0 is the caller and 1.. are its subordinate ids.
    Holder {
        /// First subordinate user id.
        uids: u32,
        /// First subordinate group id.
        gids: u32,
    },
    /// The process enters a user namespace where 0 is the caller and nothing else is; why, and what gives a
    /// full range.
    Single {
        /// Why the caller has no range.
        why: String,
        /// The command that gives it one.
        fix: String,
    },
}

/// Finds out how ids can be mapped, and changes nothing.
///
/// Fails when root has no ids to map.
pub fn plan() -> Result<IdPlan> {
    let (uid, gid) = sys::privilege::effective_ids();
    let name = user_name(uid);
    let range = |file: &str| subordinate(&read(file), uid, name.as_deref());
    let (uids, gids) = (range("/etc/subuid"), range("/etc/subgid"));
    if uid == 0 {
        let maps = [read("/proc/self/uid_map"), read("/proc/self/gid_map")].map(|map| intervals(&map));
        return direct(uids.filter(|start| gids == Some(*start)), &maps).map(IdPlan::Direct);
    }
    if ONE.get().is_some() {
        return Ok(IdPlan::Single {
            why: "this round of `verify` does with one id".to_string(),
            fix: "leave the variation `one-id` out".to_string(),
        });
    }
    let tool =
        ["newuidmap", "newgidmap"].into_iter().find(|tool| !super::doctor::privileged(Path::new("/"), tool));
    Ok(match (uids, gids, tool) {
        (Some(_), Some(_), None) if read("/proc/self/status").contains("NoNewPrivs:\t1") => IdPlan::Single {
            why: "cannot map the ids of /etc/subuid: this process runs with no_new_privs".to_string(),
            fix: "start it without no_new_privs (systemd: NoNewPrivileges=no)".to_string(),
        },
        (Some(uids), Some(gids), None) => IdPlan::Holder { uids, gids },
        (Some(_), Some(_), Some(tool)) => IdPlan::Single {
            why: format!(
                "cannot map the ids of /etc/subuid: `{tool}` is not installed, or without its set-user-id bit"
            ),
            fix: "sudo apt-get install uidmap   # Debian, Ubuntu; elsewhere: shadow-utils".to_string(),
        },
        (uids, ..) => {
            let file = if uids.is_none() { "/etc/subuid" } else { "/etc/subgid" };
            let user = name.unwrap_or_else(|| uid.to_string());
            IdPlan::Single {
                why: format!(
                    "user `{user}` (uid {uid}, gid {gid}) has no range of {COUNT} subordinate ids in {file}"
                ),
                fix: super::doctor::range_command(uid, &user, &read("/etc/subuid"), &read("/etc/subgid")),
            }
        }
    })
}

/// The offset that [`prefer`] asked for.
static PREFERRED: OnceLock<u32> = OnceLock::new();

/// Another offset for root than the one it would have, as long as nothing was entered: `verify` shows that it
/// does not matter. A user with a range has no choice.
pub fn prefer(offset: u32) {
    let _ = PREFERRED.set(offset);
}

/// Set by [`prefer_one`].
static ONE: OnceLock<()> = OnceLock::new();

/// Lets a user with a range do with one id, as long as nothing was entered; for the same reason.
pub fn prefer_one() {
    let _ = ONE.set(());
}

/// What [`enter`] has done.
static ENTERED: OnceLock<(IdPlan, IdShift)> = OnceLock::new();

/// Maps ids as [`plan`] says. From then on files of guest id `g` have id `g + offset` for this process, or, with
/// a single id, that one. Must be called while the process has one thread; a second call does nothing.
pub fn enter() -> Result<IdShift> {
    if let Some((_, shift)) = ENTERED.get() {
        return Ok(*shift);
    }
    let plan = plan()?;
    let shift = match &plan {
        IdPlan::Direct(shift) => PREFERRED.get().map_or(*shift, |offset| IdShift::by(*offset)),
        IdPlan::Holder { uids, gids } => {
            hold(*uids, *gids)?;
            IdShift::by(1)
        }
        IdPlan::Single { .. } => {
            hold_alone()?;
            IdShift::recorded(0)
        }
    };
    Ok(ENTERED.get_or_init(|| (plan, shift)).1)
}

/// Whether [`enter`] has gone into a namespace in which 0 is the caller and the range comes behind it.
pub(super) fn is_held() -> bool {
    matches!(ENTERED.get(), Some((IdPlan::Holder { .. }, _)))
}

/// Whether the sandboxes' ids are mapped by root, who has none of them.
pub(super) fn is_direct() -> bool {
    matches!(ENTERED.get(), Some((IdPlan::Direct(_), _)))
}

/// The ids that the caller has in a sandbox with binds, after [`enter`]: the owner of the caller's files there.
pub fn caller() -> u32 {
    if is_held() { CALLER } else { 0 }
}

/// The error of a step that wants to be another user than 0:0 where there is a single id.
pub(super) fn no_such_user(uid: u32, gid: u32) -> Error {
    let (why, fix) = match ENTERED.get() {
        Some((IdPlan::Single { why, fix }, _)) => (why.as_str(), fix.as_str()),
        _ => ("only one id is mapped", "see `isolith doctor`"),
    };
    Error::machine(format!("a step cannot run as user {uid}:{gid} here, only as 0:0"))
        .because(why)
        .hint(format!("give the user a range of ids: `{fix}`"))
}

/// Root's offset: its own range, else systemd's block, else the end of whatever this user namespace has.
pub(super) fn direct(own: Option<u32>, maps: &[Vec<(u32, u32)>; 2]) -> Result<IdShift> {
    let mapped = |map: &[(u32, u32)], at: u32| {
        let end = u64::from(at) + u64::from(COUNT);
        map.iter().any(|(start, len)| *start <= at && end <= u64::from(*start) + u64::from(*len))
    };
    let rest = maps[0].iter().map(|(start, len)| start.saturating_add(*len).saturating_sub(COUNT));
    let all = own.into_iter().chain([ROOT_DEFAULT]).chain(rest);
    all.filter(|at| *at > 0).find(|at| maps.iter().all(|map| mapped(map, *at))).map(IdShift::by).ok_or_else(
        || {
            Error::machine(format!("this user namespace has no {COUNT} ids beside its own root to map into a sandbox"))
                .hint("start the container that isolith runs in with a larger id range, for example `podman run --userns=auto:size=131072`")
        },
    )
}

/// Enters a holder namespace with the caller's own id, which needs no help.
fn hold_alone() -> Result<()> {
    if !process::is_single_threaded() {
        return Err(too_late());
    }
    let (uid, gid) = sys::privilege::effective_ids();
    process::unshare(libc::CLONE_NEWUSER).map_err(super::hints::explain)?;
    let maps = [
        ("setgroups", "deny".to_string()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ];
    for (file, text) in maps {
        let path = format!("/proc/self/{file}");
        std::fs::write(&path, &text).map_err(|e| {
            Error::machine(format!("cannot map the caller's own id: write(\"{path}\", \"{text}\") failed"))
                .because(e)
                .hint("see `isolith doctor`")
        })?;
    }
    Ok(())
}

fn too_late() -> Error {
    Error::machine("cannot enter a user namespace: this process has more than one thread already")
}

/// Enters the holder namespace. `newuidmap` must run outside of it, so in a child made before.
fn hold(uids: u32, gids: u32) -> Result<()> {
    if !process::is_single_threaded() {
        return Err(too_late());
    }
    let (uid, gid) = sys::privilege::effective_ids();
    let (go_read, go_write) = sys::socket::pipe()?;
    let (said_read, said_write) = sys::socket::pipe()?;
    let parent = process::own_pid();
    let Some(helper) = process::fork()? else {
        drop(go_write);
        let mut byte = [0];
        let told = sys::fd::read(go_read.as_fd(), &mut byte);
        let said = match told {
            Ok(1) => write_maps(parent, (uid, uids), (gid, gids)).err().unwrap_or_default(),
            _ => "the process that asked for it is gone".to_string(),
        };
        let _ = sys::fd::write_all(said_write.as_fd(), said.as_bytes());
        process::exit(i32::from(!said.is_empty()));
    };
    drop(said_write);
    let entered = process::unshare(libc::CLONE_NEWUSER);
    if entered.is_ok() {
        sys::fd::write_all(go_write.as_fd(), b"g")?;
    }
    drop(go_write);
    let mut said = String::new();
    let read = std::io::Read::read_to_string(&mut std::fs::File::from(said_read), &mut said);
    process::wait(helper, true)?;
    entered.map_err(super::hints::explain)?;
    read.map_err(|e| Error::machine("cannot hear from the helper that maps ids").because(e))?;
    if !said.is_empty() {
        return Err(Error::machine("cannot map the subordinate ids of /etc/subuid and /etc/subgid")
            .because(said)
            .hint("newuidmap and newgidmap need their setuid bit or file capabilities: `sudo apt-get install --reinstall uidmap`"));
    }
    Ok(())
}

/// In the helper: runs the tools, both at once; what went wrong, if anything.
fn write_maps(target: i32, uid: (u32, u32), gid: (u32, u32)) -> Result<(), String> {
    let started = [("newuidmap", uid), ("newgidmap", gid)].map(|(tool, (own, sub))| {
        let path = find_tool(tool).ok_or_else(|| format!("`{tool}` is not installed"))?;
        let numbers = [target as u32, 0, own, 1, 1, sub, COUNT].map(|n| n.to_string());
        let mut command = Command::new(&path);
        command.args(&numbers).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|e| format!("cannot run `{}`: {e}", path.display()))?;
        Ok((format!("{tool} {}", numbers.join(" ")), child))
    });
    // Both are waited for, whatever becomes of the first.
    let ended = started.map(|started: Result<_, String>| {
        let (command, child) = started?;
        let output = child.wait_with_output().map_err(|e| format!("cannot wait for `{command}`: {e}"))?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let text = String::from_utf8_lossy(&output.stderr).trim().to_string();
                Err(format!("`{command}` failed ({}): {text}", output.status))
            }
        }
    });
    ended.into_iter().collect()
}

/// The tool at its usual places; the caller's PATH has no say.
fn find_tool(name: &str) -> Option<std::path::PathBuf> {
    ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|p| p.exists())
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

/// The first range of at least [`COUNT`] ids that a subuid(5) file gives to the user. Ranges that touch the
/// lowest ids, where system users live, are left alone.
pub fn subordinate(file: &str, uid: u32, name: Option<&str>) -> Option<u32> {
    let number = uid.to_string();
    file.lines().find_map(|line| {
        let mut parts = line.trim().split(':');
        let owner = parts.next()?;
        let (start, count) = (parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?);
        let fits = count >= COUNT && start.checked_add(COUNT).is_some() && start > 0;
        (fits && (Some(owner) == name || owner == number)).then_some(start)
    })
}

/// First id and length of each line of a `uid_map`, as this namespace sees it.
pub fn intervals(map: &str) -> Vec<(u32, u32)> {
    let parse = |line: &str| {
        let mut numbers = line.split_whitespace().map(|n| n.parse::<u32>().ok());
        let (start, _, len) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some((start, len))
    };
    map.lines().filter_map(parse).collect()
}

/// The user's name, from the user database of the machine (which may be more than /etc/passwd).
fn user_name(uid: u32) -> Option<String> {
    nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges_are_found_by_name_and_number() {
        let file =
            "alice:100000:65536\nbob:165536:1000\nbob:300000:65536\n1002:500000:70000\n# x\nbad:line\n";
        assert_eq!(subordinate(file, 1000, Some("alice")), Some(100_000));
        assert_eq!(subordinate(file, 1001, Some("bob")), Some(300_000), "a short range is passed over");
        assert_eq!(subordinate(file, 1002, None), Some(500_000));
        assert_eq!(subordinate(file, 1003, Some("carol")), None);
        assert_eq!(subordinate("x:4294967000:65536", 1, Some("x")), None, "a range past the last id");
    }

    #[test]
    fn root_takes_its_own_range_then_the_default_then_what_there_is() {
        let all = [intervals("         0          0 4294967295"), intervals("0 0 4294967295")];
        assert_eq!(direct(Some(100_000), &all).unwrap().offset, 100_000);
        assert_eq!(direct(None, &all).unwrap().offset, ROOT_DEFAULT);
        let holder = [intervals("0 1000 1\n1 100000 65536"), intervals("0 1000 1\n1 100000 65536")];
        assert_eq!(direct(None, &holder).unwrap().offset, 1);
        let container = [intervals("0 100000 65536"), intervals("0 100000 65536")];
        assert!(direct(None, &container).unwrap_err().hint_text().unwrap().contains("131072"));
    }
}
