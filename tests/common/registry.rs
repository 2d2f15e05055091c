//! A real registry (Debian's `docker-registry`) on this machine, for as long as it lives: open to all, with a password,
//! or with a token server that signs what it gives away.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Who may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    Open,
    Password,
    Token,
}

/// The user of `Auth::Password` and `Auth::Token`.
pub const USER: &str = "kim";
/// The password.
pub const SECRET: &str = "secret";
/// The same, hashed by bcrypt with the least effort.
const HASHED: &str = "$2b$05$CpoFsxN/uiGE0xexbXBaseIZUSHESaxDEoGkoBTLamselnb1Fg0Tu";

pub struct DockerRegistry {
    dir: tempfile::TempDir,
    child: Child,
    port: u16,
    tokens: Option<TokenServer>,
}

impl DockerRegistry {
    pub fn open() -> DockerRegistry {
        DockerRegistry::start(Auth::Open)
    }

    pub fn start(auth: Auth) -> DockerRegistry {
        let dir = tempfile::Builder::new().prefix("isolith-registry-").tempdir_in(super::place()).unwrap();
        let tokens = (auth == Auth::Token).then(|| TokenServer::new(dir.path()));
        let port = free_port();
        let child = run(dir.path(), port, auth, tokens.as_ref());
        DockerRegistry { dir, child, port, tokens }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it keeps.
    pub fn storage(&self) -> PathBuf {
        self.dir.path().join("storage")
    }

    /// What it was asked since it started, answered or not.
    pub fn requests(&self) -> Vec<Request> {
        let log = fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().filter_map(Request::of).collect()
    }

    /// The scopes that tokens were asked for, and by whom.
    pub fn tokens(&self) -> Vec<String> {
        self.tokens.as_ref().map(|tokens| tokens.asked.lock().unwrap().clone()).unwrap_or_default()
    }

    /// Takes no token any more that was given before.
    pub fn forget_tokens(&mut self) {
        self.stop();
        let tokens = self.tokens.as_ref().unwrap();
        make_key(self.dir.path());
        self.child = run(self.dir.path(), self.port, Auth::Token, Some(tokens));
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// A `config.json` with the credentials for it.
    pub fn config(&self) -> String {
        let auth = base64(format!("{USER}:{SECRET}").as_bytes(), false);
        format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, self.host())
    }
}

/// A line of the log of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
}

impl Request {
    /// `ADDRESS - - [TIME] "METHOD PATH VERSION" STATUS BYTES …`, the "combined" form of Apache.
    fn of(line: &str) -> Option<Request> {
        let mut quoted = line.split('"').skip(1);
        let mut asked = quoted.next()?.split(' ');
        let mut answered = quoted.next()?.split_whitespace();
        Some(Request {
            method: asked.next()?.to_string(),
            path: asked.next()?.to_string(),
            status: answered.next()?.parse().ok()?,
            bytes: answered.next()?.parse().ok()?,
        })
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn run(dir: &Path, port: u16, auth: Auth, tokens: Option<&TokenServer>) -> Child {
    let at = dir.display();
    let mut config = format!(
        "version: 0.1\nlog:\n  level: error\n\
         storage:\n  filesystem:\n    rootdirectory: {at}/storage\n  delete:\n    enabled: true\n\
         http:\n  addr: 127.0.0.1:{port}\n  secret: x\n"
    );
    if auth == Auth::Password {
        fs::write(dir.join("htpasswd"), format!("{USER}:{HASHED}\n")).unwrap();
        config += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {at}/htpasswd\n");
    }
    if let Some(tokens) = tokens {
        let realm = format!("http://127.0.0.1:{}/token", tokens.port);
        config += &format!(
            "auth:\n  token:\n    realm: {realm}\n    service: test\n    issuer: test\n    rootcertbundle: {at}/cert.pem\n"
        );
    }
    fs::write(dir.join("config.yml"), config).unwrap();
    let log = fs::File::create(dir.join("log")).unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(dir.join("config.yml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("no registry: install the Debian package `docker-registry`");
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let log = || fs::read_to_string(dir.join("log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "the registry does not start: {}", log());
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

fn make_key(dir: &Path) {
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=test"])
        .arg("-keyout")
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem"))
        .output()
        .expect("no openssl: install the Debian package `openssl`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Gives tokens away: to `USER` what is asked for, to nobody in particular what only reads.
struct TokenServer {
    port: u16,
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<String>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TokenServer {
    fn new(dir: &Path) -> TokenServer {
        make_key(dir);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (ends, notes, dir) = (stop.clone(), asked.clone(), dir.to_owned());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let _ = answer(stream.unwrap(), &dir, &notes);
            }
        });
        TokenServer { port, stop, asked, thread: Some(thread) }
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn answer(mut stream: TcpStream, dir: &Path, notes: &Mutex<Vec<String>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let wanted = format!("Basic {}", base64(format!("{USER}:{SECRET}").as_bytes(), false));
    let given = headers.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("authorization").then(|| value.to_string())
    });
    let query = first.split(' ').nth(1).and_then(|path| path.split_once('?')).map_or("", |(_, query)| query);
    let decoded = query.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",").replace("%20", " ");
    let scopes: Vec<&str> = decoded.split('&').filter_map(|pair| pair.strip_prefix("scope=")).collect();
    let who = if given.is_some() { USER } else { "-" };
    // The registry names actions in any order.
    let in_order = |scope: &str| match scope.rsplit_once(':') {
        Some((what, actions)) => {
            let mut actions: Vec<&str> = actions.split(',').collect();
            actions.sort_unstable();
            format!("{what}:{}", actions.join(","))
        }
        None => scope.to_string(),
    };
    let asked: Vec<String> = scopes.iter().flat_map(|scope| scope.split(' ')).map(in_order).collect();
    notes.lock().unwrap().push(format!("{who} {}", asked.join(" ")));
    if given.as_ref().is_some_and(|given| *given != wanted) {
        return write!(stream, "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    }
    let access = scopes.iter().flat_map(|scope| scope.split(' ')).filter_map(|scope| {
        let mut parts = scope.rsplitn(2, ':');
        let (actions, rest) = (parts.next()?, parts.next()?);
        let (kind, name) = rest.split_once(':')?;
        let may = |action: &&str| given.is_some() || *action == "pull";
        let actions: Vec<&str> = actions.split(',').filter(may).collect();
        Some(serde_json::json!({ "type": kind, "name": name, "actions": actions }))
    });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = serde_json::json!({
        "iss": "test", "aud": "test", "sub": who, "jti": "1", "iat": now, "nbf": now - 5, "exp": now + 300,
        "access": access.collect::<Vec<_>>(),
    });
    let body = serde_json::json!({ "token": signed(dir, &claims) }).to_string();
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A JSON web token (RFC 7519), signed with the key in `dir`.
fn signed(dir: &Path, claims: &serde_json::Value) -> String {
    let cert = fs::read_to_string(dir.join("cert.pem")).unwrap();
    let cert: String = cert.lines().filter(|line| !line.starts_with("-----")).collect();
    let header = serde_json::json!({ "alg": "RS256", "typ": "JWT", "x5c": [cert] });
    let text = format!(
        "{}.{}",
        base64(header.to_string().as_bytes(), true),
        base64(claims.to_string().as_bytes(), true)
    );
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(dir.join("key.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let signature = child.wait_with_output().unwrap().stdout;
    format!("{text}.{}", base64(&signature, true))
}

/// RFC 4648; with `for_urls` the variant without padding.
fn base64(bytes: &[u8], for_urls: bool) -> String {
    let last = if for_urls { "-_" } else { "+/" };
    let letters =
        format!("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789{last}").into_bytes();
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            if at <= chunk.len() {
                out.push(char::from(letters[(word >> (18 - 6 * at)) as usize & 63]));
            } else if !for_urls {
                out.push('=');
            }
        }
    }
    out
}
