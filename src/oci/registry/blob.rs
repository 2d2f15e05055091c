//! A blob as a stream that outlives its connections.

use std::io::{self, Read};
use std::ops::Range;

use oci_spec::distribution::Reference;
use oci_spec::image::Descriptor;
use ureq::http::{Method, StatusCode};

use super::request::{Ask, Candidate, Server, Trouble, text};
use super::{Matter, Registry};
use crate::error::{Error, Result};
use crate::net::{Failure, Patient, Progress, Url, Watch, interrupted, pause};
use crate::oci::digest::Checked;

/// How often news of progress are given.
const NEWS: std::time::Duration = std::time::Duration::from_millis(200);

/// Gives the checked bytes of a blob to `read`.
pub(super) fn stream<T>(
    registry: &Registry,
    image: &Reference,
    blob: &Descriptor,
    watch: &dyn Watch,
    read: impl FnOnce(&mut (dyn Read + Send)) -> Result<T>,
) -> Result<T> {
    let matter = Matter { image, what: format!("the blob `{}`", blob.digest()) };
    if blob.size() > registry.access.max_size {
        let limit = registry.access.max_size;
        return Err(Error::machine(format!("{} of `{image}` is too large", matter.what))
            .because(format!("it has {} bytes, and the limit is {limit} bytes", blob.size()))
            .hint("if that is meant, raise `fetch-max-size` in the configuration"));
    }
    let mut body = Stream::new(registry, image, blob, 0..blob.size(), watch);
    let done = Checked::new(&mut body, blob.digest().clone(), Some(blob.size()))
        .map_err(|why| Error::recipe(format!("cannot get {}", matter.what)).because(why))
        .and_then(|mut checked| read(&mut checked));
    match done {
        // Who could not be asked is the news, and not that the reader got no bytes.
        Err(_) if watch.cancelled() => Err(interrupted()),
        Err(_) if body.gave_up() => Err(registry.failed(&matter, std::mem::take(&mut body.troubles))),
        done => {
            body.tell(done.is_ok());
            done
        }
    }
}

/// Gives bytes of a blob to `read`, unchecked; false when it is not there.
pub(super) fn part(
    registry: &Registry,
    image: &Reference,
    blob: &Descriptor,
    range: Range<u64>,
    watch: &dyn Watch,
    read: &mut dyn FnMut(&mut dyn Read) -> Result<()>,
) -> Result<bool> {
    let matter = Matter { image, what: format!("the blob `{}`", blob.digest()) };
    let length = range.end - range.start;
    let mut body = Stream::new(registry, image, blob, range, watch);
    if body.connect().is_err() {
        return match body.troubles.last() {
            _ if watch.cancelled() => Err(interrupted()),
            Some((_, Trouble::Absent(_))) => Ok(false),
            _ => Err(registry.failed(&matter, body.troubles)),
        };
    }
    let done = read(&mut (&mut body).take(length));
    match done {
        _ if watch.cancelled() => Err(interrupted()),
        _ if body.gave_up() => Err(registry.failed(&matter, body.troubles)),
        done => done.map(|()| true),
    }
}

struct Stream<'a> {
    registry: &'a Registry,
    watch: &'a dyn Watch,
    candidates: std::vec::IntoIter<Candidate>,
    /// The one that is asked.
    current: Option<(String, Server, Url)>,
    open: Option<Box<dyn Read + Send>>,
    /// Where in the blob the next byte is.
    offset: u64,
    /// Where the last one is passed.
    size: u64,
    /// The whole blob is wanted.
    whole: bool,
    /// How often the current one has failed without giving anything.
    tries: u32,
    troubles: Vec<(String, Trouble)>,
    began: std::time::Instant,
    told: std::time::Instant,
}

impl<'a> Stream<'a> {
    fn new(
        registry: &'a Registry,
        image: &Reference,
        blob: &Descriptor,
        range: Range<u64>,
        watch: &'a dyn Watch,
    ) -> Stream<'a> {
        let began = std::time::Instant::now();
        Stream {
            registry,
            watch,
            candidates: registry.candidates(image, &format!("blobs/{}", blob.digest())).into_iter(),
            current: None,
            open: None,
            offset: range.start,
            size: range.end,
            whole: range == (0..blob.size()),
            tries: 0,
            troubles: Vec::new(),
            began,
            told: began,
        }
    }

    /// True when nobody is left to ask.
    fn gave_up(&self) -> bool {
        self.open.is_none() && self.current.is_none() && self.candidates.len() == 0 && self.offset < self.size
    }

    /// Opens what is left of the blob.
    fn connect(&mut self) -> io::Result<()> {
        loop {
            let Some((_, server, url)) = &self.current else {
                match self.candidates.next() {
                    None => return Err(io::Error::other("it cannot be had")),
                    Some((shown, Err(why))) => {
                        self.troubles.push((shown, Trouble::Failed(Failure::Final(why))));
                    }
                    Some((shown, Ok((server, url)))) => self.current = Some((shown, server, url)),
                }
                self.tries = 0;
                continue;
            };
            let range = (self.offset > 0 || !self.whole).then_some((self.offset, self.size));
            let ask = Ask { method: Method::GET, accept: &[], write: false, range };
            let trouble = match self.registry.ask(server, url, &ask, self.watch) {
                Ok(response) => {
                    let skip = match (response.status(), range) {
                        (StatusCode::PARTIAL_CONTENT, Some((from, _))) => {
                            let start = text(&response, "content-range")
                                .and_then(|range| range.strip_prefix("bytes "))
                                .and_then(|range| range.split('-').next()?.parse::<u64>().ok());
                            if start == Some(from) { Some(0) } else { None }
                        }
                        (StatusCode::OK, range) => Some(range.map_or(0, |(from, _)| from)),
                        _ => None,
                    };
                    if let Some(skip) = skip {
                        // One more than may come, so that it is noticed.
                        let most = self.size.saturating_add(1);
                        let body = response.into_body().into_with_config().limit(most).reader();
                        let mut body = Patient(body);
                        if io::copy(&mut (&mut body).take(skip), &mut io::sink()).is_ok_and(|n| n == skip) {
                            self.open = Some(Box::new(body));
                            return Ok(());
                        }
                    }
                    Trouble::Failed(Failure::Passing("it does not go on where it broke off".into()))
                }
                Err(trouble) => trouble,
            };
            self.give_up_or_wait(trouble)?;
        }
    }

    /// Waits for another try, or goes on to the next candidate.
    fn give_up_or_wait(&mut self, trouble: Trouble) -> io::Result<()> {
        self.open = None;
        self.tries += 1;
        let access = &self.registry.access;
        if matches!(trouble, Trouble::Failed(Failure::Passing(_))) && self.tries < access.tries {
            return match pause(access.pause * 2u32.pow(self.tries.min(8) - 1), self.watch) {
                true => Ok(()),
                false => Err(io::Error::other("interrupted")),
            };
        }
        if let Some((shown, ..)) = self.current.take() {
            self.troubles.push((shown, trouble));
        }
        Ok(())
    }

    fn tell(&mut self, done: bool) {
        self.told = std::time::Instant::now();
        let millis = self.began.elapsed().as_millis().max(1) as u64;
        let rate = self.offset.saturating_mul(1000) / millis;
        let url = self.current.as_ref().map(|(shown, ..)| shown.clone()).unwrap_or_default();
        self.watch.progress(Progress { url, bytes: self.offset, total: Some(self.size), rate, done });
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.watch.cancelled() {
                return Err(io::Error::other("interrupted"));
            }
            if self.told.elapsed() >= NEWS {
                self.tell(false);
            }
            if self.open.is_none() {
                if self.offset == self.size && self.offset > 0 {
                    return Ok(0);
                }
                self.connect()?;
            }
            let Some(open) = &mut self.open else { continue };
            let trouble = match open.read(buffer) {
                Ok(0) if self.offset < self.size && !buffer.is_empty() => {
                    format!("broken off after {} of {} bytes", self.offset, self.size)
                }
                Ok(n) => {
                    self.offset += n as u64;
                    if n > 0 {
                        self.tries = 0;
                    }
                    return Ok(n);
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(why) if why.kind() == io::ErrorKind::TimedOut => {
                    format!("the server has stalled after {} of {} bytes", self.offset, self.size)
                }
                Err(why) => format!("broken off after {} of {} bytes: {why}", self.offset, self.size),
            };
            self.give_up_or_wait(Trouble::Failed(Failure::Passing(trouble)))?;
        }
    }
}
