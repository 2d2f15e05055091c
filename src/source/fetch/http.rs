//! One download over http or https: the request, its redirects, and the rest of a file whose start is there.
//!
//! Certificates are read when the first `https:` URL is asked for, and not before: a build that fetches nothing
//! does not pay for them.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy, ProxyProtocol};

use super::receive::stalled;
use super::{Access, Receiver, Trouble, Watch, interrupted};
use crate::source::Url;

/// How often an answer may send us elsewhere.
const REDIRECTS: usize = 10;

/// Where systems keep the certificates they trust.
const CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Gets what is missing of the file at `url`.
pub(super) fn get(
    access: &Access,
    url: &Url,
    receiver: &mut Receiver,
    watch: &dyn Watch,
) -> Result<(), Trouble> {
    let mut url = url.clone();
    for _ in 0..=REDIRECTS {
        let agent = agent(access, &url)?;
        let next = while_wanted(&agent, watch, || ask(&agent, access, &url, receiver, watch))?;
        let Some(location) = next else { return Ok(()) };
        let to = url
            .join(&location)
            .map_err(|why| Trouble::Final(format!("it redirects to `{location}`: {why}")))?;
        if to.file().is_some() {
            return Err(Trouble::Final(format!("it redirects to the local file `{to}`")));
        }
        if url.scheme() == "https" && to.scheme() == "http" {
            return Err(Trouble::Final(format!("it redirects from https to `{to}`, which is not safe")));
        }
        if let Some(why) = access.refuses(&to) {
            return Err(Trouble::Final(format!("it redirects to `{to}`: {why}")));
        }
        url = to;
    }
    Err(Trouble::Final(format!("it redirects more than {REDIRECTS} times")))
}

/// Runs `work`, and breaks its connection off when the download is not wanted any more.
fn while_wanted<T>(agent: &Agent, watch: &dyn Watch, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let guard = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                if watch.cancelled() {
                    return agent.clone().shutdown();
                }
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        let result = work();
        done.store(true, Ordering::Release);
        guard.thread().unpark();
        // Joined, not only done: who comes next may need a process with a single thread.
        let _ = guard.join();
        result
    })
}

/// One request. Gives where it is redirected to, if it is.
fn ask(
    agent: &Agent,
    access: &Access,
    url: &Url,
    receiver: &mut Receiver,
    watch: &dyn Watch,
) -> Result<Option<String>, Trouble> {
    let offset = receiver.offset();
    let mut request = agent.get(url.as_str());
    if offset > 0 {
        request = request.header(header::RANGE, format!("bytes={offset}-"));
        if let Some(validator) = &receiver.validator {
            request = request.header(header::IF_RANGE, validator);
        }
    }
    let response = request.call().map_err(|why| trouble(why, access, watch))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let total = match status {
        StatusCode::OK => {
            receiver.restart()?;
            receiver.validator = validator(&headers);
            length(&response)
        }
        StatusCode::PARTIAL_CONTENT => {
            // "bytes 100-199/200"
            let range = text(header::CONTENT_RANGE).and_then(|range| range.strip_prefix("bytes "));
            let (start, total) = match range.and_then(|range| range.split_once('/')) {
                Some((range, total)) => (range.split('-').next().and_then(|n| n.parse().ok()), total),
                None => (None, ""),
            };
            if offset == 0 || start != Some(offset) {
                receiver.restart()?;
                return Err(Trouble::Passing(
                    "it answers with another part of the file than was asked for".into(),
                ));
            }
            receiver.resume();
            total.parse().ok().or_else(|| length(&response).map(|rest| offset + rest))
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            receiver.restart()?;
            return Err(Trouble::Passing("it does not have the rest of the file".into()));
        }
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {
            return match text(header::LOCATION) {
                Some(location) => Ok(Some(location.to_string())),
                None => Err(Trouble::Final("it redirects to nowhere".into())),
            };
        }
        status => {
            let may_pass = status.is_server_error()
                || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
            let said = format!("the server says {status}");
            return Err(if may_pass { Trouble::Passing(said) } else { Trouble::Final(said) });
        }
    };
    // One more than may come, so that it is noticed there.
    let limit = access.max_size.saturating_add(1);
    let mut body = Patient(response.into_body().into_with_config().limit(limit).reader());
    receiver.take(&mut body, total, access, url.as_str(), watch).map(|()| None)
}

/// Tells a timeout by its kind.
struct Patient<R>(R);

impl<R: Read> Read for Patient<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer).map_err(|why| match why.get_ref().and_then(|why| why.downcast_ref()) {
            Some(ureq::Error::Timeout(_)) => std::io::ErrorKind::TimedOut.into(),
            _ => why,
        })
    }
}

fn length(response: &Response<Body>) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What names this version of the file: only a strong ETag will do (RFC 9110, 13.1.5).
fn validator(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
    tag.filter(|tag| tag.starts_with('"')).map(str::to_string)
}

fn trouble(why: ureq::Error, access: &Access, watch: &dyn Watch) -> Trouble {
    use ureq::Error as E;
    if watch.cancelled() {
        return Trouble::Ours(interrupted());
    }
    match why {
        E::Timeout(_) => Trouble::Passing(stalled(access.stall, 0)),
        E::HostNotFound => Trouble::Passing("the host is not known".into()),
        // What TLS does not accept now it will not accept later.
        E::Io(why) if why.kind() == std::io::ErrorKind::InvalidData => Trouble::Final(why.to_string()),
        why @ (E::Io(_) | E::ConnectionFailed) => Trouble::Passing(why.to_string()),
        why => Trouble::Final(why.to_string()),
    }
}

/// The client for one URL: it follows no redirects by itself, since each has to be allowed.
fn agent(access: &Access, url: &Url) -> Result<Agent, Trouble> {
    let proxy = access.proxies.of(url).map(proxy).transpose()?;
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("isolith/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .timeout_connect(Some(access.stall))
        .timeout_send_request(Some(access.stall))
        .timeout_recv_response(Some(access.stall))
        .timeout_per_read(Some(access.stall))
        .proxy(proxy);
    if url.scheme() == "https" {
        config = config.tls_config(TlsConfig::builder().root_certs(roots(access)?).build());
    }
    Ok(config.build().new_agent())
}

fn proxy(text: &str) -> Result<Proxy, Trouble> {
    let wrong = |why: &str| Trouble::Final(format!("the proxy cannot be used: {why}"));
    let proxy = Proxy::new(text).map_err(|why| wrong(&why.to_string()))?;
    match proxy.protocol() {
        ProxyProtocol::Http | ProxyProtocol::Https => Ok(proxy),
        _ => Err(wrong("only http and https proxies are supported")),
    }
}

/// The certificates to trust: those that were named, else those of the system, else those built in (Mozilla's).
fn roots(access: &Access) -> Result<RootCerts, Trouble> {
    let found = CERTIFICATES.iter().map(Path::new).find(|path| path.is_file()).map(PathBuf::from);
    let Some(path) = access.certificates.clone().or(found) else { return Ok(RootCerts::WebPki) };
    let bytes = std::fs::read(&path)
        .map_err(|why| Trouble::Final(format!("cannot read the certificates `{}`: {why}", path.display())))?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(Trouble::Final(format!("`{}` has no certificates in it", path.display())));
    }
    Ok(RootCerts::from(certificates))
}
