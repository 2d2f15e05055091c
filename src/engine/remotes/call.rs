//! One call of a remote, which is given up when it takes too long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use super::clock::Clock;
use super::tally::Tally;
use super::{RemoteSetup, Sharing};
use crate::error::Result;
use crate::remote::Remote;

/// How often it is looked whether to go on waiting.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One remote in one build.
pub(super) struct Line {
    pub setup: RemoteSetup,
    opened: Arc<OnceLock<Arc<dyn Remote>>>,
    clock: Clock,
    moved: Moved,
    off: AtomicBool,
    /// Something was said about it.
    warned: AtomicBool,
    pub tally: Tally,
}

/// Bytes that were given to a remote and taken from it so far.
pub(super) type Moved = Arc<AtomicU64>;

impl Line {
    pub fn new(setup: RemoteSetup) -> Line {
        Line {
            clock: Clock::new(setup.patience),
            setup,
            opened: Arc::default(),
            moved: Moved::default(),
            off: AtomicBool::new(false),
            warned: AtomicBool::new(false),
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

    /// How long was waited for it so far.
    pub fn waited(&self) -> Duration {
        self.clock.waited(self.moved())
    }

    /// Bytes that it has moved: by its own count, where it has one.
    fn moved(&self) -> u64 {
        let own = self.opened.get().and_then(|remote| remote.moved());
        own.unwrap_or_else(|| self.moved.load(Ordering::Relaxed))
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
        let (sender, receiver) = mpsc::channel();
        let (opened, open, moved) = (line.opened.clone(), line.setup.open.clone(), line.moved.clone());
        let call = move || {
            // Opened by whoever is first; another one that is as fast is thrown away.
            let remote = match opened.get() {
                Some(remote) => Ok(remote.clone()),
                None => open().map(|remote| opened.get_or_init(|| remote.into()).clone()),
            };
            let _ = sender.send(remote.and_then(|remote| work(&*remote, &moved)));
        };
        if let Err(why) = std::thread::Builder::new().name("remote".to_string()).spawn(call) {
            self.turn_off(line, &format!("no thread can be started: {why}"));
            return None;
        }
        line.clock.begin(line.moved());
        let answer = self.wait(line, &receiver);
        line.clock.end(line.moved());
        answer?.map_err(|why| self.turn_off(line, &why.to_string())).ok()
    }

    /// Waits for the answer to a call; none when it is not worth waiting any longer.
    fn wait<T>(&self, line: &Line, receiver: &mpsc::Receiver<Result<T>>) -> Option<Result<T>> {
        loop {
            match receiver.recv_timeout(LOOK_EVERY) {
                Ok(answer) => return Some(answer),
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
            let patience = line.setup.patience;
            if line.waited() >= patience {
                self.turn_off(line, &format!("it kept this build waiting for {} s", patience.as_secs_f64()));
                return None;
            }
        }
    }

    /// Leaves a remote alone from now on.
    fn turn_off(&self, line: &Line, why: &str) {
        if !line.off.swap(true, Ordering::Relaxed) {
            line.clock.stop(line.moved());
            let name = &line.setup.name;
            self.warn_once(line, format!("remote `{name}` is not used any more in this build: {why}"));
        }
    }

    /// Something of a remote is refused, and counts as not there.
    pub(super) fn refuse(&self, line: &Line, what: &str) {
        line.tally.refused();
        self.warn_once(line, format!("remote `{}`: {what}", line.setup.name));
    }

    /// The first trouble with a remote is said in full. The rest is counted (`isolith trust status` shows what is refused):
    /// a remote that answers nonsense would fill the screen.
    fn warn_once(&self, line: &Line, message: String) {
        if !line.warned.swap(true, Ordering::Relaxed) {
            self.warn(message);
        }
    }
}
