//! Limits on memory, cpus and processes through control groups.
//!
//! Version 2 comes first: it works for whoever was handed a subtree (root, a systemd user manager, a
//! container). Version 1 is for root only. Where neither can be used the limit cannot be enforced, and
//! [`plan`] says why and what to do; a limit is not isolation, so the build goes on.
//!
//! Formats: the kernel's `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Limits;
use crate::error::{Error, Result};

/// Where the limits of a sandbox can be enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// There is nothing to enforce.
    NotNeeded,
    /// In a new group of the version 2 hierarchy.
    V2 {
        /// The directory that the group is made in.
        parent: PathBuf,
        /// Processes (this program's own) have to leave `parent` before it can hand controllers down.
        move_out: bool,
    },
    /// In one new group of each version 1 hierarchy that is needed.
    V1 {
        /// Controller and the directory that its group is made in.
        parents: Vec<(&'static str, PathBuf)>,
    },
    /// Nowhere.
    Impossible {
        /// The cause.
        why: String,
        /// What would mend it.
        fix: String,
    },
}

/// Where the limits `limits` of a sandbox can be enforced on this machine. Changes nothing.
pub fn plan(limits: &Limits) -> Plan {
    plan_below(Path::new("/"), limits)
}

/// [`plan`], for a machine whose `/proc` and `/sys` are found below `root`.
pub fn plan_below(root: &Path, limits: &Limits) -> Plan {
    let needed = controllers(limits);
    if needed.is_empty() {
        return Plan::NotNeeded;
    }
    let own = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    match plan_v2(root, &own, &needed) {
        Err(why) if root_user() => {
            plan_v1(root, &own, &needed).unwrap_or_else(|()| impossible(why, root, &needed))
        }
        Err(why) => impossible(why, root, &needed),
        Ok(plan) => plan,
    }
}

/// The controllers that these limits need, by their name in both versions.
fn controllers(limits: &Limits) -> Vec<&'static str> {
    let wanted = [
        ("memory", limits.memory.is_some()),
        ("cpu", limits.cpus.is_some()),
        ("pids", limits.pids.is_some()),
    ];
    wanted.into_iter().filter_map(|(name, wanted)| wanted.then_some(name)).collect()
}

fn root_user() -> bool {
    rustix::process::geteuid().is_root()
}

/// What would mend it depends on what there is: a hierarchy without its controllers is the machine's
/// choice at boot; one with them only has to be handed over. A build asks as root of its user namespace, `doctor`
/// as the caller: both get the same answer.
fn impossible(why: String, root: &Path, needed: &[&str]) -> Plan {
    let version_2 = ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        .iter()
        .any(|dir| needed.iter().all(|c| listed(&root.join(dir), "cgroup.controllers", c)));
    let ids = fs::read_to_string(root.join("proc/self/uid_map")).unwrap_or_default();
    let machine_root = root_user() && ids.split_whitespace().take(2).eq(["0", "0"]);
    let fix = if !version_2 {
        "boot with the kernel parameter systemd.unified_cgroup_hierarchy=1"
    } else if machine_root {
        "systemd-run --scope -p Delegate=yes isolith …"
    } else if !needed.contains(&"cpu") {
        "systemd-run --user --scope -p Delegate=yes isolith …"
    } else {
        // systemd hands memory and pids to users by itself, cpu only when told to.
        "systemd-run --user --scope -p Delegate=yes isolith …\n\
         # once, and log in again afterwards:\n\
         sudo mkdir -p /etc/systemd/system/user@.service.d\n\
         printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | sudo tee /etc/systemd/system/user@.service.d/delegate.conf\n\
         sudo systemctl daemon-reload"
    };
    Plan::Impossible { why, fix: fix.to_owned() }
}

/// Finds a version 2 directory that may get a child with all of `needed`, or says why there is none.
fn plan_v2(root: &Path, own: &str, needed: &[&'static str]) -> Result<Plan, String> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let mount = ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        .map(|dir| root.join(dir))
        .into_iter()
        .find(|dir| dir.join("cgroup.controllers").exists());
    let (Some(path), Some(mount)) = (path, mount) else {
        return Err("there is no cgroup version 2 hierarchy".to_owned());
    };
    let here = mount.join(path);
    let missing: Vec<&str> =
        needed.iter().copied().filter(|c| !listed(&here, "cgroup.controllers", c)).collect();
    if !missing.is_empty() {
        let list = missing.join(", ");
        return Err(format!("the cgroup `/{path}` has no controller for {list}"));
    }
    // Below our own group, if it hands the controllers down already or can be made to: a group with
    // processes of its own cannot (the kernel's "no internal processes" rule), so they move to a child;
    // that is done only when all of them are ours.
    if writable(&here) {
        if needed.iter().all(|c| listed(&here, "cgroup.subtree_control", c)) {
            return Ok(Plan::V2 { parent: here, move_out: false });
        }
        if only_ours(&here) {
            return Ok(Plan::V2 { parent: here, move_out: true });
        }
    }
    // Else beside it. The processes of a step cross the parent, so that must be ours to write too.
    let beside = here.parent().filter(|parent| here != mount && writable(parent));
    match beside {
        Some(parent) if needed.iter().all(|c| listed(parent, "cgroup.subtree_control", c)) => {
            Ok(Plan::V2 { parent: parent.to_owned(), move_out: false })
        }
        _ => Err(format!("the cgroup `/{path}` is not delegated to this user, or others run in it")),
    }
}

fn plan_v1(root: &Path, own: &str, needed: &[&'static str]) -> Result<Plan, ()> {
    let parents = needed.iter().map(|&controller| {
        let mount = root.join("sys/fs/cgroup").join(controller);
        let path = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let named = fields.next()?.split(',').any(|name| name == controller);
            named.then(|| fields.next().unwrap_or("/").trim_start_matches('/'))
        })?;
        // Below our own group, so that the limits of whoever started us still hold.
        let here = Some(mount.join(path)).filter(|dir| writable(dir)).unwrap_or(mount);
        (writable(&here) && listed_or_v1(&here)).then_some((controller, here))
    });
    parents.collect::<Option<Vec<_>>>().map(|parents| Plan::V1 { parents }).ok_or(())
}

fn listed_or_v1(dir: &Path) -> bool {
    dir.join("cgroup.procs").exists() && !dir.join("cgroup.controllers").exists()
}

fn listed(dir: &Path, file: &str, controller: &str) -> bool {
    fs::read_to_string(dir.join(file))
        .is_ok_and(|text| text.split_whitespace().any(|word| word == controller))
}

fn writable(dir: &Path) -> bool {
    let access = rustix::fs::Access::WRITE_OK;
    rustix::fs::access(dir, access).is_ok() && rustix::fs::access(dir.join("cgroup.procs"), access).is_ok()
}

/// Whether every process of the group is this one or descends from it: the executor, and the sandboxes that
/// already run. What program they are cannot be asked, since inits let nobody look.
fn only_ours(dir: &Path) -> bool {
    let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    procs.lines().all(|pid| pid.parse().is_ok_and(descends_from_us))
}

fn descends_from_us(pid: u32) -> bool {
    if pid == std::process::id() {
        return true;
    }
    if pid <= 1 {
        return false;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which is in parentheses and may hold anything: the state, then the parent.
    let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
    parent.is_some_and(descends_from_us)
}

/// A group for one sandbox. Dropping it removes the group, which must have no process left by then.
#[derive(Debug)]
pub struct Cgroup {
    /// One directory in version 2; one a controller in version 1.
    dirs: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes a group that enforces `limits`; none when there is nothing to enforce or, as [`plan`] says,
    /// no way to.
    ///
    /// Fails when the plan was good and the kernel refuses all the same.
    pub fn create(limits: &Limits) -> Result<Option<Cgroup>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("isolith-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        match plan(limits) {
            Plan::NotNeeded | Plan::Impossible { .. } => Ok(None),
            Plan::V2 { parent, move_out } => {
                sweep(&parent);
                if move_out {
                    hand_down(&parent, &controllers(limits))?;
                }
                let group = Cgroup { dirs: vec![make(&parent.join(&name))?] };
                group.limit_v2(limits)?;
                Ok(Some(group))
            }
            Plan::V1 { parents } => {
                let mut group = Cgroup { dirs: Vec::new() };
                for (_, parent) in &parents {
                    let dir = parent.join(&name);
                    sweep(parent);
                    // Controllers mounted together (`cpu,cpuacct`) are one directory under two names.
                    if !dir.exists() {
                        group.dirs.push(make(&dir)?);
                    }
                }
                group.limit_v1(limits)?;
                Ok(Some(group))
            }
        }
    }

    /// Puts a process into the group; its later children are born there.
    pub fn add(&self, pid: i32) -> Result<()> {
        self.dirs.iter().try_for_each(|dir| put(&dir.join("cgroup.procs"), pid))
    }

    /// The limit that the group has run into: `memory` when a process was killed for it, `pids` when a
    /// new process was refused.
    pub fn over(&self) -> Option<&'static str> {
        let count = |file: &str, key: &str| -> Option<u64> {
            let text = self.dirs.iter().find_map(|dir| fs::read_to_string(dir.join(file)).ok())?;
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
        };
        let over = |file: &str, key: &str| count(file, key).unwrap_or(0) > 0;
        if over("memory.events", "oom_kill") || over("memory.oom_control", "oom_kill") {
            return Some("memory");
        }
        over("pids.events", "max").then_some("pids")
    }

    fn limit_v2(&self, limits: &Limits) -> Result<()> {
        let dir = &self.dirs[0];
        if let Some(bytes) = limits.memory {
            put(&dir.join("memory.max"), bytes)?;
            put_if_there(&dir.join("memory.swap.max"), 0)?;
        }
        if let Some(cpus) = limits.cpus {
            put(&dir.join("cpu.max"), format!("{} {PERIOD_US}", quota(cpus)))?;
        }
        if let Some(pids) = limits.pids {
            put(&dir.join("pids.max"), with_init(pids))?;
        }
        Ok(())
    }

    fn limit_v1(&self, limits: &Limits) -> Result<()> {
        let file = |name: &str| {
            let found = self.dirs.iter().map(|dir| dir.join(name)).find(|path| path.exists());
            found.ok_or_else(|| Error::machine(format!("cannot limit a step: its cgroup has no `{name}`")))
        };
        if let Some(bytes) = limits.memory {
            put(&file("memory.limit_in_bytes")?, bytes)?;
            // Memory and swap together: no swap on top. Absent when the kernel does not account swap.
            if let Ok(path) = file("memory.memsw.limit_in_bytes") {
                put(&path, bytes)?;
            }
        }
        if let Some(cpus) = limits.cpus {
            put(&file("cpu.cfs_period_us")?, PERIOD_US)?;
            put(&file("cpu.cfs_quota_us")?, quota(cpus))?;
        }
        if let Some(pids) = limits.pids {
            put(&file("pids.max")?, with_init(pids))?;
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A group stays busy for a moment after its last process was reaped.
        for dir in &self.dirs {
            for wait_ms in [0, 1, 2, 4, 8, 16, 32, 64, 128, 256] {
                std::thread::sleep(Duration::from_millis(wait_ms));
                match fs::remove_dir(dir) {
                    Err(why) if why.raw_os_error() == Some(libc::EBUSY) => continue,
                    _ => break,
                }
            }
        }
    }
}

const PERIOD_US: u64 = 100_000;

/// Microseconds of processor time a period; the kernel's least is one millisecond.
fn quota(cpus: f64) -> u64 {
    ((cpus * PERIOD_US as f64) as u64).max(1000)
}

/// The sandbox's own init is not the step's.
fn with_init(pids: u64) -> u64 {
    pids.saturating_add(1)
}

fn make(dir: &Path) -> Result<PathBuf> {
    fs::create_dir(dir).map_err(|why| Error::io("make the cgroup", dir, why))?;
    Ok(dir.to_owned())
}

fn put(path: &Path, value: impl ToString) -> Result<()> {
    let value = value.to_string();
    fs::write(path, &value).map_err(|why| Error::io(&format!("write `{value}` to"), path, why))
}

fn put_if_there(path: &Path, value: impl ToString) -> Result<()> {
    if path.exists() { put(path, value) } else { Ok(()) }
}

/// Moves this program's processes to a child, so that the group may hand its controllers down.
fn hand_down(parent: &Path, needed: &[&str]) -> Result<()> {
    let child = parent.join("isolith");
    if !child.exists() {
        make(&child)?;
    }
    let procs = fs::read_to_string(parent.join("cgroup.procs")).unwrap_or_default();
    for pid in procs.lines() {
        put(&child.join("cgroup.procs"), pid)?;
    }
    let enable: Vec<String> = needed.iter().map(|controller| format!("+{controller}")).collect();
    put(&parent.join("cgroup.subtree_control"), enable.join(" "))
}

/// Removes groups whose isolith process was killed before it could. A busy group refuses.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("isolith-")?.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Child, Command, ExitStatus, Stdio};

    fn limits(memory: Option<u64>, pids: Option<u64>) -> Limits {
        Limits { memory, pids, ..Limits::default() }
    }

    /// Runs a script inside a group and says how it ended.
    fn run_in(group: &Cgroup, script: &str) -> ExitStatus {
        let mut child: Child = Command::new("/bin/sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        group.add(child.id() as i32).unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        child.wait().unwrap()
    }

    /// A group, where this machine lets the tests make one.
    fn group(limits: &Limits) -> Option<Cgroup> {
        let group = Cgroup::create(limits).unwrap();
        if group.is_none() {
            assert!(!root_user() || matches!(plan(limits), Plan::Impossible { .. }));
            eprintln!("skipped: {:?}", plan(limits));
        }
        group
    }

    #[test]
    fn memory_beyond_the_limit_is_named() {
        let Some(group) = group(&limits(Some(16 << 20), None)) else { return };
        let dirs = group.dirs.clone();
        assert!(run_in(&group, "head -c 1000000 /dev/zero | tail -n 1 >/dev/null").success());
        assert_eq!(group.over(), None);
        run_in(&group, "head -c 200000000 /dev/zero | tail -n 1 >/dev/null");
        assert_eq!(group.over(), Some("memory"));
        drop(group);
        assert!(dirs.iter().all(|dir| !dir.exists()), "{dirs:?} left behind");
    }

    #[test]
    fn processes_beyond_the_limit_are_named() {
        let Some(group) = group(&limits(None, Some(4))) else { return };
        let dirs = group.dirs.clone();
        assert!(run_in(&group, "sleep 0.01 & sleep 0.01 & wait").success());
        assert_eq!(group.over(), None);
        run_in(&group, "for i in 1 2 3 4 5 6 7 8; do sleep 0.2 & done; wait");
        assert_eq!(group.over(), Some("pids"));
        drop(group);
        assert!(dirs.iter().all(|dir| !dir.exists()), "{dirs:?} left behind");
    }

    #[test]
    fn a_group_of_a_killed_process_is_swept() {
        let Some(group) = group(&limits(None, Some(4))) else { return };
        // No process has this id: it is above the kernel's highest.
        let stale = group.dirs[0].with_file_name("isolith-999999999-0");
        fs::create_dir(&stale).unwrap();
        drop(Cgroup::create(&limits(None, Some(4))).unwrap());
        assert!(!stale.exists());
    }

    #[test]
    fn no_limits_need_no_group() {
        assert_eq!(plan(&limits(None, None)), Plan::NotNeeded);
        assert!(
            Cgroup::create(&Limits { time: Some(1), disk: Some(1), ..Limits::default() }).unwrap().is_none()
        );
    }

    /// A made-up machine: the cgroup of this process and what its directories hold.
    fn machine(own: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/self/cgroup", own);
        files.iter().for_each(|(path, text)| write(&format!("sys/fs/cgroup/{path}"), text));
        root
    }

    #[test]
    fn a_delegated_group_is_used_as_it_stands() {
        let files = [
            ("cgroup.controllers", "cpu memory pids"),
            ("app/cgroup.controllers", "cpu memory pids"),
            ("app/cgroup.subtree_control", "memory pids"),
            ("app/cgroup.procs", ""),
        ];
        let root = machine("0::/app\n", &files);
        let parent = root.path().join("sys/fs/cgroup/app");
        let wanted = Plan::V2 { parent: parent.clone(), move_out: false };
        assert_eq!(plan_below(root.path(), &limits(Some(1), Some(1))), wanted);
        // cpu is there but not handed down; the group has no process that is not ours.
        let cpu = Limits { cpus: Some(1.0), ..Limits::default() };
        assert_eq!(plan_below(root.path(), &cpu), Plan::V2 { parent, move_out: true });
    }

    #[test]
    fn descendants_are_ours_and_nobody_else() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(descends_from_us(std::process::id()) && descends_from_us(child.id()));
        assert!(!descends_from_us(1) && !descends_from_us(0) && !descends_from_us(u32::MAX));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_group_with_other_processes_yields_its_parent() {
        let files = [
            ("cgroup.controllers", "memory"),
            ("app/cgroup.controllers", "memory"),
            ("app/cgroup.subtree_control", "memory"),
            ("app/cgroup.procs", ""),
            ("app/run.scope/cgroup.controllers", "memory"),
            ("app/run.scope/cgroup.subtree_control", ""),
            ("app/run.scope/cgroup.procs", "1\n"),
        ];
        let root = machine("0::/app/run.scope\n", &files);
        let parent = root.path().join("sys/fs/cgroup/app");
        assert_eq!(plan_below(root.path(), &limits(Some(1), None)), Plan::V2 { parent, move_out: false });
    }

    #[test]
    fn a_missing_controller_is_named() {
        let root = machine("0::/\n", &[("cgroup.controllers", "cpu")]);
        let Plan::Impossible { why, fix } = plan_below(root.path(), &limits(Some(1), Some(1))) else {
            panic!()
        };
        assert!(why.contains("memory, pids"), "{why}");
        assert!(fix.contains("unified_cgroup_hierarchy=1"), "{fix}");
    }

    #[test]
    fn the_way_out_is_the_same_for_a_caller_and_for_the_root_of_its_namespace() {
        // Nobody may make a group here: the directory has no `cgroup.procs`.
        let root = machine("0::/\n", &[("cgroup.controllers", "cpu memory pids")]);
        let fix = |uid_map: &str| {
            fs::write(root.path().join("proc/self/uid_map"), uid_map).unwrap();
            match plan_below(root.path(), &Limits { cpus: Some(1.0), ..limits(Some(1), Some(1)) }) {
                Plan::Impossible { fix, .. } => fix,
                plan => panic!("{plan:?}"),
            }
        };
        assert!(fix("0 1000 1\n").contains("Delegate=cpu cpuset io memory pids"));
        if root_user() {
            assert_eq!(fix("0 0 4294967295\n"), "systemd-run --scope -p Delegate=yes isolith …");
        }
    }

    #[test]
    fn quotas_have_a_floor() {
        assert_eq!(quota(1.5), 150_000);
        assert_eq!(quota(0.0001), 1000);
    }
}
