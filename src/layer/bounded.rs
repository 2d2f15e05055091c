//! A stream that ends in an error where there is more than there may be.

use std::io::{Error, ErrorKind, Read, Result};

pub(super) struct Bounded<R> {
    stream: R,
    left: u64,
    /// The error, when there is more.
    why: &'static str,
}

impl<R: Read> Bounded<R> {
    /// Lets `most` bytes through.
    pub fn new(stream: R, most: u64, why: &'static str) -> Self {
        Self { stream, left: most, why }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let n = self.stream.read(buffer)?;
        self.left =
            self.left.checked_sub(n as u64).ok_or_else(|| Error::new(ErrorKind::InvalidData, self.why))?;
        Ok(n)
    }
}
