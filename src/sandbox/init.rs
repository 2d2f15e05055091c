//! Process 1 of a sandbox: makes the root, starts the command, reaps, reports.
//!
//! It is a fork of the executor and never returns into its code.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use super::command::Command;
use super::server::Job;
use super::wire::{self, Report};
use super::{Status, Usage, rootfs};
use crate::error::{Error, Result};
use crate::key::Network;
use crate::sys::{fd, privilege, process};

/// Of the capabilities of a user namespace's root, what the init still needs to end its processes.
const CAP_KILL: u64 = 1 << 5;

/// Runs the sandbox; this process ends here, and with it every other process in it.
pub(super) fn run(job: Job<'_>) -> ! {
    let result = job.result.as_fd();
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        set_up(&job).and_then(|command| start(&job, command))
    }));
    let report = match ran {
        Ok(Ok(child)) => supervise(child),
        Ok(Err(e)) => Err(e),
        Err(_) => Err(Error::machine("the init of a sandbox panicked; this is a defect of isolith")),
    };
    tell(result, &report.unwrap_or_else(|e| Report::Failed(e.into())));
    process::exit(0)
}

/// Writes one report. A reader that is gone does not matter: then isolith is.
pub(super) fn tell(result: std::os::fd::BorrowedFd<'_>, report: &Report) {
    let mut text = wire::encode(report);
    text.push(b'\n');
    let _ = fd::write_all(result, &text);
}

/// Everything before the command exists.
fn set_up(job: &Job<'_>) -> Result<Command> {
    // What needs no ids is done while the executor is mapping them.
    privilege::set_host_name("localhost", "")?;
    if job.spec.action.network == Network::None {
        privilege::loopback_up()?;
    }
    // This one even has to come before the change of ids, after which the init may not write to its own /proc.
    process::unshare(CLONE_NEWTIME).map_err(super::hints::explain)?;
    start_clocks()?;
    wait_for(&job.gate)?;
    privilege::become_user(0, 0)?;
    // From here no change of credentials follows that would undo this. The parent may have died before.
    process::die_with_parent()?;
    if fd::wait_readable([job.executor.as_fd()], Some(Duration::ZERO))?[0] {
        process::exit(1);
    }
    if let Some(hold) = &job.hold {
        wait_for(hold)?;
    }
    // The cgroup namespace's root is the group the init is in now.
    process::unshare(libc::CLONE_NEWCGROUP).map_err(super::hints::explain)?;
    rootfs::enter(job.spec, &job.host)?;
    let command = Command::prepare(job.spec)?;
    process::set_undumpable()?;
    Ok(command)
}

/// Missing in libc.
const CLONE_NEWTIME: i32 = 0x80;

/// Waits for one byte; ends this process when the other side is gone instead.
fn wait_for(pipe: &OwnedFd) -> Result<()> {
    match fd::read(pipe.as_fd(), &mut [0])? {
        0 => process::exit(1),
        _ => Ok(()),
    }
}

/// In the time namespace of this process's children the clocks that count from boot start near zero.
fn start_clocks() -> Result<()> {
    let (monotonic, boottime) = privilege::uptime();
    let offsets = format!("monotonic -{monotonic} 0\nboottime -{boottime} 0\n");
    let path = "/proc/self/timens_offsets";
    let written = std::fs::File::options()
        .write(true)
        .open(path)
        .and_then(|mut f| std::io::Write::write_all(&mut f, offsets.as_bytes()));
    written.map_err(|e| {
        Error::machine(format!("cannot set the clocks of a sandbox: write(\"{path}\") failed")).because(e)
    })
}

/// Starts the command; its process id.
fn start(job: &Job<'_>, command: Command) -> Result<i32> {
    // Its execve also takes it into the time namespace.
    let child = process::spawn_sharing_memory(|| {
        let failed = command.run(job);
        tell(job.result.as_fd(), &Report::Failed(failed.into()));
        125
    })?;
    // Nothing of the machine stays open here but the pipe for the report.
    fd::close_all_but(&[job.result.as_raw_fd()])?;
    privilege::set_capabilities(CAP_KILL)?;
    Ok(child)
}

/// Reaps until the command has ended, then ends and reaps the rest.
fn supervise(command: i32) -> Result<Report> {
    let status = loop {
        match process::wait(-1, true)? {
            Some((pid, ended)) if pid == command => break ended,
            Some(_) => {}
            None => return Err(Error::machine("the command of a sandbox has vanished")),
        }
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
    let (user_us, system_us, max_rss) = process::children_usage();
    let status = match status {
        process::Ended::Exited(code) => Status::Exited(code),
        process::Ended::Signaled(signal) => Status::Signaled(signal),
    };
    Ok(Report::Done { status, usage: Usage { user_us, system_us, max_rss } })
}
