//! Time and memory of the whole program on hostile archives and servers, and what it leaves behind.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use crate::common::{World, modes};
use crate::hostile;
use crate::server::{Server, head, ok, redirect};

/// Seconds that one build may take.
const LONGEST: f64 = 10.0;
/// MiB that one may have resident at most: what is read streams, and no header gets the memory that it asks for.
const LARGEST: u64 = 64;

/// Runs commands, one a line, and tells of each: exit code, seconds, peak of resident memory in KiB, standard error.
const MEASURE: &str = "
import json, os, sys, tempfile, time
for line in sys.stdin:
    args = json.loads(line)
    with tempfile.TemporaryFile() as err:
        start, pid = time.monotonic(), os.fork()
        if pid == 0:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0), os.dup2(null, 1), os.dup2(err.fileno(), 2)
            os.execv(args[0], args)
        status, usage = os.wait4(pid, 0)[1:]
        seconds = time.monotonic() - start
        err.seek(0)
        text = err.read().decode()
    print(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss, text]), flush=True)
";

/// What came of one build.
type Outcome = (i32, f64, u64, String);

fn measured(world: &World, recipes: &[String]) -> Vec<Outcome> {
    let (program, store) = (env!("CARGO_BIN_EXE_isolith"), world.store());
    let mut python = Command::new("python3");
    python.args(["-c", MEASURE]).current_dir(world.path("work"));
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for recipe in recipes {
        let args = [program, "build", recipe, "--locked", "--store", store.to_str().unwrap()];
        writeln!(stdin, "{}", serde_json::to_string(&args).unwrap()).unwrap();
    }
    drop(stdin);
    let out = child.wait_with_output().unwrap();
    let outcomes: Vec<Outcome> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(outcomes.len(), recipes.len());
    outcomes
}

/// A recipe whose only source is what `url` gives.
fn recipe(world: &World, name: &str, url: &str, bytes: &[u8], how: &str) -> String {
    let sha256: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let file = format!("{name}.toml");
    world.write(
        &file,
        &format!(
            "name = \"x\"\nbase = {{ scratch = true }}\n[sources.src]\nurl = {url:?}\nsha256 = \"{sha256}\"\n{how}\n\
             [outputs.default]\nfrom = \"/src\"\n"
        ),
    );
    file
}

/// All failed with a message of ours, soon, in little memory, and left nothing.
fn check(world: &World, what: &[&str], outcomes: &[Outcome]) {
    let mut most = (0, "");
    for (what, (code, seconds, kib, text)) in what.iter().zip(outcomes) {
        assert!(matches!(code, 3 | 125), "{what}: {code} {text}");
        assert!(
            text.lines().any(|line| line.starts_with("error: ")) && text.contains("`src`"),
            "{what}: {text}"
        );
        assert!(!text.contains("panicked") && text.len() < 8000, "{what}: {text}");
        assert!(*seconds < LONGEST, "{what}: {seconds} s");
        assert!(*kib < LARGEST << 10, "{what}: {kib} KiB");
        most = most.max((*kib, what));
    }
    assert_eq!(std::fs::read_dir(world.store().join("tmp")).unwrap().count(), 0);
    assert!(!Path::new("/tmp/isolith-evil").exists());
    eprintln!("at most {} KiB, for {}", most.0, most.1);
}

fn world() -> World {
    // No step runs: any user will do.
    let world = World::new(modes()[0]);
    world.write(
        "isolith.toml",
        "unpack-max-size = 4194304\nunpack-max-entries = 1000\nfetch-max-size = 2097152\n",
    );
    world
}

#[test]
fn archives_take_little_of_the_machine() {
    let (world, cases) = (world(), hostile::cases());
    let mut recipes = Vec::new();
    for (at, (_, bytes)) in cases.iter().enumerate() {
        let path = world.path("work").join(format!("{at}.bin"));
        std::fs::write(&path, bytes).unwrap();
        let url = format!("file://{}", path.display());
        recipes.push(recipe(&world, &at.to_string(), &url, bytes, "unpack = \"/src\""));
    }
    let names: Vec<&str> = cases.iter().map(|(name, _)| *name).collect();
    check(&world, &names, &measured(&world, &recipes));
    // A layer may be missing where there is nothing to unpack; none may be of a hostile archive.
    assert_eq!(std::fs::read_dir(world.store().join("layers")).unwrap().count(), 0);
}

#[test]
fn servers_take_little_of_the_machine() {
    let world = world();
    let servers: Vec<(&str, Server)> = vec![
        ("never ends", Server::without_end()),
        ("never ends its headers", Server::of_headers()),
        (
            "one endless header",
            Server::new(|_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\nX: ")?;
                for _ in 0..10_000 {
                    stream.write_all(&[b'y'; 10_000])?;
                }
                Ok(())
            }),
        ),
        (
            "says it is huge",
            Server::new(|_, stream| head(stream, "200 OK", &["Content-Length: 999999999999"])),
        ),
        (
            "breaks off",
            Server::new(|_, stream| {
                head(stream, "200 OK", &["Content-Length: 100000"])?;
                stream.write_all(b"begin")
            }),
        ),
        (
            "says it is shorter than it is",
            Server::new(|_, stream| {
                head(stream, "200 OK", &["Content-Length: 4"])?;
                stream.write_all(b"wanted")
            }),
        ),
        ("redirects to itself", Server::new(move |asked, stream| redirect(stream, &asked.path))),
        ("gives too much", Server::of(vec![b'x'; 3 << 20])),
        ("gives something else", Server::of(b"other".to_vec())),
        (
            "redirects in circles",
            Server::new(move |asked, stream| redirect(stream, &format!("{}x", asked.path))),
        ),
        (
            "redirects to a long place",
            Server::new(move |_, stream| redirect(stream, &format!("/{}", "x".repeat(1 << 20)))),
        ),
        (
            "an endless chunk",
            Server::new(|_, stream| {
                head(stream, "200 OK", &["Transfer-Encoding: chunked"])?;
                stream.write_all(b"ffffffff\r\n")?;
                loop {
                    stream.write_all(&[b'z'; 65536])?;
                }
            }),
        ),
        ("says no", Server::new(|_, stream| head(stream, "404 Not Found", &["Content-Length: 0"]))),
        ("is empty", Server::new(|_, stream| ok(stream, b""))),
    ];
    let mut recipes = Vec::new();
    for (at, (_, server)) in servers.iter().enumerate() {
        recipes.push(recipe(&world, &at.to_string(), &server.url("x"), b"wanted", "file = \"/src/x\""));
    }
    let names: Vec<&str> = servers.iter().map(|(name, _)| *name).collect();
    check(&world, &names, &measured(&world, &recipes));
}
