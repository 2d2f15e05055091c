//! What this process does about signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction, signal};

static FLAG: AtomicPtr<AtomicBool> = AtomicPtr::new(std::ptr::null_mut());
static SEEN: AtomicU32 = AtomicU32::new(0);

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

extern "C" fn on_signal(number: libc::c_int) {
    let flag = FLAG.load(Ordering::SeqCst);
    // SAFETY: the pointer came from an Arc that is never dropped.
    if let Some(flag) = unsafe { flag.as_ref() } {
        flag.store(true, Ordering::SeqCst);
    }
    if SEEN.fetch_add(1, Ordering::SeqCst) + 1 >= PATIENCE
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
