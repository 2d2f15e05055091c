//! This terminal, lent to a sandbox: a pseudo terminal whose other end is relayed to the real one.
//!
//! The sandbox never gets the real terminal, so it can neither read its settings nor push input into it.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetsid, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::error::{Error, Result};

/// How often to look whether the sandbox has taken the terminal; until then Ctrl-C is still ours.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// A running relay.
pub struct Terminal {
    relay: JoinHandle<()>,
    /// Closing it ends the relay.
    stop: OwnedFd,
}

impl Terminal {
    /// Starts a relay between standard input and output and a new pseudo terminal, of which the command's
    /// three descriptors are returned. The real terminal goes into raw mode once the command has taken
    /// its own, and comes back out of it however the relay ends.
    ///
    /// # Errors
    /// `Machine` when there is no pseudo terminal to be had.
    pub fn start() -> Result<(Terminal, [OwnedFd; 3])> {
        let failed =
            |what: &'static str| move |why: Errno| Error::machine(what).because(std::io::Error::from(why));
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .and_then(|master| grantpt(&master).and_then(|()| unlockpt(&master)).map(|()| master))
            .map_err(failed("cannot make a pseudo terminal (posix_openpt)"))?;
        let slave = ptsname(&master, Vec::new())
            .and_then(|name| {
                rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
            })
            .map_err(failed("cannot open the pseudo terminal"))?;
        let stdin = std::io::stdin();
        let settings =
            tcgetattr(&stdin).map_err(failed("cannot read the terminal's settings (tcgetattr)"))?;
        let _ = tcsetattr(&slave, OptionalActions::Now, &settings);
        copy_size(&master);
        // Blocked before the thread starts, so that every thread leaves it to the descriptor.
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGWINCH);
        let resized = mask
            .thread_block()
            .and_then(|()| SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC))
            .map_err(|why| Error::machine("cannot watch for window changes (signalfd)").because(why))?;
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(failed("cannot make a pipe"))?;
        let dup = |fd: &OwnedFd| {
            fd.try_clone().map_err(|why| Error::machine("cannot duplicate a descriptor").because(why))
        };
        let stdio = [dup(&slave)?, dup(&slave)?, slave];
        let relay = std::thread::spawn(move || relay(&master, &resized, &stopped, settings));
        Ok((Terminal { relay, stop }, stdio))
    }

    /// Shows what is still on its way and gives the real terminal back.
    pub fn finish(self) {
        drop(self.stop);
        let _ = self.relay.join();
    }
}

/// Puts the settings back when it goes out of scope.
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter(before: &Termios) -> Raw {
        let mut raw = before.clone();
        raw.make_raw();
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &raw);
        Raw { before: before.clone() }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.before);
    }
}

fn relay(master: &OwnedFd, resized: &SignalFd, stopped: &OwnedFd, settings: Termios) {
    let stdin = std::io::stdin();
    let mut raw = None;
    let mut input_open = true;
    loop {
        let ready = {
            let mut fds = vec![
                PollFd::new(master, PollFlags::IN),
                PollFd::from_borrowed_fd(resized.as_fd(), PollFlags::IN),
                PollFd::new(stopped, PollFlags::IN),
            ];
            if raw.is_some() && input_open {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
            match poll(&mut fds, raw.is_none().then_some(&LOOK_EVERY)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            fds.iter().map(PollFd::revents).collect::<Vec<_>>()
        };
        let any = |at: usize| ready.get(at).is_some_and(|events| !events.is_empty());
        // On the master this answers with the session that has the other end as its terminal.
        if raw.is_none() && (tcgetsid(master).is_ok() || ready[0].contains(PollFlags::IN)) {
            raw = Some(Raw::enter(&settings));
        }
        if any(1) {
            while let Ok(Some(_)) = resized.read_signal() {}
            copy_size(master);
        }
        if any(0) && !copy(master.as_fd(), |bytes| std::io::stdout().write_all(bytes)) {
            return;
        }
        if any(2) {
            drain(master);
            return;
        }
        if any(3) {
            input_open = copy(stdin.as_fd(), |bytes| write_all(master, bytes));
        }
    }
}

/// Gives the pseudo terminal the real one's size.
fn copy_size(master: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(std::io::stdin()) {
        let _ = tcsetwinsize(master, size);
    }
}

/// Moves what is there; false at the end.
fn copy(from: BorrowedFd<'_>, to: impl FnOnce(&[u8]) -> std::io::Result<()>) -> bool {
    let mut buffer = [0u8; 16 * 1024];
    match rustix::io::read(from, &mut buffer) {
        Ok(0) => false,
        Ok(n) => to(&buffer[..n]).and_then(|()| std::io::stdout().flush()).is_ok(),
        Err(Errno::INTR | Errno::AGAIN) => true,
        // EIO: the other end is closed everywhere.
        Err(_) => false,
    }
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
    }
    Ok(())
}

/// Shows what the command wrote before it ended.
fn drain(master: &OwnedFd) {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        let mut fds = [PollFd::new(master, PollFlags::IN)];
        match poll(&mut fds, Some(&now)) {
            Ok(n) if n > 0 && fds[0].revents().contains(PollFlags::IN) => {
                if !copy(master.as_fd(), |bytes| std::io::stdout().write_all(bytes)) {
                    return;
                }
            }
            _ => return,
        }
    }
}
