//! One request to a registry: where to, with whose token, and what its answer means.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::sync::Mutex;

use oci_spec::distribution::Reference;
use serde::Deserialize;
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use ureq::{AsSendBody, Body};

use super::Registry;
use crate::error::Error;
use crate::net::{Access, Failure, Url, Watch, failure, pause};

/// How often an answer may send us elsewhere.
const REDIRECTS: usize = 10;
/// The longest message of a server that is read, in bytes.
const MOST_MESSAGE: u64 = 64 << 10;

/// A server that is asked for an image.
pub(super) struct Server {
    /// What its credentials are kept under: host and port, or `docker.io`.
    pub registry: String,
    /// The repository, for credentials that are for a part of a registry.
    pub repository: String,
    /// Scheme, host and port.
    pub origin: String,
}

/// A URL that may be asked, or why not; and how it is shown.
pub(super) type Candidate = (String, Result<(Server, Url), String>);

/// `Authorization` headers that have worked, by server, repository, and whether for writing.
pub(super) type Tokens = Mutex<HashMap<(String, String, bool), String>>;

/// A request without its URL.
pub(super) struct Ask<'a> {
    pub method: Method,
    pub accept: &'a [&'a str],
    /// It changes something.
    pub write: bool,
    /// Only the bytes from the first to before the second.
    pub range: Option<(u64, u64)>,
}

/// How a request failed.
pub(super) enum Trouble {
    /// There was no useful answer.
    Failed(Failure),
    /// What was asked for is not there.
    Absent(String),
    /// The server wants other credentials, or none will do.
    Denied(String),
    /// Not the server's fault.
    Ours(Error),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Failed(failure)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Failed(Failure::Passing(why) | Failure::Final(why)) => f.write_str(why),
            Trouble::Failed(Failure::Cancelled) => f.write_str("interrupted"),
            Trouble::Absent(why) | Trouble::Denied(why) => f.write_str(why),
            Trouble::Ours(error) => write!(f, "{error}"),
        }
    }
}

impl Registry {
    /// Where something of an image may be: at mirrors, then at the registry itself.
    pub(super) fn candidates(&self, image: &Reference, path: &str) -> Vec<Candidate> {
        let canonical = format!("https://{}/v2/{}/{path}", image.registry(), image.repository());
        let mut all = self.access.rewritten(&canonical);
        all.pop();
        let mirrors = all.into_iter().map(|text| {
            let url = match Url::parse(&text) {
                Ok(url) if url.scheme() != "file" => Ok(url),
                Ok(_) => Err("a mirror of a registry is reached by http or https".to_string()),
                Err(why) => Err(why.to_string()),
            };
            let judged = url.and_then(|url| match self.access.refuses(&url) {
                Some(why) => Err(why),
                None => Ok((self.server(&url, authority(&url), image), url)),
            });
            (text, judged)
        });
        let own = self.itself(image, path);
        mirrors.chain([own]).collect()
    }

    /// The registry itself. `docker.io` is a name; the server behind it is another.
    pub(super) fn itself(&self, image: &Reference, path: &str) -> Candidate {
        let host = match image.registry() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let scheme = if self.access.allows_plain(host) { "http" } else { "https" };
        let text = format!("{scheme}://{host}/v2/{}/{path}", image.repository());
        let judged = match Url::parse(&text) {
            Ok(url) => match self.access.refuses(&url) {
                Some(why) => Err(why),
                None => Ok((self.server(&url, image.registry(), image), url)),
            },
            Err(why) => Err(why.to_string()),
        };
        (text, judged)
    }

    fn server(&self, url: &Url, registry: &str, image: &Reference) -> Server {
        let (registry, repository) = (registry.to_string(), image.repository().to_string());
        Server { registry, repository, origin: url.origin().to_string() }
    }

    /// Sends a request without a body, follows redirects, and logs in when asked to.
    pub(super) fn ask(
        &self,
        server: &Server,
        url: &Url,
        ask: &Ask,
        watch: &dyn Watch,
    ) -> Result<Response<Body>, Trouble> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS {
            let response = self.logged_in(server, &url, ask.write, watch, || {
                let mut request = Request::builder().method(&ask.method).uri(url.as_str());
                for accept in ask.accept {
                    request = request.header(header::ACCEPT, *accept);
                }
                if let Some((from, to)) = ask.range {
                    request = request.header(header::RANGE, format!("bytes={from}-{}", to.saturating_sub(1)));
                }
                // Some servers take no POST without a length.
                if ask.method == Method::POST {
                    request = request.header(header::CONTENT_LENGTH, "0");
                }
                (request, ())
            })?;
            if !response.status().is_redirection() {
                return judged(response);
            }
            let location = text(&response, "location").unwrap_or_default().to_string();
            url = self.redirected(&url, &location)?;
        }
        Err(Failure::Final(format!("it redirects more than {REDIRECTS} times")).into())
    }

    fn redirected(&self, from: &Url, location: &str) -> Result<Url, Trouble> {
        let wrong = |why: String| Trouble::Failed(Failure::Final(why));
        let to = from.join(location).map_err(|why| wrong(format!("it redirects to `{location}`: {why}")))?;
        if to.scheme() == "file" || (from.scheme() == "https" && to.scheme() == "http") {
            return Err(wrong(format!("it redirects from `{from}` to `{to}`, which is not safe")));
        }
        match self.access.refuses(&to) {
            Some(why) => Err(wrong(format!("it redirects to `{to}`: {why}"))),
            None => Ok(to),
        }
    }

    /// Sends what `request` gives, with the token of the server. When the server asks to log in, that is done, and
    /// the request is made and sent once more. The token goes to the server itself only, wherever a redirect leads.
    pub(super) fn logged_in<B: AsSendBody>(
        &self,
        server: &Server,
        url: &Url,
        write: bool,
        watch: &dyn Watch,
        mut request: impl FnMut() -> (ureq::http::request::Builder, B),
    ) -> Result<Response<Body>, Trouble> {
        let ours = url.origin() == server.origin;
        let key = (server.origin.clone(), server.repository.clone(), write);
        let mut tried = false;
        loop {
            let token = self.tokens.lock().unwrap_or_else(|e| e.into_inner()).get(&key).cloned();
            let (mut builder, body) = request();
            if let Some(token) = token.filter(|_| ours) {
                builder = builder.header(header::AUTHORIZATION, token);
            }
            let response = self.send(builder, body, url, watch)?;
            if response.status() != StatusCode::UNAUTHORIZED || !ours || tried {
                return Ok(response);
            }
            tried = true;
            let token = self.log_in(server, url, response.headers(), watch)?;
            self.tokens.lock().unwrap_or_else(|e| e.into_inner()).insert(key.clone(), token);
        }
    }

    /// Sends one request.
    pub(super) fn send<B: AsSendBody>(
        &self,
        builder: ureq::http::request::Builder,
        body: B,
        url: &Url,
        watch: &dyn Watch,
    ) -> Result<Response<Body>, Trouble> {
        let agent = self.agents.of(&self.access, url).map_err(Failure::Final)?;
        let request = builder.body(body).map_err(|why| Failure::Final(why.to_string()))?;
        agent.run(request).map_err(|why| failure(why, &self.access, watch).into())
    }

    /// Tries as often as it is worth it.
    pub(super) fn patiently<T>(
        &self,
        watch: &dyn Watch,
        mut work: impl FnMut() -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let mut time = self.access.pause;
        for _ in 1..self.access.tries.max(1) {
            match work() {
                Err(Trouble::Failed(Failure::Passing(_))) => {}
                done => return done,
            }
            if !pause(time, watch) {
                return Err(Failure::Cancelled.into());
            }
            time *= 2;
        }
        work()
    }
}

/// A good answer, or what a bad one means.
pub(super) fn judged(response: Response<Body>) -> Result<Response<Body>, Trouble> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let said = message(response);
    let why = match said {
        Some(said) => format!("the server says {status}: {said}"),
        None => format!("the server says {status}"),
    };
    Err(match status {
        StatusCode::NOT_FOUND => Trouble::Absent(why),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Trouble::Denied(why),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Failure::Passing(why).into(),
        status if status.is_server_error() => Failure::Passing(why).into(),
        _ => Failure::Final(why).into(),
    })
}

/// What a registry says about an error (distribution specification, "Error Codes").
fn message(response: Response<Body>) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        code: Option<String>,
        message: Option<String>,
    }
    let bytes = small(response, MOST_MESSAGE).ok()?;
    let errors: Errors = serde_json::from_slice(&bytes).ok()?;
    let one = errors.errors.into_iter().next()?;
    let text = one.message.filter(|text| !text.is_empty()).or(one.code)?;
    let clean: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    Some(clean)
}

/// A header as text.
pub(super) fn text<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    header_text(response.headers(), name)
}

pub(super) fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// A body as a whole, of at most so many bytes.
pub(super) fn small(response: Response<Body>, most: u64) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::new();
    let body = response.into_body().into_with_config().limit(most + 1).reader();
    body.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|why| Failure::Passing(format!("the answer was broken off: {why}")))?;
    match bytes.len() as u64 > most {
        true => Err(Failure::Final(format!("the answer has more than {most} bytes")).into()),
        false => Ok(bytes),
    }
}

/// Host and port of a URL.
fn authority(url: &Url) -> &str {
    url.origin().split_once("://").map_or("", |(_, authority)| authority)
}

/// What to do when nothing could be had.
pub(super) fn hint(access: &Access, image: &Reference, troubles: &[(String, Trouble)]) -> String {
    let any = |wanted: fn(&Trouble) -> bool| troubles.iter().any(|(_, trouble)| wanted(trouble));
    let says = |word: &str| {
        troubles
            .iter()
            .any(|(_, trouble)| matches!(trouble, Trouble::Failed(Failure::Final(why)) if why.contains(word)))
    };
    let registry = image.registry();
    if access.offline {
        "run once without `--offline` (and without `offline = true` in the configuration) to get it"
            .to_string()
    } else if says("allowed-hosts") {
        "add the host to `allowed-hosts`, or a mirror under `[mirrors]`, in the configuration".to_string()
    } else if any(|trouble| matches!(trouble, Trouble::Denied(_))) {
        format!(
            "log in with `docker login {registry}` (or podman, skopeo, buildah); if you have, ask for access there"
        )
    } else if any(|trouble| matches!(trouble, Trouble::Absent(_))) {
        "check its name and tag; some registries say this of what may not be seen without logging in"
            .to_string()
    } else if says("InvalidContentType") || says("corrupt message") {
        format!("if it speaks plain http, say so in the configuration: `plain-http = [\"{registry}\"]`")
    } else {
        "check the name of the registry and the network (proxies come from http_proxy, https_proxy and no_proxy)"
            .to_string()
    }
}
