//! One event a line on standard output.

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::{Event, Observer};

pub(in crate::ui) struct Json {
    /// Set when nobody reads any more, so that the build stops and cleans up.
    cancel: Arc<AtomicBool>,
}

impl Json {
    pub(in crate::ui) fn new(cancel: Arc<AtomicBool>) -> Self {
        Self { cancel }
    }
}

impl Observer for Json {
    fn event(&self, event: Event) {
        let Ok(mut line) = serde_json::to_vec(&event) else { return };
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        let written = out.write_all(&line).and_then(|()| out.flush());
        if written.is_err_and(|why| why.kind() == ErrorKind::BrokenPipe) {
            self.cancel.store(true, Ordering::SeqCst);
        }
    }
}
