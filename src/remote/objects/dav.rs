//! Big files into a WebDAV server (RFC 4918): sent as they are read, under a name of their own, then moved into place.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::utf8_percent_encode;
use ureq::SendBody;
use ureq::http::{Method, Request, StatusCode, header};

use super::super::address::Address;
use super::super::{Blob, Settings};
use super::transport::Transport;
use super::{Call, Failed, Objects, services};
use crate::error::{Error, Result};
use crate::net::RESERVED;

/// How much is read ahead, in bytes.
const AHEAD: usize = 64 << 10;
/// What to do when the server lets nobody in.
pub(super) const LOGIN: &str =
    "give user and password in the URL or in WEBDAV_USER and WEBDAV_PASSWORD, or a token in WEBDAV_TOKEN";

/// Uploads to one server.
pub(super) struct Dav {
    transport: Arc<Transport>,
    /// The URL of the remote, with a slash at its end.
    root: String,
    authorization: Option<String>,
    count: AtomicU64,
}

impl Dav {
    pub fn new(url: &Address, settings: &Settings, transport: Arc<Transport>) -> Result<Dav> {
        let path = utf8_percent_encode(&url.path, const { &RESERVED.remove(b'/') }).to_string();
        let root = format!("{}/{path}{}", services::origin(url)?, if path.is_empty() { "" } else { "/" });
        let authorization = match services::login(url, settings) {
            (_, _, Some(token)) => Some(format!("Bearer {token}")),
            (Some(user), secret, None) => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{}", secret.unwrap_or_default()))))
            }
            _ => None,
        };
        Ok(Dav { transport, root, authorization, count: AtomicU64::new(0) })
    }

    /// Puts a blob at `path`. Its bytes fail at their end when they are not those of its digest.
    pub fn put(
        &self,
        to: &Objects,
        call: &Call,
        path: &str,
        blob: &Blob,
        bytes: &mut dyn Read,
    ) -> Result<(), Failed> {
        let failed = |why: opendal::Error| to.try_failed("write", path, call, &why);
        call.run(to.operator.create_dir("tmp/")).map_err(failed)?;
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let unique =
            format!("{now:x}-{:x}-{}", std::process::id(), self.count.fetch_add(1, Ordering::Relaxed));
        let temporary = format!("tmp/{unique}");
        let sent = self.send(to, call, &temporary, blob, bytes);
        let moved = sent.and_then(|()| call.run(to.operator.rename(&temporary, path)).map_err(failed));
        if moved.is_err() {
            let _ = call.run(to.operator.delete(&temporary));
        }
        moved
    }

    fn send(
        &self,
        to: &Objects,
        call: &Call,
        path: &str,
        blob: &Blob,
        bytes: &mut dyn Read,
    ) -> Result<(), Failed> {
        let what = || Error::machine(format!("cannot write `{path}` of {}", to.name));
        let mut request = Request::builder().method(Method::PUT).uri(format!("{}{path}", self.root));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(()).map_err(|why| what().because(why))?;
        let moved = &self.transport.moved;
        let mut bytes = Ahead { from: bytes, now: Vec::new(), at: 0, next: Vec::new(), failed: None, moved };
        bytes.fill().map_err(|why| what().because(why))?;
        let body = SendBody::from_reader(&mut bytes);
        let sent = self.transport.send(request, body, Some(blob.size), call.deadline);
        if let Some(why) = bytes.failed {
            return Err(what().because(why).into());
        }
        let response = sent.map_err(|why| {
            let (why, passing) = match why {
                crate::net::Failure::Passing(why) => (why, true),
                crate::net::Failure::Final(why) => (why, false),
                crate::net::Failure::Cancelled => ("interrupted".to_string(), false),
            };
            let error = super::super::late(&to.name, call.deadline, what().because(why));
            Failed { error, passing }
        })?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Err(what().because(format!("the server says {status}")).hint(LOGIN).into())
            }
            status => {
                let full = status == StatusCode::INSUFFICIENT_STORAGE;
                let passing = status == StatusCode::TOO_MANY_REQUESTS || (status.is_server_error() && !full);
                Err(Failed { error: what().because(format!("the server says {status}")), passing })
            }
        }
    }
}

/// Reads one piece ahead, so that an error at the end of the bytes (they were the wrong ones) comes before the last of
/// them is given out: the server never gets all.
struct Ahead<'a> {
    from: &'a mut dyn Read,
    now: Vec<u8>,
    at: usize,
    next: Vec<u8>,
    failed: Option<io::Error>,
    moved: &'a AtomicU64,
}

impl Ahead<'_> {
    fn fill(&mut self) -> io::Result<()> {
        (self.now, self.at) = (std::mem::take(&mut self.next), 0);
        let mut from = (&mut *self.from).take(AHEAD as u64);
        from.read_to_end(&mut self.next).map(drop)
    }
}

impl Read for Ahead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.now.len() && !self.next.is_empty() {
            // An empty piece follows the last one, and telling it apart is what reads to the end.
            if let Err(why) = self.fill() {
                let shown = why.kind().into();
                self.failed = Some(why);
                return Err(shown);
            }
        }
        let n = buffer.len().min(self.now.len() - self.at);
        buffer[..n].copy_from_slice(&self.now[self.at..self.at + n]);
        self.at += n;
        self.moved.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
