//! Whether a sandbox can have the ids 0 to 65535.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::{Check, Examiner};

/// How many ids a sandbox has.
const COUNT: u64 = 65536;

/// Where the offset of root's sandboxes is when /etc/subuid names no range of root's own: the last block
/// of the container range of systemd (`systemd-nspawn --private-users=pick`).
const ROOT_OFFSET: u64 = 0x6fff_0000;

/// Where a range is looked for first when one has to be added.
const FIRST_SUBID: u64 = 100_000;

pub(super) fn check(examiner: &Examiner) -> Check {
    let check = Check::of("id mapping", "files in a step belong to any of the ids 0 to 65535");
    if examiner.uid == 0 { root(examiner, check) } else { user(examiner, check) }
}

/// Root maps its sandboxes itself; inside a container only ids of the container can be mapped.
fn root(examiner: &Examiner, check: Check) -> Check {
    let start = ["etc/subuid", "etc/subgid"]
        .map(|file| own_range(&examiner.read(file).unwrap_or_default(), "root", 0));
    let [uid, gid] = start.map(|start| start.unwrap_or(ROOT_OFFSET));
    // One offset serves both, so differing ranges are not used.
    let offset = if uid == gid { uid } else { ROOT_OFFSET };
    let covered = |file: &str| {
        examiner.read(file).unwrap_or_default().lines().any(|line| {
            let mut words = line.split_whitespace().map(|word| word.parse::<u64>().unwrap_or(0));
            let (inside, _, count) = (words.next(), words.next(), words.next());
            inside
                .zip(count)
                .is_some_and(|(inside, count)| inside <= offset && offset + COUNT <= inside + count)
        })
    };
    if covered("proc/self/uid_map") && covered("proc/self/gid_map") {
        return check.ok(format!("root, ids from {offset} on"));
    }
    check.fail(
        format!("this is root in a user namespace that has no ids from {offset} to {}", offset + COUNT - 1),
        "give the container more ids (--userns=host, or a map of 2^32 ids), or name a range it has: \
         echo 'root:1000:65536' | tee -a /etc/subuid /etc/subgid",
    )
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
    let missing: Vec<&str> =
        ["newuidmap", "newgidmap"].into_iter().filter(|helper| !privileged(examiner, helper)).collect();
    if !missing.is_empty() {
        return check.fail(
            format!("{} not installed, or without its set-user-id bit", missing.join(" and ")),
            "sudo apt install uidmap   # other systems: shadow-utils, shadow or shadow-uidmap",
        );
    }
    if examiner.read("proc/self/status").is_some_and(|text| text.contains("NoNewPrivs:\t1")) {
        return check.fail(
            "newuidmap cannot work: this process runs with no_new_privs",
            "start it without no_new_privs (systemd: NoNewPrivileges=no; Kubernetes: allowPrivilegeEscalation: true)",
        );
    }
    let [subuid, subgid] = ["etc/subuid", "etc/subgid"].map(|file| examiner.read(file).unwrap_or_default());
    match (own_range(&subuid, &name, uid), own_range(&subgid, &name, uid)) {
        (Some(users), Some(groups)) => {
            check.ok(format!("newuidmap and newgidmap, user ids from {users}, group ids from {groups}"))
        }
        (users, groups) => {
            let start = free_range(&[&subuid, &subgid]);
            let end = start + COUNT - 1;
            let mut fix = "sudo usermod".to_owned();
            let mut files = Vec::new();
            if users.is_none() {
                fix += &format!(" --add-subuids {start}-{end}");
                files.push("/etc/subuid");
            }
            if groups.is_none() {
                fix += &format!(" --add-subgids {start}-{end}");
                files.push("/etc/subgid");
            }
            fix += &format!(" {name}");
            check.fail(format!("{} gives {name} no range of {COUNT} ids", files.join(" and ")), fix)
        }
    }
}

/// Start of the first range of at least [`COUNT`] ids that a subuid(5) file gives to a user.
fn own_range(file: &str, name: &str, uid: u32) -> Option<u64> {
    ranges(file)
        .find(|(owner, _, count)| (*owner == name || owner.parse() == Ok(uid)) && *count >= COUNT)
        .map(|(_, start, _)| start)
}

/// Owner, start and count of each range.
fn ranges(file: &str) -> impl Iterator<Item = (&str, u64, u64)> {
    file.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        Some((fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

/// The first place for [`COUNT`] ids behind every range of both files.
fn free_range(files: &[&str]) -> u64 {
    let ends = files.iter().flat_map(|file| ranges(file)).map(|(_, start, count)| start + count);
    ends.max().unwrap_or(0).max(FIRST_SUBID)
}

/// Whether a helper is installed so that it has more rights than its caller.
fn privileged(examiner: &Examiner, name: &str) -> bool {
    let places = ["usr/bin", "bin", "usr/local/bin", "run/wrappers/bin"];
    places.iter().map(|place| examiner.root.join(place).join(name)).any(|path: PathBuf| {
        let Ok(meta) = path.metadata() else { return false };
        let set_id = meta.permissions().mode() & 0o4001 == 0o4001;
        set_id || xattr::get(&path, "security.capability").is_ok_and(|caps| caps.is_some())
    })
}
