//! What a person at a terminal gets: a shell of their own, and a build that moves.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::World;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// A terminal of our own with the program on the other end.
struct Terminal {
    master: File,
    child: std::process::Child,
    /// What is not yet expected.
    seen: String,
    /// Everything that was on the screen.
    all: String,
}

impl Terminal {
    fn start(world: &World, args: &[&str]) -> Terminal {
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
        Terminal { master: File::from(master), child, seen: String::new(), all: String::new() }
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
                let text = String::from_utf8_lossy(&buffer[..n]);
                self.seen += &text;
                self.all += &text;
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
    world.recipe("[[step]]\nname = \"only\"\nrun = \"true\"\n");
    let mut terminal = Terminal::start(&world, &["shell", "recipe.toml"]);
    terminal.expect("# ");
    assert!(terminal.is_raw());
    terminal.send("test -t 0 && test -t 1 && test -t 2 && echo ter''minal $TERM\n");
    terminal.expect("terminal xterm");
    terminal.send("stty size\n");
    terminal.expect("33 101");

    let size = Winsize { ws_row: 44, ws_col: 111, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal.master, size).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    terminal.send("stty size\n");
    terminal.expect("44 111");

    // Ctrl-C is the command's: it ends the sleep and neither the shell nor isolith.
    terminal.send("sleep 1000\n");
    terminal.expect("1000");
    std::thread::sleep(Duration::from_millis(200));
    terminal.send("\x03");
    terminal.expect("# ");
    terminal.send("echo still''here; exit 9\n");
    terminal.expect("stillhere");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(9));
    assert!(!terminal.is_raw(), "the terminal was left in raw mode");
    world.assert_clean();
}

#[test]
fn a_run_has_the_terminal() {
    let world = World::new(common::modes()[0]);
    world.recipe("[[step]]\nname = \"only\"\nrun = \"true\"\n");
    // Long enough that a build would show while nothing is raw.
    let mut terminal = Terminal::start(&world, &["run", "recipe.toml", "--env", "PS1=go> "]);
    terminal.expect("go> ");
    assert!(terminal.is_raw());
    terminal.send("test -t 0 && test -t 1 && test -t 2 && echo ter''minal $TERM\n");
    terminal.expect("terminal xterm");
    let size = Winsize { ws_row: 44, ws_col: 111, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal.master, size).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    terminal.send("stty size\n");
    terminal.expect("44 111");
    // Every prompt is waited for: Ctrl-D is only one where the shell reads.
    terminal.expect("go> ");
    // Ctrl-C is the command's; Ctrl-D ends the shell.
    terminal.send("sleep 1000\n");
    std::thread::sleep(Duration::from_millis(300));
    terminal.send("\x03");
    terminal.expect("go> ");
    terminal.send("(exit 9)\n");
    terminal.expect("go> ");
    terminal.send("\x04");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(9));
    assert!(!terminal.is_raw(), "the terminal was left in raw mode");
    world.assert_clean();

    // A terminal that goes away takes the command with it, and killed in the middle nothing stays.
    let mut terminal =
        Terminal::start(&world, &["run", "recipe.toml", "--", "sh", "-c", "echo up; sleep 1000"]);
    terminal.expect("up");
    drop(terminal.master);
    assert!(!terminal.child.wait().unwrap().success());
    world.assert_clean();
}

#[test]
fn a_build_moves_and_cleans_up_after_itself() {
    let world = World::new(common::modes()[0]);
    world.recipe(
        "[[step]]\nname = \"slow\"\nrun = \"printf '\\\\033[31mred\\\\033[2J\\\\n'; sleep 1\"\n\
         [[step]]\nname = \"quick\"\nrun = \"echo x > /x\"\n",
    );
    let mut terminal = Terminal::start(&world, &["build", "recipe.toml"]);
    terminal.expect("0/2 steps");
    // The last log line stands behind the step, and cannot clear the screen.
    terminal.expect("slow 0s red ");
    terminal.expect("executed\u{1b}[0m slow in 1.");
    terminal.expect("executed\u{1b}[0m quick");
    terminal.expect("2 executed, 0 hits, 0 cutoff hits");
    assert!(!terminal.all.contains("\u{1b}[2J"), "{:?}", terminal.all);
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));

    // Nothing to do: two lines and the summary, no bars.
    let mut terminal = Terminal::start(&world, &["build", "recipe.toml", "--color", "never"]);
    terminal.expect("0 executed, 2 hits, 0 cutoff hits\r\n");
    assert_eq!(terminal.all.lines().count(), 3, "{:?}", terminal.all);
    assert!(!terminal.all.contains('\u{1b}'), "{:?}", terminal.all);
}
