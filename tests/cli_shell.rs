//! `shell`: a command in a step's sandbox, with pipes and with a terminal.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Run, World, each_mode};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

const RECIPE: &str = r#"
[[step]]
name = "first"
run  = "echo one > /one"
[[step]]
name = "second"
run  = "echo two > /two; test ! -e /break"
"#;

fn shell(world: &World, args: &[&str]) -> Run {
    let store = world.store();
    world.isolith(&[&["shell", "--store", store.to_str().unwrap()], args].concat())
}

#[test]
fn before_and_after_a_step() {
    each_mode(|world| {
        world.recipe(RECIPE);
        // What is missing below is built first.
        let run = shell(world, &["recipe.toml", "--", "ls", "-1", "/"]);
        assert_eq!(run.code, 0, "{run}");
        let names: Vec<&str> = run.stdout.lines().collect();
        assert!(names.contains(&"one") && !names.contains(&"two"), "{run}");

        let run = shell(world, &["recipe.toml:second", "--after", "--", "cat", "/two"]);
        assert_eq!(run.code, 2, "it has not run: {run}");
        let store = world.store();
        assert_eq!(world.isolith(&["build", "recipe.toml", "--store", store.to_str().unwrap()]).code, 0);
        let run = shell(world, &["recipe.toml:second", "--after", "--", "cat", "/one", "/two"]);
        assert_eq!((run.code, run.stdout.as_str()), (0, "one\ntwo\n"), "{run}");
        world.assert_clean();
    });
}

#[test]
fn after_a_failure_the_very_state_is_there() {
    each_mode(|world| {
        world.recipe("[[step]]\nname = \"breaks\"\nrun = \"echo half > /half; false\"\n");
        let store = world.store();
        assert_eq!(world.isolith(&["build", "recipe.toml", "--store", store.to_str().unwrap()]).code, 1);
        let run = shell(world, &["recipe.toml:breaks", "--after", "--", "cat", "/half"]);
        assert_eq!((run.code, run.stdout.as_str()), (0, "half\n"), "{run}");
    });
}

#[test]
fn the_status_of_the_command_is_the_exit_code() {
    each_mode(|world| {
        world.recipe(RECIPE);
        for (script, code) in [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", 137)] {
            let run = shell(world, &["recipe.toml", "--", "sh", "-c", script]);
            assert_eq!(run.code, code, "{script}: {run}");
        }
    });
}

#[test]
fn what_is_written_is_thrown_away() {
    each_mode(|world| {
        world.recipe(RECIPE);
        assert_eq!(shell(world, &["recipe.toml", "--", "touch", "/break"]).code, 0);
        let run = shell(world, &["recipe.toml", "--", "test", "-e", "/break"]);
        assert_eq!(run.code, 1, "{run}");
        let store = world.store();
        let run = world.isolith(&["build", "recipe.toml", "--store", store.to_str().unwrap()]);
        assert_eq!(run.code, 0, "the shell reached the build: {run}");
    });
}

#[test]
fn standard_input_is_passed_through() {
    each_mode(|world| {
        world.recipe(RECIPE);
        let store = world.store();
        let mut command = world.command();
        command.args(["shell", "--store", store.to_str().unwrap(), "recipe.toml", "--", "wc", "-c"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&[b'x'; 100_000]).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "100000");
    });
}

/// A terminal of our own with the program on the other end.
struct Session {
    master: File,
    child: std::process::Child,
    seen: String,
}

impl Session {
    fn start(world: &World, args: &[&str]) -> Session {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = || File::options().read(true).write(true).open(&name).unwrap();
        let size = Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        // util-linux: makes the slave the controlling terminal, as a terminal emulator does.
        let mut command = world.command();
        command.args(args).args(["--store", world.store().to_str().unwrap()]);
        let mut session = std::process::Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        session.env_clear().env("TERM", "xterm");
        session.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        session.current_dir(command.get_current_dir().unwrap());
        session.stdin(slave()).stdout(slave()).stderr(slave());
        let child = session.spawn().unwrap();
        Session { master: File::from(master), child, seen: String::new() }
    }

    fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until `what` is on the screen.
    fn expect(&mut self, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.seen.contains(what) {
            assert!(Instant::now() < deadline, "no {what:?} in {:?}", self.seen);
            let mut fds = [rustix::event::PollFd::new(&self.master, rustix::event::PollFlags::IN)];
            let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            if rustix::event::poll(&mut fds, Some(&wait)).unwrap() == 1 {
                let mut buffer = [0; 4096];
                let n = self.master.read(&mut buffer).unwrap_or(0);
                assert!(n > 0, "the program is gone; no {what:?} in {:?}", self.seen);
                self.seen += &String::from_utf8_lossy(&buffer[..n]);
            }
        }
        self.seen = self.seen.split_once(what).unwrap().1.to_owned();
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.master).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }
}

#[test]
fn a_terminal_is_relayed() {
    // As root only: `setsid` would have to run as the world's user to own the terminal.
    let world = World::new(common::modes()[0]);
    world.recipe(RECIPE);
    let mut session = Session::start(&world, &["shell", "recipe.toml"]);
    session.expect("# ");
    assert!(session.is_raw());
    session.send("test -t 0 && test -t 1 && test -t 2 && echo ter''minal $TERM\n");
    session.expect("terminal xterm");
    session.send("stty size\n");
    session.expect("33 101");

    let size = Winsize { ws_row: 44, ws_col: 111, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&session.master, size).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    session.send("stty size\n");
    session.expect("44 111");

    // Ctrl-C is the command's: it ends the sleep and neither the shell nor isolith.
    session.send("sleep 1000\n");
    session.expect("1000");
    std::thread::sleep(Duration::from_millis(200));
    session.send("\x03");
    session.expect("# ");
    session.send("echo still''here; exit 9\n");
    session.expect("stillhere");
    assert_eq!(session.child.wait().unwrap().code(), Some(9));
    assert!(!session.is_raw(), "the terminal was left in raw mode");
    world.assert_clean();
}
