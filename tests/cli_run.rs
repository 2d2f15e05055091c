//! `run`: a command in what was built.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Run, Running, World, each_mode};
use isolith::sandbox::{Limits, cgroup};

const RECIPE: &str = r#"
[[step]]
name = "only"
run  = "echo hello > /hello; ln -s /elsewhere /link; echo 'kim:x:1000:1000::/home/kim:/bin/sh' > /etc/passwd"
[outputs.programs]
from = "/bin"
"#;

fn run(world: &World, args: &[&str]) -> Run {
    let store = world.store();
    world.isolith(&[&["run", "--store", store.to_str().unwrap()], args].concat())
}

fn ok(world: &World, args: &[&str]) -> String {
    let run = run(world, args);
    assert_eq!(run.code, 0, "{args:?} ({}): {run}", world.mode.name);
    run.stdout
}

/// A run that goes on, and the first line of its standard output, once it has said that.
fn start(world: &World, args: &[&str], ready: &str) -> Running {
    let store = world.store();
    let mut running = world.spawn(&[&["run", "--store", store.to_str().unwrap()], args].concat());
    let mut line = String::new();
    BufReader::new(running.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), ready);
    running
}

fn signal(running: &Running, name: &str) {
    let pid = running.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}

#[test]
fn what_was_built_runs_and_what_it_writes_is_gone() {
    each_mode(|world| {
        world.recipe(RECIPE);
        let first = run(world, &["recipe.toml", "--", "cat", "/hello"]);
        assert_eq!((first.code, first.stdout.as_str()), (0, "hello\n"), "it is built first: {first}");
        let again =
            run(world, &["recipe.toml", "--fail-on-miss", "--", "sh", "-c", "echo x > /new; cat /new"]);
        assert_eq!((again.code, again.stdout.as_str(), again.stderr.as_str()), (0, "x\n", ""), "{again}");
        assert_eq!(ok(world, &["recipe.toml", "--", "sh", "-c", "test -e /new || echo gone"]), "gone\n");
        // An output alone is the root.
        assert_eq!(ok(world, &["recipe.toml:programs", "--", "/busybox", "echo", "small"]), "small\n");
        let wrong = run(world, &["recipe.toml:none", "--", "true"]);
        assert!(wrong.code == 2 && wrong.stderr.contains("its outputs: `programs`"), "{wrong}");
        for (script, code) in [("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
            assert_eq!(run(world, &["recipe.toml", "--", "sh", "-c", script]).code, code, "{script}");
        }
        let missing = run(world, &["recipe.toml", "--", "no-such-program"]);
        assert_eq!(missing.code, 127, "{missing}");
        let text = ok(
            world,
            &["recipe.toml", "--env", "A=b", "--workdir", "/tmp", "--", "sh", "-c", "echo $A $PWD"],
        );
        assert_eq!(text, "b /tmp\n");
        assert_eq!(ok(world, &["recipe.toml", "--entrypoint", "echo", "--", "a", "b"]), "a b\n");
        let ends = run(world, &["recipe.toml", "--time", "1s", "--", "sleep", "100"]);
        assert!(ends.code == 137 && ends.stderr.contains("limit on time"), "{ends}");
        // Nothing that ran so is a result, and a run counts as a build.
        assert_eq!(world.build().ok().finished()["steps"].as_array().unwrap().len(), 1);
        world.assert_clean();
    });
}

#[test]
fn the_image_table_says_what_runs() {
    each_mode(|world| {
        world.recipe(&format!(
            "{RECIPE}\n[image]\nentrypoint = [\"echo\", \"one\"]\ncmd = [\"two\"]\nworkdir = \"/tmp\"\nenv = {{ A = \"b\" }}\n"
        ));
        assert_eq!(ok(world, &["recipe.toml"]), "one two\n");
        assert_eq!(ok(world, &["recipe.toml", "--", "three"]), "one three\n");
        let text = ok(world, &["recipe.toml", "--entrypoint", "sh", "--", "-c", "echo $A $PWD"]);
        assert_eq!(text, "b /tmp\n");
    });
}

#[test]
fn users_are_those_of_the_stack() {
    each_mode(|world| {
        world.recipe(RECIPE);
        let kim = run(world, &["recipe.toml", "--user", "kim", "--", "id", "-u"]);
        if world.mode.single {
            assert!(kim.code == 125 && kim.stderr.contains("/etc/subuid"), "{kim}");
            return;
        }
        assert_eq!(kim.stdout, "1000\n", "{kim}");
        assert_eq!(ok(world, &["recipe.toml", "--user", "7:8", "--", "sh", "-c", "id -u; id -g"]), "7\n8\n");
        // Nobody of the stack has the caller's id, but where sandboxes are root's.
        let caller = run(world, &["recipe.toml", "--user", "caller", "--", "true"]);
        assert_eq!(caller.code, if world.mode.uid == 0 { 0 } else { 2 }, "{caller}");
        for nobody in ["tom", "kim:nobody", "70000"] {
            assert_eq!(run(world, &["recipe.toml", "--user", nobody, "--", "true"]).code, 2, "{nobody}");
        }
    });
}

#[test]
fn a_read_only_root_is_one_and_memory_is_not() {
    each_mode(|world| {
        world.recipe(RECIPE);
        let script = "for at in / /etc /hello; do (echo x > $at/x || echo x >> $at) 2>/dev/null && echo wrote $at; done
            for at in /tmp /run /scratch; do echo x > $at/x && echo $at; done";
        let text =
            ok(world, &["recipe.toml", "--read-only", "--tmpfs", "/scratch", "--", "sh", "-c", script]);
        assert_eq!(text, "/tmp\n/run\n/scratch\n");
    });
}

#[test]
fn files_of_the_machine_are_shown_where_asked_and_keep_their_owner() {
    each_mode(|world| {
        world.recipe(RECIPE);
        let file = world.write("shown/file", "from outside\n");
        let shown = file.parent().unwrap();
        let bind = |rest: &str| format!("{}:{rest}", shown.display());
        let at = |rest: &str| bind(rest);
        assert_eq!(
            ok(world, &["recipe.toml", "--bind", &at("/w"), "--", "cat", "/w/file"]),
            "from outside\n"
        );
        assert_eq!(
            ok(world, &["recipe.toml", "-b", &at("/tmp/a/b"), "--", "cat", "/tmp/a/b/file"]),
            "from outside\n"
        );
        let one = format!("{}:/etc/passwd", file.display());
        assert_eq!(ok(world, &["recipe.toml", "--bind", &one, "--", "cat", "/etc/passwd"]), "from outside\n");

        // What `caller` makes is the caller's, in every mode.
        let make =
            ["recipe.toml", "--bind", &at("/w"), "--user", "caller", "--", "sh", "-c", "echo new > /w/new"];
        ok(world, &make);
        let new = std::fs::metadata(shown.join("new")).unwrap();
        assert_eq!((new.uid(), new.gid()), (world.mode.uid, world.mode.gid));
        // The sandbox's root may change the caller's files, whatever their mode.
        ok(
            world,
            &[
                "recipe.toml",
                "--bind",
                &at("/w"),
                "--",
                "sh",
                "-c",
                "chmod 600 /w/new && echo more >> /w/new",
            ],
        );
        assert_eq!(std::fs::read_to_string(shown.join("new")).unwrap(), "new\nmore\n");
    });
}

#[test]
fn read_only_binds_are_and_binds_go_nowhere_else() {
    each_mode(|world| {
        world.recipe(RECIPE);
        let file = world.write("shown/file", "as it was\n");
        let shown = file.parent().unwrap();
        world.write("shown/deep/er", "x");
        let bind = |rest: &str| format!("{}:{rest}", shown.display());
        let script =
            "(echo x > /w/file; echo x > /w/new; rm /w/file; mkdir /w/d; ln /w/file /w/l; chmod 777 /w/file;
             mount -o remount,rw /w; umount /w; mv /w/deep /w/moved) 2>/dev/null; cat /w/file";
        assert_eq!(
            ok(world, &["recipe.toml", "--bind", &bind("/w:ro"), "--", "sh", "-c", script]),
            "as it was\n"
        );
        let names = || std::fs::read_dir(shown).unwrap().count();
        assert_eq!(names(), 2);
        // A file that becomes set-user-id there gives nobody anything, and a device cannot be made.
        let script =
            "cp /bin/busybox /w/su && chmod 4755 /w/su; mknod /w/null c 1 3 2>/dev/null || echo no device
             grep ' /w ' /proc/self/mountinfo | grep -c nosuid,nodev";
        assert_eq!(
            ok(world, &["recipe.toml", "--bind", &bind("/w"), "--", "sh", "-c", script]),
            "no device\n1\n"
        );

        // A symlink of the stack leads to the stack, not to the machine; one to nowhere is an error.
        let refused = run(world, &["recipe.toml", "--bind", &bind("/link"), "--", "true"]);
        assert!(refused.code == 125, "{refused}");
        let refused = run(world, &["recipe.toml", "--bind", &bind("/link/deeper"), "--", "true"]);
        assert!(refused.code == 125, "{refused}");
        // Nothing is made in what is shown, to show something else in it.
        let inner = format!("{}:/w/made/there", file.display());
        let refused = run(world, &["recipe.toml", "-b", &bind("/w"), "-b", &inner, "--", "true"]);
        assert!(refused.code == 125 && refused.stderr.contains("no place for the mount"), "{refused}");
        assert!(!shown.join("made").exists());
        let inner = format!("{}:/w/deep/er", file.display());
        let text = ok(world, &["recipe.toml", "-b", &bind("/w"), "-b", &inner, "--", "cat", "/w/deep/er"]);
        assert_eq!(text, "as it was\n");
        for wrong in ["/", "/proc/x", "/dev/shm/x", "/sys", "relative"] {
            assert_eq!(run(world, &["recipe.toml", "--bind", &bind(wrong), "--", "true"]).code, 2, "{wrong}");
        }
        assert_eq!(run(world, &["recipe.toml", "--bind", "/no/such/place:/w", "--", "true"]).code, 2);
    });
}

#[test]
fn published_ports_lead_to_that_port_and_nothing_else_does() {
    each_mode(|world| {
        world.recipe(RECIPE);
        let script =
            "mkdir /tmp/www; head -c 3000000 /dev/zero > /tmp/www/big; echo web > /tmp/www/index.html
            httpd -p 127.0.0.1:8080 -h /tmp/www; httpd -p 127.0.0.1:8081 -h /tmp/www
            probe echo-datagrams 5353 & echo ready; wait; sleep 100";
        let mut running = start(
            world,
            &["recipe.toml", "-p", "0:8080", "-p", "0:5353/udp", "-p", "0:9999", "--", "sh", "-c", script],
            "ready",
        );
        let mut errors = BufReader::new(running.stderr.take().unwrap());
        let ports: Vec<u16> = (0..3)
            .map(|_| {
                let mut line = String::new();
                errors.read_line(&mut line).unwrap();
                let address = line.strip_prefix("published: 127.0.0.1:").unwrap();
                address.split(' ').next().unwrap().parse().unwrap()
            })
            .collect();
        let get = |port: u16, path: &str| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            // Nothing may listen behind the port: closed then, perhaps before this is written.
            let _ = write!(stream, "GET {path} HTTP/1.0\r\n\r\n");
            let mut text = Vec::new();
            let _ = stream.read_to_end(&mut text);
            text
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    assert!(get(ports[0], "/index.html").ends_with(b"web\n"));
                    assert!(get(ports[0], "/big").len() > 3_000_000);
                });
            }
        });
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut buffer = [0; 64];
        let deadline = Instant::now() + Duration::from_secs(10);
        let answer = loop {
            socket.send_to(b"datagram", ("127.0.0.1", ports[1])).unwrap();
            if let Ok(n) = socket.recv(&mut buffer) {
                break &buffer[..n];
            }
            assert!(Instant::now() < deadline, "no datagram came back");
        };
        assert_eq!(answer, b"datagram");
        // Nobody listens there: the connection ends, and no other is reached. The other server is not published.
        assert!(get(ports[2], "/index.html").is_empty());
        assert!(TcpStream::connect("127.0.0.1:8081").is_err());
        signal(&running, "TERM");
        assert_eq!(Run::from(running).code, 143);
        assert!(TcpStream::connect(("127.0.0.1", ports[0])).is_err());

        // No door to the machine: what listens here is not there.
        let outside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = outside.local_addr().unwrap().port().to_string();
        let look = format!("probe connect 127.0.0.1 {port} | grep -q ok && echo reached || echo closed");
        let args = ["recipe.toml", "-p", "0:80", "--", "sh", "-c", &look];
        assert_eq!(ok(world, &args), "closed\n");
        // But with the machine's own network, which has to be asked for.
        assert_eq!(ok(world, &["recipe.toml", "--network", "host", "--", "sh", "-c", &look]), "reached\n");
        for wrong in [["-p", "0.0.0.0:0:80"], ["-p", "80"], ["-p", "0:0"]] {
            assert_eq!(run(world, &[&["recipe.toml"], &wrong[..]].concat()).code, 2, "{wrong:?}");
        }
        assert_eq!(run(world, &["recipe.toml", "--network", "host", "-p", "0:80", "--", "true"]).code, 2);
        let taken = run(world, &["recipe.toml", "-p", &format!("{port}:80"), "--", "true"]);
        assert!(taken.code == 125 && taken.stderr.contains("hint:"), "{taken}");
    });
}

#[test]
fn signals_are_passed_on_and_nothing_is_left() {
    each_mode(|world| {
        world.recipe(RECIPE);
        ok(world, &["recipe.toml", "--", "true"]);
        let script =
            "trap 'echo user; exit 5' TERM; trap 'echo one' USR1; echo ready; while :; do sleep 0.05; done";
        let mut running = start(world, &["recipe.toml", "--", "sh", "-c", script], "ready");
        signal(&running, "USR1");
        let mut line = String::new();
        let mut out = BufReader::new(running.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "one\n");
        signal(&running, "TERM");
        assert_eq!(running.wait().unwrap().code(), Some(5));
        // The whole group of the command gets what a terminal would send.
        for (name, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
            let mut running =
                start(world, &["recipe.toml", "--", "sh", "-c", "echo ready; sleep 100; exit 3"], "ready");
            signal(&running, name);
            assert_eq!(running.wait().unwrap().code(), Some(128 + number), "{name}");
            world.assert_clean();
        }
        // One that takes no notice is killed by the third.
        let script = "trap '' TERM INT; echo ready; while :; do sleep 0.05; done";
        let mut running = start(world, &["recipe.toml", "--", "sh", "-c", script], "ready");
        for _ in 0..3 {
            signal(&running, "TERM");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(running.wait().unwrap().code(), Some(137));
        world.assert_clean();
    });
}

#[test]
fn a_killed_isolith_takes_its_sandbox_with_it() {
    each_mode(|world| {
        world.recipe(RECIPE);
        let args = ["recipe.toml", "-p", "0:80", "--", "sh", "-c", "echo ready; sleep 100"];
        let mut running = start(world, &args, "ready");
        signal(&running, "KILL");
        running.wait().unwrap();
        // The next one sweeps up its directory.
        ok(world, &["recipe.toml", "--", "true"]);
        world.assert_clean();
    });
}

/// How many layers the store has.
fn layers(world: &World) -> usize {
    let shards = std::fs::read_dir(world.store().join("layers")).unwrap();
    shards.map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap().count()).sum()
}

#[test]
fn several_at_once_mount_the_same_layers_and_copy_none() {
    each_mode(|world| {
        world.recipe(RECIPE);
        let finished = world.build().ok().finished().clone();
        let stack: Vec<&str> =
            finished["stack"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        assert_eq!(stack.len(), 2, "the base and what the step wrote");
        let before = layers(world);
        let script =
            "sed -n 's,^[^ ]* [^ ]* [^ ]* / / ,,p' /proc/self/mountinfo; echo $0 > /mine; cat; cat /mine";
        let store = world.store();
        let mut all: Vec<_> = (0..3)
            .map(|n| {
                let mut command = world.command();
                let name = n.to_string();
                command.args([
                    "run",
                    "--store",
                    store.to_str().unwrap(),
                    "recipe.toml",
                    "--",
                    "sh",
                    "-c",
                    script,
                    &name,
                ]);
                command.stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = command.spawn().unwrap();
                let mut out = BufReader::new(child.stdout.take().unwrap());
                let mut root = String::new();
                out.read_line(&mut root).unwrap();
                (child, out, root)
            })
            .collect();
        // All of them are running now.
        assert_eq!(layers(world), before);
        for (n, (child, out, root)) in all.iter_mut().enumerate() {
            for id in &stack {
                assert!(root.contains(&format!("lowerdir+=../../layers/{}/{id}/fs", &id[..2])), "{root}");
            }
            drop(child.stdin.take());
            let mut rest = String::new();
            out.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, format!("{n}\n"), "each has a writable layer of its own");
            assert!(child.wait().unwrap().success());
        }
        assert!(
            all.iter().all(|(_, _, root)| *root == all[0].2),
            "{:?}",
            all.iter().map(|run| &run.2).collect::<Vec<_>>()
        );
        assert_eq!(layers(world), before);
        world.assert_clean();
    });
}

#[test]
fn limits_hold_or_the_run_is_refused() {
    // A fifth of a cpu: the loop takes some, and the wall clock five times that.
    let clock = "now() { cut -d ' ' -f 1 /proc/uptime; }; a=$(now); i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done
        b=$(now); echo $a $b $(cut -d ' ' -f 14,15 /proc/$$/stat) $JOBS; exit 1";
    let cases = [
        ("--memory", "16MiB", "head -c 100000000 /dev/zero | tail -n 1 > /dev/null; exit 1"),
        ("--pids", "5", "for i in 1 2 3 4 5 6 7 8; do sleep 0.2 & done; wait; exit 1"),
        ("--cpus", "0.2", clock),
    ];
    each_mode(|world| {
        world.recipe(RECIPE);
        ok(world, &["recipe.toml", "--", "true"]);
        for (flag, most, script) in cases {
            let over = run(world, &["recipe.toml", flag, most, "--", "sh", "-c", script]);
            if over.stderr.contains("cannot be kept") {
                // Refused, with the way to get it; as root it works almost anywhere.
                assert!(
                    over.code == 125 && over.stderr.contains("hint:") && over.stdout.is_empty(),
                    "{over}"
                );
                let limits = Limits { memory: Some(1), pids: Some(1), cpus: Some(1.0), ..Limits::default() };
                let here = cgroup::plan(&limits);
                assert!(world.mode.uid != 0 || matches!(here, cgroup::Plan::Impossible { .. }), "{over}");
                continue;
            }
            if flag != "--cpus" {
                assert!(over.code != 0, "{flag} ({}): {over}", world.mode.name);
                assert!(over.stderr.contains(&format!("limit on {}", &flag[2..6])), "{flag}: {over}");
                continue;
            }
            assert_eq!(over.code, 1, "{flag} ({}): {over}", world.mode.name);
            let numbers: Vec<f64> =
                over.stdout.split_whitespace().map(|number| number.parse().unwrap()).collect();
            let (wall, used) = (numbers[1] - numbers[0], (numbers[2] + numbers[3]) / 100.0);
            assert!(used > 0.05 && used < wall * 0.35, "{used} s of cpu in {wall} s");
            assert_eq!(numbers[4], 1.0, "no more jobs than cpus");
        }
        // One that is far away is in nobody's way.
        for (flag, most) in [("--time", "1h"), ("--disk", "1GiB")] {
            ok(world, &["recipe.toml", flag, most, "--", "true"]);
        }
        let full = run(
            world,
            &["recipe.toml", "--disk", "1MiB", "--", "sh", "-c", "head -c 9000000 /dev/zero > /x; sleep 60"],
        );
        assert!(full.code == 137 && full.stderr.contains("limit on disk"), "{full}");
        for wrong in
            [["--memory", "lots"], ["--cpus", "0"], ["--cpus", "NaN"], ["--pids", "0"], ["--time", "soon"]]
        {
            assert_eq!(run(world, &[&["recipe.toml"], &wrong[..]].concat()).code, 2, "{wrong:?}");
        }
        world.assert_clean();
    });
}

#[test]
fn the_name_of_an_image_alone_gets_a_hint() {
    let world = World::new(common::modes()[0]);
    for name in ["debian:12", "alpine", "docker.io/library/debian:12", "127.0.0.1:5000/app@sha256:00"] {
        let wrong = run(&world, &[name, "--", "true"]);
        assert_eq!(wrong.code, 2, "{name}: {wrong}");
        for word in
            ["there is no recipe", "oci://HOST/REPOSITORY:TAG", "oci-layout:DIR", "docker-archive:FILE"]
        {
            assert!(wrong.stderr.contains(word), "{name}: no `{word}` in {wrong}");
        }
    }
    let missing = run(&world, &["recipe.toml", "--", "true"]);
    assert!(missing.code != 0 && !missing.stderr.contains("oci://"), "{missing}");
}

#[test]
fn input_is_passed_through_and_several_share_what_is_below() {
    each_mode(|world| {
        world.recipe(RECIPE);
        ok(world, &["recipe.toml", "--", "true"]);
        let store = world.store();
        let mut children: Vec<_> = (0..4)
            .map(|n| {
                let mut command = world.command();
                let script =
                    format!("cat > /mine; echo {n} >> /hello; cat /hello | tr '\\n' ' '; wc -c < /mine");
                command.args([
                    "run",
                    "--store",
                    store.to_str().unwrap(),
                    "recipe.toml",
                    "--",
                    "sh",
                    "-c",
                    &script,
                ]);
                command.stdin(Stdio::piped()).stdout(Stdio::piped());
                command.spawn().unwrap()
            })
            .collect();
        for child in &mut children {
            child.stdin.take().unwrap().write_all(&[b'x'; 100_000]).unwrap();
        }
        for (n, child) in children.into_iter().enumerate() {
            let output = child.wait_with_output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("hello {n} 100000\n"));
        }
    });
}

#[test]
fn images_run_as_they_say_themselves() {
    each_mode(|world| {
        // Without a range there is one id only.
        let (user, uid) = if world.mode.single { ("0", "0") } else { ("kim", "7") };
        world.recipe(&format!(
            "[[step]]\nname = \"only\"\nrun = \"mkdir /app; echo inside > /app/file; echo 'kim:x:7:8::/:/bin/sh' > /etc/passwd\"\n\
             [image]\nentrypoint = [\"/bin/sh\", \"-c\"]\ncmd = [\"cat file; echo $GREETING; id -u\"]\n\
             workdir = \"/app\"\nuser = \"{user}\"\nenv = {{ GREETING = \"hello\" }}\n",
        ));
        let store = world.store();
        let export = |target: &str| {
            let done = world.isolith(&["export", "--store", store.to_str().unwrap(), "recipe.toml", target]);
            assert_eq!(done.code, 0, "{done}");
        };
        export("oci-layout:layout:v1");
        export("docker-archive:saved.tar:app:v1");
        std::fs::remove_file(world.path("work/recipe.toml")).unwrap();
        for image in ["oci-layout:layout:v1", "oci-layout:layout", "docker-archive:saved.tar:app:v1"] {
            assert_eq!(ok(world, &[image]), format!("inside\nhello\n{uid}\n"), "{image}");
        }
        let other = ["oci-layout:layout", "--user", "0", "--env", "GREETING=you", "--entrypoint", "/bin/sh"];
        let ran = ok(world, &[&other[..], &["--", "-c", "echo $GREETING; id -u; pwd"]].concat());
        assert_eq!(ran, "you\n0\n/app\n");
        for (image, code, with) in [
            ("oci-layout:none", 2, "No such file"),
            ("oci-layout:layout:v2", 3, "no image of the name `v2`"),
            ("oci://", 2, "invalid value"),
        ] {
            let wrong = run(world, &[image]);
            assert!(wrong.code == code && wrong.stderr.contains(with), "{image}: {wrong}");
        }
        let locked = run(world, &["oci-layout:layout", "--locked"]);
        assert!(locked.code == 2 && locked.stderr.contains("neither arguments nor a lock file"), "{locked}");
        // No file beside the image says that it was looked at.
        let beside = std::fs::read_dir(world.path("work")).unwrap().count();
        assert_eq!(beside, 2, "the layout and the archive");
        world.assert_clean();
    });
}
