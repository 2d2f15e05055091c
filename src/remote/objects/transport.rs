//! The requests of opendal over the one http client, so that its limits, proxies, certificates and allowed hosts hold
//! for object stores too.
//!
//! The client blocks, and that is wanted: a call runs on the thread of its caller (see [`super::call`]), and nothing is
//! left behind when it is done.

use std::io::Read;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_core::Stream;
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport};
use ureq::http::{Method, Request, Response, StatusCode, header};
use ureq::{BodyReader, RequestExt, SendBody};

use super::super::settings::Deadline;
use crate::net::{Access, Agents, Failure, Url, failure};

/// How much of a body is read at a time, in bytes.
const PIECE: usize = 128 << 10;

tokio::task_local! {
    /// When the call that runs has to be done.
    pub(super) static DEADLINE: Deadline;
}

/// Sends requests for opendal.
pub(super) struct Transport {
    access: Access,
    agents: Agents,
    /// Bytes of bodies that have gone and come.
    pub moved: Arc<AtomicU64>,
}

impl Transport {
    pub fn new(access: Access) -> Transport {
        Transport { access, agents: Agents::default(), moved: Arc::default() }
    }

    /// Sends a request. The body comes from `body`, which has `length` bytes.
    pub fn send(
        &self,
        request: Request<()>,
        body: SendBody<'_>,
        length: Option<u64>,
        deadline: Deadline,
    ) -> Result<Response<ureq::Body>, Failure> {
        let url = Url::parse(&request.uri().to_string()).map_err(|why| Failure::Final(why.to_string()))?;
        if let Some(why) = self.access.refuses(&url) {
            return Err(Failure::Final(why));
        }
        let Some(left) = deadline.left() else { return Err(Failure::Final("no time is left".into())) };
        let agent = self.agents.of(&self.access, &url).map_err(Failure::Final)?;
        let (mut parts, ()) = request.into_parts();
        // What servers make of a body of unknown length differs.
        if let Some(length) = length {
            parts.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        let standard =
            matches!(parts.method, Method::GET | Method::HEAD | Method::PUT | Method::POST | Method::DELETE);
        let request = Request::from_parts(parts, body);
        let request = request
            .with_agent(&agent)
            .configure()
            .allow_non_standard_methods(!standard)
            .timeout_global(Some(left));
        request.run().map_err(|why| failure(why, &self.access, &deadline))
    }
}

impl Transport {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let deadline = DEADLINE
            .try_with(|deadline| *deadline)
            .map_err(|_| Error::new(ErrorKind::Unexpected, "a request outside of a call"))?;
        let is_head = request.method() == Method::HEAD;
        let needs_body = matches!(request.method(), &Method::PUT | &Method::POST);
        let (parts, body) = request.into_parts();
        let length = (needs_body || !body.is_empty()).then_some(body.len() as u64);
        let sent = match length {
            Some(_) => SendBody::from_owned_reader(Counted { from: body, moved: self.moved.clone() }),
            None => SendBody::none(),
        };
        let response =
            self.send(Request::from_parts(parts, ()), sent, length, deadline).map_err(|why| match why {
                Failure::Passing(why) => Error::new(ErrorKind::Unexpected, why).set_temporary(),
                Failure::Final(why) => Error::new(ErrorKind::Unexpected, why),
                Failure::Cancelled => Error::new(ErrorKind::Unexpected, "interrupted"),
            })?;
        // What they mean is the same everywhere, and the page that comes with them tells nothing.
        let status = response.status();
        let refused = |kind| Error::new(kind, format!("the server says {status}"));
        match status {
            StatusCode::UNAUTHORIZED => return Err(refused(ErrorKind::PermissionDenied)),
            StatusCode::TOO_MANY_REQUESTS => return Err(refused(ErrorKind::RateLimited).set_temporary()),
            StatusCode::INSUFFICIENT_STORAGE => return Err(refused(ErrorKind::Unexpected)),
            _ if status.is_server_error() => return Err(refused(ErrorKind::Unexpected).set_temporary()),
            _ => {}
        }
        let (parts, body) = response.into_parts();
        let length = parts.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok()).filter(|_| !is_head);
        let reader = body.into_with_config().limit(u64::MAX).reader();
        let reader = Counted { from: reader, moved: self.moved.clone() };
        Ok(Response::from_parts(parts, HttpBody::new(Body(Mutex::new(Some(reader))), length)))
    }
}

/// A body as a stream; none once it has ended.
struct Body(Mutex<Option<Counted<BodyReader<'static>>>>);

/// Counts what is read.
struct Counted<R> {
    from: R,
    moved: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.moved.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

impl Stream for Body {
    type Item = opendal::Result<Buffer>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let reader = self.get_mut().0.get_mut().unwrap_or_else(|e| e.into_inner());
        let Some(from) = reader else { return Poll::Ready(None) };
        let mut piece = vec![0; PIECE];
        match from.read(&mut piece) {
            Ok(0) => {
                *reader = None;
                Poll::Ready(None)
            }
            Ok(n) => {
                piece.truncate(n);
                Poll::Ready(Some(Ok(Buffer::from(piece))))
            }
            Err(why) => {
                *reader = None;
                let what = format!("the answer was broken off: {why}");
                Poll::Ready(Some(Err(Error::new(ErrorKind::Unexpected, what).set_temporary())))
            }
        }
    }
}

/// The transport that WebDAV uploads use too.
pub(super) struct Shared(pub Arc<Transport>);

impl HttpTransport for Shared {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        self.0.fetch(request).await
    }
}
