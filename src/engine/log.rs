//! A step's output on its way to the log file and to whoever watches.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::redact::Redactor;
use crate::digest::ActionKey;
use crate::error::{Error, Result};
use crate::store::{LogWriter, Store};

/// How many of the last lines are kept for a failed step.
const TAIL: usize = 30;
/// A line longer than this is shown in pieces; the log file has it as it was.
const LONGEST_LINE: usize = 16 * 1024;

/// Takes what a sandbox prints.
pub struct Capture<'a> {
    path: PathBuf,
    writer: LogWriter<'a>,
    tail: VecDeque<String>,
    redactor: Redactor,
    /// The line that has not ended yet.
    line: Vec<u8>,
}

impl<'a> Capture<'a> {
    /// A log for the action, without the secrets that `redactor` knows.
    pub fn new(store: &'a Store, key: &ActionKey, redactor: Redactor) -> Self {
        let (path, writer) = (store.log_path(key), store.log_writer(key));
        Self { path, writer, tail: VecDeque::new(), redactor, line: Vec::new() }
    }

    /// Standard input (empty), output and error for the sandbox, and the end to read from.
    pub fn pipes(&self) -> Result<([OwnedFd; 3], File)> {
        let null = File::open("/dev/null").map_err(|e| Error::io("open", "/dev/null".as_ref(), e))?;
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|e| Error::machine("cannot make a pipe").because(e))?;
        let again = write.try_clone().map_err(|e| Error::machine("cannot duplicate a pipe").because(e))?;
        Ok(([null.into(), write, again], read.into()))
    }

    /// Reads until every writer is gone; `each` gets every line.
    pub fn follow(&mut self, mut from: File, mut each: impl FnMut(String)) -> Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::machine("cannot read what a step prints").because(e)),
            };
            let shown = self.redactor.pass(&buffer[..n]);
            self.take(&shown, &mut each)?;
        }
        let rest = self.redactor.rest();
        self.take(&rest, &mut each)?;
        if !self.line.is_empty() {
            self.end_line(&mut each);
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], each: &mut impl FnMut(String)) -> Result<()> {
        self.writer.write(bytes)?;
        for byte in bytes {
            if *byte == b'\n' || self.line.len() >= LONGEST_LINE {
                self.end_line(each);
            }
            if *byte != b'\n' {
                self.line.push(*byte);
            }
        }
        Ok(())
    }

    fn end_line(&mut self, each: &mut impl FnMut(String)) {
        let text = String::from_utf8_lossy(&self.line).trim_end_matches('\r').to_string();
        self.line.clear();
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(text.clone());
        each(text);
    }

    /// Puts the log in its place; gives its path and the last lines.
    pub fn finish(self) -> Result<(PathBuf, Vec<String>)> {
        self.writer.finish()?;
        Ok((self.path, self.tail.into()))
    }
}
