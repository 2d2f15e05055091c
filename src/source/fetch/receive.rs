//! Takes the bytes of a download in: written, hashed, counted, and watched for servers that stall.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Access, Fetched, Progress, Trouble, Watch, interrupted};
use crate::error::{Error, Result};
use crate::source::pin::Sums;
use crate::source::{Algorithm, Pin};
use crate::store::{Scratch, Store};

/// How often news of progress are given.
const NEWS: Duration = Duration::from_millis(200);
/// A server that sends fewer bytes a second than this, over the whole time that counts as a stall, has stalled.
const SLOWEST: u64 = 64;

/// A download on its way: what has come so far stays through the tries, so that the rest can be asked for.
pub(super) struct Receiver<'a> {
    pin: Option<&'a Pin>,
    /// Goes away with what is in it.
    scratch: Scratch,
    path: PathBuf,
    file: File,
    sums: Sums,
    bytes: u64,
    resumed: bool,
    /// Names this version of the file at this server: an ETag or a date, for `If-Range`.
    pub validator: Option<String>,
    began: Instant,
    told: Option<Instant>,
}

impl<'a> Receiver<'a> {
    pub fn new(store: &Store, pin: Option<&'a Pin>) -> Result<Self> {
        let scratch = store.scratch()?;
        let path = scratch.path().join("download");
        let file = File::create_new(&path).map_err(|e| Error::io("create", &path, e))?;
        let sums = sums(pin);
        let (bytes, resumed, validator, told) = (0, false, None, None);
        Ok(Self { pin, scratch, path, file, sums, bytes, resumed, validator, began: Instant::now(), told })
    }

    /// How many bytes are there; the rest may be asked for when they are pinned or have a validator.
    #[cfg(feature = "net")]
    pub fn offset(&self) -> u64 {
        if self.pin.is_some() || self.validator.is_some() { self.bytes } else { 0 }
    }

    /// The server gives the rest.
    #[cfg(feature = "net")]
    pub fn resume(&mut self) {
        self.resumed = true;
    }

    /// Whether what is there came in parts.
    pub fn was_resumed(&self) -> bool {
        self.resumed
    }

    /// Forgets what has come so far.
    pub fn restart(&mut self) -> Result<(), Trouble> {
        let cut = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cut.map_err(|e| Trouble::Ours(Error::io("write", &self.path, e)))?;
        (self.sums, self.bytes, self.resumed, self.validator) = (sums(self.pin), 0, false, None);
        Ok(())
    }

    /// Takes bytes until their end. `total` is the length that was promised for the whole.
    pub fn take(
        &mut self,
        from: &mut dyn Read,
        total: Option<u64>,
        access: &Access,
        url: &str,
        watch: &dyn Watch,
    ) -> Result<(), Trouble> {
        let limit = access.max_size;
        let too_large = |size: &str| Trouble::Final(format!("it has {size}, and the limit is {limit} bytes"));
        if total.is_some_and(|total| total > limit) {
            return Err(too_large(&format!("{} bytes", total.unwrap_or_default())));
        }
        let mut buffer = vec![0; 128 << 10];
        let (mut window, mut came) = (Instant::now(), 0);
        loop {
            if watch.cancelled() {
                return Err(Trouble::Ours(interrupted()));
            }
            self.tell(watch, url, total, false);
            let n = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::TimedOut => {
                    return Err(Trouble::Passing(stalled(access.stall, self.bytes)));
                }
                Err(e) => {
                    return Err(Trouble::Passing(format!("broken off after {} bytes: {e}", self.bytes)));
                }
            };
            if self.bytes + n as u64 > limit {
                return Err(too_large("more bytes than that"));
            }
            self.file
                .write_all(&buffer[..n])
                .map_err(|e| Trouble::Ours(Error::io("write", &self.path, e)))?;
            self.sums.update(&buffer[..n]);
            self.bytes += n as u64;
            came += n as u64;
            if window.elapsed() >= access.stall {
                if came < SLOWEST * access.stall.as_secs().max(1) {
                    return Err(Trouble::Passing(stalled(access.stall, self.bytes)));
                }
                (window, came) = (Instant::now(), 0);
            }
        }
        match total {
            Some(total) if total > self.bytes => {
                Err(Trouble::Passing(format!("broken off after {} of {total} bytes", self.bytes)))
            }
            Some(total) if total < self.bytes => {
                let bytes = self.bytes;
                self.restart()?;
                Err(Trouble::Passing(format!("{bytes} bytes came where {total} were promised")))
            }
            _ => Ok(()),
        }
    }

    /// Compares with the pin.
    pub fn check(&mut self) -> Result<(), Trouble> {
        let Some(expected) = self.pin else { return Ok(()) };
        let got = self.sum(expected.algorithm()).map_err(Trouble::Ours)?;
        match got == *expected {
            true => Ok(()),
            false => {
                let resumed = self.resumed;
                self.restart()?;
                self.resumed = resumed;
                Err(Trouble::Mismatch { expected: expected.clone(), got })
            }
        }
    }

    /// Moves the finished file into the store.
    pub fn keep(mut self, store: &Store, watch: &dyn Watch, url: &str) -> Result<Fetched> {
        self.told = None;
        self.tell(watch, url, Some(self.bytes), true);
        let (blake3, sha256) = (self.sum(Algorithm::Blake3)?, self.sum(Algorithm::Sha256)?);
        let blob = blake3.hex().parse().map_err(|e| Error::machine("a digest is none").because(e))?;
        let other = self.pin.filter(|pin| pin.algorithm() == Algorithm::Sha512);
        store.add_blob(
            &self.path,
            &blob,
            [Some(&sha256), other].into_iter().flatten().map(Pin::to_string),
        )?;
        drop(self.scratch);
        Ok(Fetched { blob, pin: self.pin.cloned().unwrap_or(sha256), size: self.bytes })
    }

    fn sum(&self, algorithm: Algorithm) -> Result<Pin> {
        let sums = self.sums.clone().finish();
        let sum = sums.into_iter().find(|sum| sum.algorithm() == algorithm);
        sum.ok_or_else(|| Error::machine(format!("no {} was made", algorithm.name())))
    }

    fn tell(&mut self, watch: &dyn Watch, url: &str, total: Option<u64>, done: bool) {
        if self.told.is_some_and(|told| told.elapsed() < NEWS) {
            return;
        }
        self.told = Some(Instant::now());
        let millis = self.began.elapsed().as_millis().max(1) as u64;
        let rate = self.bytes.saturating_mul(1000) / millis;
        watch.progress(Progress { url: url.to_string(), bytes: self.bytes, total, rate, done });
    }
}

fn sums(pin: Option<&Pin>) -> Sums {
    Sums::new(pin.is_some_and(|pin| pin.algorithm() == Algorithm::Sha512))
}

pub(super) fn stalled(stall: Duration, bytes: u64) -> String {
    format!("the server has stalled: next to nothing came for {} ms, after {bytes} bytes", stall.as_millis())
}
