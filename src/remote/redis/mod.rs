//! Redis as a remote: a string for each record and blob, named `<prefix>records/<key>` and `<prefix>blobs/<sha256>`.
//!
//! Spoken here and not through opendal, which holds a whole value in memory and asks for one at a time: blobs go and
//! come in pieces, and all records of a look-up are one round trip.

mod sweep;
mod wire;

use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use self::wire::{Answer, Connection};
use super::address::Address;
use super::known::Known;
use super::settings::{Deadline, PAUSE, TRIES};
use super::{Blob, Limits, MOST_RECORD, Reader, RecordKey, Remote, Settings, Source, Swept};
use crate::error::{Error, Result};
use crate::oci::{Checked, Digest};

/// How much of a blob goes or comes at a time, in bytes.
const PIECE: usize = 2 << 20;
/// The longest string that Redis keeps, in bytes.
const MOST_STRING: u64 = 512 << 20;
/// How long an upload that was left alone stays, in seconds.
const UPLOAD_STAYS: &[u8] = b"3600";
/// Connections that are kept.
const MOST_KEPT: usize = 16;

/// Records and blobs as strings of a Redis server.
pub(super) struct Redis {
    name: String,
    host: String,
    login: Option<(String, String)>,
    database: String,
    prefix: String,
    limits: Limits,
    kept: Mutex<Vec<Connection>>,
    count: AtomicU64,
    known: Known,
    /// Bytes that have gone and come.
    moved: Arc<AtomicU64>,
}

/// Why a call went wrong.
enum Trouble {
    /// The connection.
    Io(io::Error),
    /// The server refuses.
    Refused(String),
    /// Whoever gives or takes the bytes.
    Ours(Error),
}

impl Trouble {
    /// Whether it may go better next time.
    fn passes(&self) -> bool {
        match self {
            Trouble::Io(why) => why.kind() != ErrorKind::TimedOut,
            Trouble::Refused(why) => {
                let word = why.split(' ').next().unwrap_or_default();
                ["BUSY", "LOADING", "TRYAGAIN", "MASTERDOWN", "CLUSTERDOWN"].contains(&word)
            }
            Trouble::Ours(_) => false,
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(why: io::Error) -> Trouble {
        Trouble::Io(why)
    }
}

impl Redis {
    pub fn open(address: &Address, settings: &Settings) -> Result<Redis> {
        address.expect(&["prefix"], true)?;
        let wrong = |why: String| {
            Error::usage(format!("{} is no remote", address.shown()))
                .because(why)
                .hint("write redis://host, redis://host:6379/0 or redis://user:password@host/0?prefix=team:")
        };
        let name = address.host.split(':').next().unwrap_or_default();
        if name.is_empty() {
            return Err(wrong("it names no host".to_string()));
        }
        if let Some(why) = settings.access.refuses_host(name.trim_start_matches('[')) {
            return Err(wrong(why));
        }
        let database = if address.path.is_empty() { "0" } else { &address.path };
        if database.parse::<u32>().is_err() {
            return Err(wrong(format!("`{database}` is not the number of a database")));
        }
        let port = address.host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
        let host = if port { address.host.clone() } else { format!("{}:6379", address.host) };
        let login = match &address.login {
            // `redis://:secret@host` and `redis://secret@host` are both in use.
            Some((user, Some(secret))) => Some((user.clone(), secret.clone())),
            Some((user, None)) => {
                Some((user.clone(), settings.variable("REDIS_PASSWORD").unwrap_or("").to_string()))
            }
            None => settings.variable("REDIS_PASSWORD").map(|secret| {
                (settings.variable("REDIS_USER").unwrap_or("").to_string(), secret.to_string())
            }),
        };
        Ok(Redis {
            name: address.shown(),
            host,
            login,
            database: database.to_string(),
            prefix: address.option("prefix").unwrap_or("isolith:").to_string(),
            limits: settings.limits,
            kept: Mutex::default(),
            count: AtomicU64::new(0),
            known: Known::default(),
            moved: Arc::default(),
        })
    }

    fn record_name(&self, key: &RecordKey) -> Vec<u8> {
        format!("{}records/{key}", self.prefix).into_bytes()
    }

    fn blob_name(&self, blob: &Blob) -> Result<Vec<u8>> {
        Ok(format!("{}blobs/{}", self.prefix, super::hex(blob)?).into_bytes())
    }

    fn connect(&self, deadline: Deadline) -> Result<Connection, Trouble> {
        let mut connection = Connection::open(&self.host, self.limits, self.moved.clone())?;
        let mut first: Vec<Vec<&[u8]>> = Vec::new();
        if let Some((user, secret)) = &self.login {
            first.push(match user.is_empty() {
                true => vec![b"AUTH", secret.as_bytes()],
                false => vec![b"AUTH", user.as_bytes(), secret.as_bytes()],
            });
        }
        if self.database != "0" {
            first.push(vec![b"SELECT", self.database.as_bytes()]);
        }
        for answer in connection.ask(&first, 1024, deadline)? {
            good(answer)?;
        }
        Ok(connection)
    }

    /// Runs a call on a connection.
    fn call<T>(&self, work: impl FnMut(&mut Connection, Deadline) -> Result<T, Trouble>) -> Result<T> {
        self.within(Deadline::moving(0, self.limits), work)
    }

    /// The same with a given end. What may go better next time is tried again; a connection that was kept may have
    /// ended meanwhile, so another one is made then.
    fn within<T>(
        &self,
        deadline: Deadline,
        mut work: impl FnMut(&mut Connection, Deadline) -> Result<T, Trouble>,
    ) -> Result<T> {
        let mut attempt = |first: bool| {
            let kept = self.kept.lock().unwrap_or_else(|e| e.into_inner()).pop();
            let mut connection = match kept.filter(|_| first) {
                Some(connection) => connection,
                None => self.connect(deadline)?,
            };
            let done = work(&mut connection, deadline)?;
            let mut kept = self.kept.lock().unwrap_or_else(|e| e.into_inner());
            if kept.len() < MOST_KEPT {
                kept.push(connection);
            }
            Ok::<T, Trouble>(done)
        };
        let (mut done, mut time) = (attempt(true), PAUSE);
        for _ in 1..TRIES {
            match &done {
                Err(trouble) if trouble.passes() && deadline.left().is_some_and(|left| left > time) => {
                    std::thread::sleep(time);
                    time *= 2;
                    done = attempt(false);
                }
                _ => break,
            }
        }
        done.map_err(|trouble| self.failed(trouble, deadline))
    }

    fn failed(&self, trouble: Trouble, deadline: Deadline) -> Error {
        let what = || Error::machine(format!("cannot ask {}", self.name));
        let error = match trouble {
            Trouble::Ours(error) => return error,
            Trouble::Io(why) => what().because(why),
            Trouble::Refused(why) => {
                let hint = match why.split(' ').next().unwrap_or_default() {
                    "NOAUTH" | "WRONGPASS" | "NOPERM" => {
                        "give user and password in the URL, or in REDIS_USER and REDIS_PASSWORD"
                    }
                    "OOM" => {
                        "it is full: give it more memory (`maxmemory`), or let it drop what is old (`maxmemory-policy`)"
                    }
                    "READONLY" => "it is a replica, which can only be read: name the server that it follows",
                    _ => "see the log of the server",
                };
                what().because(format!("the server says {why}")).hint(hint)
            }
        };
        super::late(&self.name, deadline, error)
    }

    /// The lengths of strings; 0 where there is none.
    fn lengths(&self, names: &[Vec<u8>]) -> Result<Vec<u64>> {
        let commands: Vec<Vec<&[u8]>> = names.iter().map(|name| vec![&b"STRLEN"[..], name]).collect();
        self.call(|connection, deadline| {
            connection
                .ask(&commands, 1024, deadline)?
                .into_iter()
                .map(|answer| number(answer).map(|n| n as u64))
                .collect()
        })
    }

    fn exists(&self, name: &[u8]) -> Result<bool> {
        self.call(|connection, deadline| Ok(number(one(connection, vec![b"EXISTS", name], deadline)?)? > 0))
    }

    /// Sends a blob in pieces under a name of its own, which then becomes its name.
    fn send(
        &self,
        connection: &mut Connection,
        blob: &Blob,
        name: &[u8],
        bytes: &mut dyn Read,
        deadline: Deadline,
    ) -> Result<(), Trouble> {
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let upload = format!("{}upload/{now:x}-{:x}-{count}", self.prefix, std::process::id());
        let upload = upload.as_bytes();
        let mut buffer = Vec::new();
        let mut first = true;
        loop {
            buffer.clear();
            if let Err(why) = (&mut *bytes).take(PIECE as u64).read_to_end(&mut buffer) {
                let _ = one(connection, vec![b"DEL", upload], deadline);
                let what = format!("cannot send {} to {}", blob.digest, self.name);
                return Err(Trouble::Ours(Error::machine(what).because(why)));
            }
            if buffer.is_empty() && !first {
                break;
            }
            let commands = [vec![&b"APPEND"[..], upload, &buffer], vec![b"EXPIRE", upload, UPLOAD_STAYS]];
            for answer in connection.ask(if first { &commands } else { &commands[..1] }, 1024, deadline)? {
                if let Err(trouble) = number(answer) {
                    let _ = one(connection, vec![b"DEL", upload], deadline);
                    return Err(trouble);
                }
            }
            first = false;
        }
        let last = match blob.size {
            // Appending nothing makes nothing.
            0 => vec![vec![&b"SET"[..], name, b""]],
            _ => vec![vec![&b"PERSIST"[..], upload], vec![b"RENAME", upload, name]],
        };
        connection.ask(&last, 1024, deadline)?.into_iter().try_for_each(good)
    }
}

impl Remote for Redis {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn records(&self, keys: &[RecordKey]) -> Result<Vec<Option<Vec<u8>>>> {
        let names: Vec<Vec<u8>> = keys.iter().map(|key| self.record_name(key)).collect();
        let most = MOST_RECORD.to_string();
        // One byte more than may be, so that it is noticed; and no bytes may be a record or none.
        let each = |name| [vec![&b"GETRANGE"[..], name, b"0", most.as_bytes()], vec![b"EXISTS", name]];
        let commands: Vec<Vec<&[u8]>> = names.iter().flat_map(|name| each(name)).collect();
        self.call(|connection, deadline| {
            let mut answers = connection.ask(&commands, MOST_RECORD + 1, deadline)?.into_iter();
            let mut found = Vec::with_capacity(keys.len());
            while let (Some(bytes), Some(there)) = (answers.next(), answers.next()) {
                let (bytes, there) = (bytes_of(bytes)?, number(there)? > 0);
                found.push((there && bytes.len() <= MOST_RECORD).then_some(bytes));
            }
            Ok(found)
        })
    }

    fn put_record(&self, key: &RecordKey, bytes: &[u8], blobs: &[Blob]) -> Result<()> {
        super::expect_short(key, bytes)?;
        let others = self.known.others(blobs);
        super::expect_all(&self.name, key, &others, &self.has_blobs(&others)?)?;
        let name = self.record_name(key);
        self.call(|connection, deadline| good(one(connection, vec![b"SET", &name, bytes], deadline)?))
    }

    fn has_blobs(&self, blobs: &[Blob]) -> Result<Vec<bool>> {
        let names: Vec<Vec<u8>> = blobs.iter().map(|blob| self.blob_name(blob)).collect::<Result<_>>()?;
        let lengths = self.lengths(&names)?;
        let has = |((blob, name), length): ((&Blob, &Vec<u8>), u64)| match blob.size {
            0 => self.exists(name),
            size => Ok(length == size),
        };
        let has: Vec<bool> = blobs.iter().zip(&names).zip(lengths).map(has).collect::<Result<_>>()?;
        self.known.add(blobs.iter().zip(&has).filter(|(_, has)| **has).map(|(blob, _)| blob));
        Ok(has)
    }

    fn blob(&self, blob: &Blob, range: Option<Range<u64>>, read: Reader) -> Result<bool> {
        let range = range.unwrap_or(0..blob.size);
        if range.start > range.end || range.end > blob.size || !self.has_blobs(std::slice::from_ref(blob))?[0]
        {
            return Ok(false);
        }
        let deadline = Deadline::moving(range.end - range.start, self.limits);
        let (at, end) = (range.start, range.end);
        let mut body = Body {
            redis: self,
            name: self.blob_name(blob)?,
            piece: Vec::new(),
            used: 0,
            at,
            end,
            deadline,
            failed: None,
        };
        let done = read(&mut body);
        match body.failed {
            Some(error) => Err(super::late(&self.name, deadline, error)),
            None => done.map(|()| true),
        }
    }

    fn put_blob(&self, blob: &Blob, source: Source) -> Result<()> {
        if blob.size > MOST_STRING {
            return Err(Error::machine(format!("{} does not fit into {}", blob.digest, self.name))
                .because(format!("it has {} bytes, and Redis keeps at most {MOST_STRING} in one", blob.size))
                .hint("use another kind of remote for layers as large as this"));
        }
        if self.has_blobs(std::slice::from_ref(blob))?[0] {
            return Ok(());
        }
        let name = self.blob_name(blob)?;
        self.within(Deadline::moving(blob.size, self.limits), |connection, deadline| {
            let bytes = source().map_err(Trouble::Ours)?;
            let mut bytes = Checked::new(bytes, blob.digest.clone(), Some(blob.size))?;
            self.send(connection, blob, &name, &mut bytes, deadline)
        })?;
        self.known.add([blob]);
        Ok(())
    }

    fn moved(&self) -> Option<u64> {
        Some(self.moved.load(Ordering::Relaxed))
    }

    fn keys(&self) -> Result<Vec<RecordKey>> {
        let mut keys: Vec<RecordKey> =
            self.names("records")?.iter().filter_map(|name| name.parse().ok()).collect();
        keys.sort_unstable();
        Ok(keys)
    }

    fn remove(&self, key: &RecordKey) -> Result<bool> {
        let name = self.record_name(key);
        self.call(|connection, deadline| Ok(number(one(connection, vec![b"DEL", &name], deadline)?)? > 0))
    }

    fn sweep(&self, wanted: &dyn Fn(&Digest) -> bool, before: i64) -> Result<Option<Swept>> {
        self.delete_unwanted(wanted, before).map(Some)
    }
}

/// The bytes of a blob, a piece at a time.
struct Body<'a> {
    redis: &'a Redis,
    name: Vec<u8>,
    piece: Vec<u8>,
    used: usize,
    at: u64,
    end: u64,
    deadline: Deadline,
    failed: Option<Error>,
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.piece.len() && self.at < self.end && self.failed.is_none() {
            let last = self.end.min(self.at + PIECE as u64);
            let (from, to) = (self.at.to_string(), (last - 1).to_string());
            let command = vec![&b"GETRANGE"[..], &self.name, from.as_bytes(), to.as_bytes()];
            let piece = self.redis.within(self.deadline, |connection, _| {
                let answer = connection.ask(std::slice::from_ref(&command), PIECE, self.deadline)?;
                bytes_of(answer.into_iter().next().ok_or_else(odd)?)
            });
            match piece {
                Ok(piece) => {
                    self.at += piece.len() as u64;
                    (self.piece, self.used) = (piece, 0);
                }
                Err(error) => {
                    let shown = io::Error::other(error.to_string());
                    self.failed = Some(error);
                    return Err(shown);
                }
            }
        }
        // No bytes where there should be some: the blob is gone, and its digest will tell.
        let n = buffer.len().min(self.piece.len() - self.used);
        buffer[..n].copy_from_slice(&self.piece[self.used..self.used + n]);
        self.used += n;
        Ok(n)
    }
}

fn one(connection: &mut Connection, command: Vec<&[u8]>, deadline: Deadline) -> Result<Answer, Trouble> {
    connection.ask(&[command], MOST_RECORD, deadline)?.into_iter().next().ok_or_else(odd)
}

fn odd() -> Trouble {
    Trouble::Io(io::Error::new(ErrorKind::InvalidData, "the server gives an answer to something else"))
}

fn good(answer: Answer) -> Result<(), Trouble> {
    match answer {
        Answer::Text(_) | Answer::Number(_) => Ok(()),
        Answer::Refused(why) => Err(Trouble::Refused(why)),
        _ => Err(odd()),
    }
}

fn number(answer: Answer) -> Result<i64, Trouble> {
    match answer {
        Answer::Number(number) => Ok(number),
        Answer::Refused(why) => Err(Trouble::Refused(why)),
        _ => Err(odd()),
    }
}

fn bytes_of(answer: Answer) -> Result<Vec<u8>, Trouble> {
    match answer {
        Answer::Bytes(bytes) => Ok(bytes.unwrap_or_default()),
        Answer::Refused(why) => Err(Trouble::Refused(why)),
        _ => Err(odd()),
    }
}
