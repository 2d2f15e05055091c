//! The sandbox contract, line by line (docs/contract.md), looked at from the inside: as root, as a user
//! with a range of ids, and as one without, for whom every build must fail closed.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use isolith::sandbox::{Limits, cgroup};

use common::{World, assert_fails_closed, each_mode, facts, inside, inside_step, modes};

const NAMESPACES: [&str; 8] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"];

/// A recipe step that runs the probe program itself, without a shell in between.
fn probe(args: &str) -> String {
    format!("args = [\"/bin/probe\", {args}]")
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

// --- namespaces

#[test]
fn namespaces_are_all_new_for_every_step() {
    each_mode(|world| {
        let look = "run = 'for n in user mnt pid net ipc uts cgroup time; do echo $n $(readlink /proc/self/ns/$n); done'";
        world.recipe(&format!(
            "[[step]]\nname = \"one\"\n{look}\n[[step]]\nname = \"two\"\n{look}\nenv = {{ N = \"2\" }}"
        ));
        let build = world.build().ok();
        let (one, two) = (facts(&build.log("one")), facts(&build.log("two")));
        for name in NAMESPACES {
            let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            assert_ne!(one[name], host.to_string_lossy(), "{name} is the host's ({})", world.mode.name);
            // Numbers of namespaces are used again once the namespace is gone, but not by all eight of the
            // next step: the executor's own namespaces live on.
            assert_ne!(two[name], host.to_string_lossy(), "{name} is the host's ({})", world.mode.name);
        }
    });
}

#[test]
fn namespaces_of_steps_that_run_together_differ() {
    each_mode(|world| {
        let step = |name: &str| {
            format!(
                "[[step]]\nname = \"{name}\"\nafter = []\nrun = '''\nfor n in user mnt pid net ipc uts cgroup time; do \
                 echo $n $(readlink /proc/self/ns/$n); done\nsleep 0.7 # {name}\n'''\n"
            )
        };
        world.recipe(&(step("one") + &step("two")));
        let build = world.build_recipe("recipe.toml", &["--jobs", "2"]).ok();
        let (one, two) = (facts(&build.log("one")), facts(&build.log("two")));
        for name in NAMESPACES {
            assert_ne!(one[name], two[name], "{name} is shared ({})", world.mode.name);
        }
    });
}

#[test]
fn clocks_that_count_from_boot_start_near_zero() {
    let host: f64 = fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    inside("cut -d ' ' -f 1 /proc/uptime", |_, lines| {
        let seen: f64 = lines[0].parse().unwrap();
        assert!(seen < 10.0 && (host < 60.0 || seen < host), "{seen} (the machine: {host})");
    });
}

// --- root

#[test]
fn root_is_an_overlay_and_mountinfo_names_nothing_of_the_host() {
    inside("cat /proc/self/mountinfo", |world, lines| {
        let root = lines.iter().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        assert!(root.contains(" - overlay "), "{root}");
        assert!(root.contains("userxattr"), "{root}");
        let text = lines.join("\n");
        for part in [world.mark().as_str(), "/dev/shm/isolith", "/home/", "/work", "run-", "shared"] {
            assert!(!text.contains(part), "`{part}` in\n{text}");
        }
    });
}

#[test]
fn root_has_the_base_and_the_mount_points_only() {
    inside("ls -A /; echo .; ls -A /var; echo .; ls -A /etc", |_, lines| {
        let parts: Vec<Vec<&str>> =
            lines.split(|line| line == ".").map(|part| part.iter().map(String::as_str).collect()).collect();
        let sorted: BTreeSet<&str> = parts[0].iter().copied().collect();
        let wanted = ["bin", "dev", "etc", "home", "proc", "run", "sys", "tmp", "usr", "var"];
        assert_eq!(sorted, wanted.into_iter().collect());
        assert_eq!(parts[1], ["tmp"]);
        assert_eq!(parts[2].iter().copied().collect::<BTreeSet<_>>(), ["group", "hosts", "passwd"].into());
    });
}

#[test]
fn mountinfo_says_the_same_each_time() {
    each_mode(|world| {
        // Without the numbers that the kernel gives out: mount ids, device numbers, peer groups.
        let look = "run = 'cut -d \" \" -f 4- /proc/self/mountinfo'";
        world.recipe(&format!("[[step]]\nname = \"look\"\n{look}"));
        let first = world.build().ok().log("look");
        let again = World::new(world.mode);
        again.recipe(&format!("[[step]]\nname = \"look\"\n{look}"));
        assert_eq!(first, again.build().ok().log("look"), "{}", world.mode.name);
    });
}

#[test]
fn root_takes_writes_that_the_next_step_sees_and_the_base_keeps() {
    each_mode(|world| {
        world.recipe(
            "[[step]]\nname = \"write\"\nrun = 'echo new >> /etc/passwd; rm /bin/yes; mkdir /a'\n\
             [[step]]\nname = \"read\"\nrun = 'tail -n 1 /etc/passwd; test ! -e /bin/yes; test -d /a'\n",
        );
        assert_eq!(world.build().ok().log("read"), ["new"]);
        let base = common::base();
        assert!(!fs::read_to_string(base.join("etc/passwd")).unwrap().contains("new"));
        assert!(base.join("bin/yes").is_symlink());
    });
}

// --- pid 1

#[test]
fn pid_1_is_an_init_that_reaps() {
    inside(
        "test $$ != 1\n(sleep 0.05 &) &\nwait\nsleep 0.3\ncat /proc/[0-9]*/status | grep -c '^State:.Z' || true",
        |_, lines| assert_eq!(lines, ["0"]),
    );
}

#[test]
fn pid_1_kills_what_is_left() {
    each_mode(|world| {
        let number = 700_000 + std::process::id();
        world.recipe(&format!(
            "[[step]]\nname = \"leave\"\nrun = 'setsid sleep {number} & (setsid sleep {number} &); echo done'"
        ));
        let started = std::time::Instant::now();
        assert_eq!(world.build().ok().log("leave"), ["done"]);
        assert!(started.elapsed().as_secs() < 20, "the build waited for what was left");
        let alive = processes_with(&format!("sleep\0{number}"));
        assert!(alive.is_empty(), "{alive:?}");
    });
}

fn processes_with(text: &str) -> Vec<String> {
    let found = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(text).then_some(line)
    });
    found.collect()
}

#[test]
fn pid_1_forwards_how_the_command_ended() {
    each_mode(|world| {
        for (script, wanted) in [("exit 7", "7"), ("kill -KILL $$", "KILL")] {
            world.recipe(&format!("[[step]]\nname = \"end\"\nrun = '{script}'"));
            let build = world.build();
            assert_eq!(build.run.code, 1, "{}", build.run);
            assert_eq!(build.finished()["status"], "failed");
            assert_eq!(build.step("end")["outcome"], "failed");
            let said = build.run.stderr.to_uppercase();
            assert!(
                said.contains(wanted) || (wanted == "KILL" && said.contains("SIGNAL 9")),
                "{}",
                build.run
            );
        }
    });
}

// --- /proc

#[test]
fn proc_shows_the_step_only() {
    inside(
        "for p in /proc/[0-9]*; do cat $p/comm; done | sort | uniq; cat /proc/1/environ | wc -c",
        |_, lines| {
            // The init, the shell, and what the pipe needs: nothing else runs here.
            assert!(lines.len() < 8, "{lines:?}");
            assert_eq!(lines.last().map(String::as_str), Some("0"), "init's environment shows");
        },
    );
}

#[test]
fn proc_is_masked() {
    const FILES: &str =
        "kcore keys key-users kmsg timer_list timer_stats latency_stats sched_debug config.gz interrupts";
    const DIRS: &str = "acpi asound scsi driver";
    let script = format!(
        "for f in {FILES}; do test ! -e /proc/$f || echo $f $(head -c 100 /proc/$f 2>/dev/null | wc -c); done
         for d in {DIRS}; do test ! -e /proc/$d || echo $d $(ls -A /proc/$d | wc -l); done"
    );
    // Outside there is something to read in some of them, even for users.
    let outside = ["key-users", "config.gz", "interrupts"].iter().filter(|file| {
        fs::File::open(format!("/proc/{file}")).is_ok_and(|mut f| f.read(&mut [0; 10]).is_ok_and(|n| n > 0))
    });
    assert!(outside.count() > 0);
    inside(&script, |_, lines| {
        assert!(lines.len() >= 3, "{lines:?}");
        for line in lines {
            assert!(line.ends_with(" 0"), "{line}");
        }
    });
}

#[test]
fn proc_settings_are_read_only() {
    let script = "for f in sys/kernel/hostname sys/vm/drop_caches sysrq-trigger irq/default_smp_affinity; do
            test -e /proc/$f || continue
            if echo 1 2>/dev/null > /proc/$f; then echo $f written; else echo $f refused; fi
        done
        grep -c ' /proc/sys ro' /proc/self/mountinfo";
    inside(script, |_, lines| {
        let (last, rest) = lines.split_last().unwrap();
        assert!(rest.len() >= 2 && rest.iter().all(|line| line.ends_with(" refused")), "{lines:?}");
        assert_eq!(last, "1");
    });
}

// --- /dev

#[test]
fn dev_has_these_entries_and_no_others() {
    inside("ls -A /dev", |_, lines| {
        let found: BTreeSet<&str> = lines.iter().map(String::as_str).collect();
        let wanted = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero";
        assert_eq!(found, wanted.split(' ').collect());
    });
}

#[test]
fn dev_works() {
    let script = "head -c 3 /dev/zero | od -An -tx1
        echo x > /dev/null
        echo x 2>/dev/null > /dev/full && echo full-took-it
        head -c 8 /dev/urandom | wc -c
        head -c 8 /dev/random | wc -c
        for l in stdin stdout stderr fd; do readlink /dev/$l; done
        stat -c '%n %a %u' /dev/null /dev/pts/ptmx
        ls /dev/pts";
    inside(script, |_, lines| {
        let wanted =
            [" 00 00 00", "8", "8", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "/proc/self/fd"];
        assert_eq!(&lines[..7], wanted, "{lines:?}");
        assert!(lines[7].starts_with("/dev/null 666"), "{lines:?}");
        assert_eq!(lines.last().unwrap(), "ptmx");
    });
}

#[test]
fn dev_is_not_part_of_the_layer() {
    leaves_no_trace("touch /dev/x || true; mkdir /dev/d || true; echo x > /dev/shm/x");
}

// --- /sys and the private file systems

#[test]
fn sys_is_an_empty_directory() {
    inside("test -d /sys; ls -A /sys | wc -l; touch /sys/x 2>/dev/null || true", |_, lines| {
        assert_eq!(lines, ["0"])
    });
}

#[test]
fn private_file_systems_are_empty_and_in_memory() {
    let script = "for d in /tmp /var/tmp /run /dev/shm; do
            echo $d $(ls -A $d | wc -l) $(stat -c %a $d) $(stat -f -c %T $d)
            echo x > $d/x
        done";
    inside(script, |_, lines| {
        assert_eq!(
            lines,
            ["/tmp 0 1777 tmpfs", "/var/tmp 0 1777 tmpfs", "/run 0 755 tmpfs", "/dev/shm 0 1777 tmpfs"]
        );
    });
}

#[test]
fn private_file_systems_are_not_part_of_the_layer() {
    leaves_no_trace("for d in /tmp /var/tmp /run /dev/shm; do echo x > $d/x; mkdir $d/y; done");
    leaves_no_trace(
        "touch /sys/x 2>/dev/null || true; rm -rf /tmp/* /run/*; chmod 700 /tmp 2>/dev/null || true",
    );
}

/// The step's layer is the same as that of a step which does nothing, and the next step sees nothing.
fn leaves_no_trace(script: &str) {
    each_mode(|world| {
        world.recipe(&format!(
            "[[step]]\nname = \"nothing\"\nrun = 'true'\n[[step]]\nname = \"write\"\nrun = '''\n{script}\n'''\n\
             [[step]]\nname = \"look\"\nrun = 'ls -A /tmp /var/tmp /run /dev/shm /sys | grep -v : | grep . || true'\n"
        ));
        let build = world.build().ok();
        assert_eq!(build.step("write")["layer"], build.step("nothing")["layer"], "{script}");
        assert_eq!(build.log("look"), [""; 0], "{script}");
    });
}

// --- network

#[test]
fn network_is_a_loopback_and_nothing_else() {
    let script = "tail -n +3 /proc/net/dev | cut -d : -f 1 | tr -d ' '
        ip -o addr | grep -o 'inet6* [^ ]*'
        probe loopback 127.0.0.1
        probe loopback ::1
        probe connect 192.0.2.1 80
        probe connect 2001:db8::1 80";
    inside(script, |_, lines| {
        let wanted = [
            "lo",
            "inet 127.0.0.1/8",
            "inet6 ::1/128",
            "loopback ok",
            "loopback ok",
            "connect ENETUNREACH",
            "connect ENETUNREACH",
        ];
        assert_eq!(lines, wanted);
    });
}

#[test]
fn localhost_has_both_addresses() {
    inside("grep -v '^#' /etc/hosts | tr -s '\\t ' ' '", |_, lines| {
        assert!(lines.iter().any(|line| line.starts_with("127.0.0.1 localhost")), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("::1 localhost")), "{lines:?}");
    });
}

#[test]
fn network_host_is_the_machines_own() {
    each_mode(|world| {
        world.recipe("[[step]]\nname = \"look\"\nnetwork = \"host\"\nrun = 'readlink /proc/self/ns/net'");
        let host = fs::read_link("/proc/self/ns/net").unwrap();
        assert_eq!(world.build().ok().log("look"), [host.to_string_lossy()], "{}", world.mode.name);
    });
}

// --- names

#[test]
fn hostname_is_localhost_and_the_domain_empty() {
    inside(
        "hostname; cat /proc/sys/kernel/hostname; echo \"<$(cat /proc/sys/kernel/domainname)>\"",
        |_, lines| {
            assert_eq!(lines, ["localhost", "localhost", "<>"]);
        },
    );
}

// --- environment

#[test]
fn environment_is_exactly_this() {
    let step = "args = [\"/bin/env\"]\nenv = { STEP = \"its own\" }";
    for mode in modes() {
        let mut world = World::new(mode);
        world
            .env
            .extend([("EVIL", "1"), ("LD_PRELOAD_X", "x"), ("LC_ALL", "C"), ("TZ", "Asia/Tokyo")].map(own));
        world.recipe(&format!("[[step]]\nname = \"look\"\n{step}"));
        let build = world.build();
        let build = build.ok();
        let log = build.log("look");
        let found: BTreeMap<&str, &str> = log.iter().map(|line| line.split_once('=').unwrap()).collect();
        let jobs = std::thread::available_parallelism().unwrap().to_string();
        let wanted = [
            ("HOME", "/root"),
            ("JOBS", jobs.as_str()),
            ("LANG", "C.UTF-8"),
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("SOURCE_DATE_EPOCH", "1"),
            ("STEP", "its own"),
            ("TERM", "dumb"),
            ("TZ", "UTC"),
        ];
        assert_eq!(found, BTreeMap::from(wanted), "{}", mode.name);
    }
}

fn own((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[test]
fn home_is_the_users() {
    inside_step("args = [\"/bin/env\"]\nuser = \"1000:1000\"", |_, lines| {
        assert!(lines.iter().any(|line| line == "HOME=/home/kim"), "{lines:?}");
    });
}

#[test]
fn jobs_follow_the_cpu_limit() {
    inside_step("run = 'echo $JOBS'\nlimits = { cpus = 1 }", |_, lines| assert_eq!(lines, ["1"]));
}

#[test]
fn source_date_epoch_is_the_recipes() {
    each_mode(|world| {
        let base = common::base().to_str().unwrap();
        let text = format!(
            "name = \"test\"\nepoch = 1705881600\n[base]\ndir = {base:?}\n[[step]]\nname = \"one\"\n\
             run = 'echo $SOURCE_DATE_EPOCH; touch /f'\n[[step]]\nname = \"two\"\nrun = 'stat -c %Y /f'"
        );
        world.write("recipe.toml", &text);
        let build = world.build().ok();
        assert_eq!(build.log("one"), ["1705881600"]);
        assert_eq!(build.log("two"), ["1705881600"]);
    });
}

// --- stdin, stdout, descriptors

#[test]
fn descriptors_are_null_and_one_pipe() {
    for mode in modes() {
        let mut world = World::new(mode);
        world.caller = "exec 5</etc/passwd 7</ 9>/dev/null".to_owned();
        world.recipe(&format!("[[step]]\nname = \"look\"\n{}", probe("\"fds\"")));
        let build = world.build();
        let log = build.ok().log("look");
        assert_eq!(log[0], "0 /dev/null no-tty");
        let pipe = log[1].split(' ').nth(1).unwrap();
        assert!(pipe.starts_with("pipe:["), "{log:?}");
        assert_eq!(
            log[1..],
            [format!("1 {pipe} no-tty"), format!("2 {pipe} no-tty"), "/dev/tty ENXIO".to_owned()]
        );
    }
}

#[test]
fn cgroup_paths_begin_at_the_step() {
    inside("cat /proc/self/cgroup", |_, lines| {
        assert!(!lines.is_empty());
        assert!(lines.iter().all(|line| line.ends_with(":/")), "{lines:?}");
    });
}

#[test]
fn both_outputs_are_in_the_log_in_order() {
    inside("echo one; echo two >&2; echo three", |_, lines| assert_eq!(lines, ["one", "two", "three"]));
}

// --- umask and rlimits

#[test]
fn umask_and_rlimits_are_fixed() {
    for mode in modes() {
        let look = |caller: &str| {
            let mut world = World::new(mode);
            world.caller = caller.to_owned();
            world.recipe("[[step]]\nname = \"look\"\nrun = 'umask; probe rlimits'");
            let build = world.build();
            build.ok().log("look")
        };
        let usual = look("");
        let strange = look(
            "umask 077; ulimit -c 0; ulimit -S -n 300; ulimit -S -s 1024; ulimit -S -p 3000; ulimit -S -t 500",
        );
        assert_eq!(strange, usual, "{}", mode.name);
        assert_eq!(usual[0], "0022");
        let limits = facts(&usual);
        for fixed in ["core", "stack", "nofile", "nproc", "memlock"] {
            assert!(limits.contains_key(fixed), "{limits:?}");
        }
        assert_eq!(limits["core"], "0 0");
    }
}

#[test]
fn a_hard_limit_below_the_contracts_is_raised_or_an_error() {
    each_mode(|fresh| {
        let mut world = World::new(fresh.mode);
        world.caller = "ulimit -n 512".to_owned();
        world.recipe("[[step]]\nname = \"look\"\nrun = 'ulimit -n'");
        let build = world.build();
        // CAP_SYS_RESOURCE, which root inside a container may lack.
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let caps = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
        let may_raise = u64::from_str_radix(caps, 16).unwrap() & 1 << 24 != 0;
        if world.mode.uid == 0 && may_raise {
            assert_eq!(build.ok().log("look"), ["1024"]);
        } else {
            assert_eq!(build.run.code, 125, "{}", build.run);
            assert!(build.run.stderr.contains("512") && build.run.stderr.contains("hint:"), "{}", build.run);
        }
    });
}

// --- ids

#[test]
fn ids_are_0_to_65535() {
    let script = "tr -s ' ' < /proc/self/uid_map; tr -s ' ' < /proc/self/gid_map
        cat /proc/self/setgroups
        id -u; id -g; id -G
        touch /f; chown 65535:65535 /f; stat -c %u:%g /f
        chown 65536 /f 2>/dev/null || echo refused";
    inside(script, |world, lines| {
        for map in &lines[..2] {
            let numbers: Vec<u64> = map.split_whitespace().map(|n| n.parse().unwrap()).collect();
            if world.mode.single {
                assert_eq!(numbers, [0, 0, 1], "{lines:?}");
                continue;
            }
            assert_eq!((numbers[0], numbers[2]), (0, 65536), "{lines:?}");
            assert_ne!(numbers[1], 0, "the sandbox's root is the machine's ({})", world.mode.name);
        }
        let set_groups = if world.mode.single { "deny" } else { "allow" };
        assert_eq!(lines[2..], [set_groups, "0", "0", "0", "65535:65535", "refused"]);
    });
}

#[test]
fn a_step_may_have_another_user() {
    inside_step(
        "run = 'id -u; id -g; id -G; touch /f 2>/dev/null || echo refused'\nuser = \"1000:1000\"",
        |_, lines| {
            assert_eq!(lines, ["1000", "1000", "1000", "refused"]);
        },
    );
}

// --- capabilities

/// CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT MKNOD SETFCAP …
/// as `sandbox::command` has them; written out here so that a change there is noticed.
const CAPABILITIES: &str = "00000000880405fb";

#[test]
fn capabilities_are_exactly_these() {
    inside("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -s '\\t' ' '", |_, lines| {
        let found = facts(lines);
        for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
            assert_eq!(found[set], CAPABILITIES, "{set}");
        }
        for set in ["CapInh:", "CapAmb:"] {
            assert_eq!(found[set], "0000000000000000", "{set}");
        }
        assert_eq!((found["NoNewPrivs:"].as_str(), found["Seccomp:"].as_str()), ("1", "2"));
    });
}

#[test]
fn other_users_of_a_step_have_no_capabilities() {
    inside_step("run = 'grep -E ^CapEff /proc/self/status'\nuser = \"1000:1000\"", |_, lines| {
        assert_eq!(lines, ["CapEff:\t0000000000000000"]);
    });
}

#[test]
fn package_managers_find_what_they_need() {
    let script = "touch /f /g; chown 1000:1000 /f; chmod 4755 /f; stat -c '%a %u' /f
        mkfifo /p; test -p /p; ln /f /h; stat -c %h /f
        chroot / /bin/true && echo chroot ok
        su root -c 'id -u'; su kim -c 'id -u' 2>/dev/null || echo \"no other user\"";
    inside(script, |world, lines| {
        let kim = if world.mode.single { "no other user" } else { "1000" };
        assert_eq!(lines, ["4755 1000", "2", "chroot ok", "0", kim]);
    });
}

// --- seccomp

#[test]
fn seccomp_denies_each_call_with_its_error() {
    inside_step(&probe("\"denied\""), |world, lines| {
        let wanted: Vec<(&str, &str)> = DENIED.iter().map(|line| line.split_once(' ').unwrap()).collect();
        let found: Vec<(&str, &str)> = lines.iter().map(|line| line.split_once(' ').unwrap()).collect();
        assert_eq!(found, wanted, "{}", world.mode.name);
    });
}

/// Call and error, in the probe's order. A call that a kernel may lack is answered as by one that does.
const DENIED: [&str; 39] = [
    "mount EPERM",
    "umount2 EPERM",
    "pivot_root EPERM",
    "open_tree EPERM",
    "move_mount EPERM",
    "fsopen EPERM",
    "fspick EPERM",
    "fsconfig EPERM",
    "fsmount EPERM",
    "mount_setattr EPERM",
    "unshare-user EPERM",
    "unshare-mount EPERM",
    "setns EPERM",
    "clone-user EPERM",
    "clone-net EPERM",
    "clone3 ENOSYS",
    "add_key ENOSYS",
    "request_key ENOSYS",
    "keyctl ENOSYS",
    "bpf ENOSYS",
    "perf_event_open ENOSYS",
    "userfaultfd ENOSYS",
    "io_uring_setup ENOSYS",
    "io_uring_enter ENOSYS",
    "io_uring_register ENOSYS",
    "kexec_load EPERM",
    "kexec_file_load EPERM",
    "init_module EPERM",
    "finit_module EPERM",
    "delete_module EPERM",
    "clock_settime EPERM",
    "settimeofday EPERM",
    "reboot EPERM",
    "swapon EPERM",
    "swapoff EPERM",
    "acct EPERM",
    "syslog EPERM",
    "open_by_handle_at EPERM",
    "ptrace-init EPERM",
];

#[test]
fn children_can_be_traced() {
    inside_step(&probe("\"trace-child\""), |_, lines| assert_eq!(lines, ["ptrace-child ok"]));
}

// --- personality

#[test]
fn addresses_are_the_same_each_time() {
    for mode in modes().into_iter().filter(|mode| mode.runs) {
        let look = || {
            let world = World::new(mode);
            world.recipe(&format!("[[step]]\nname = \"look\"\n{}", probe("\"addresses\"")));
            world.build().ok().log("look")
        };
        let first = look();
        assert_eq!(first.last().unwrap(), "personality 40000");
        assert_eq!(first, look(), "{}", mode.name);
    }
}

// --- mtimes

#[test]
fn mtimes_of_lower_layers_are_canonical() {
    each_mode(|world| {
        world.write("src/a/b.txt", "b");
        world.recipe(
            "[sources.src]\npath = \"src\"\nunpack = \"/src\"\n\
             [[step]]\nname = \"write\"\nrun = 'mkdir /d; touch /d/f; ln -s f /d/l; mkfifo /d/p; touch -d 2001-02-03 /d/old'\n\
             [[step]]\nname = \"look\"\nrun = 'stat -c \"%n %Y\" /d /d/f /d/l /d/p /d/old /src /src/a /src/a/b.txt'\n",
        );
        let build = world.build().ok();
        let log = build.log("look");
        assert_eq!(log.len(), 8);
        assert!(log.iter().all(|line| line.ends_with(" 1")), "{log:?}");
    });
}

// --- secrets

#[test]
fn secrets_are_files_in_memory_and_nowhere_else() {
    each_mode(|world| {
        let value = "hunter2-not-in-the-store";
        let secret = world.write("secret.txt", value);
        world.recipe(
            "[[step]]\nname = \"use\"\nmounts = [{ secret = \"TOKEN\", at = \"/run/secrets/token\" }]\n\
             run = 'cat /run/secrets/token; echo; wc -c < /run/secrets/token; stat -f -c %T /run/secrets/token; touch /used'\n\
             [[step]]\nname = \"after\"\nrun = 'test ! -e /run/secrets; env | grep -c hunter || true'\n\
             [outputs.default]\nfrom = \"/\"\n",
        );
        let flag = format!("TOKEN=file:{}", secret.display());
        let build = world.build_recipe("recipe.toml", &["--secret", &flag]).ok();
        assert_eq!(build.log("use"), ["***", value.len().to_string().as_str(), "tmpfs"]);
        let log = world.isolith(&[
            "log",
            "recipe.toml:use",
            "--secret",
            &flag,
            "--store",
            world.store().to_str().unwrap(),
        ]);
        assert!(log.stdout.contains("***") && !log.stdout.contains(value), "{log}");
        assert_eq!(build.log("after"), ["0"]);
        assert!(build.out.join("used").exists());
        assert!(!build.out.join("run/secrets").exists());
        let found =
            std::process::Command::new("grep").args(["-rl", value]).arg(world.store()).output().unwrap();
        assert_eq!(lines(&String::from_utf8_lossy(&found.stdout)), [""; 0]);
        // Another value is the same action.
        fs::write(&secret, "another").unwrap();
        let again = world.build_recipe("recipe.toml", &["--secret", &flag]).ok();
        assert_eq!(again.step("use")["outcome"], "hit");
        assert_eq!(again.step("use")["key"], build.step("use")["key"]);
    });
}

#[test]
fn cache_and_tmpfs_mounts_are_not_part_of_the_layer() {
    each_mode(|world| {
        let mounts = "mounts = [{ cache = \"/root/.cache\" }, { tmpfs = \"/scratch\" }]";
        world.recipe(&format!(
            "[[step]]\nname = \"one\"\n{mounts}\nrun = 'echo kept > /root/.cache/x; echo x > /scratch/x; touch /made'\n\
             [[step]]\nname = \"two\"\n{mounts}\nrun = 'cat /root/.cache/x; ls -A /scratch | wc -l'\n\
             [[step]]\nname = \"three\"\nrun = 'test ! -e /root/.cache/x; test ! -e /scratch/x; test -e /made'\n"
        ));
        assert_eq!(world.build().ok().log("two"), ["kept", "0"], "{}", world.mode.name);
    });
}

// --- limits

/// Runs a step that goes beyond a limit; the error names it.
fn over_limit(limit: &str, script: &str) {
    each_mode(|world| {
        let name = limit.split(' ').next().unwrap();
        world.recipe(&format!("[[step]]\nname = \"over\"\nlimits = {{ {limit} }}\nrun = '{script}'"));
        let build = world.build();
        let warned = build.events.iter().any(|event| {
            event["event"] == "warning" && event["message"].as_str().unwrap().contains("cannot be enforced")
        });
        if warned {
            // No cgroup to be had, which is said; time and disk need none, and root has them almost anywhere.
            assert!(name != "time" && name != "disk", "{}", build.run);
            let limits = Limits { memory: Some(1), pids: Some(1), ..Limits::default() };
            assert!(world.mode.uid != 0 || matches!(cgroup::plan(&limits), cgroup::Plan::Impossible { .. }));
            return;
        }
        assert_eq!(build.run.code, 1, "{}", build.run);
        assert!(build.run.stderr.contains(name), "{}", build.run);
    });
}

#[test]
fn limit_on_time() {
    over_limit("time = \"1s\"", "sleep 60");
}

#[test]
fn limit_on_disk() {
    over_limit("disk = \"1MiB\"", "dd if=/dev/zero of=/big bs=1M count=64; sleep 60");
}

#[test]
fn limit_on_memory() {
    over_limit("memory = \"16MiB\"", "head -c 100000000 /dev/zero | tail -n 1 > /dev/null; exit 1");
}

#[test]
fn limit_on_processes() {
    over_limit("pids = 5", "for i in 1 2 3 4 5 6 7 8; do sleep 0.2 & done; wait; exit 1");
}

// --- fail closed

#[test]
fn another_user_without_a_range_of_ids_is_an_error_with_the_command_that_mends_it() {
    for mode in modes().into_iter().filter(|mode| mode.single) {
        let world = World::new(mode);
        world.recipe("[[step]]\nname = \"look\"\nrun = 'echo ran'\nuser = \"0:5\"");
        assert_fails_closed(&world.build().run);
        let doctor = world.isolith(&["doctor", "--store", world.store().to_str().unwrap()]);
        assert_eq!(doctor.code, 0, "{doctor}");
        let said = format!("{}{}", doctor.stdout, doctor.stderr);
        assert!(said.contains("sudo usermod --add-subuids"), "{doctor}");
    }
}

#[test]
fn a_store_where_all_belongs_to_the_caller_must_be_closed_to_others() {
    for mode in modes().into_iter().filter(|mode| mode.single) {
        let world = World::new(mode);
        world.recipe("[[step]]\nname = \"look\"\nrun = 'echo ran'");
        world.build().ok();
        fs::set_permissions(world.store(), fs::Permissions::from_mode(0o711)).unwrap();
        let build = world.build_recipe("recipe.toml", &["--no-cache"]);
        assert_eq!(build.run.code, 125, "{}", build.run);
        assert!(build.run.stderr.contains("chmod 700"), "{}", build.run);
        fs::set_permissions(world.store(), fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn doctor_is_content_where_builds_work() {
    each_mode(|world| {
        let doctor = world.isolith(&["doctor", "--store", world.store().to_str().unwrap()]);
        assert_eq!(doctor.code, 0, "{doctor}");
        let said = format!("{}{}", doctor.stdout, doctor.stderr);
        for name in ["kernel", "user namespaces", "id mapping", "procfs", "overlayfs", "cgroups", "/dev/fuse"]
        {
            assert!(said.contains(name), "no `{name}`: {doctor}");
        }
        let names = fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(".isolith")).collect();
        assert!(left.is_empty(), "{}: {left:?}", world.mode.name);
    });
}

#[test]
fn the_store_may_be_closed_to_others() {
    each_mode(|world| {
        world.recipe(
            "[[step]]\nname = \"one\"\nrun = 'echo x > /f'\n[[step]]\nname = \"two\"\nrun = 'cat /f'",
        );
        assert_eq!(world.build().ok().log("two"), ["x"]);
        fs::set_permissions(world.store(), fs::Permissions::from_mode(0o700)).unwrap();
        let build = world.build_recipe("recipe.toml", &["--no-cache"]).ok();
        assert_eq!(build.log("two"), ["x"], "{}", world.mode.name);
    });
}
