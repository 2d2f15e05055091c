//! How sandboxes begin and end.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use isolith::sandbox::{Executor, Limits, Status};
use isolith::sys::process;

use super::{Fixture, output, run, stdio};

/// Processes of the machine with this word in their command line.
fn processes_with(word: &str) -> usize {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|e| e.file_name().to_str() != Some(&own))
        .filter(|e| {
            let line = fs::read(e.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(word)
        })
        .count()
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An argument that no other process has.
fn word(tag: &str) -> String {
    format!("{tag}{}", std::process::id())
}

/// A script that starts two processes which run for ever and carry the word.
fn endless(word: &str) -> String {
    format!(
        "(exec sh -c 'while :; do sleep 1; done' {word}) & trap '' TERM; sh -c 'while :; do sleep 1; done' {word}"
    )
}

pub fn kill_ends_everything(f: &Fixture) {
    let executor = f.executor();
    let word = word("kill");
    let (stdio, _read) = stdio();
    let sandbox = executor.spawn(&f.script(&endless(&word)), stdio).unwrap();
    until("the start", || processes_with(&word) >= 2);
    let killer = sandbox.killer();
    let begin = Instant::now();
    std::thread::scope(|s| {
        s.spawn(|| killer.kill());
        let outcome = sandbox.wait().unwrap();
        assert_eq!((outcome.status, outcome.limit), (Status::Signaled(9), None));
    });
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(processes_with(&word), 0);
    killer.kill();
}

pub fn time_limit(f: &Fixture) {
    let executor = f.executor();
    let mut spec = f.script("while :; do :; done");
    spec.limits = Limits { time: Some(1), ..Limits::default() };
    let begin = Instant::now();
    let outcome = run_detached(&executor, &spec);
    assert_eq!((outcome.status, outcome.limit), (Status::Signaled(9), Some("time")));
    assert!((1.0..5.0).contains(&begin.elapsed().as_secs_f64()));
    let mut spec = f.script("true");
    spec.limits = Limits { time: Some(60), disk: Some(1 << 20), ..Limits::default() };
    let outcome = run_detached(&executor, &spec);
    assert_eq!((outcome.status, outcome.limit), (Status::Exited(0), None));
}

/// Without reading its output, which a limit would have to end first.
fn run_detached(executor: &Executor, spec: &isolith::sandbox::SandboxSpec) -> isolith::sandbox::Outcome {
    let (stdio, _read) = stdio();
    executor.spawn(spec, stdio).unwrap().wait().unwrap()
}

pub fn disk_limit(f: &Fixture) {
    let mut spec = f.script("dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null; sleep 60");
    spec.limits = Limits { disk: Some(8 << 20), ..Limits::default() };
    let begin = Instant::now();
    let outcome = run_detached(&f.executor(), &spec);
    assert_eq!((outcome.status, outcome.limit), (Status::Signaled(9), Some("disk")));
    assert!(begin.elapsed() < Duration::from_secs(30));
}

pub fn memory_limit(f: &Fixture) {
    use isolith::sandbox::cgroup::{Plan, plan};
    let limits = Limits { memory: Some(32 << 20), ..Limits::default() };
    if matches!(plan(&limits), Plan::Impossible { .. }) {
        println!("skipped: memory cannot be limited here");
        return;
    }
    let mut spec = f.script("x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}");
    spec.limits = limits;
    let outcome = run_detached(&f.executor(), &spec);
    assert_eq!(outcome.limit, Some("memory"), "{outcome:?}");
    assert_ne!(outcome.status, Status::Exited(0));
    let mut spec = f.script("true");
    spec.limits = Limits { pids: Some(50), memory: Some(64 << 20), ..Limits::default() };
    assert_eq!(run_detached(&f.executor(), &spec).limit, None);
}

pub fn missing_programs(f: &Fixture) {
    let executor = f.executor();
    let layer = f.layer(1, &[("plain", "text")]);
    for (program, code, message) in [
        ("no-such", 127, "isolith: cannot run `no-such`: No such file or directory (os error 2)\n"),
        ("/no/such", 127, "isolith: cannot run `/no/such`: No such file or directory (os error 2)\n"),
        ("/plain", 126, "isolith: cannot run `/plain`: Permission denied (os error 13)\n"),
    ] {
        let mut spec = f.spec(&[program]);
        spec.layers.push(layer);
        let (outcome, text) = run(&executor, &spec);
        assert_eq!((outcome.unwrap().status, text.as_str()), (Status::Exited(code), message));
    }
    assert_eq!(run(&executor, &f.spec(&["echo", "by", "PATH"])).1, "by PATH\n");
    let (outcome, _) = run(&executor, &f.script("kill -TERM $$"));
    assert_eq!(outcome.unwrap().status, Status::Signaled(15));
}

pub fn the_rest_dies_with_the_command(f: &Fixture) {
    let executor = f.executor();
    let word = word("rest");
    let script = format!(
        "(exec sh -c 'while :; do sleep 1; done' {word}) & for i in 1 2 3; do (true &) ; done; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"
    );
    let (stdio, read) = stdio();
    let outcome = executor.spawn(&f.script(&script), stdio).unwrap().wait().unwrap();
    assert_eq!(outcome.status, Status::Exited(0));
    assert!(outcome.usage.user_us > 0 && outcome.usage.max_rss > 100_000, "{outcome:?}");
    assert_eq!(processes_with(&word), 0);
    let mut text = String::new();
    fs::File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!(text, "", "the pipe is closed");
}

/// The executor is the child of this process with the name `init`.
fn executor_pid() -> i32 {
    let own = std::process::id();
    let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

pub fn executor_death_leaves_nothing(f: &Fixture) {
    let executor = f.executor();
    let word = word("exec");
    let (stdio, _read) = stdio();
    let sandbox = executor.spawn(&f.script(&endless(&word)), stdio).unwrap();
    until("the start", || processes_with(&word) >= 2);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(executor_pid()), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let e = sandbox.wait().unwrap_err();
    assert!(e.to_string().contains("without a word"), "{e:?}");
    assert_eq!(processes_with(&word), 0);
    let (stdio, _read) = super::stdio();
    assert!(executor.spawn(&f.script("true"), stdio).err().unwrap().to_string().contains("gone"));
}

pub fn main_death_leaves_nothing(f: &Fixture) {
    let word = word("main");
    // Another process plays isolith.
    let Some(main) = process::fork().unwrap() else {
        let executor = f.executor();
        let (stdio, _read) = stdio();
        let _sandbox = executor.spawn(&f.script(&endless(&word)), stdio).unwrap();
        std::thread::sleep(Duration::from_secs(60));
        process::exit(1);
    };
    until("the start", || processes_with(&word) >= 2);
    let children = fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap();
    let executor: i32 = children.split_whitespace().next().unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(main), nix::sys::signal::Signal::SIGKILL).unwrap();
    process::wait(main, true).unwrap();
    until("the end of all processes", || processes_with(&word) == 0);
    until("the end of the executor", || {
        fs::read_to_string(format!("/proc/{executor}/stat")).map_or(true, |stat| stat.contains(") Z "))
    });
}

pub fn drop_leaves_nothing(f: &Fixture) {
    let word = word("drop");
    let executor = f.executor();
    let (stdio_a, _read) = stdio();
    let sandbox = executor.spawn(&f.script(&endless(&word)), stdio_a).unwrap();
    until("the start", || processes_with(&word) >= 2);
    drop(sandbox);
    assert_eq!(processes_with(&word), 0);
    let (stdio_b, _read) = stdio();
    let sandbox = executor.spawn(&f.script(&endless(&word)), stdio_b).unwrap();
    until("the start", || processes_with(&word) >= 2);
    drop(executor);
    assert_eq!(processes_with(&word), 0, "the executor outlived its handle or left an init");
    assert!(sandbox.wait().is_err());
    assert_eq!(process::wait(-1, false).unwrap(), None, "a zombie");
}

pub fn set_up_failure_is_an_error(f: &Fixture) {
    let executor = f.executor();
    let spec = f.script("true");
    fs::remove_dir(f.upper(&spec)).unwrap();
    let e = run(&executor, &spec).0.unwrap_err();
    assert!(e.to_string().contains("fsconfig(\"overlay\"") && e.to_string().contains("os error"), "{e:?}");
    let mut spec = f.script("true");
    spec.layers.push(isolith::digest::LayerId::from_bytes([9; 32]));
    let e = run(&executor, &spec).0.unwrap_err();
    assert!(e.to_string().contains("0909"), "a missing layer is named: {e:?}");
    let mut spec = f.script("true");
    spec.run = "../x".into();
    assert!(run(&executor, &spec).0.unwrap_err().to_string().contains("leaves the store"));
    output(f, &executor, "true");
}

pub fn many_at_once(f: &Fixture) {
    let executor = f.executor();
    let specs: Vec<_> = (0..8)
        .map(|t| {
            (0..8).map(|n| f.script(&format!("echo {t}.{n}; echo x > /{t}.{n}; ls /tmp"))).collect::<Vec<_>>()
        })
        .collect();
    let executor = &executor;
    std::thread::scope(|s| {
        for (t, specs) in specs.iter().enumerate() {
            s.spawn(move || {
                for (n, spec) in specs.iter().enumerate() {
                    let (outcome, text) = run(executor, spec);
                    assert_eq!((outcome.unwrap().status, text), (Status::Exited(0), format!("{t}.{n}\n")));
                    assert!(f.upper(spec).join(format!("{t}.{n}")).exists());
                }
            });
        }
    });
}

pub fn interactive_has_a_terminal(f: &Fixture) {
    let executor = f.executor();
    let pty = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
    rustix::pty::unlockpt(&pty).unwrap();
    let name = rustix::pty::ptsname(&pty, vec![]).unwrap();
    let open =
        || OwnedFd::from(fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap());
    let mut spec =
        f.script("read line; [ -t 0 ] && echo terminal; echo to-tty > /dev/tty; echo got $line $TERM");
    let env = vec![("TERM".into(), "xterm-256color".into())];
    spec.extras = Some(isolith::sandbox::Extras { env, ..Default::default() });
    let sandbox = executor.spawn(&spec, [open(), open(), open()]).unwrap();
    let mut pty = fs::File::from(pty);
    pty.write_all(b"typed\n").unwrap();
    assert_eq!(sandbox.wait().unwrap().status, Status::Exited(0));
    // It gives an error when all has been read and nobody has the other end open.
    let (mut text, mut buf) = (Vec::new(), [0; 4096]);
    while let Ok(len @ 1..) = pty.read(&mut buf) {
        text.extend_from_slice(&buf[..len]);
    }
    let text = String::from_utf8_lossy(&text).replace('\r', "");
    assert!(text.contains("terminal\nto-tty\ngot typed xterm-256color\n"), "{text}");
}

pub fn caller_limits_do_not_matter(f: &Fixture) {
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
    use nix::sys::stat::{Mode, umask};
    umask(Mode::from_bits_truncate(0o077));
    setrlimit(Resource::RLIMIT_NOFILE, 512, 5000).unwrap();
    setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
    // SAFETY: ignoring a signal installs no code.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }.unwrap();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), None).unwrap();
    let script = "umask; ulimit -n; ulimit -Hn; grep -E '^Sig(Blk|Ign)' /proc/self/status; yes | head -1";
    let expected = "0022\n1024\n4096\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\ny\n";
    assert_eq!(output(f, &f.executor(), script), expected);
    // Too low a hard limit: root may raise its own, nobody else.
    setrlimit(Resource::RLIMIT_NOFILE, 500, 500).unwrap();
    let executor = Executor::start(&f.store, f.ids).unwrap();
    match run(&executor, &f.script(script)) {
        (Ok(_), got) => assert_eq!(got, expected),
        (Err(e), _) => assert!(e.to_string().contains("ulimit -n") && e.hint_text().is_some(), "{e:?}"),
    }
}

pub fn needs_one_thread(f: &Fixture) {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || stopped.recv().is_err());
    let e = Executor::start(&f.store, f.ids).err().unwrap();
    assert!(e.to_string().contains("thread"), "{e:?}");
    drop(stop);
    assert!(thread.join().unwrap());
}
