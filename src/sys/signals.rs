//! What this process does about signals.

use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction, signal};

static FLAG: AtomicPtr<AtomicBool> = AtomicPtr::new(std::ptr::null_mut());
static SEEN: AtomicU32 = AtomicU32::new(0);
/// Where the numbers of signals go once they are somebody else's.
static PASS: AtomicI32 = AtomicI32::new(-1);

/// So many signals in a row mean that the orderly way out hangs.
const PATIENCE: u32 = 3;

/// Lets SIGINT, SIGTERM and SIGHUP set `flag` instead of ending the process; the third one ends it after
/// all. A signal that is ignored (`nohup`) stays ignored.
pub fn cancel_on_signals(flag: Arc<AtomicBool>) {
    // The flag is never freed: a handler may run at any later moment.
    FLAG.store(Arc::into_raw(flag).cast_mut(), Ordering::SeqCst);
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::empty(), SigSet::empty());
    for number in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only touches atomics and calls signal(2) and raise(3), which are async-signal-safe.
        let Ok(old) = (unsafe { sigaction(number, &action) }) else { continue };
        if matches!(old.handler(), SigHandler::SigIgn) {
            // SAFETY: puts back what was there.
            let _ = unsafe { sigaction(number, &old) };
        }
    }
}

/// From now on SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are somebody else's: the descriptor gives the
/// number of each as one byte. The third SIGINT or SIGTERM sets the flag of [`cancel_on_signals`] as well, and the
/// sixth ends this process.
pub fn pass_on() -> super::Result<OwnedFd> {
    let (from, to) = super::socket::pipe()?;
    // A handler must not wait. The end is never closed: one may run at any later moment.
    let to = to.into_raw_fd();
    // SAFETY: plain integers.
    super::check(unsafe { libc::fcntl(to, libc::F_SETFL, libc::O_NONBLOCK) }, || {
        "fcntl(O_NONBLOCK)".to_string()
    })?;
    SEEN.store(0, Ordering::SeqCst);
    PASS.store(to, Ordering::SeqCst);
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::empty(), SigSet::empty());
    for number in [Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2] {
        // SAFETY: as in `cancel_on_signals`.
        let _ = unsafe { sigaction(number, &action) };
    }
    Ok(from)
}

/// Hands a signal on, in a handler; true if it is one that counts.
fn handed_on(to: i32, number: libc::c_int) -> bool {
    let (byte, errno) = (number as u8, Errno::last_raw());
    // SAFETY: write(2) is async-signal-safe, and the byte outlives the call.
    unsafe { libc::write(to, (&raw const byte).cast(), 1) };
    Errno::set_raw(errno);
    matches!(number, libc::SIGINT | libc::SIGTERM)
}

extern "C" fn on_signal(number: libc::c_int) {
    let to = PASS.load(Ordering::SeqCst);
    let patience = if to < 0 { PATIENCE } else { 2 * PATIENCE };
    if to >= 0 {
        let counts = handed_on(to, number);
        if !counts || SEEN.load(Ordering::SeqCst) + 1 < PATIENCE {
            SEEN.fetch_add(u32::from(counts), Ordering::SeqCst);
            return;
        }
    }
    let flag = FLAG.load(Ordering::SeqCst);
    // SAFETY: the pointer came from an Arc that is never dropped.
    if let Some(flag) = unsafe { flag.as_ref() } {
        flag.store(true, Ordering::SeqCst);
    }
    if SEEN.fetch_add(1, Ordering::SeqCst) + 1 >= patience
        && let Ok(number) = Signal::try_from(number)
    {
        // SAFETY: signal(2) with the default action installs no handler.
        let _ = unsafe { signal(number, SigHandler::SigDfl) };
        let _ = raise(number);
    }
}

/// Lets a closed standard output end the process, as it does other programs (`isolith log … | head`).
/// Only for commands that change nothing: a build has to end its sandboxes first.
pub fn die_on_broken_pipe() {
    // SAFETY: the default action installs no handler.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}
