//! The http client: its limits, proxies and certificates, and how it is broken off.
//!
//! Certificates are read when the first `https:` URL is asked for, and not before: a build that fetches nothing
//! does not pay for them.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Proxy, ProxyProtocol};

use super::{Access, Url, Watch};

/// Where systems keep the certificates they trust.
const CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How a request failed.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may go better next time.
    Passing(String),
    /// It will not.
    Final(String),
    /// It was stopped.
    Cancelled,
}

/// The client for one URL: it follows no redirects by itself, since each has to be allowed, and takes no status for an
/// error.
///
/// # Errors
/// A proxy or a file of certificates that cannot be used.
pub fn agent(access: &Access, url: &Url) -> Result<Agent, String> {
    let proxy = access.proxies.of(url).map(proxy).transpose()?;
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("isolith/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .timeout_connect(Some(access.connect.min(access.stall)))
        .timeout_send_request(Some(access.stall))
        .timeout_recv_response(Some(access.stall))
        .timeout_per_read(Some(access.stall))
        .timeout_per_write(Some(access.stall))
        .proxy(proxy);
    if url.scheme() == "https" {
        config = config.tls_config(TlsConfig::builder().root_certs(roots(access)?).build());
    }
    Ok(config.build().new_agent())
}

/// Clients that keep their connections, one for each server.
#[derive(Default)]
pub struct Agents(Mutex<HashMap<String, Agent>>);

impl Agents {
    /// The client for one URL; see [`agent`].
    pub fn of(&self, access: &Access, url: &Url) -> Result<Agent, String> {
        let mut known = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(agent) = known.get(url.origin()) {
            return Ok(agent.clone());
        }
        let new = agent(access, url)?;
        known.insert(url.origin().to_string(), new.clone());
        Ok(new)
    }

    /// Breaks all connections off.
    pub fn break_off(&self) {
        let mut known = self.0.lock().unwrap_or_else(|e| e.into_inner());
        known.drain().for_each(|(_, agent)| agent.shutdown());
    }
}

/// Runs `work`, and calls `break_off` (once, from another thread) when it is not wanted any more.
pub fn while_wanted<T>(watch: &dyn Watch, break_off: impl Fn() + Sync, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let guard = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                if watch.cancelled() {
                    return break_off();
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

/// What an error of the client means.
pub fn failure(why: ureq::Error, access: &Access, watch: &dyn Watch) -> Failure {
    use ureq::Error as E;
    if watch.cancelled() {
        return Failure::Cancelled;
    }
    match why {
        E::Timeout(_) => Failure::Passing(format!(
            "the server has stalled: next to nothing came for {} ms, after 0 bytes",
            access.stall.as_millis()
        )),
        E::HostNotFound => Failure::Passing("the host is not known".into()),
        // What TLS does not accept now it will not accept later.
        E::Io(why) if why.kind() == std::io::ErrorKind::InvalidData => Failure::Final(why.to_string()),
        why @ (E::Io(_) | E::ConnectionFailed) => Failure::Passing(why.to_string()),
        why => Failure::Final(why.to_string()),
    }
}

/// A body that tells a timeout by its kind.
pub struct Patient<R>(pub R);

impl<R: Read> Read for Patient<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer).map_err(|why| match why.get_ref().and_then(|why| why.downcast_ref()) {
            Some(ureq::Error::Timeout(_)) => std::io::ErrorKind::TimedOut.into(),
            _ => why,
        })
    }
}

fn proxy(text: &str) -> Result<Proxy, String> {
    let wrong = |why: &str| format!("the proxy cannot be used: {why}");
    let proxy = Proxy::new(text).map_err(|why| wrong(&why.to_string()))?;
    match proxy.protocol() {
        ProxyProtocol::Http | ProxyProtocol::Https => Ok(proxy),
        _ => Err(wrong("only http and https proxies are supported")),
    }
}

/// The file of certificates to trust (PEM): the one that was named, else that of the system. None where there is none:
/// then those built in count (Mozilla's).
///
/// # Errors
/// It cannot be read, or has no certificates in it.
pub fn certificates(access: &Access) -> Result<Option<Vec<u8>>, String> {
    let found = CERTIFICATES.iter().map(Path::new).find(|path| path.is_file()).map(PathBuf::from);
    let Some(path) = access.certificates.clone().or(found) else { return Ok(None) };
    let bytes = std::fs::read(&path)
        .map_err(|why| format!("cannot read the certificates `{}`: {why}", path.display()))?;
    match parsed(&bytes).count() {
        0 => Err(format!("`{}` has no certificates in it", path.display())),
        _ => Ok(Some(bytes)),
    }
}

fn parsed(pem: &[u8]) -> impl Iterator<Item = Certificate<'static>> {
    parse_pem(pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    })
}

fn roots(access: &Access) -> Result<RootCerts, String> {
    Ok(match certificates(access)? {
        Some(pem) => RootCerts::from(parsed(&pem).collect::<Vec<_>>()),
        None => RootCerts::WebPki,
    })
}
