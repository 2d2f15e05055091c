//! One call of a remote, which is given up when it takes too long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use super::tally::Tally;
use super::{RemoteSetup, Sharing};
use crate::error::Result;
use crate::remote::Remote;

/// How often it is looked whether to go on waiting.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Bytes a second that count as progress: time that a call takes beyond what its bytes take at this rate is waiting.
const LEAST_RATE: u64 = 100 << 10;

/// One remote in one build.
pub(super) struct Line {
    pub setup: RemoteSetup,
    opened: Arc<OnceLock<Arc<dyn Remote>>>,
    /// Milliseconds that were spent waiting.
    waited: AtomicU64,
    off: AtomicBool,
    /// A record or layer of it was refused, and that was said.
    pub refused: AtomicBool,
    pub tally: Tally,
}

/// Bytes that a call has moved so far.
pub(super) type Moved = Arc<AtomicU64>;

impl Line {
    pub fn new(setup: RemoteSetup) -> Line {
        Line {
            setup,
            opened: Arc::default(),
            waited: AtomicU64::new(0),
            off: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            tally: Tally::default(),
        }
    }

    pub fn is_on(&self) -> bool {
        !self.off.load(Ordering::Relaxed)
    }

    pub fn reads(&self) -> bool {
        self.setup.read && self.is_on() && !self.setup.policy.keys().is_empty()
    }

    pub fn writes(&self) -> bool {
        self.setup.write && self.is_on()
    }

    /// What is left of its time after a call of that long that has moved so many bytes.
    fn left(&self, took: Duration, moved: u64) -> Duration {
        let earned = Duration::from_millis(moved * 1000 / LEAST_RATE);
        let waited = Duration::from_millis(self.waited.load(Ordering::Relaxed)) + took.saturating_sub(earned);
        self.setup.patience.saturating_sub(waited)
    }
}

impl Sharing<'_> {
    /// Lets `work` ask a remote on a thread of its own. None when it cannot be asked any more: it failed, now or
    /// before, has used up its time, or the build is to stop.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        line: &Line,
        work: impl FnOnce(&dyn Remote, &Moved) -> Result<T> + Send + 'static,
    ) -> Option<T> {
        if !line.is_on() || self.cancel.load(Ordering::Relaxed) {
            return None;
        }
        line.tally.asked();
        let began = Instant::now();
        let moved = Moved::default();
        let (sender, receiver) = mpsc::channel();
        let (opened, open, told) = (line.opened.clone(), line.setup.open.clone(), moved.clone());
        let call = move || {
            // Opened by whoever is first; another one that is as fast is thrown away.
            let remote = match opened.get() {
                Some(remote) => Ok(remote.clone()),
                None => open().map(|remote| opened.get_or_init(|| remote.into()).clone()),
            };
            let _ = sender.send(remote.and_then(|remote| work(&*remote, &told)));
        };
        if let Err(why) = std::thread::Builder::new().name("remote".to_string()).spawn(call) {
            self.turn_off(line, &format!("no thread can be started: {why}"));
            return None;
        }
        let answer = loop {
            match receiver.recv_timeout(LOOK_EVERY) {
                Ok(answer) => break answer,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    self.turn_off(line, "it failed in a way that it should not");
                    return None;
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            // Another call may have found out in the meantime.
            if self.cancel.load(Ordering::Relaxed) || !line.is_on() {
                return None;
            }
            if line.left(began.elapsed(), moved.load(Ordering::Relaxed)).is_zero() {
                let patience = line.setup.patience.as_secs_f64();
                self.turn_off(line, &format!("it kept this build waiting for {patience} s"));
                return None;
            }
        };
        let before = line.setup.patience.saturating_sub(line.left(Duration::ZERO, 0));
        let after =
            line.setup.patience.saturating_sub(line.left(began.elapsed(), moved.load(Ordering::Relaxed)));
        line.waited.fetch_add(after.saturating_sub(before).as_millis() as u64, Ordering::Relaxed);
        answer.map_err(|why| self.turn_off(line, &why.to_string())).ok()
    }

    /// Leaves a remote alone from now on. Said once.
    fn turn_off(&self, line: &Line, why: &str) {
        if !line.off.swap(true, Ordering::Relaxed) {
            let name = &line.setup.name;
            self.warn(format!("remote `{name}` is not used any more in this build: {why}"));
        }
    }

    /// Something of a remote is refused, and counts as not there. The first time it is said in full; the rest is
    /// counted, since a remote that answers nonsense would fill the screen (`isolith trust status` shows all of it).
    pub(super) fn refuse(&self, line: &Line, what: &str) {
        line.tally.refused();
        if !line.refused.swap(true, Ordering::Relaxed) {
            self.warn(format!("remote `{}`: {what}", line.setup.name));
        }
    }
}
