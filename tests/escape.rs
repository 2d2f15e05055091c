//! Steps that try to get out. Each attempt is a script that prints REACHED when it worked.
//!
//! Every one would fail without the isolation it tests: wherever that is possible the very same script
//! is first run outside, as the same user, and has to reach ([`attempt`]). Where it is not (the attempt
//! needs the sandbox, or would do harm) a comment names what it depends on. What was broken once to see
//! which tests fail is in `docs/design/isolation.md`.

mod common;

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Build, World, base, each_mode};

/// Runs a script outside, where it must reach, and inside, where it must not. `prepare` puts things in
/// place and names them in the script's environment; what it returns lives as long as the attempt.
fn attempt_with<T>(script: &str, prepare: impl Fn(&World) -> (Vec<(&'static str, String)>, T)) {
    each_mode(|world| {
        let (env, _alive) = prepare(world);
        let outside = outside(world, script, &env);
        assert!(outside.contains("REACHED"), "reaches nothing even outside ({}): {outside}", world.mode.name);
        let log = inside(world, script, &env).ok().log("escape").join("\n");
        assert!(!log.contains("REACHED"), "{}: {log}", world.mode.name);
    });
}

fn attempt(script: &str) {
    attempt_with(script, |_| (Vec::new(), ()));
}

/// Runs a script inside only; it must not reach.
fn attempt_inside(script: &str) {
    each_mode(|world| {
        let log = inside(world, script, &[]).ok().log("escape").join("\n");
        assert!(!log.contains("REACHED"), "{}: {log}", world.mode.name);
        assert!(log.contains("end"), "the script did not get to its end: {log}");
    });
}

/// The script in the base's own shell, without any isolation.
fn outside(world: &World, script: &str, env: &[(&str, String)]) -> String {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(base().join("bin/busybox"));
    command.args(["sh", "-c", &format!("set +e\n{script}\necho end")]).env_clear();
    command.env("PATH", base().join("bin")).envs(env.iter().map(|(key, value)| (key, value)));
    command.current_dir(world.path("work")).stderr(Stdio::null()).stdin(Stdio::null());
    if rustix_root() {
        command.uid(world.mode.uid).gid(world.mode.gid);
    }
    String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
}

fn rustix_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn inside(world: &World, script: &str, env: &[(&str, String)]) -> Build {
    let env: Vec<String> = env.iter().map(|(key, value)| format!("{key} = {value:?}")).collect();
    world.recipe(&format!(
        "[[step]]\nname = \"escape\"\nenv = {{ {} }}\nrun = '''\nset +e\n{script}\necho end\n'''\n",
        env.join(", ")
    ));
    world.build()
}

/// A file that everybody on the machine may read, and that no step may.
fn canary(world: &World) -> (Vec<(&'static str, String)>, ()) {
    let path = world.write("canary/file", "REACHED\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    (vec![("CANARY", path.to_str().unwrap().to_owned())], ())
}

// --- files of the host

#[test]
fn host_file_by_its_path() {
    attempt_with("cat $CANARY", canary);
}

#[test]
fn host_file_through_the_root_of_init() {
    attempt_with("cat $CANARY || for p in /proc/[0-9]*; do cat $p/root$CANARY; done", canary);
}

#[test]
fn host_file_through_working_directories() {
    attempt_with(
        "cat ../../../../../../../../..$CANARY
         for p in /proc/self /proc/1 /proc/$PPID; do
             up=$p/cwd
             for i in 1 2 3 4 5 6 7 8; do up=$up/..; cat $up$CANARY; done
             ls $p/cwd/../../../layers && echo REACHED
         done",
        canary,
    );
}

#[test]
fn host_file_through_descriptors_of_init() {
    attempt_with(
        "cat $CANARY
         for fd in /proc/1/fd/* /proc/self/fd/*; do
             cat $fd/$CANARY; cat $fd/../../../../../../..$CANARY; ls $fd/layers && echo REACHED
         done",
        canary,
    );
}

#[test]
fn host_file_by_leaving_a_chroot() {
    attempt_with("probe leave-chroot $CANARY", canary);
}

#[test]
fn host_file_through_a_symlink_of_the_base_or_a_source() {
    each_mode(|world| {
        let (env, ()) = canary(world);
        let target = &env[0].1;
        fs::create_dir_all(world.path("work/src")).unwrap();
        symlink(target, world.path("work/src/link")).unwrap();
        symlink("../../../../../../..".to_owned() + target, world.path("work/src/up")).unwrap();
        assert!(fs::read_to_string(world.path("work/src/link")).unwrap().contains("REACHED"));
        world.recipe(
            "[sources.src]\npath = \"src\"\nunpack = \"/src\"\n\
             [[step]]\nname = \"escape\"\nrun = 'cat /src/link /src/up || true; readlink /src/link'\n",
        );
        let log = world.build().ok().log("escape");
        assert!(log.contains(target), "a symlink is kept as it is: {log:?}");
        assert!(!log.iter().any(|line| line.contains("REACHED")), "{log:?}");
    });
}

#[test]
fn program_of_init() {
    // Overwriting the runtime through /proc/1/exe is how runc was taken over (CVE-2019-5736). Depends on
    // init not being dumpable: without it the first read succeeds.
    attempt_inside(
        "head -c 4 /proc/1/exe | grep -q ELF && echo REACHED
         readlink /proc/1/exe && echo REACHED
         echo x >> /proc/1/exe && echo REACHED",
    );
}

#[test]
fn memory_and_environment_of_init() {
    for part in ["environ", "maps", "mem", "auxv", "stack", "syscall"] {
        // Depends on init not being dumpable, and on its environment being empty.
        attempt_inside(&format!("test \"$(head -c 1 /proc/1/{part} | wc -c)\" = 0 || echo REACHED {part}"));
    }
}

#[test]
fn environment_and_command_line_of_the_caller() {
    each_mode(|world| {
        // Outside, a caller's own environment and command line are there to read for its children.
        let script = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'";
        let seen = outside(world, script, &[("CALLER_TOKEN", "hunter2".to_owned())]);
        assert!(seen.contains("CALLER_TOKEN=hunter2"));
        let mut world = World::new(world.mode);
        world.env.insert("CALLER_TOKEN".to_owned(), "hunter2".to_owned());
        let log = inside(&world, script, &[]).ok().log("escape").join("\n");
        assert!(!log.contains("hunter2") && !log.contains(&world.mark()), "{}: {log}", world.mode.name);
    });
}

#[test]
fn host_paths_in_proc() {
    each_mode(|world| {
        let script = "cat /proc/[0-9]*/mountinfo /proc/[0-9]*/mounts /proc/[0-9]*/cgroup /proc/self/maps
            ls -l /proc/[0-9]*/fd /proc/[0-9]*/exe /proc/[0-9]*/cwd /proc/[0-9]*/root";
        let seen = outside(world, "readlink /proc/self/cwd", &[]);
        assert!(seen.contains(&world.mark()));
        let log = inside(world, script, &[]).ok().log("escape").join("\n");
        for part in [&world.mark(), "isolith-shared", "/store", "tmp/run-"] {
            assert!(!log.contains(part), "`{part}` ({}): {log}", world.mode.name);
        }
    });
}

// --- network

#[test]
fn tcp_server_on_the_host() {
    for address in ["127.0.0.1", "::1"] {
        attempt_with("probe connect $ADDRESS $PORT | grep ok && echo REACHED", |_| {
            let server = TcpListener::bind((address, 0)).unwrap();
            let port = server.local_addr().unwrap().port().to_string();
            (vec![("ADDRESS", address.to_owned()), ("PORT", port)], server)
        });
    }
}

#[test]
fn abstract_socket_on_the_host() {
    attempt_with("probe abstract $NAME | grep ok && echo REACHED", |world| {
        let name = world.mark();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        (vec![("NAME", name)], UnixListener::bind_addr(&address).unwrap())
    });
}

#[test]
fn machine_below_a_virtual_machine() {
    // Kernels without vsock refuse outside too, so this is for those that have it.
    each_mode(|world| {
        let script = "probe vsock";
        let outside = outside(world, script, &[]);
        let log = inside(world, script, &[]).ok().log("escape").join("\n");
        assert!(!log.contains("vsock ok"), "outside: {outside}; inside ({}): {log}", world.mode.name);
    });
}

#[test]
fn names_resolved_by_the_host() {
    attempt_inside(
        "nslookup example.com 127.0.0.1 | grep -q 'Name:' && echo REACHED; test -s /etc/resolv.conf && echo REACHED",
    );
}

// --- processes

/// A process of the world's user, ended when dropped.
struct Sleeper(Child);

impl Sleeper {
    fn start(world: &World) -> Sleeper {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("sleep");
        command.arg("600");
        if rustix_root() {
            command.uid(world.mode.uid).gid(world.mode.gid);
        }
        Sleeper(command.spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn signal_to_a_host_process() {
    attempt_with("kill -0 $VICTIM && echo REACHED", |world| {
        let sleeper = Sleeper::start(world);
        (vec![("VICTIM", sleeper.0.id().to_string())], sleeper)
    });
}

#[test]
fn sight_of_a_host_process() {
    attempt_with(
        "cat /proc/[0-9]*/comm | grep -qx sleep && echo REACHED; test -d /proc/$VICTIM && echo REACHED",
        |world| {
            let sleeper = Sleeper::start(world);
            (vec![("VICTIM", sleeper.0.id().to_string())], sleeper)
        },
    );
}

#[test]
fn trace_of_a_host_process() {
    attempt_with("probe ptrace $VICTIM | grep ok && echo REACHED", |world| {
        let sleeper = Sleeper::start(world);
        (vec![("VICTIM", sleeper.0.id().to_string())], sleeper)
    });
}

#[test]
fn trace_of_init() {
    // Depends on the seccomp filter or on init not being dumpable.
    attempt_inside("probe ptrace 1 | grep ok && echo REACHED");
}

#[test]
fn death_of_init() {
    // Depends on init being pid 1 of its namespace, which no signal from inside kills.
    attempt_inside("kill -KILL 1; kill -TERM 1; kill -INT 1; sleep 0.1");
}

#[test]
fn death_of_everything() {
    each_mode(|world| {
        world.recipe(
            "[[step]]\nname = \"escape\"\nrun = 'sleep 600 & kill -KILL -1; echo survived'\n\
             [[step]]\nname = \"next\"\nrun = 'echo next'\n",
        );
        let build = world.build();
        // The shell may be among the killed; isolith is not, and says how the step ended.
        assert!(build.run.code == 0 || build.run.code == 1, "{}", build.run);
        build.finished();
    });
}

#[test]
fn processes_left_behind() {
    each_mode(|world| {
        let number = 800_000 + std::process::id();
        let script = format!(
            "(trap '' TERM HUP INT; setsid sh -c \"trap '' TERM HUP INT; sleep {number}; sleep {number}\" &) &
             for i in 1 2 3 4 5; do (setsid sleep {number} &); done"
        );
        inside(world, &script, &[]).ok();
        wait_until_gone(number);
    });
}

#[test]
fn processes_left_behind_by_a_killed_isolith() {
    each_mode(|world| {
        let number = 900_000 + std::process::id();
        world.recipe(&format!("[[step]]\nname = \"escape\"\nrun = 'echo begun; sleep {number}'\n"));
        let store = world.store();
        let args = ["build", "recipe.toml", "--store", store.to_str().unwrap(), "--progress", "json"];
        let mut child = world.spawn(&args);
        let mut out = child.stdout.take().unwrap();
        let mut seen = String::new();
        while !seen.contains("begun") {
            let mut part = [0; 4096];
            let n = out.read(&mut part).unwrap();
            assert!(n > 0, "the build ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&part[..n]));
        }
        while running(number).is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(child); // kill -9
        wait_until_gone(number);
        // What it left in the store is in nobody's way.
        world.recipe("[[step]]\nname = \"escape\"\nrun = 'echo well'\n");
        assert_eq!(world.build().ok().log("escape"), ["well"], "{}", world.mode.name);
    });
}

fn running(number: u32) -> Vec<PathBuf> {
    let wanted = format!("sleep\0{number}\0");
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes
        .filter(|dir| fs::read(dir.join("cmdline")).is_ok_and(|line| line == wanted.as_bytes()))
        .collect()
}

fn wait_until_gone(number: u32) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !running(number).is_empty() {
        assert!(Instant::now() < deadline, "left behind: {:?}", running(number));
        std::thread::sleep(Duration::from_millis(20));
    }
}

// --- names, IPC, clock, log

#[test]
fn host_name() {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
    if host == "localhost" {
        eprintln!("skipped: the machine's own name is localhost");
        return;
    }
    attempt(&format!("hostname | grep -qx '{host}' && echo REACHED"));
    attempt_inside("hostname evil");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(), host);
}

#[test]
fn shared_memory_of_the_host() {
    attempt_with("test $(tail -n +2 /proc/sysvipc/shm | wc -l) != 0 && echo REACHED", |_| {
        let made = Command::new("ipcmk").args(["-M", "4096"]).output().unwrap();
        let text = String::from_utf8_lossy(&made.stdout).into_owned();
        (Vec::new(), Segment(text.rsplit(' ').next().unwrap().trim().to_owned()))
    });
}

struct Segment(String);

impl Drop for Segment {
    fn drop(&mut self) {
        let _ = Command::new("ipcrm").args(["-m", &self.0]).status();
    }
}

#[test]
fn clock_and_kernel_log() {
    // Depends on the seccomp filter and on the dropped capabilities.
    attempt_inside(
        "date -s 2001-01-01 > /dev/null; test $(date +%Y) = 2001 && echo REACHED; dmesg && echo REACHED",
    );
}

#[test]
fn namespaces_of_others() {
    // Depends on the seccomp filter: in a user namespace of its own a step would be free to mount.
    attempt_inside(
        "unshare -r true && echo REACHED; unshare -Urm true && echo REACHED
         nsenter -t 1 -m true && echo REACHED; mount -t tmpfs none /tmp && echo REACHED
         mount --bind / /tmp && echo REACHED; umount /proc && echo REACHED",
    );
}

// --- terminal

#[test]
fn terminal_of_the_caller() {
    for mode in common::modes().into_iter().filter(|mode| mode.runs) {
        let mut world = World::new(mode);
        // The program gets a controlling terminal; depends on setsid and on stdin being /dev/null.
        world.caller = "exec script -qec \"$0 $*\" /dev/null".to_owned();
        world.recipe(
            "[[step]]\nname = \"escape\"\nrun = 'probe push-input; test -t 0 && echo REACHED; tty | grep /dev && echo REACHED; true'\n",
        );
        let store = world.store();
        let run = world.isolith(&[
            "build",
            "recipe.toml",
            "--store",
            store.to_str().unwrap(),
            "--progress",
            "plain",
        ]);
        assert_eq!(run.code, 0, "{run}");
        assert!(run.stdout.contains("TIOCSTI ENXIO") || run.stderr.contains("TIOCSTI ENXIO"), "{run}");
        assert!(!run.stdout.contains("REACHED"), "{run}");
    }
}

// --- files left outside

#[test]
fn files_left_outside() {
    each_mode(|world| {
        let name = format!("isolith-left-{}-{}", world.mode.uid, std::process::id());
        let places = ["/tmp", "/var/tmp", "/dev/shm"];
        let script =
            format!("for d in /tmp /var/tmp /dev/shm /run /root; do mkdir -p $d; echo x > $d/{name}; done");
        inside(world, &script, &[]).ok();
        for place in places {
            assert!(!Path::new(place).join(&name).exists(), "{place}/{name}");
        }
        // The control: the same script does leave them.
        outside(world, &script, &[]);
        for place in places {
            let file = Path::new(place).join(&name);
            assert!(file.exists(), "{}", file.display());
            fs::remove_file(file).unwrap();
        }
        let _ = fs::remove_file(format!("/run/{name}"));
        let _ = fs::remove_file(format!("/root/{name}"));
    });
}

#[test]
fn files_written_through_an_exported_symlink() {
    each_mode(|world| {
        let victim = world.path("work/victim");
        fs::create_dir(&victim).unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o777)).unwrap();
        world.recipe(&format!(
            "[[step]]\nname = \"link\"\nrun = 'mkdir /out; ln -s {0} /out/x'\n\
             [[step]]\nname = \"file\"\nrun = 'rm /out/x; mkdir /out/x; echo evil > /out/x/f; ln -s {0}/g /out/y'\n\
             [outputs.default]\nfrom = \"/out\"\n",
            victim.display()
        ));
        let build = world.build().ok();
        assert_eq!(build.file("x/f"), "evil\n");
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "{}", world.mode.name);
    });
}

// --- the layers below

#[test]
fn layers_below_stay_as_they_are() {
    each_mode(|world| {
        world.recipe(
            "[[step]]\nname = \"one\"\nrun = 'mkdir /d; echo one > /d/f; ln /d/f /d/g'\n\
             [[step]]\nname = \"two\"\nrun = 'echo two > /d/f; chmod 777 /d; rm -rf /bin/yes /etc; touch -d 2030-01-01 /d/g; chown 1:1 /d'\n",
        );
        let build = world.build().ok();
        let one = build.step("one")["layer"].as_str().unwrap().to_owned();
        let fsck = world.isolith(&["store", "fsck", "--store", world.store().to_str().unwrap()]);
        assert_eq!(fsck.code, 0, "{fsck}");
        let again = World::new(world.mode);
        again.recipe("[[step]]\nname = \"one\"\nrun = 'mkdir /d; echo one > /d/f; ln /d/f /d/g'\n");
        assert_eq!(again.build().ok().step("one")["layer"], one.as_str());
    });
}

// --- symlinks where the sandbox mounts

/// Builds on a base in which `change` put a symlink to a directory of the host; whatever isolith makes of
/// that, the directory stays as it is and its file is not seen.
fn mount_point_trick(name: &str, change: impl Fn(&Path, &Path), step: &str) {
    each_mode(|world| {
        let host = world.path("work/host");
        for dir in ["", "tmp", "shm", "pts", "x", "self"] {
            fs::create_dir_all(host.join(dir)).unwrap();
            fs::set_permissions(host.join(dir), fs::Permissions::from_mode(0o777)).unwrap();
        }
        fs::write(host.join("file"), "REACHED\n").unwrap();
        let list = |dir: &Path| {
            let output = Command::new("find").arg(dir).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let before = list(&host);
        let base = common::make_base(&format!("trick-{name}-{}", world.mode.uid));
        change(&base, &host);
        let secret = world.write("token", "hunter2");
        world.recipe_on(&base, step);
        let flag = format!("TOKEN=file:{}", secret.display());
        let build = world.build_recipe("recipe.toml", &["--secret", &flag]);
        assert_eq!(list(&host), before, "{}", build.run);
        assert!(!build.run.stdout.contains("REACHED"), "{}", build.run);
        if build.run.code == 0 {
            let log = build.log("escape");
            assert!(log.contains(&"tmpfs".to_owned()) || log.contains(&"kept".to_owned()), "{}", build.run);
        } else {
            // Refused is as good, as long as it says what it refuses.
            assert!(build.run.code == 125 || build.run.code == 3 || build.run.code == 1, "{}", build.run);
            assert!(build.run.stderr.contains("error"), "{}", build.run);
        }
    });
}

fn replace(path: &Path, target: &Path) {
    let _ = fs::remove_dir_all(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}

const LOOK: &str = "[[step]]\nname = \"escape\"\nrun = '''\nfor d in /tmp /var/tmp /run /dev/shm; do cat $d/file 2>/dev/null; \
                    echo x > $d/evil; done; stat -f -c %T /tmp\n'''\n";

#[test]
fn symlink_at_tmp() {
    mount_point_trick("tmp", |base, host| replace(&base.join("tmp"), host), LOOK);
}

#[test]
fn symlink_at_var() {
    mount_point_trick("var", |base, host| replace(&base.join("var"), host), LOOK);
}

#[test]
fn symlink_at_run() {
    mount_point_trick("run", |base, host| replace(&base.join("run"), host), LOOK);
}

#[test]
fn symlink_at_dev() {
    mount_point_trick("dev", |base, host| replace(&base.join("dev"), host), LOOK);
}

#[test]
fn symlink_at_proc() {
    mount_point_trick("proc", |base, host| replace(&base.join("proc"), host), LOOK);
}

#[test]
fn symlink_at_sys() {
    mount_point_trick("sys", |base, host| replace(&base.join("sys"), host), LOOK);
}

#[test]
fn symlink_with_dots_at_tmp() {
    mount_point_trick(
        "dots",
        |base, host| {
            let up = PathBuf::from("../../../../../../../..".to_owned() + host.to_str().unwrap());
            replace(&base.join("tmp"), &up);
        },
        LOOK,
    );
}

#[test]
fn symlink_below_a_mount() {
    let step = "[[step]]\nname = \"escape\"\n\
                mounts = [{ cache = \"/link/x\" }, { tmpfs = \"/link/self\" }, { secret = \"TOKEN\", at = \"/link/token\" }]\n\
                run = 'echo x > /link/x/evil; cat /link/file 2>/dev/null; echo kept'\n";
    mount_point_trick("mount", |base, host| replace(&base.join("link"), host), step);
}

#[test]
fn symlink_at_the_working_directory() {
    let step = "[[step]]\nname = \"escape\"\ncwd = \"/link/deep\"\nrun = 'cat ../file 2>/dev/null; echo x > evil; echo kept'\n";
    mount_point_trick("cwd", |base, host| replace(&base.join("link"), host), step);
}

#[test]
fn symlink_where_a_source_goes() {
    each_mode(|world| {
        let host = world.path("work/host");
        fs::create_dir(&host).unwrap();
        world.write("src/f", "source");
        let base = common::make_base(&format!("trick-source-{}", world.mode.uid));
        replace(&base.join("link"), &host);
        world.recipe_on(
            &base,
            "[sources.src]\npath = \"src\"\nunpack = \"/link/x\"\n[[step]]\nname = \"escape\"\nrun = 'ls / > /dev/null'\n",
        );
        world.build();
        assert_eq!(fs::read_dir(&host).unwrap().count(), 0);
    });
}

// --- privileges

#[test]
fn device_nodes() {
    // As root outside, the same call makes them; outside as a user it does not, hence no control here.
    // Depends on CAP_MKNOD being worth nothing in a user namespace: run the step as the real root.
    each_mode(|world| {
        let log =
            inside(world, "probe nodes; mknod /tmp/white c 0 0 && echo REACHED", &[]).ok().log("escape");
        let wanted = ["null-device EPERM", "disk-device EPERM", "mem-device EPERM", "fifo ok"];
        assert_eq!(&log[..4], wanted, "{}", world.mode.name);
    });
}

#[test]
fn setuid_programs_give_nothing() {
    each_mode(|world| {
        if world.mode.single {
            return; // There is no other user that a program could set.
        }
        world.recipe(
            "[[step]]\nname = \"make\"\nrun = 'cp /bin/probe /bin/root-probe; chmod 4755 /bin/root-probe; cp /bin/busybox /bin/super; chmod 6755 /bin/super'\n\
             [[step]]\nname = \"escape\"\nuser = \"1000:1000\"\nrun = '/bin/root-probe become 0 || true; /bin/root-probe become 1000'\n",
        );
        let log = world.build().ok().log("escape");
        // Depends on no_new_privs: without it the effective user is 0.
        assert_eq!(log, ["setuid EPERM", "uid 1000 euid 1000", "setuid ok", "uid 1000 euid 1000"]);
    });
}

#[test]
fn setuid_files_in_the_store_belong_to_nobody_of_this_machine() {
    each_mode(|world| {
        world.recipe("[[step]]\nname = \"make\"\nrun = 'cp /bin/busybox /bin/super; chmod 6755 /bin/super; chown 1000:1000 /bin/probe; chmod 4755 /bin/probe'\n");
        world.build().ok();
        let found =
            Command::new("find").arg(world.store()).args(["-perm", "/6000", "-type", "f"]).output().unwrap();
        let text = String::from_utf8(found.stdout).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        for path in text.lines() {
            let uid = fs::symlink_metadata(path).unwrap().uid();
            if world.mode.single {
                // They are the caller's own: what protects them is that nobody else gets there.
                assert_eq!(fs::metadata(world.store()).unwrap().permissions().mode() & 0o077, 0);
                continue;
            }
            let known = passwd.lines().any(|line| line.split(':').nth(2) == Some(&uid.to_string()));
            assert!(!known && uid != world.mode.uid, "{path} belongs to {uid} ({})", world.mode.name);
        }
    });
}
