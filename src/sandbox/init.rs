//! Process 1 of a sandbox: makes the root, starts the command, reaps, reports.
//!
//! It is a fork of the executor and never returns into its code.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use super::command::{Command, Filter};
use super::job::Job;
use super::parts::Parts;
use super::supervisor::{Handover, Supervisor};
use super::wire::{self, Report};
use super::{Status, Usage, rootfs};
use crate::error::{Error, Result};
use crate::key::Network;
use crate::sys::{self, fd, privilege, process, socket};

pub(super) use super::job::assign;

/// Of the capabilities of a user namespace's root, what the init still needs to end its processes.
const CAP_KILL: u64 = 1 << 5;

/// The message that an init's ids are mapped.
pub(super) const MAPPED: &[u8] = b"mapped";

/// Where an init comes from.
pub(super) struct Origin<'a> {
    /// Messages of the executor.
    pub(super) from: &'a OwnedFd,
    /// The executor's pidfd.
    pub(super) executor: &'a OwnedFd,
    /// What the command may not call.
    pub(super) filter: &'a [sys::seccomp::Instruction],
    /// Which network namespace it is in.
    pub(super) network: Network,
    /// There is one id only, and owners are recorded.
    pub(super) recorded: bool,
}

/// Runs one sandbox; this process ends here, and with it every other process in it.
pub(super) fn run(origin: Origin<'_>) -> ! {
    let ready = guarded(|| get_ready(&origin));
    // Without work, or when the executor is gone, there is nobody to tell.
    let Ok(Some(job)) = guarded(|| Job::receive(origin.from)) else { process::exit(1) };
    let report = ready
        .and_then(|ready| guarded(|| start(&origin, &job, set_up(&origin, &job, ready)?)))
        .and_then(supervise);
    tell(job.result.as_fd(), &report.unwrap_or_else(|e| Report::Failed(e.into())));
    process::exit(0)
}

/// A panic is an error too.
fn guarded<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    caught.unwrap_or_else(|_| {
        Err(Error::machine("the init of a sandbox panicked; this is a defect of isolith"))
    })
}

/// Writes one report. A reader that is gone does not matter: then isolith is.
pub(super) fn tell(result: std::os::fd::BorrowedFd<'_>, report: &Report) {
    let mut text = wire::encode(report);
    text.push(b'\n');
    let _ = fd::write_all(result, &text);
}

/// What was made before there was work.
struct Ready {
    parts: Parts,
    clocks: std::fs::File,
}

/// Everything that is the same for every sandbox.
fn get_ready(origin: &Origin<'_>) -> Result<Ready> {
    fd::close_all_but(&[0, 1, 2, origin.from.as_raw_fd(), origin.executor.as_raw_fd()])?;
    // They wait until there is somebody to pass them on to.
    process::block_signals(&PASSED_ON)?;
    // What needs no ids is done while the executor is mapping them.
    privilege::set_host_name("localhost", "")?;
    if origin.network == Network::None {
        privilege::loopback_up()?;
    }
    // After the change of ids this file could not be opened any more.
    let clocks = std::fs::File::options().write(true).open(CLOCKS).map_err(clocks_failed)?;
    if socket::receive(origin.from.as_fd(), &mut [0; 16])?.is_none() {
        process::exit(1);
    }
    privilege::become_user(0, 0, !origin.recorded)?;
    // From here no change of credentials follows that would undo this. The parent may have died before.
    process::die_with_parent()?;
    if fd::wait_readable([origin.executor.as_fd()], Some(Duration::ZERO))?[0] {
        process::exit(1);
    }
    process::set_undumpable()?;
    Ok(Ready { parts: Parts::make(origin.recorded)?, clocks })
}

/// Everything before the command exists.
fn set_up(origin: &Origin<'_>, job: &Job, ready: Ready) -> Result<Work> {
    if let Some(hold) = &job.hold
        && fd::read(hold.as_fd(), &mut [0])? == 0
    {
        process::exit(1);
    }
    // The cgroup namespace's root is the group the init is in now.
    process::unshare(libc::CLONE_NEWCGROUP | CLONE_NEWTIME).map_err(super::hints::explain)?;
    start_clocks(ready.clocks)?;
    let spec = job.read_spec()?;
    if let Some(to) = &job.network {
        let path = std::path::Path::new("/proc/self/ns/net");
        let namespace = std::fs::File::open(path).map_err(|e| Error::io("open", path, e))?;
        socket::send(to.as_fd(), b"network", &[namespace.as_fd()])?;
    }
    let handover = Handover::new(&spec, origin.recorded, origin.filter)?;
    rootfs::enter(&spec, &job.host, ready.parts)?;
    let command = Command::prepare(&spec, origin.recorded)?;
    if spec.extras.as_ref().is_some_and(|extras| extras.read_only) {
        rootfs::lock_root()?;
    }
    Ok(Work { command, handover, attended: spec.extras.is_some() })
}

/// Signals that a command gets from the one who waits for it.
const PASSED_ON: [i32; 6] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// What is ready to be started.
struct Work {
    command: Command,
    handover: Option<Handover>,
    /// Signals are passed on to the command.
    attended: bool,
}

/// What has been started.
struct Running {
    command: i32,
    supervisor: Option<Supervisor>,
    attended: bool,
}

/// What an init waits for beside the calls it answers: children that end, and signals to pass on.
pub(super) struct Watch {
    command: i32,
    /// Where signals come to, if they are passed on: those and SIGCHLD.
    pub(super) signals: Option<OwnedFd>,
}

impl Watch {
    fn new(command: i32, attended: bool) -> Result<Watch> {
        let signals = attended
            .then(|| process::watch_signals(&[&PASSED_ON[..], &[libc::SIGCHLD]].concat()))
            .transpose()?;
        Ok(Watch { command, signals })
    }

    /// How the command ended, if it has. Called when there is something to read, if signals are passed on.
    pub(super) fn look(&self) -> Result<Option<process::Ended>> {
        let caught = self.signals.as_ref().map(|signals| process::caught_signals(signals.as_fd()));
        for (signal, sender) in caught.transpose()?.unwrap_or_default() {
            // Not what a process of the sandbox itself sends.
            if signal != libc::SIGCHLD && sender == 0 {
                let group = matches!(signal, libc::SIGINT | libc::SIGQUIT | libc::SIGHUP);
                process::signal(self.command, group, signal);
            }
        }
        while let Some((pid, ended)) = process::wait(-1, false)? {
            if pid == self.command {
                return Ok(Some(ended));
            }
        }
        Ok(None)
    }

    fn until_the_end(&self) -> Result<process::Ended> {
        while let Some(signals) = &self.signals {
            fd::wait_readable([signals.as_fd()], None)?;
            if let Some(ended) = self.look()? {
                return Ok(ended);
            }
        }
        loop {
            match process::wait(-1, true)? {
                Some((pid, ended)) if pid == self.command => return Ok(ended),
                Some(_) => {}
                None => return Err(Error::machine("the command of a sandbox has vanished")),
            }
        }
    }
}

/// Missing in libc.
const CLONE_NEWTIME: i32 = 0x80;

/// Where the clocks of a time namespace are set.
const CLOCKS: &str = "/proc/self/timens_offsets";

fn clocks_failed(e: std::io::Error) -> Error {
    Error::machine(format!("cannot set the clocks of a sandbox: writing `{CLOCKS}` failed")).because(e)
}

/// In the time namespace of this process's children the clocks that count from boot start near zero.
fn start_clocks(mut clocks: std::fs::File) -> Result<()> {
    let (monotonic, boottime) = privilege::uptime();
    let offsets = format!("monotonic -{monotonic} 0\nboottime -{boottime} 0\n");
    std::io::Write::write_all(&mut clocks, offsets.as_bytes()).map_err(clocks_failed)
}

/// Starts the command; its process id.
fn start(origin: &Origin<'_>, job: &Job, work: Work) -> Result<Running> {
    let Work { command, handover, attended } = work;
    let filter = handover.as_ref().map_or(Filter::Plain(origin.filter), Filter::Supervised);
    // Its execve also takes it into the time namespace.
    let child = process::spawn_sharing_memory(|| {
        let failed = command.run(job, filter);
        tell(job.result.as_fd(), &Report::Failed(failed.into()));
        125
    })?;
    // Nothing of the machine stays open here but the pipe for the report, and what is supervised with.
    let supervisor = handover.map(Handover::take).transpose()?.flatten();
    let mut keep = supervisor.as_ref().map(Supervisor::keeps).unwrap_or_default();
    keep.push(job.result.as_raw_fd());
    fd::close_all_but(&keep)?;
    privilege::set_capabilities(CAP_KILL | supervisor.as_ref().map_or(0, Supervisor::capabilities))?;
    Ok(Running { command: child, supervisor, attended })
}

/// Reaps until the command has ended, then ends and reaps the rest.
fn supervise(Running { command, mut supervisor, attended }: Running) -> Result<Report> {
    let watch = Watch::new(command, attended)?;
    let early = supervisor.as_mut().map(|supervisor| supervisor.serve(&watch)).transpose()?.flatten();
    let status = match early {
        Some(ended) => ended,
        None => watch.until_the_end()?,
    };
    loop {
        match process::wait(-1, false)? {
            Some(_) => continue,
            None => {
                process::kill_all_others();
                if process::wait(-1, true)?.is_none() {
                    break;
                }
            }
        }
    }
    if let Some(supervisor) = &mut supervisor {
        supervisor.end()?;
    }
    let again = supervisor.is_some_and(|supervisor| supervisor.again());
    let (user_us, system_us, max_rss) = process::children_usage();
    let status = match status {
        process::Ended::Exited(code) => Status::Exited(code),
        process::Ended::Signaled(signal) => Status::Signaled(signal),
    };
    Ok(Report::Done { status, usage: Usage { user_us, system_us, max_rss }, again })
}
