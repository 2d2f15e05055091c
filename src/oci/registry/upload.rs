//! Writing to a registry: blobs, and the manifests that refer to them.

use std::io::{self, Read};

use oci_spec::distribution::Reference;
use oci_spec::image::Digest;
use ureq::SendBody;
use ureq::http::{Method, Request, StatusCode, header};

use super::request::{Ask, Server, Trouble, judged, text};
use super::{Matter, Registry};
use crate::error::Result;
use crate::net::{Failure, Url, Watch};
use crate::oci::digest::Hasher;

/// A blob that was uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// Of its bytes.
    pub digest: Digest,
    /// How many.
    pub size: u64,
}

const POST: Ask<'static> = Ask { method: Method::POST, accept: &[], write: true, range: None };

/// Takes a blob over from another repository of the registry.
pub(super) fn mount(
    registry: &Registry,
    image: &Reference,
    digest: &Digest,
    from: &str,
    watch: &dyn Watch,
) -> Result<bool> {
    let matter = Matter { image, what: format!("the blob `{digest}`") };
    let path = format!("blobs/uploads/?mount={digest}&from={from}");
    registry.ask_itself(&matter, &path, watch, |server, url| {
        let response = match registry.ask(server, url, &POST, watch) {
            Ok(response) => response,
            // The other repository may be none of ours.
            Err(Trouble::Denied(_) | Trouble::Absent(_)) => return Ok(false),
            Err(trouble) => return Err(trouble),
        };
        if response.status() == StatusCode::CREATED {
            return Ok(true);
        }
        // It has begun an upload instead, which nobody will go on with.
        if let Ok(location) = location(url, text(&response, "location")) {
            let ask = Ask { method: Method::DELETE, ..POST };
            let _ = registry.ask(server, &location, &ask, watch);
        }
        Ok(false)
    })
}

/// Uploads a blob of known digest and size in one request.
pub(super) fn whole(
    registry: &Registry,
    image: &Reference,
    (digest, size): (&Digest, u64),
    watch: &dyn Watch,
    open: &mut dyn FnMut() -> Result<Box<dyn Read>>,
) -> Result<()> {
    let matter = Matter { image, what: format!("a place for the blob `{digest}`") };
    registry.ask_itself(&matter, "blobs/uploads/", watch, |server, url| {
        let place = begin(registry, server, url, watch)?;
        let place = with_query(&place, &format!("digest={digest}"))?;
        let mut bytes = Stoppable { from: open().map_err(Trouble::Ours)?, watch };
        let request = registry
            .writing(server, Method::PUT, &place)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, size);
        let response = registry.send(request, SendBody::from_reader(&mut bytes), &place, watch)?;
        judged(response).map(drop)
    })
}

/// Uploads a blob whose digest is known at its end.
pub(super) fn stream(
    registry: &Registry,
    image: &Reference,
    from: &mut dyn Read,
    watch: &dyn Watch,
) -> Result<Uploaded> {
    let matter = Matter { image, what: "a place for a blob".to_string() };
    let mut from = Some(from);
    registry.ask_itself(&matter, "blobs/uploads/", watch, |server, url| {
        let place = begin(registry, server, url, watch)?;
        // What has been read cannot be read again.
        let from = from.take().ok_or_else(|| Failure::Final("the upload was broken off".to_string()))?;
        let mut bytes = Hashing { from: Stoppable { from, watch }, hasher: Hasher::sha256(), size: 0 };
        let request = registry
            .writing(server, Method::PATCH, &place)
            .header(header::CONTENT_TYPE, "application/octet-stream");
        let response = registry.send(request, SendBody::from_reader(&mut bytes), &place, watch);
        let (size, digest) = (bytes.size, bytes.hasher.text());
        let response = judged(response.map_err(lasting)?).map_err(lasting)?;
        let place = location(&place, text(&response, "location"))?;
        let place = with_query(&place, &format!("digest={digest}"))?;
        let request = registry.writing(server, Method::PUT, &place).header(header::CONTENT_LENGTH, 0);
        judged(registry.send(request, &b""[..], &place, watch)?)?;
        let digest = digest.parse().map_err(|why| Failure::Final(format!("{why}")))?;
        Ok(Uploaded { digest, size })
    })
}

/// Puts a manifest or index in its place.
pub(super) fn manifest(
    registry: &Registry,
    image: &Reference,
    media_type: &str,
    bytes: &[u8],
    watch: &dyn Watch,
) -> Result<Digest> {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    let digest = hasher.text();
    let name = image.tag().or(image.digest()).unwrap_or(&digest);
    let matter = Matter { image, what: format!("a place for the manifest `{name}`") };
    registry.ask_itself(&matter, &format!("manifests/{name}"), watch, |server, url| {
        let response = registry.logged_in(server, url, true, watch, || {
            let request = Request::builder().method(Method::PUT).uri(url.as_str());
            (request.header(header::CONTENT_TYPE, media_type), bytes)
        })?;
        judged(response).map(drop)
    })?;
    digest.parse().map_err(|why| registry.bad(&matter, format!("{why}")))
}

/// Begins an upload, which also gets a token to write with. Gives where to go on.
fn begin(registry: &Registry, server: &Server, url: &Url, watch: &dyn Watch) -> Result<Url, Trouble> {
    let response = registry.ask(server, url, &POST, watch)?;
    location(url, text(&response, "location"))
}

impl Registry {
    /// A request that writes, with the token that the server gave when the upload began.
    fn writing(&self, server: &Server, method: Method, url: &Url) -> ureq::http::request::Builder {
        let request = Request::builder().method(method).uri(url.as_str());
        let key = (server.origin.clone(), server.repository.clone(), true);
        let token = self.tokens.lock().unwrap_or_else(|e| e.into_inner()).get(&key).cloned();
        match token.filter(|_| url.origin() == server.origin) {
            Some(token) => request.header(header::AUTHORIZATION, token),
            None => request,
        }
    }
}

/// Where an answer says to go on.
fn location(from: &Url, location: Option<&str>) -> Result<Url, Trouble> {
    let location = location.unwrap_or_default();
    let to = from.join(location).ok().filter(|_| !location.is_empty());
    let safe = |to: &Url| to.scheme() == "https" || (to.scheme() == "http" && from.scheme() == "http");
    to.filter(safe).ok_or_else(|| {
        Failure::Final(format!("it takes uploads at `{location}`, which is not a place to go to")).into()
    })
}

fn with_query(url: &Url, query: &str) -> Result<Url, Trouble> {
    let glue = if url.as_str().contains('?') { '&' } else { '?' };
    Url::parse(&format!("{url}{glue}{query}")).map_err(|why| Failure::Final(why.to_string()).into())
}

/// What cannot be tried again.
fn lasting(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Failed(Failure::Passing(why)) => Failure::Final(why).into(),
        trouble => trouble,
    }
}

/// Ends in an error when the transfer is not wanted any more.
struct Stoppable<'w, R> {
    from: R,
    watch: &'w dyn Watch,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.watch.cancelled() {
            true => Err(io::Error::other("interrupted")),
            false => self.from.read(buffer),
        }
    }
}

struct Hashing<R> {
    from: R,
    hasher: Hasher,
    size: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.size += n as u64;
        Ok(n)
    }
}
