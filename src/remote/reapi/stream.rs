//! Large blobs, and ranges of them: the byte streams of the API, in memory that does not grow with them.

use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use bazel_remote_apis::google::bytestream::{ReadRequest, ReadResponse, WriteRequest};
use tonic::{Status, Streaming};

use super::super::settings::Deadline;
use super::super::{Blob, Reader, Source};
use super::cas::{Abilities, LEVEL};
use super::record::of_blob;
use super::server::{PAUSE, Server, TRIES, again, may_pass};
use crate::error::{Error, Result};
use crate::oci::Checked;

/// How much of a blob goes at a time, in bytes.
const PIECE: usize = 128 << 10;
/// What may be between here and the server when the last piece has been handed over, in bytes.
const BUFFERED: usize = 2 << 20;
/// The largest window that is decompressed, as a power of two: what a server can have held in memory here.
const MOST_WINDOW: u32 = 25;
/// What everything that zstd has compressed begins with (RFC 8878, section 3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Why nothing was sent.
enum Trouble {
    /// The server.
    Status(Status),
    /// Whoever gives the bytes.
    Ours(Error),
}

impl Server {
    /// What a blob is called in a stream.
    fn resource(&self, prefix: &str, blob: &Blob, packed: bool) -> Result<String> {
        let digest = of_blob(blob)?;
        let kind = if packed { "compressed-blobs/zstd" } else { "blobs" };
        let instance = if self.instance.is_empty() { String::new() } else { format!("{}/", self.instance) };
        Ok(format!("{instance}{prefix}{kind}/{}/{}", digest.hash, digest.size_bytes))
    }

    /// Sends a blob; once more when that may go better.
    pub fn send(&self, can: &Abilities, blob: &Blob, source: Source, deadline: Deadline) -> Result<()> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_send(can, blob, source()?, deadline) {
                Ok(()) => return Ok(()),
                Err(Trouble::Status(why)) if tries < TRIES && may_pass(&why) => std::thread::sleep(PAUSE),
                Err(Trouble::Status(why)) => {
                    return Err(self.failed(&format!("put {} into", blob.digest), &why, deadline));
                }
                Err(Trouble::Ours(why)) => return Err(why),
            }
        }
    }

    fn try_send(
        &self,
        can: &Abilities,
        blob: &Blob,
        bytes: Box<dyn Read>,
        deadline: Deadline,
    ) -> Result<(), Trouble> {
        let unread = |why: io::Error| {
            Trouble::Ours(
                Error::machine(format!("cannot send {} to {}", blob.digest, self.name)).because(why),
            )
        };
        let mut bytes = Checked::new(bytes, blob.digest.clone(), Some(blob.size)).map_err(unread)?;
        let start = piece(&mut bytes).map_err(unread)?;
        // What is compressed already, as layers are, is sent as it is.
        let packed = can.zstd_stream && !start.starts_with(&ZSTD);
        let whole = Cursor::new(start).chain(bytes);
        let from: Box<dyn Read> = match packed {
            true => Box::new(zstd::stream::read::Encoder::new(whole, LEVEL).map_err(unread)?),
            false => Box::new(whole),
        };
        let prefix = format!("uploads/{}/", upload_id());
        let resource_name = self.resource(&prefix, blob, packed).map_err(Trouble::Ours)?;

        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let mut client = self.bytes();
        let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let call = self.spawn(async move { client.write(requests).await });
        let mut request = WriteRequest { resource_name, ..WriteRequest::default() };
        let mut pieces = Pieces::new(from).map_err(unread)?;
        while !request.finish_write {
            match pieces.next() {
                Ok((data, last)) => (request.data, request.finish_write) = (data, last),
                Err(why) => {
                    call.abort();
                    // So that the server learns that nothing more comes.
                    let _ = self.run(deadline, 0, async { Ok(call.await.is_ok()) });
                    return Err(unread(why));
                }
            }
            let (size, message) = (request.data.len(), request.clone());
            let taken = self.run(deadline, size, async { Ok(sender.send(message).await) });
            if taken.map_err(Trouble::Status)?.is_err() {
                // The call has ended, well or badly.
                break;
            }
            request.write_offset += size as i64;
            // Only the first one has to have it.
            request.resource_name.clear();
        }
        drop(sender);
        let answer = self.run(deadline, BUFFERED, async {
            call.await.unwrap_or_else(|_| Err(Status::internal("a request was lost")))
        });
        let committed = answer.map_err(Trouble::Status)?.into_inner().committed_size;
        // What is said of compressed ones differs from server to server; that the bytes are right they all check.
        match packed || committed == blob.size as i64 {
            true => Ok(()),
            false => {
                let why = format!("it has taken {committed} of {} bytes", blob.size);
                Err(Trouble::Status(Status::data_loss(why)))
            }
        }
    }

    /// Gives a range of a blob, or all of it, to `read`; false when it is not there.
    pub fn receive(
        &self,
        can: &Abilities,
        blob: &Blob,
        range: Option<Range<u64>>,
        read: Reader,
        deadline: Deadline,
    ) -> Result<bool> {
        let failed = |why: &Status| self.failed(&format!("get {} from", blob.digest), why, deadline);
        // The API has no end for what is compressed, so ranges come as they are.
        let packed = range.is_none() && can.zstd_stream;
        let resource = self.resource("", blob, packed)?;
        let (at, end) = match range {
            Some(range) => (range.start, Some(range.end)),
            None => (0, None),
        };
        let started = again(deadline, || self.start(&resource, at, end, deadline));
        let (stream, piece) = match started {
            Ok(started) => started,
            Err(why) if matches!(why.code(), tonic::Code::NotFound | tonic::Code::OutOfRange) => {
                return Ok(false);
            }
            Err(why) => return Err(failed(&why)),
        };
        let mut body = Body {
            server: self,
            resource,
            deadline,
            stream,
            piece: Cursor::new(piece),
            at,
            end,
            tries: if packed { TRIES } else { 0 },
            failed: None,
        };
        let done = match packed {
            true => {
                let opened = zstd::stream::read::Decoder::new(&mut body);
                let limited = opened.and_then(|mut from| from.window_log_max(MOST_WINDOW).map(|()| from));
                let mut from =
                    limited.map_err(|why| Error::machine("cannot decompress a blob").because(why))?;
                read(&mut from)
            }
            false => read(&mut body),
        };
        match body.failed {
            Some(why) => Err(failed(&why)),
            None => done.map(|()| true),
        }
    }

    /// Starts to read, up to the first bytes: they tell that the blob is there.
    fn start(
        &self,
        resource: &str,
        at: u64,
        end: Option<u64>,
        deadline: Deadline,
    ) -> Result<(Streaming<ReadResponse>, Vec<u8>), Status> {
        let request = ReadRequest {
            resource_name: resource.to_string(),
            read_offset: at as i64,
            read_limit: end.map_or(0, |end| (end - at) as i64),
        };
        let mut client = self.bytes();
        self.run(deadline, PIECE, async {
            let mut stream = client.read(request).await?.into_inner();
            let first = next(&mut stream).await?;
            Ok((stream, first))
        })
    }
}

/// The next bytes of a stream; none at its end.
async fn next(stream: &mut Streaming<ReadResponse>) -> Result<Vec<u8>, Status> {
    while let Some(message) = stream.message().await? {
        // Empty ones say that the server is still there.
        if !message.data.is_empty() {
            return Ok(message.data);
        }
    }
    Ok(Vec::new())
}

/// The bytes of a blob as they come; taken up again where they broke off.
struct Body<'a> {
    server: &'a Server,
    resource: String,
    deadline: Deadline,
    stream: Streaming<ReadResponse>,
    piece: Cursor<Vec<u8>>,
    at: u64,
    /// Where the range ends; a whole blob is read to the end of the stream, and its digest tells.
    end: Option<u64>,
    /// How often it broke off without giving anything.
    tries: usize,
    failed: Option<Status>,
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.end.map_or(u64::MAX, |end| end - self.at);
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = self.piece.read(&mut buffer[..wanted])?;
            self.at += n as u64;
            if n > 0 || wanted == 0 || self.failed.is_some() {
                return Ok(n);
            }
            match self.server.run(self.deadline, PIECE, next(&mut self.stream)) {
                Ok(piece) if piece.is_empty() => return Ok(0),
                Ok(piece) => {
                    self.piece = Cursor::new(piece);
                    // Those of a compressed blob cannot be taken up in the middle.
                    self.tries = if self.tries < TRIES { 0 } else { TRIES };
                }
                Err(why) => {
                    self.tries += 1;
                    let started = match may_pass(&why) && self.tries < TRIES {
                        true => self.server.start(&self.resource, self.at, self.end, self.deadline),
                        false => Err(why),
                    };
                    match started {
                        Ok((stream, piece)) => (self.stream, self.piece) = (stream, Cursor::new(piece)),
                        Err(why) => {
                            let shown = io::Error::other("the answer was broken off");
                            self.failed = Some(why);
                            return Err(shown);
                        }
                    }
                }
            }
        }
    }
}

/// The pieces of a blob, each with whether it is the last: that is known only when the one behind it has been read, and
/// with it, that all bytes were the right ones.
struct Pieces<R> {
    from: R,
    ahead: Vec<u8>,
}

impl<R: Read> Pieces<R> {
    fn new(mut from: R) -> io::Result<Pieces<R>> {
        piece(&mut from).map(|ahead| Pieces { from, ahead })
    }

    fn next(&mut self) -> io::Result<(Vec<u8>, bool)> {
        let ahead = if self.ahead.len() < PIECE { Vec::new() } else { piece(&mut self.from)? };
        let last = ahead.is_empty();
        Ok((std::mem::replace(&mut self.ahead, ahead), last))
    }
}

/// The next bytes of a blob: fewer than a piece at its end.
fn piece(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(PIECE);
    from.take(PIECE as u64).read_to_end(&mut bytes).map(|_| bytes)
}

/// A name for an upload that no other one has (RFC 9562, version 8: made as one likes).
fn upload_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&now.as_nanos().to_le_bytes());
    hasher.update(&std::process::id().to_le_bytes());
    hasher.update(&COUNT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    // Two machines may have the same clock and the same ids, so where this is in memory counts too.
    hasher.update(&(&raw const now as usize).to_le_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    (id[6], id[8]) = (id[6] & 0x0f | 0x80, id[8] & 0x3f | 0x80);
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
