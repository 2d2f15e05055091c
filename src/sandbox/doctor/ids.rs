//! Whether a sandbox can have the ids 0 to 65535.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::super::ids::{COUNT, direct, intervals, subordinate};
use super::{Check, Examiner};

/// Where a range is looked for first when one has to be added.
const FIRST_SUBID: u64 = 100_000;

pub(super) fn check(examiner: &Examiner) -> Check {
    let check = Check::of("id mapping", "files in a step belong to any of the ids 0 to 65535");
    if examiner.uid == 0 { root(examiner, check) } else { user(examiner, check) }
}

/// Root maps its sandboxes itself; inside a container only ids of the container can be mapped.
fn root(examiner: &Examiner, check: Check) -> Check {
    let read = |file: &str| examiner.read(file).unwrap_or_default();
    let own = ["etc/subuid", "etc/subgid"].map(|file| subordinate(&read(file), 0, Some("root")));
    let own = own[0].filter(|start| own[1] == Some(*start));
    let maps = ["proc/self/uid_map", "proc/self/gid_map"].map(|file| intervals(&read(file)));
    match direct(own, &maps) {
        Ok(shift) => check.ok(format!("root, ids from {} on", shift.offset)),
        Err(e) => check.fail(e.what(), e.hint_text().unwrap_or_default()),
    }
}

fn user(examiner: &Examiner, check: Check) -> Check {
    let passwd = examiner.read("etc/passwd").unwrap_or_default();
    let uid = examiner.uid;
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    let name = name.unwrap_or_else(|| uid.to_string());
    match range(examiner, &name) {
        Ok(found) => check.ok(found),
        // Without a range there is one id, which needs a supervisor.
        Err((why, fix)) => {
            let actions = examiner.read("proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
            if !actions.split_whitespace().any(|action| action == "user_notif") {
                return check.fail(format!("{why}; and the kernel has no seccomp user notification"), fix);
            }
            check.warn(
                format!("{why}: steps have one id, and who owns their files is recorded; this is slower, and all steps run as 0:0"),
                fix,
            )
        }
    }
}

/// The full range of a user; or why there is none, and what gives one.
fn range(examiner: &Examiner, name: &str) -> Result<String, (String, String)> {
    let missing: Vec<&str> =
        ["newuidmap", "newgidmap"].into_iter().filter(|helper| !privileged(&examiner.root, helper)).collect();
    if !missing.is_empty() {
        return Err((
            format!("{} not installed, or without its set-user-id bit", missing.join(" and ")),
            "sudo apt install uidmap   # other systems: shadow-utils, shadow or shadow-uidmap".to_owned(),
        ));
    }
    if examiner.read("proc/self/status").is_some_and(|text| text.contains("NoNewPrivs:\t1")) {
        return Err((
            "newuidmap cannot work: this process runs with no_new_privs".to_owned(),
            "start it without no_new_privs (systemd: NoNewPrivileges=no; Kubernetes: allowPrivilegeEscalation: true)".to_owned(),
        ));
    }
    let [subuid, subgid] = ["etc/subuid", "etc/subgid"].map(|file| examiner.read(file).unwrap_or_default());
    let own = |file: &str| subordinate(file, examiner.uid, Some(name));
    match (own(&subuid), own(&subgid)) {
        (Some(users), Some(groups)) => {
            Ok(format!("newuidmap and newgidmap, user ids from {users}, group ids from {groups}"))
        }
        (users, groups) => {
            let files = [users.is_none().then_some("/etc/subuid"), groups.is_none().then_some("/etc/subgid")];
            let files: Vec<&str> = files.into_iter().flatten().collect();
            let found = format!("{name} has no range of {COUNT} ids in {}", files.join(" and "));
            Err((found, range_command(examiner.uid, name, &subuid, &subgid)))
        }
    }
}

/// The command that gives a user the ranges that are missing, from ids that nobody has.
pub(in super::super) fn range_command(uid: u32, name: &str, subuid: &str, subgid: &str) -> String {
    let start = free_range(&[subuid, subgid]);
    let range = format!("{start}-{}", start + u64::from(COUNT) - 1);
    let mut command = "sudo usermod".to_owned();
    for (file, flag) in [(subuid, "--add-subuids"), (subgid, "--add-subgids")] {
        if subordinate(file, uid, Some(name)).is_none() {
            command += &format!(" {flag} {range}");
        }
    }
    format!("{command} {name}")
}

/// Owner, start and count of each range.
fn ranges(file: &str) -> impl Iterator<Item = (&str, u64, u64)> {
    file.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        Some((fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

/// The first id behind every range of both files.
fn free_range(files: &[&str]) -> u64 {
    let ends = files.iter().flat_map(|file| ranges(file)).map(|(_, start, count)| start + count);
    ends.max().unwrap_or(0).max(FIRST_SUBID)
}

/// Whether a helper is installed so that it has more rights than its caller.
pub(in super::super) fn privileged(root: &Path, name: &str) -> bool {
    let places = ["usr/bin", "bin", "usr/local/bin", "run/wrappers/bin"];
    places.iter().map(|place| root.join(place).join(name)).any(|path: PathBuf| {
        let Ok(meta) = path.metadata() else { return false };
        let set_id = meta.permissions().mode() & 0o4001 == 0o4001;
        set_id || xattr::get(&path, "security.capability").is_ok_and(|caps| caps.is_some())
    })
}
