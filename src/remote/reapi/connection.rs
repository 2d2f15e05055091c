//! The way to a server: where it is, whether it may be reached and how, and connections to it.

use std::future::Future;
use std::io;
use std::net::ToSocketAddrs;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::codegen::http::Uri;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::super::Settings;
use super::super::address::Address;
use crate::error::{Error, Result};
use crate::net::{Access, Url, certificates};

/// How much may be under way to here in one stream, and in all: what a slow reader holds in memory, in bytes.
const WINDOWS: (u32, u32) = (1 << 20, 4 << 20);
/// The longest answer of a proxy to the wish for a tunnel, in bytes.
const MOST_ANSWER: usize = 8 << 10;

/// A channel to the server. It connects when it is first used, and again when the connection has ended; it has to be
/// made within the runtime that drives it.
pub(super) fn channel(address: &Address, settings: &Settings) -> Result<Channel> {
    let wrong = |why: String| Error::usage(format!("{} is no remote", address.shown())).because(why);
    let safe = address.scheme == "grpcs";
    let host = &address.host;
    let scheme = if safe { "https" } else { "http" };
    let url = Url::parse(&format!("{scheme}://{host}")).map_err(|why| wrong(why.to_string()))?;
    if let Some(why) = settings.access.refuses(&url) {
        return Err(wrong(why));
    }
    if !safe && !settings.access.allows_plain(host) {
        return Err(wrong(format!("`{host}` would be asked without TLS")).hint(format!(
            "write grpcs://, or say that it may be: `plain-http = [\"{host}\"]` in the settings"
        )));
    }
    let mut endpoint = Endpoint::from_shared(url.to_string())
        .and_then(|endpoint| endpoint.user_agent(concat!("isolith/", env!("CARGO_PKG_VERSION"))))
        .map_err(|why| wrong(why.to_string()))?
        .connect_timeout(settings.limits.connect)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1);
    if safe {
        let tls = match certificates(&settings.access).map_err(wrong)? {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_webpki_roots(),
        };
        endpoint = endpoint.tls_config(tls).map_err(|why| wrong(super::server::causes("TLS", Some(&why))))?;
    }
    let to = match host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()) {
        true => host.clone(),
        false => format!("{host}:{}", if safe { 443 } else { 80 }),
    };
    let proxy = proxy(&settings.access, &url)?;
    Ok(endpoint.connect_with_connector_lazy(Connect { to, proxy: proxy.map(Arc::new) }))
}

/// A proxy that makes a tunnel.
struct Proxy {
    host: String,
    login: Option<String>,
}

fn proxy(access: &Access, url: &Url) -> Result<Option<Proxy>> {
    let Some(text) = access.proxies.of(url) else { return Ok(None) };
    let wrong = |why: &str| Error::usage("the proxy cannot be used").because(why.to_string());
    let text = if text.contains("://") { text.to_string() } else { format!("http://{text}") };
    let address = Address::parse(&text).map_err(|_| wrong("its URL cannot be read"))?;
    if address.scheme != "http" {
        return Err(wrong("remotes that speak gRPC are reached through http proxies only"));
    }
    let port = address.host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
    let host = if port { address.host.clone() } else { format!("{}:80", address.host) };
    let login =
        address.login.map(|(user, secret)| STANDARD.encode(format!("{user}:{}", secret.unwrap_or_default())));
    Ok(Some(Proxy { host, login }))
}

/// Opens connections.
#[derive(Clone)]
struct Connect {
    to: String,
    proxy: Option<Arc<Proxy>>,
}

impl tower_service::Service<Uri> for Connect {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let Some(proxy) = &this.proxy else { return connect(&this.to).await.map(TokioIo::new) };
            let mut stream = connect(&proxy.host).await?;
            tunnel(&mut stream, &this.to, proxy.login.as_deref()).await?;
            Ok(TokioIo::new(stream))
        })
    }
}

async fn connect(host: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host is not known");
    // Looked up on this thread: one that is made for it would outlive the call.
    for address in host.to_socket_addrs()? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(why) => last = why,
        }
    }
    Err(last)
}

/// Asks a proxy for a tunnel (RFC 9110, section 9.3.6).
async fn tunnel(stream: &mut TcpStream, to: &str, login: Option<&str>) -> io::Result<()> {
    let login = login.map(|login| format!("Proxy-Authorization: Basic {login}\r\n")).unwrap_or_default();
    stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{login}\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    // Byte by byte: what comes behind its end is the server's.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == MOST_ANSWER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the proxy gives no answer"));
        }
        answer.push(stream.read_u8().await?);
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    match line.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(()),
        _ => Err(io::Error::other(format!("the proxy says {}", line.trim()))),
    }
}
