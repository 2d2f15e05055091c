//! Who is told how far a transfer is, and can stop it.

use std::time::{Duration, Instant};

use crate::error::{Class, Error};

/// How far a transfer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// From where, or where to.
    pub url: String,
    /// Bytes that are there.
    pub bytes: u64,
    /// How many there will be, if that is known.
    pub total: Option<u64>,
    /// Bytes a second, over the whole transfer so far.
    pub rate: u64,
    /// All is there.
    pub done: bool,
}

/// Who is told of progress, and who can stop it. Called from the thread that transfers.
pub trait Watch: Sync {
    /// Takes news, a few times a second.
    fn progress(&self, progress: Progress);
    /// Asked often; true stops the transfer.
    fn cancelled(&self) -> bool;
}

/// The error of a transfer that was stopped.
pub fn interrupted() -> Error {
    Error::new(Class::Interrupted, "interrupted")
}

/// Waits, unless it is stopped meanwhile; then it is false.
pub fn pause(time: Duration, watch: &dyn Watch) -> bool {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if watch.cancelled() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20).min(time));
    }
    true
}
