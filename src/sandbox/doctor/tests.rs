use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::sys::SysError;

/// A machine on which all is well for a user: `/proc`, `/sys` and `/etc` of its own.
struct Machine {
    root: tempfile::TempDir,
    examiner: Examiner,
}

impl Machine {
    fn new() -> Machine {
        let root = tempfile::tempdir().unwrap();
        let store =
            FileSystem { at: "/home/kim/store".into(), kind: "ext4", no_xattrs: None, kinds_listed: true };
        let trials =
            Trials { namespaces: Ok(()), time: Ok(()), overlay: Ok(()), procfs: Ok(()), store: Ok(store) };
        let examiner = Examiner {
            root: root.path().to_owned(),
            uid: 1000,
            program: "/home/kim/bin/isolith".into(),
            trials,
        };
        let machine = Machine { root, examiner };
        machine.write("proc/sys/kernel/osrelease", "6.12.1-amd64\n");
        machine.write("proc/sys/user/max_user_namespaces", "15000\n");
        machine.write("proc/sys/kernel/seccomp/actions_avail", "kill_process trap errno user_notif allow\n");
        machine.write("proc/self/status", "Name:\tisolith\nNoNewPrivs:\t0\n");
        machine.limits("unlimited");
        machine.write("proc/self/cgroup", "0::/user.slice/app\n");
        for file in ["cgroup.controllers", "cgroup.subtree_control", "cgroup.procs"] {
            let text = if file == "cgroup.procs" { "" } else { "cpu memory pids" };
            machine.write(&format!("sys/fs/cgroup/{file}"), text);
            machine.write(&format!("sys/fs/cgroup/user.slice/app/{file}"), text);
        }
        machine.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nkim:x:1000:1000::/home/kim:/bin/sh\n");
        machine.write("etc/subuid", "lee:100000:65536\nkim:165536:65536\n");
        machine.write("etc/subgid", "lee:100000:65536\nkim:165536:65536\n");
        for helper in ["newuidmap", "newgidmap"] {
            machine.write(&format!("usr/bin/{helper}"), "");
            machine.mode(&format!("usr/bin/{helper}"), 0o4755);
        }
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// All 16 limits as /proc shows them, with this hard one for open files.
    fn limits(&self, open_files: &str) {
        let line = |name: &str, hard: &str| format!("{name:<25} {:<20} {hard:<20} units\n", "1024");
        let mut text = line("Limit", "Hard Limit");
        for number in 0..16 {
            text +=
                &line("Max something", if number == libc::RLIMIT_NOFILE { open_files } else { "unlimited" });
        }
        self.write("proc/self/limits", &text);
    }

    fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.root.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The one check that is not well.
    fn ailment(&self) -> Check {
        let mut bad: Vec<Check> = self.examiner.examine();
        bad.retain(|check| check.state != State::Ok && !check.found.contains("cannot be tried"));
        assert_eq!(bad.len(), 1, "{bad:?}");
        bad.remove(0)
    }

    fn refuse_namespaces(&mut self, errno: i32) {
        let refusal = Err(SysError::new("unshare(CLONE_NEWUSER)", errno));
        let trials = &mut self.examiner.trials;
        trials.namespaces = refusal.clone();
        (trials.time, trials.overlay, trials.procfs) = (refusal.clone(), refusal.clone(), refusal);
    }
}

#[test]
fn nothing_ails_a_good_machine() {
    let checks = Machine::new().examiner.examine();
    assert!(checks.iter().all(|check| check.state == State::Ok && check.fix.is_none()), "{checks:?}");
    let fuse = checks.iter().find(|check| check.name == "/dev/fuse").unwrap();
    assert_eq!(fuse.found, "not needed");
}

#[test]
fn an_old_kernel() {
    let machine = Machine::new();
    machine.write("proc/sys/kernel/osrelease", "6.7.12\n");
    let check = machine.ailment();
    assert_eq!((check.name, check.state), ("kernel", State::Fail));
    assert!(check.found.contains("6.7.12") && check.found.contains("6.8"));
}

#[test]
fn apparmor_restriction() {
    let mut machine = Machine::new();
    machine.refuse_namespaces(libc::EACCES);
    machine.write("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n");
    machine.write("proc/sys/kernel/unprivileged_userns_clone", "1\n");
    let check = machine.ailment();
    assert!(check.found.contains("AppArmor"), "{}", check.found);
    let wanted = "sudo tee /etc/apparmor.d/isolith <<'END' && sudo apparmor_parser -r /etc/apparmor.d/isolith
abi <abi/4.0>,
include <tunables/global>
profile isolith \"/home/kim/bin/isolith\" flags=(unconfined) {
  userns,
}
END
# or, for every program: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
    assert_eq!(check.fix.unwrap(), wanted);
}

#[test]
fn debian_sysctl() {
    let mut machine = Machine::new();
    machine.refuse_namespaces(libc::EPERM);
    machine.write("proc/sys/kernel/unprivileged_userns_clone", "0\n");
    let wanted = "echo 'kernel.unprivileged_userns_clone = 1' | sudo tee /etc/sysctl.d/60-isolith.conf && \
                  sudo sysctl -w kernel.unprivileged_userns_clone=1";
    assert_eq!(machine.ailment().fix.unwrap(), wanted);
}

#[test]
fn no_user_namespaces_allowed() {
    let mut machine = Machine::new();
    machine.refuse_namespaces(libc::ENOSPC);
    machine.write("proc/sys/user/max_user_namespaces", "0\n");
    let fix = machine.ailment().fix.unwrap();
    assert!(fix.ends_with("sudo sysctl -w user.max_user_namespaces=15000"), "{fix}");
}

#[test]
fn few_user_namespaces_are_a_warning() {
    let machine = Machine::new();
    machine.write("proc/sys/user/max_user_namespaces", "10\n");
    assert_eq!(machine.ailment().state, State::Warn);
}

#[test]
fn a_container_that_filters_system_calls() {
    let mut machine = Machine::new();
    machine.refuse_namespaces(libc::EPERM);
    assert!(machine.ailment().fix.unwrap().contains("--security-opt seccomp=unconfined"));
}

#[test]
fn a_container_that_masks_proc() {
    let mut machine = Machine::new();
    machine.examiner.trials.procfs = Err(SysError::new("fsmount(proc)", libc::EPERM));
    machine.write(
        "proc/self/mountinfo",
        "30 1 0:5 / / rw - overlay o rw\n31 30 0:6 /null /proc/kcore rw - tmpfs t rw\n",
    );
    let check = machine.ailment();
    assert!(check.found.contains("/proc/kcore"), "{}", check.found);
    assert!(check.fix.unwrap().contains("systempaths=unconfined"));
}

#[test]
fn no_subordinate_ids() {
    let machine = Machine::new();
    machine.write("etc/subuid", "lee:100000:65536\nkim:165536:1000\n");
    machine.write("etc/subgid", "lee:100000:65536\n");
    let check = machine.ailment();
    assert_eq!(check.state, State::Warn, "builds work with one id");
    let why = "kim has no range of 65536 ids in /etc/subuid and /etc/subgid: steps have one id";
    assert!(check.found.starts_with(why), "{}", check.found);
    // 1000 ids of kim's own are in use in /etc/subuid: what is offered lies behind them.
    assert_eq!(
        check.fix.unwrap(),
        "sudo usermod --add-subuids 166536-232071 --add-subgids 166536-232071 kim"
    );
}

#[test]
fn only_group_ids_are_missing_and_the_range_is_by_number() {
    let machine = Machine::new();
    machine.write("etc/subuid", "1000:200000:65536\n");
    fs::remove_file(machine.root.path().join("etc/subgid")).unwrap();
    assert_eq!(machine.ailment().fix.unwrap(), "sudo usermod --add-subgids 265536-331071 kim");
}

#[test]
fn helpers_without_their_bit() {
    let machine = Machine::new();
    machine.mode("usr/bin/newuidmap", 0o755);
    let check = machine.ailment();
    assert!(check.found.starts_with("newuidmap not installed"), "{}", check.found);
    assert!(check.fix.unwrap().starts_with("sudo apt install uidmap"));
}

#[test]
fn no_new_privs_defeats_the_helpers() {
    let machine = Machine::new();
    machine.write("proc/self/status", "NoNewPrivs:\t1\n");
    let check = machine.ailment();
    assert!(check.state == State::Warn && check.found.contains("no_new_privs"), "{}", check.found);
    machine.write("proc/sys/kernel/seccomp/actions_avail", "kill_process trap errno allow\n");
    assert_eq!(machine.ailment().state, State::Fail, "one id needs a supervisor");
}

#[test]
fn root_of_a_small_container() {
    let mut machine = Machine::new();
    machine.examiner.uid = 0;
    let whole = "         0          0 4294967295\n";
    machine.write("proc/self/uid_map", whole);
    machine.write("proc/self/gid_map", whole);
    let checks = machine.examiner.examine();
    assert!(checks.iter().any(|check| check.found == "root, ids from 1878982656 on"), "{checks:?}");
    machine.write("proc/self/gid_map", "0 100000 65536\n");
    assert_eq!(machine.ailment().name, "id mapping");
    // The end of what the container has will do, or a range of root's own.
    machine.write("proc/self/uid_map", "0 100000 70000\n");
    machine.write("proc/self/gid_map", "0 100000 70000\n");
    machine.write("etc/subuid", "root:1000:65536\n");
    machine.write("etc/subgid", "root:1000:65536\n");
    let checks = machine.examiner.examine();
    assert!(checks.iter().any(|check| check.found == "root, ids from 1000 on"), "{checks:?}");
}

#[test]
fn stores_on_the_wrong_file_system() {
    let change = |change: fn(&mut FileSystem)| {
        let mut machine = Machine::new();
        change(machine.examiner.trials.store.as_mut().unwrap());
        machine.ailment()
    };
    assert!(change(|fs| fs.kind = "overlay").found.contains("overlay"));
    assert!(change(|fs| fs.kind = "nfs").fix.unwrap().contains("--store DIR"));
    assert!(change(|fs| fs.kinds_listed = false).found.contains("d_type"));
    assert!(change(|fs| fs.no_xattrs = Some("not supported".into())).found.contains("not supported"));
}

#[test]
fn overlay_module_missing() {
    let mut machine = Machine::new();
    machine.examiner.trials.overlay = Err(SysError::new("fsopen(overlay)", libc::ENODEV));
    assert_eq!(machine.ailment().fix.unwrap(), "sudo modprobe overlay");
}

#[test]
fn undelegated_cgroups_are_a_warning_with_the_systemd_commands() {
    let mut machine = Machine::new();
    machine.write("sys/fs/cgroup/user.slice/app/cgroup.controllers", "memory pids");
    machine.examiner.uid = 1000;
    let check = machine.ailment();
    assert_eq!((check.name, check.state), ("cgroups", State::Warn));
    assert!(check.found.contains("no controller for cpu"), "{}", check.found);
}

#[test]
fn few_open_files() {
    let mut machine = Machine::new();
    machine.limits("512");
    let check = machine.ailment();
    assert_eq!(check.found, "the hard limit for nofile is 512; a step needs 4096");
    assert!(check.fix.unwrap().starts_with("sudo prlimit --pid $$ --nofile=4096\n"));
    // Root that may raise its own limits is not stopped by them.
    machine.examiner.uid = 0;
    machine.write("proc/self/status", "CapEff:\t000001ffffffffff\n");
    for map in ["uid_map", "gid_map"] {
        machine.write(&format!("proc/self/{map}"), "0 0 4294967295\n");
    }
    let checks = machine.examiner.examine();
    assert!(checks.iter().all(|check| check.state == State::Ok), "{checks:?}");
}

#[test]
fn this_machine_is_examined_and_nothing_is_left_in_the_store() {
    let store = tempfile::tempdir().unwrap();
    let checks = examine(&store.path().join("not/yet"));
    assert_eq!(checks.len(), 11);
    // Whatever the machine, a failed check comes with a way out.
    assert!(checks.iter().all(|check| (check.state == State::Ok) == check.fix.is_none()), "{checks:?}");
    assert_eq!(fs::read_dir(store.path()).unwrap().count(), 0);
}
