//! What a step sees of the contract.

use std::collections::BTreeSet;
use std::fs;

use isolith::key::UserDoc;
use isolith::sandbox::Status;

use super::{Fixture, output, run};

pub fn namespaces_are_all_new(f: &Fixture) {
    let executor = f.executor();
    let kinds = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"];
    let script = "for n in user mnt pid net ipc uts cgroup time; do readlink /proc/self/ns/$n; done";
    let (first, second) = (output(f, &executor, script), output(f, &executor, script));
    for (n, kind) in kinds.iter().enumerate() {
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
        let line = |text: &str| text.lines().nth(n).unwrap().to_string();
        assert!(line(&first).starts_with(&format!("{kind}:[")), "{first}");
        assert_ne!(line(&first), host, "{kind}");
    }
    assert_eq!(second.lines().count(), kinds.len());
    let names = output(f, &executor, "hostname; cat /proc/sys/kernel/domainname");
    assert_eq!(names, "localhost\n\n");
    assert_eq!(
        output(f, &executor, "cat /proc/self/cgroup; echo; cat /proc/self/cgroup | grep -v ':/$' | wc -l")
            .lines()
            .last(),
        Some("0")
    );
}

pub fn init_shows_nothing(f: &Fixture) {
    let executor = f.executor();
    let text = output(f, &executor, "cat /proc/1/comm; cat /proc/1/cmdline | tr '\\0' '.'; echo; echo $PPID");
    assert_eq!(text, "init\ninit.\n1\n");
    for secret in ["environ", "maps", "auxv"] {
        let text = output(f, &executor, &format!("cat /proc/1/{secret} && echo READABLE; true"));
        assert!(text.contains("Permission denied") && !text.contains("READABLE"), "{secret}: {text}");
    }
    for link in ["exe", "cwd", "root", "fd"] {
        let text = output(
            f,
            &executor,
            &format!("ls /proc/1/{link}/ && echo READABLE; readlink /proc/1/{link} && echo READABLE; true"),
        );
        assert!(!text.contains("READABLE"), "{link}: {text}");
    }
    let pids = output(f, &executor, "for p in /proc/[0-9]*; do echo $p; done");
    assert_eq!(pids, "/proc/1\n/proc/2\n", "the host's processes");
}

pub fn only_three_descriptors(f: &Fixture) {
    let text = output(f, &f.executor(), "for n in /proc/$$/fd/*; do readlink $n || true; done");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0], "/dev/null");
    assert!(lines[1].starts_with("pipe:[") && lines[1] == lines[2], "{text}");
}

pub fn mounts_are_the_contract(f: &Fixture) {
    let executor = f.executor();
    let text = output(f, &executor, "cat /proc/self/mountinfo /proc/self/mounts");
    assert!(
        !text.contains("isolith") && !text.contains("run-") && !text.contains("shm/"),
        "host paths: {text}"
    );
    let info = output(f, &executor, "cat /proc/self/mountinfo");
    let places: BTreeSet<&str> = info.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
    let outside_proc: Vec<&str> = places.iter().filter(|at| !at.starts_with("/proc/")).copied().collect();
    let expected = [
        "/",
        "/dev",
        "/dev/full",
        "/dev/null",
        "/dev/pts",
        "/dev/random",
        "/dev/shm",
        "/dev/tty",
        "/dev/urandom",
        "/dev/zero",
        "/proc",
        "/run",
        "/sys",
        "/tmp",
        "/var/tmp",
    ];
    assert_eq!(outside_proc, expected);
    let text = output(
        f,
        &executor,
        "ls -a /sys /tmp /var/tmp /run /dev/shm; stat -c '%a %u %g' /tmp /var/tmp /run /dev/shm /sys",
    );
    assert!(
        !text
            .lines()
            .any(|line| !line.starts_with('/') && !matches!(line, "" | "." | "..") && !line.contains(" 0 0")),
        "{text}"
    );
    assert!(text.ends_with("1777 0 0\n1777 0 0\n755 0 0\n1777 0 0\n755 0 0\n"), "{text}");
    for dir in ["/sys", "/dev", "/proc/sys", "/proc"] {
        let text = output(
            f,
            &executor,
            &format!("touch {dir}/x 2>&1 || echo refused; mkdir {dir}/d 2>&1 || echo refused"),
        );
        assert_eq!(text.matches("refused").count(), 2, "{dir}: {text}");
    }
    let text =
        output(f, &executor, "for d in /tmp /var/tmp /run /dev/shm /; do echo x > $d/x; done; cat /tmp/x");
    assert_eq!(text, "x\n");
    assert_eq!(output(f, &executor, "cat /etc/hosts"), "127.0.0.1\tlocalhost\n::1\tlocalhost\n");
}

pub fn environment_is_exact(f: &Fixture) {
    let spec = f.spec(&["/bin/env"]);
    let (outcome, text) = run(&f.executor(), &spec);
    assert_eq!(outcome.unwrap().status, Status::Exited(0));
    let expected = "HOME=/root\nJOBS=2\nLANG=C.UTF-8\nPATH=/bin\nSOURCE_DATE_EPOCH=1\nTERM=dumb\nTZ=UTC\n";
    assert_eq!(text, expected);
    let mut spec = f.spec(&["/bin/env"]);
    spec.action.env = [("JOBS", "7"), ("HOME", "/h")].map(|(k, v)| (k.to_string(), v.to_string())).into();
    assert_eq!(run(&f.executor(), &spec).1, "HOME=/h\nJOBS=7\n");
}

pub fn process_attributes_are_fixed(f: &Fixture) {
    let executor = f.executor();
    assert_eq!(output(f, &executor, "umask; cat /proc/self/personality; pwd"), "0022\n00040000\n/\n");
    // Not through a shell, which ignores signals of its own.
    let pattern = "^(Cap|NoNewPrivs|Seccomp:|Groups|Uid|Gid|Sig[BI])";
    let text = run(&executor, &f.spec(&["/bin/grep", "-E", pattern, "/proc/self/status"])).1;
    let expected = "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t \n\
        SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n\
        CapInh:\t0000000000000000\nCapPrm:\t00000000880405fb\nCapEff:\t00000000880405fb\nCapBnd:\t00000000880405fb\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
    assert_eq!(text, expected);
    let limits = output(f, &executor, "cat /proc/self/limits");
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(limit("Max core file size"), "0 0");
    assert_eq!(limit("Max stack size"), "8388608 unlimited");
    assert_eq!(limit("Max open files"), "1024 4096");
    assert_eq!(limit("Max processes"), "4096 4096");
    assert_eq!(limit("Max locked memory"), "65536 65536");
    assert_eq!(limit("Max file size"), "unlimited unlimited");
    assert_eq!(limit("Max address space"), "unlimited unlimited");
    let ids = output(f, &executor, "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '");
    assert_eq!(ids, format!(" 0 {0} 65536\n 0 {0} 65536\n", f.ids.offset));
    let text = output(
        f,
        &executor,
        "touch /f; chown 65535:65535 /f; stat -c '%u %g' /f; mkfifo /p; chown 1:2 /p; stat -c '%u %g %F' /p",
    );
    assert_eq!(text, "65535 65535\n1 2 fifo\n");
}

pub fn devices_and_proc(f: &Fixture) {
    let executor = f.executor();
    let names = output(f, &executor, "ls /dev");
    let expected = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(names.split_whitespace().collect::<Vec<_>>().join(" "), expected);
    let text = output(
        f,
        &executor,
        "echo lost > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; (echo x > /dev/full) 2>&1 || echo full; echo out > /dev/stdout; echo err > /dev/stderr; ls /dev/pts",
    );
    assert_eq!(text.lines().next(), Some("4"));
    assert!(text.contains("full") && text.ends_with("out\nerr\nptmx\n"), "{text}");
    for hidden in ["kcore", "keys", "key-users", "timer_list", "kmsg", "interrupts"] {
        let text = output(
            f,
            &executor,
            &format!("if [ -e /proc/{hidden} ]; then stat -c '%t:%T' /proc/{hidden}; cat /proc/{hidden}; fi"),
        );
        assert!(matches!(text.as_str(), "" | "1:3\n"), "{hidden}: {text}");
    }
    for hidden in ["acpi", "scsi", "driver"] {
        assert_eq!(output(f, &executor, &format!("ls /proc/{hidden} 2>/dev/null || true")), "", "{hidden}");
    }
    let text = output(
        f,
        &executor,
        "echo x > /proc/sys/kernel/hostname || echo refused; echo b > /proc/sysrq-trigger || echo refused",
    );
    assert_eq!(text.matches("refused").count(), 2, "{text}");
    // The kernel is not weaker than without us.
    assert_eq!(
        output(
            f,
            &executor,
            "mount -t tmpfs t /mnt 2>/dev/null || echo refused; unshare -m true 2>/dev/null || echo refused"
        ),
        "refused\nrefused\n"
    );
}

pub fn network_is_a_loopback(f: &Fixture) {
    let executor = f.executor();
    let text = output(
        f,
        &executor,
        "cat /proc/net/dev | wc -l; ip -o addr | tr -s ' '; cat /proc/net/unix | wc -l; cat /proc/net/route | wc -l",
    );
    assert!(text.starts_with("3\n") && text.contains("127.0.0.1/8") && text.contains("::1/128"), "{text}");
    assert!(text.ends_with("1\n1\n"), "sockets or routes of the host: {text}");
    let text = output(
        f,
        &executor,
        "echo hello | nc -l -p 7000 & until sleep 1 | nc 127.0.0.1 7000 2>/dev/null; do sleep 0.1; done; wait",
    );
    assert_eq!(text, "hello\n");
    assert_eq!(
        output(f, &executor, "nc -w 1 192.0.2.1 80 2>&1 || echo unreachable").lines().last(),
        Some("unreachable")
    );
}

pub fn clocks_start_at_zero(f: &Fixture) {
    let executor = f.executor();
    // Not from when the init in reserve was made.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let text = output(f, &executor, "cat /proc/uptime");
    let seconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
    assert!(seconds < 2.5, "{text}");
}

pub fn other_users_have_no_rights(f: &Fixture) {
    let executor = f.executor();
    let passwd =
        f.layer(1, &[("etc/passwd", "root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n")]);
    let mut spec = f.script("id -u; id -g; echo $HOME; grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status; touch /x || echo refused; touch /tmp/x");
    spec.layers.push(passwd);
    spec.action.user = UserDoc { uid: 1000, gid: 1001 };
    let (outcome, text) = run(&executor, &spec);
    assert_eq!(outcome.unwrap().status, Status::Exited(0), "{text}");
    assert!(
        text.starts_with("1000\n1001\n/home/bob\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"),
        "{text}"
    );
    assert!(text.contains("refused"), "{text}");
    let mut spec = f.script("echo $HOME");
    spec.action.user = UserDoc { uid: 1000, gid: 1001 };
    assert_eq!(run(&executor, &spec).1, "/\n");
}

/// Compiled once for every run: needs a C compiler that can link statically.
pub fn seccomp_denies(f: &Fixture) {
    let dir = f.layer_dir(isolith::digest::LayerId::from_bytes([0xcc; 32]));
    let probe = dir.join("probe");
    let source = dir.join("probe.c");
    fs::write(&source, include_str!("probe.c")).unwrap();
    let built = std::process::Command::new("cc")
        .args(["-static", "-O1", "-w", "-o"])
        .arg(&probe)
        .arg(&source)
        .status();
    assert!(built.is_ok_and(|status| status.success()), "cc -static is needed");
    f.own(dir.parent().unwrap());
    let mut spec = f.spec(&["/probe"]);
    spec.layers.push(isolith::digest::LayerId::from_bytes([0xcc; 32]));
    let (outcome, text) = run(&f.executor(), &spec);
    assert!(!text.contains("WRONG"), "{text}");
    assert!(text.ends_with("probed 47\n"), "{text}");
    assert_eq!(outcome.unwrap().status, Status::Exited(0), "{text}");
    // The same program outside, in a user namespace of its own where it has every right, is let through.
    let free = std::process::Command::new("unshare").args(["-Urm"]).arg(&probe).output().unwrap();
    let free = String::from_utf8_lossy(&free.stdout).into_owned();
    assert!(free.matches("WRONG").count() > 15, "the probe would not notice a missing filter: {free}");
}
