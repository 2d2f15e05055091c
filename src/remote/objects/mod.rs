//! Object stores and WebDAV as remotes, through opendal.
//!
//! ```text
//! <prefix>/records/ab/<record key>  ab: the first two digits of the key
//! <prefix>/blobs/ab/<sha256>
//! ```
//!
//! The names are those of a directory (`file:`), so that one that is served over WebDAV is the same remote.

mod dav;
mod services;
mod sweep;
mod transport;

use std::future::Future;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use opendal::{Buffer, BufferStream, ErrorKind, HttpTransporter, OperationContext, Operator};

use self::dav::Dav;
use self::transport::{DEADLINE, Transport};
use super::address::Address;
use super::known::Known;
use super::settings::{Deadline, PAUSE, TRIES};
use super::{Blob, Limits, MOST_RECORD, Reader, RecordKey, Remote, Settings, Source, Swept, parallel};
use crate::error::{Error, Result};
use crate::oci::{Checked, Digest};

/// How much of a blob is sent at a time, in bytes; parts of S3 have at least 5 MiB.
const PART: usize = 8 << 20;
/// The most parts that services take for one object.
const MOST_PARTS: u64 = 10_000;

/// What can be done about an entry that is in the way.
const FROZEN: &str = "the cache of GitHub Actions replaces nothing: an entry stays until GitHub drops it";

/// Records and blobs as objects.
pub(super) struct Objects {
    name: String,
    operator: Operator,
    limits: Limits,
    known: Known,
    transport: Arc<Transport>,
    /// How big files get into a WebDAV server, for which opendal would take them into memory.
    dav: Option<Dav>,
    /// Nothing can be replaced: the cache of GitHub Actions.
    frozen: bool,
}

impl Objects {
    pub fn open(address: &Address, settings: &Settings) -> Result<Objects> {
        let transport = Arc::new(Transport::new(settings.patient_access()));
        let context = OperationContext::new()
            .with_http_transport(HttpTransporter::new(transport::Shared(transport.clone())));
        let operator = services::service(address, settings)?.with_context(context);
        let dav = match address.scheme.starts_with("webdav") {
            true => Some(Dav::new(address, settings, transport.clone())?),
            false => None,
        };
        let (name, frozen) = (address.shown(), address.scheme == "ghac");
        let known = Known::default();
        Ok(Objects { name, operator, limits: settings.limits, known, transport, dav, frozen })
    }

    fn record_path(key: &RecordKey) -> String {
        let name = key.to_string();
        format!("records/{}/{name}", &name[4..6])
    }

    fn blob_path(blob: &Blob) -> Result<String> {
        let hex = super::hex(blob)?;
        Ok(format!("blobs/{}/{hex}", &hex[..2]))
    }

    fn failed(&self, verb: &str, path: &str, deadline: Deadline, why: &opendal::Error) -> Error {
        let mut error = said(Error::machine(format!("cannot {verb} `{path}` of {}", self.name)), why);
        if self.dav.is_some() && why.kind() == ErrorKind::PermissionDenied {
            error = error.hint(dav::LOGIN);
        }
        super::late(&self.name, deadline, error)
    }

    fn try_failed(&self, verb: &str, path: &str, call: &Call, why: &opendal::Error) -> Failed {
        // Somebody may be just writing the same, where nothing can be replaced.
        let passing = why.is_temporary() || why.kind() == ErrorKind::AlreadyExists;
        Failed { passing, error: self.failed(verb, path, call.deadline, why) }
    }

    /// The length of an object; none when it is not there.
    fn length(&self, call: &Call, path: &str) -> Result<Option<u64>> {
        match call.run_again(|| self.operator.stat(path)) {
            Ok(found) => Ok(found.is_file().then(|| found.content_length())),
            Err(why) if is_absent(&why) => Ok(None),
            Err(why) => Err(self.failed("look for", path, call.deadline, &why)),
        }
    }

    fn has(&self, blob: &Blob) -> Result<bool> {
        let call = Call::new(self.limits)?;
        Ok(self.length(&call, &Self::blob_path(blob)?)? == Some(blob.size))
    }

    /// A record; none when there is none, or it is too long.
    fn record(&self, key: &RecordKey) -> Result<Option<Vec<u8>>> {
        let (call, path) = (Call::new(self.limits)?, Self::record_path(key));
        let read = || async {
            let mut stream = self.operator.reader(&path).await?.into_stream(..).await?;
            let mut bytes = Vec::new();
            while let Some(piece) = next(&mut stream).await? {
                bytes.extend_from_slice(&piece.to_vec());
                if bytes.len() > MOST_RECORD {
                    return Ok(None);
                }
            }
            Ok(Some(bytes))
        };
        match call.run_again(read) {
            Ok(bytes) => Ok(bytes),
            Err(why) if is_absent(&why) => Ok(None),
            Err(why) => Err(self.failed("read", &path, call.deadline, &why)),
        }
    }

    /// Sends a blob in parts, in memory that does not grow with it.
    fn send(&self, call: &Call, path: &str, blob: &Blob, bytes: &mut dyn Read) -> Result<(), Failed> {
        let failed = |why: opendal::Error| self.try_failed("write", path, call, &why);
        let part = PART.max(usize::try_from(blob.size.div_ceil(MOST_PARTS)).unwrap_or(usize::MAX));
        let mut writer =
            call.run(self.operator.writer_with(path).chunk(part).into_future()).map_err(failed)?;
        let sent = (|| {
            loop {
                let mut buffer = Vec::new();
                bytes.take(part as u64).read_to_end(&mut buffer).map_err(|why| {
                    Error::machine(format!("cannot send {} to {}", blob.digest, self.name)).because(why)
                })?;
                if buffer.is_empty() {
                    return call.run(writer.close()).map(drop).map_err(failed);
                }
                call.run(writer.write(buffer)).map_err(failed)?;
            }
        })();
        if sent.is_err() {
            // What is left of it is thrown away there; that fails where the server is gone, and is its business then.
            let _ = call.run(writer.abort());
        }
        sent
    }
}

impl Remote for Objects {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn records(&self, keys: &[RecordKey]) -> Result<Vec<Option<Vec<u8>>>> {
        parallel::all(keys, |key| self.record(key))
    }

    fn put_record(&self, key: &RecordKey, bytes: &[u8], blobs: &[Blob]) -> Result<()> {
        super::expect_short(key, bytes)?;
        let others = self.known.others(blobs);
        super::expect_all(&self.name, key, &others, &self.has_blobs(&others)?)?;
        let (call, path) = (Call::new(self.limits)?, Self::record_path(key));
        let write = || self.operator.write(&path, bytes.to_vec());
        match call.run_again(write) {
            Ok(_) => Ok(()),
            Err(_) if self.frozen && self.record(key)?.is_some_and(|there| there == bytes) => Ok(()),
            Err(why) => Err(self.failed("write", &path, call.deadline, &why)),
        }
    }

    fn has_blobs(&self, blobs: &[Blob]) -> Result<Vec<bool>> {
        let has = parallel::all(blobs, |blob| self.has(blob))?;
        self.known.add(blobs.iter().zip(&has).filter(|(_, has)| **has).map(|(blob, _)| blob));
        Ok(has)
    }

    fn blob(&self, blob: &Blob, range: Option<Range<u64>>, read: Reader) -> Result<bool> {
        let whole = range.is_none();
        let range = range.unwrap_or(0..blob.size);
        if range.start > range.end || range.end > blob.size {
            return Ok(false);
        }
        let (call, path) = (Call::moving(range.end - range.start, self.limits)?, Self::blob_path(blob)?);
        if range.is_empty() {
            let there = self.length(&call, &path)? == Some(blob.size);
            return if there { read(&mut io::empty()).map(|()| true) } else { Ok(false) };
        }
        let open = |from: u64| {
            let (operator, path, to) = (&self.operator, &path, range.end);
            call.run_again(move || async move {
                // All of it is asked for without saying so: an answer then tells the length of the object.
                let reader = operator.reader(path).await?;
                match from == 0 && whole {
                    true => reader.into_stream(..).await,
                    false => reader.into_stream(from..to).await,
                }
            })
        };
        let mut stream = match open(range.start) {
            Ok(stream) => stream,
            Err(why) if is_absent(&why) => return Ok(false),
            Err(why) => return Err(self.failed("read", &path, call.deadline, &why)),
        };
        // The first piece is what tells whether it is there.
        let first = match call.run_again_on(&mut stream, || open(range.start)) {
            Ok(first) => first,
            Err(why) if is_absent(&why) || why.kind() == ErrorKind::RangeNotSatisfied => return Ok(false),
            Err(why) => return Err(self.failed("read", &path, call.deadline, &why)),
        };
        if whole {
            match call.run(stream.metadata()) {
                Ok(metadata) if metadata.content_length() != blob.size => return Ok(false),
                _ => {}
            }
        }
        let mut body = Body {
            call: &call,
            stream,
            open: &open,
            piece: first,
            at: range.start,
            end: range.end,
            tries: 0,
            failed: None,
        };
        let done = read(&mut body);
        match body.failed {
            Some(why) => Err(self.failed("read", &path, call.deadline, &why)),
            None => done.map(|()| true),
        }
    }

    fn put_blob(&self, blob: &Blob, source: Source) -> Result<()> {
        let (call, path) = (Call::moving(blob.size, self.limits)?, Self::blob_path(blob)?);
        call.again(|| {
            // Asked before each try: somebody else may have put it there, or an answer was lost.
            if self.length(&call, &path)? == Some(blob.size) {
                return Ok(());
            }
            let bytes = Checked::new(source()?, blob.digest.clone(), Some(blob.size));
            let mut bytes = bytes.map_err(|why| Error::machine("cannot check a blob").because(why))?;
            match &self.dav {
                Some(dav) => dav.put(self, &call, &path, blob, &mut bytes),
                None => self.send(&call, &path, blob, &mut bytes),
            }
        })?;
        self.known.add([blob]);
        Ok(())
    }

    fn moved(&self) -> Option<u64> {
        Some(self.transport.moved.load(Ordering::Relaxed))
    }

    fn keys(&self) -> Result<Vec<RecordKey>> {
        if self.frozen {
            return Err(Error::usage(format!("{} cannot be listed", self.name))
                .hint("the cache of GitHub Actions has no list; `gh cache list` shows its entries"));
        }
        let entries = self.list("records/")?;
        let key = |entry: &opendal::Entry| {
            let key: RecordKey = entry.name().parse().ok()?;
            (Self::record_path(&key) == entry.path()).then_some(key)
        };
        let mut keys: Vec<RecordKey> = entries.iter().filter_map(key).collect();
        keys.sort_unstable();
        Ok(keys)
    }

    fn remove(&self, key: &RecordKey) -> Result<bool> {
        if self.frozen {
            return Err(Error::usage(format!("nothing can be taken out of {}", self.name)).hint(FROZEN));
        }
        let (call, path) = (Call::new(self.limits)?, Self::record_path(key));
        // Deleting what is not there is no error, so it has to be asked for.
        if self.length(&call, &path)?.is_none() {
            return Ok(false);
        }
        match call.run_again(|| self.operator.delete(&path)) {
            Ok(()) => Ok(true),
            Err(why) => Err(self.failed("remove", &path, call.deadline, &why)),
        }
    }

    fn sweep(&self, wanted: &dyn Fn(&Digest) -> bool, before: i64) -> Result<Option<Swept>> {
        if self.frozen {
            return Ok(None);
        }
        self.delete_unwanted(wanted, before).map(Some)
    }
}

/// A try that failed.
struct Failed {
    error: Error,
    /// It may go better next time.
    passing: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed { error, passing: false }
    }
}

/// One call: an executor on the thread of the caller, and the end of its time. No thread is made for it, so none has to
/// be ended.
struct Call {
    runtime: tokio::runtime::Runtime,
    deadline: Deadline,
}

impl Call {
    fn new(limits: Limits) -> Result<Call> {
        Call::moving(0, limits)
    }

    /// One that moves so many bytes.
    fn moving(bytes: u64, limits: Limits) -> Result<Call> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|why| Error::machine("cannot wait for the network").because(why))?;
        Ok(Call { runtime, deadline: Deadline::moving(bytes, limits) })
    }

    fn run<T>(&self, work: impl Future<Output = opendal::Result<T>>) -> opendal::Result<T> {
        self.runtime.block_on(DEADLINE.scope(self.deadline, work))
    }

    /// Runs it again when that may go better.
    fn run_again<T, F: Future<Output = opendal::Result<T>>>(
        &self,
        work: impl Fn() -> F,
    ) -> opendal::Result<T> {
        self.tries(|| self.run(work()), opendal::Error::is_temporary)
    }

    /// The same for what takes more than one request.
    fn again(&self, work: impl FnMut() -> Result<(), Failed>) -> Result<()> {
        self.tries(work, |failed| failed.passing).map_err(|failed| failed.error)
    }

    fn tries<T, E>(
        &self,
        mut work: impl FnMut() -> Result<T, E>,
        passing: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let mut time = PAUSE;
        for _ in 1..TRIES {
            match work() {
                Err(why) if passing(&why) && self.deadline.left().is_some_and(|left| left > time) => {
                    std::thread::sleep(time);
                    time *= 2;
                }
                done => return done,
            }
        }
        work()
    }

    /// The first piece of a stream, which is opened once more when that may go better.
    fn run_again_on(
        &self,
        stream: &mut BufferStream,
        open: impl Fn() -> opendal::Result<BufferStream>,
    ) -> opendal::Result<Buffer> {
        match self.run(next(stream)) {
            Err(why) if why.is_temporary() => {
                *stream = open()?;
                self.run(next(stream)).map(Option::unwrap_or_default)
            }
            done => done.map(Option::unwrap_or_default),
        }
    }
}

async fn next(stream: &mut BufferStream) -> opendal::Result<Option<Buffer>> {
    let mut stream = std::pin::pin!(stream);
    std::future::poll_fn(|cx| futures_core::Stream::poll_next(stream.as_mut(), cx)).await.transpose()
}

/// The bytes of a blob as they come; taken up again where they broke off.
struct Body<'a> {
    call: &'a Call,
    stream: BufferStream,
    open: &'a dyn Fn(u64) -> opendal::Result<BufferStream>,
    piece: Buffer,
    at: u64,
    end: u64,
    /// How often it broke off without giving anything.
    tries: u32,
    failed: Option<opendal::Error>,
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.piece.is_empty() {
                let n = self.piece.read(buffer)?;
                self.at += n as u64;
                return Ok(n);
            }
            // One that gives more than it should is read on: the digest is what tells.
            if self.at >= self.end || self.failed.is_some() {
                return Ok(0);
            }
            match self.call.run(next(&mut self.stream)) {
                Ok(Some(piece)) => (self.piece, self.tries) = (piece, 0),
                Ok(None) => return Ok(0),
                Err(why) => {
                    self.tries += 1;
                    let again = why.is_temporary() && self.tries < TRIES;
                    match if again { (self.open)(self.at) } else { Err(why) } {
                        Ok(stream) => self.stream = stream,
                        Err(why) => {
                            let shown = io::Error::other(why.message().to_string());
                            self.failed = Some(why);
                            return Err(shown);
                        }
                    }
                }
            }
        }
    }
}

fn is_absent(why: &opendal::Error) -> bool {
    matches!(why.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory)
}

/// Adds what opendal says, and what can be done about it.
fn said(error: Error, why: &opendal::Error) -> Error {
    let text: String = why.message().chars().filter(|c| !c.is_control()).take(300).collect();
    let error = error.because(format!("{}: {text}", why.kind()));
    match why.kind() {
        ErrorKind::PermissionDenied => {
            error.hint("see whether the credentials are those of somebody who may do that; the guide says where they come from")
        }
        ErrorKind::AlreadyExists => error.hint(FROZEN),
        ErrorKind::ConfigInvalid => error.hint("see the guide for what the URL of this kind of remote needs"),
        _ => error,
    }
}
