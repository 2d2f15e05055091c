//! How long a build has waited for a remote.
//!
//! Time counts while a call is under way, once however many there are, and bytes that move pay for it at
//! [`LEAST_RATE`]. They pay in advance for no more than the patience, since what was sent may still be on its way; so a
//! remote that hangs after a large layer is noticed too. A remote therefore costs no more than twice its patience and the
//! time that its bytes take at that rate.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::lock;
use crate::remote::LEAST_RATE;

/// The time of one remote in one build.
pub(super) struct Clock(Mutex<Time>);

struct Time {
    /// Calls under way.
    calls: usize,
    /// Microseconds that were waited; less than none when bytes have paid in advance.
    waited: i64,
    /// The most that is paid in advance, in microseconds.
    most: i64,
    /// When it was last looked.
    at: Instant,
    /// Bytes that had moved then, in all.
    moved: u64,
    /// Nobody waits for it any more, so nothing pays for waiting either.
    over: bool,
}

impl Clock {
    pub fn new(patience: Duration) -> Clock {
        let most = micros(patience);
        Clock(Mutex::new(Time { calls: 0, waited: 0, most, at: Instant::now(), moved: 0, over: false }))
    }

    /// A call begins.
    pub fn begin(&self, moved: u64) {
        let mut time = lock(&self.0);
        time.look(Instant::now(), moved);
        time.calls += 1;
    }

    /// A call is over.
    pub fn end(&self, moved: u64) {
        let mut time = lock(&self.0);
        time.look(Instant::now(), moved);
        time.calls -= 1;
        if time.calls == 0 {
            // Nothing is on its way any more.
            time.waited = time.waited.max(0);
        }
    }

    /// From now on nobody waits for it.
    pub fn stop(&self, moved: u64) {
        let mut time = lock(&self.0);
        time.look(Instant::now(), moved);
        time.over = true;
    }

    /// How long was waited so far, with so many bytes moved.
    pub fn waited(&self, moved: u64) -> Duration {
        lock(&self.0).look(Instant::now(), moved)
    }
}

impl Time {
    fn look(&mut self, now: Instant, moved: u64) -> Duration {
        if !self.over {
            if self.calls > 0 {
                self.waited = self.waited.saturating_add(micros(now.saturating_duration_since(self.at)));
            }
            let bytes = moved.saturating_sub(self.moved);
            let paid = i64::try_from(bytes.saturating_mul(1_000_000) / LEAST_RATE).unwrap_or(i64::MAX);
            self.waited = self.waited.saturating_sub(paid).max(-self.most);
            (self.at, self.moved) = (now.max(self.at), moved.max(self.moved));
        }
        Duration::from_micros(self.waited.max(0).unsigned_abs())
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The waiting after looks at a time in milliseconds, with so many bytes moved.
    fn waited(calls: usize, looks: impl IntoIterator<Item = (u64, u64)>) -> Vec<u128> {
        let at = Instant::now();
        let mut time = Time { calls, waited: 0, most: 5_000_000, at, moved: 0, over: false };
        let look = |(ms, moved)| time.look(at + Duration::from_millis(ms), moved).as_millis();
        looks.into_iter().map(look).collect()
    }

    #[test]
    fn time_counts_once_and_while_something_is_asked() {
        assert_eq!(waited(0, [(10_000, 0)]), [0]);
        assert_eq!(waited(1, [(1000, 0), (3000, 0)]), [1000, 3000]);
        assert_eq!(waited(7, [(1000, 0), (3000, 0)]), [1000, 3000]);
    }

    #[test]
    fn bytes_pay_for_their_time_and_little_in_advance() {
        // Pieces that come in bursts, fast enough on average.
        let steady = (1..100).map(|n| (n * 500, n / 4 * 2 * LEAST_RATE));
        assert!(waited(1, steady).into_iter().all(|waited| waited <= 2000));
        // Half as fast as it has to be: half of the time is waiting.
        assert_eq!(waited(1, (1..=20).map(|n| (n * 1000, n * LEAST_RATE / 2))).last(), Some(&10_000));
        // A large layer at once, then nothing.
        let hangs = [(1000, 1 << 30), (6000, 1 << 30), (9000, 1 << 30)];
        assert_eq!(waited(1, hangs), [0, 0, 3000]);
    }

    #[test]
    fn what_comes_when_it_is_over_pays_for_nothing() {
        let clock = Clock::new(Duration::from_secs(3600));
        clock.begin(0);
        std::thread::sleep(Duration::from_millis(20));
        clock.stop(0);
        let waited = clock.waited(1 << 30);
        assert!(waited >= Duration::from_millis(20));
        clock.end(1 << 30);
        assert_eq!(clock.waited(1 << 30), waited);
    }

    #[test]
    fn nothing_is_paid_in_advance_for_the_next_call() {
        let clock = Clock::new(Duration::from_secs(3600));
        clock.begin(0);
        clock.end(1 << 30);
        clock.begin(1 << 30);
        std::thread::sleep(Duration::from_millis(20));
        assert!(clock.waited(1 << 30) >= Duration::from_millis(20));
    }
}
