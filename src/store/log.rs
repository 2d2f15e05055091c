//! Logs of actions, of the latest run whether it succeeded or not: `logs/ab/<key>.zst`. There is no file for
//! an empty log.
//!
//! Nothing is named by the bytes of these files, so the single-threaded compressor does, which starts no
//! thread a step.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

use super::{Store, io};
use crate::digest::ActionKey;
use crate::error::{Error, Result};

const LEVEL: i32 = 1;

/// Logs up to this many bytes are kept in memory and compressed at once.
const SMALL: usize = 64 << 10;

/// Takes a log while it grows. Nothing of it is in the store until [`LogWriter::finish`].
pub struct LogWriter<'a> {
    store: &'a Store,
    path: PathBuf,
    small: Vec<u8>,
    large: Option<(PathBuf, zstd::stream::write::Encoder<'static, File>)>,
}

impl LogWriter<'_> {
    /// Adds to the log.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.large.is_none() && self.small.len() + bytes.len() <= SMALL {
            self.small.extend_from_slice(bytes);
            return Ok(());
        }
        if self.large.is_none() {
            let temp = self.store.temp_path()?;
            let file = io::create(&temp)?;
            let mut encoder =
                zstd::stream::write::Encoder::new(file, LEVEL).map_err(|e| io::failed("write", &temp, e))?;
            encoder.write_all(&self.small).map_err(|e| io::failed("write", &temp, e))?;
            self.small = Vec::new();
            self.large = Some((temp, encoder));
        }
        match &mut self.large {
            Some((temp, encoder)) => encoder.write_all(bytes).map_err(|e| io::failed("write", temp, e)),
            None => Ok(()),
        }
    }

    /// Puts the log into the store, in place of an older one of the same action.
    pub fn finish(mut self) -> Result<()> {
        match self.large.take() {
            Some((temp, encoder)) => {
                let written = encoder.finish().map_err(|e| io::failed("write", &temp, e));
                let put = written.and_then(|_| io::rename(&temp, &self.path));
                put.inspect_err(|_| drop(std::fs::remove_file(&temp)))
            }
            None if self.small.is_empty() => io::remove_file(&self.path),
            None => {
                let packed = zstd::bulk::compress(&self.small, LEVEL)
                    .map_err(|e| io::failed("write", &self.path, e))?;
                self.store.write(&self.path, &packed)
            }
        }
    }
}

impl Drop for LogWriter<'_> {
    fn drop(&mut self) {
        if let Some((temp, _)) = self.large.take() {
            let _ = std::fs::remove_file(temp);
        }
    }
}

impl Store {
    /// Where the log of an action is, whether there is one or not.
    pub fn log_path(&self, key: &ActionKey) -> PathBuf {
        let mut path = self.shard("logs", &key.to_hex()).into_os_string();
        path.push(".zst");
        path.into()
    }

    /// Starts the log of an action.
    pub fn log_writer(&self, key: &ActionKey) -> LogWriter<'_> {
        LogWriter { store: self, path: self.log_path(key), small: Vec::new(), large: None }
    }

    /// Keeps the log of an action.
    pub fn put_log(&self, key: &ActionKey, plain: &[u8]) -> Result<()> {
        let mut writer = self.log_writer(key);
        writer.write(plain)?;
        writer.finish()
    }

    /// The log of an action, unpacked as it is read; none when there is none or when it was empty. A read fails
    /// when the log is damaged.
    pub fn open_log(&self, key: &ActionKey) -> Result<Option<impl Read + use<>>> {
        let path = self.log_path(key);
        match File::open(&path) {
            Ok(file) => {
                let unpacked = zstd::stream::read::Decoder::new(file);
                unpacked.map(Some).map_err(|e| io::failed("read", &path, e))
            }
            Err(e) if io::is_absent(&e) => Ok(None),
            Err(e) => Err(io::failed("read", &path, e)),
        }
    }

    /// The error for a log that cannot be read.
    pub fn damaged_log(&self, key: &ActionKey, why: std::io::Error) -> Error {
        Error::io("unpack the log", &self.log_path(key), why)
            .hint("`isolith store fsck` removes damaged logs; the next run writes a new one")
    }

    /// The whole of [`Store::open_log`].
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read_log(&self, key: &ActionKey) -> Result<Option<Vec<u8>>> {
        let Some(mut log) = self.open_log(key)? else { return Ok(None) };
        let mut plain = Vec::new();
        log.read_to_end(&mut plain).map_err(|e| self.damaged_log(key, e))?;
        Ok(Some(plain))
    }
}
