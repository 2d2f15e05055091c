//! Credentials in the files that Docker, Podman, Skopeo and Buildah keep them in (`config.json`, `auth.json`), and
//! from the programs that such files name (`docker-credential-NAME`).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use serde::Deserialize;

use crate::error::{Error, Result};

/// The longest file or answer that is read, in bytes.
const MOST: u64 = 1 << 20;
/// How long a helper program may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How to log in to a server.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// Not at all.
    Anonymous,
    /// With a name and a password.
    Basic {
        /// The name.
        user: String,
        /// The password.
        secret: String,
    },
    /// With a token that a token server gives another one for.
    Identity(String),
    /// With this very token.
    Token(String),
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Login::Anonymous => "Anonymous",
            Login::Basic { .. } => "Basic",
            Login::Identity(_) => "Identity",
            Login::Token(_) => "Token",
        })
    }
}

/// Where credentials are looked for. Nothing is read before a server asks for some.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Files, the first that has an entry counts; those that are not there are passed over.
    pub files: Vec<PathBuf>,
}

/// `config.json` and `auth.json` (docker-config(5), containers-auth.json(5)).
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AuthFile {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

impl Credentials {
    /// How to log in to a registry for one of its repositories.
    ///
    /// # Errors
    /// A file that cannot be read or understood, a helper program that fails.
    pub fn login(&self, registry: &str, repository: &str) -> Result<Login> {
        for path in &self.files {
            let Some(file) = read(path)? else { continue };
            if let Some(login) = file.login(registry, repository, path)? {
                return Ok(login);
            }
        }
        Ok(Login::Anonymous)
    }
}

fn read(path: &Path) -> Result<Option<AuthFile>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(Error::io("read the credentials in", path, e)),
    };
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).map_err(|e| Error::io("read the credentials in", path, e))?;
    // Docker takes an empty file for one without entries. The text has secrets in it, so no part of it is shown.
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|why| {
        Error::machine(format!("cannot read the credentials in `{}`", path.display()))
            .because(format!("line {}, column {} is not as it should be", why.line(), why.column()))
            .hint("log in anew: `docker login` or `podman login` writes it")
    })
}

impl AuthFile {
    fn login(&self, registry: &str, repository: &str, path: &Path) -> Result<Option<Login>> {
        let mut names = vec![registry.to_string()];
        for part in repository.split('/') {
            names.push(format!("{}/{part}", names[names.len() - 1]));
        }
        // The most special one counts.
        for name in names.iter().rev() {
            if let Some(helper) = find(&self.cred_helpers, name) {
                return ask(helper, name);
            }
            if let Some(entry) = find(&self.auths, name)
                && let Some(login) = entry.login(path)?
            {
                return Ok(Some(login));
            }
        }
        match &self.creds_store {
            Some(helper) if !helper.is_empty() => ask(helper, registry),
            _ => Ok(None),
        }
    }
}

/// The entry for a name; people and programs write it with scheme and version too.
fn find<'m, T>(entries: &'m BTreeMap<String, T>, name: &str) -> Option<&'m T> {
    let plain = |key: &str| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
        let key = key.strip_suffix("/v1").or(key.strip_suffix("/v2")).unwrap_or(key);
        match key {
            "index.docker.io" | "registry-1.docker.io" => "docker.io".to_string(),
            key => key.to_string(),
        }
    };
    entries.get(name).or_else(|| entries.iter().find(|(key, _)| plain(key) == name).map(|(_, entry)| entry))
}

impl Entry {
    /// None for an entry without anything in it, as `docker login` leaves beside a `credsStore`.
    fn login(&self, path: &Path) -> Result<Option<Login>> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Login::Token(token)));
        }
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Login::Identity(token)));
        }
        if let Some(auth) = given(&self.auth) {
            let text = base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok();
            let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = text.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
            let Some((user, secret)) = pair else {
                return Err(Error::machine(format!(
                    "an `auth` in `{}` is not base64 of `name:password`",
                    path.display()
                ))
                .hint("log in anew: `docker login` or `podman login` writes it"));
            };
            return Ok(Some(Login::Basic { user: user.to_string(), secret: secret.to_string() }));
        }
        Ok(given(&self.username)
            .zip(given(&self.password))
            .map(|(user, secret)| Login::Basic { user, secret }))
    }
}

/// Asks the program `docker-credential-NAME` (docker/docker-credential-helpers, "Development").
fn ask(helper: &str, registry: &str) -> Result<Option<Login>> {
    let program = format!("docker-credential-{helper}");
    let failed = |why: String| {
        Error::machine(format!("`{program}` gives no credentials for `{registry}`"))
            .because(why)
            .hint("it is named in the file with credentials (`credHelpers` or `credsStore`): see whether it works alone")
    };
    if helper.is_empty() || !helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(failed("this cannot be the name of a program".to_string()));
    }
    // Docker keeps its own registry under this name.
    let server = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|why| failed(why.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read is judged by its answer.
        let _ = stdin.write_all(server.as_bytes());
    }
    let answer = child.stdout.take().map(|stdout| within(stdout, PATIENCE));
    if !matches!(answer, Some(Ok(_))) {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|why| failed(why.to_string()))?;
    let answer = answer.unwrap_or_else(|| Ok(Vec::new())).map_err(failed)?;
    if !status.success() {
        let text = String::from_utf8_lossy(&answer);
        // The one answer that means "I know none".
        if text.contains("credentials not found") {
            return Ok(None);
        }
        let clean: String = text.trim().chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(failed(format!("{status} {clean}")));
    }
    let helped: Helped =
        serde_json::from_slice(&answer).map_err(|_| failed("its answer cannot be understood".to_string()))?;
    Ok(Some(match helped.username.as_str() {
        "<token>" => Login::Identity(helped.secret),
        _ => Login::Basic { user: helped.username, secret: helped.secret },
    }))
}

/// All that comes from a pipe before a time is over.
fn within(mut pipe: std::process::ChildStdout, time: Duration) -> Result<Vec<u8>, String> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let end = Instant::now() + time;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let ready = poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&timeout));
        match ready {
            Ok(0) => return Err(format!("no answer came within {} s", time.as_secs())),
            Err(rustix::io::Errno::INTR) => continue,
            Err(why) => return Err(why.to_string()),
            Ok(_) => {}
        }
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(why) => return Err(why.to_string()),
        }
        if bytes.len() as u64 > MOST {
            return Err("its answer is too long".to_string());
        }
    }
}

/// The `Authorization` header of a name and password (RFC 7617).
pub(super) fn basic(user: &str, secret: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{secret}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(text: &str, registry: &str, repository: &str) -> Result<Login> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        let files = vec![dir.path().join("absent.json"), path];
        Credentials { files }.login(registry, repository)
    }

    fn name(text: &str, registry: &str, repository: &str) -> String {
        match login(text, registry, repository).unwrap() {
            Login::Basic { user, secret } => format!("{user}:{secret}"),
            Login::Anonymous => "-".to_string(),
            Login::Identity(token) | Login::Token(token) => format!("<{token}>"),
        }
    }

    #[test]
    fn the_most_special_entry_counts() {
        // a:b, c:d:e
        let text = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "YTpi"}, "r.example": {"auth": "YzpkOmU="},
            "r.example/team": {"username": "t", "password": "p"}, "https://s.example:5000/v2/": {"auth": "YTpi"},
            "i.example": {"identitytoken": "id"}, "k.example": {"registrytoken": "kk"}, "empty.example": {}
        }, "other": 1}"#;
        assert_eq!(name(text, "docker.io", "library/debian"), "a:b");
        assert_eq!(name(text, "r.example", "x/y"), "c:d:e");
        assert_eq!(name(text, "r.example", "team/y"), "t:p");
        assert_eq!(name(text, "r.example", "teams/y"), "c:d:e");
        assert_eq!(name(text, "s.example:5000", "y"), "a:b");
        assert_eq!(name(text, "s.example", "y"), "-");
        assert_eq!(name(text, "i.example", "y"), "<id>");
        assert_eq!(name(text, "k.example", "y"), "<kk>");
        assert_eq!(name(text, "empty.example", "y"), "-");
        assert_eq!(name("", "r.example", "y"), "-");
    }

    #[test]
    fn what_cannot_be_read_is_an_error_without_secrets_in_it() {
        for text in [
            "{\"auths\": {\"r\": {\"auth\": \"c2VjcmV0\"}}",
            "[\"secret\"]",
            r#"{"auths":{"r":{"auth":"c2VjcmV0"}}}"#,
        ] {
            let error = format!("{:?}", login(text, "r", "x").unwrap_err());
            assert!(!error.contains("secret") && !error.contains("c2VjcmV0"), "{error}");
        }
        let odd = r#"{"credHelpers": {"r": "../../bin/sh"}}"#;
        assert!(login(odd, "r", "x").unwrap_err().to_string().contains("cannot be the name"));
        let absent = r#"{"credsStore": "no-such-helper"}"#;
        assert!(
            login(absent, "r", "x").unwrap_err().to_string().contains("docker-credential-no-such-helper")
        );
        assert_eq!(format!("{:?}", Login::Token("secret".into())), "Token");
    }
}
