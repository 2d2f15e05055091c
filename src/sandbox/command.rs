//! The command of a sandbox: its environment, its limits, and the last calls before `execve`.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd};

use super::job::Job;
use super::supervisor::Handover;
use super::{Conditions, SandboxSpec, clock};
use crate::error::{Error, Result};
use crate::sys::process::{self, Strings};
use crate::sys::seccomp::{self, Instruction};
use crate::sys::{SysError, cstring, fd, privilege};

const UNLIMITED: u64 = libc::RLIM64_INFINITY;

/// Every resource limit: name for `ulimit`, resource, soft and hard value.
///
/// The hard values are such that the defaults of an ordinary machine allow them, since only a privileged
/// process could raise its own: nofile 4096 is the kernel's default (`INR_OPEN_MAX`), memlock 64 KiB that of
/// old kernels, and the kernel's own default for nproc and sigpending is above 4096 from about 1 GiB of
/// memory on.
pub(super) const LIMITS: [(&str, u32, u64, u64); 16] = [
    ("-t", libc::RLIMIT_CPU, UNLIMITED, UNLIMITED),
    ("-f", libc::RLIMIT_FSIZE, UNLIMITED, UNLIMITED),
    ("-d", libc::RLIMIT_DATA, UNLIMITED, UNLIMITED),
    ("-s", libc::RLIMIT_STACK, 8 << 20, UNLIMITED),
    ("-c", libc::RLIMIT_CORE, 0, 0),
    ("-m", libc::RLIMIT_RSS, UNLIMITED, UNLIMITED),
    ("-u", libc::RLIMIT_NPROC, 4096, 4096),
    ("-n", libc::RLIMIT_NOFILE, 1024, 4096),
    ("-l", libc::RLIMIT_MEMLOCK, 64 << 10, 64 << 10),
    ("-v", libc::RLIMIT_AS, UNLIMITED, UNLIMITED),
    ("-x", libc::RLIMIT_LOCKS, UNLIMITED, UNLIMITED),
    ("-i", libc::RLIMIT_SIGPENDING, 4096, 4096),
    ("-q", libc::RLIMIT_MSGQUEUE, 819_200, 819_200),
    ("-e", libc::RLIMIT_NICE, 0, 0),
    ("-r", libc::RLIMIT_RTPRIO, 0, 0),
    ("-R", libc::RLIMIT_RTTIME, UNLIMITED, UNLIMITED),
];

/// What package managers need of the user namespace's root: chown, dac_override, fowner, fsetid, kill,
/// setgid, setuid, setpcap, net_bind_service, sys_chroot, mknod, setfcap (numbers of capability.h).
const CAPABILITIES: u64 =
    1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18 | 1 << 27 | 1 << 31;

/// For argv[0] without a slash when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Checks that every limit can be had; done once, by the executor, so that no step starts with others.
pub(super) fn check_limits() -> Result<()> {
    for (flag, resource, _, hard) in LIMITS {
        let (_, own) = privilege::limit(resource)?;
        if own >= hard {
            continue;
        }
        // Root outside of containers may raise its own.
        privilege::set_limit(resource, own, hard).map_err(|e| {
            let show = |n: u64| if n == UNLIMITED { "unlimited".to_string() } else { n.to_string() };
            Error::machine(format!(
                "every step gets the limit `ulimit {flag}` = {}, but the caller's hard limit is {}",
                show(hard),
                show(own)
            ))
            .because(e)
            .hint(format!(
                "raise it in /etc/security/limits.conf, or as root: `prlimit --pid $$ --{}={}`",
                name(resource),
                show(hard)
            ))
        })?;
    }
    Ok(())
}

/// The name that prlimit(1) has for a resource.
pub(super) fn name(resource: u32) -> &'static str {
    const NAMES: [&str; 16] = [
        "cpu",
        "fsize",
        "data",
        "stack",
        "core",
        "rss",
        "nproc",
        "nofile",
        "memlock",
        "as",
        "locks",
        "sigpending",
        "msgqueue",
        "nice",
        "rtprio",
        "rttime",
    ];
    NAMES.get(resource as usize).copied().unwrap_or("?")
}

/// The filter of a command.
#[derive(Clone, Copy)]
pub(super) enum Filter<'a> {
    /// The contract's.
    Plain(&'a [Instruction]),
    /// One that hands calls to the init.
    Supervised(&'a Handover),
}

/// A command, ready to run.
pub(super) struct Command {
    args: Strings,
    env: Strings,
    /// Where the program may be, in the order of PATH.
    programs: Vec<CString>,
    cwd: CString,
    user: (u32, u32),
    /// Whether it can drop the caller's other groups.
    drop_groups: bool,
    /// Its standard input is its own, and maybe a terminal.
    attended: bool,
    name: String,
    conditions: Conditions,
}

impl Command {
    /// Makes the working directory and gathers everything that needs memory. Runs in the root of the sandbox.
    pub(super) fn prepare(spec: &SandboxSpec, recorded: bool) -> Result<Command> {
        let action = &spec.action;
        let root = fd::open_path(fd::here(), c"/")?;
        let cwd = cstring(format!("/{}", String::from_utf8_lossy(action.cwd.as_bytes())))?;
        for dir in action.cwd.ancestors().skip(1).chain([action.cwd.clone()]).filter(|dir| !dir.is_root()) {
            let path = cstring(dir.as_bytes())?;
            if fd::open_in_root(root.as_fd(), &path, libc::O_PATH | libc::O_DIRECTORY, 0).is_err() {
                fd::make_dir(root.as_fd(), &path, 0o755).map_err(|e| {
                    Error::from(e).hint(format!(
                        "the step's working directory `{}` cannot be made in this stack",
                        action.cwd
                    ))
                })?;
            }
        }
        if spec.conditions.clock_shift != 0 {
            clock::install(root.as_fd(), spec.conditions.clock_shift)?;
        }
        let name =
            action.argv.first().cloned().ok_or_else(|| Error::recipe("a step has an empty command"))?;
        let programs = match name.contains('/') {
            true => vec![cstring(&name)?],
            false => {
                let path = action.env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
                let at = |dir: &str| cstring(format!("{}/{name}", if dir.is_empty() { "." } else { dir }));
                path.split(':').map(at).collect::<Result<_, _>>()?
            }
        };
        let args = action.argv.iter().map(cstring).collect::<Result<_, _>>()?;
        Ok(Command {
            args: Strings::new(args),
            env: Strings::new(environment(spec)?),
            programs,
            cwd,
            user: (action.user.uid, action.user.gid),
            drop_groups: !recorded,
            attended: spec.extras.is_some(),
            name,
            conditions: spec.conditions.clone(),
        })
    }

    /// In the command's own process: becomes the command. Returns only when something before that failed.
    pub(super) fn run(self, job: &Job, filter: Filter<'_>) -> Error {
        match self.become_step(job, filter) {
            Err(e) => e.into(),
            Ok(()) => self.exec(),
        }
    }

    fn become_step(&self, job: &Job, filter: Filter<'_>) -> Result<(), SysError> {
        process::new_session()?;
        process::unblock_signals()?;
        let [stdin, stdout, stderr] = &job.stdio;
        let mut stdio = [stdin.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()];
        if !self.attended {
            // Not owned: it is closed below with everything else.
            stdio[0] = fd::open_in_root(fd::here(), c"dev/null", libc::O_RDONLY, 0)?.into_raw_fd();
        }
        fd::set_stdio(stdio)?;
        // The report pipe closes itself at execve.
        let handover = match filter {
            Filter::Plain(_) => job.result.as_raw_fd(),
            Filter::Supervised(handover) => handover.theirs.as_raw_fd(),
        };
        fd::close_all_but(&[0, 1, 2, job.result.as_raw_fd(), handover])?;
        if self.attended && process::is_terminal(fd::stdin()) {
            match process::take_terminal(fd::stdin()) {
                // It is the controlling terminal of another session and stays so: no job control then.
                Err(e) if e.errno() == libc::EPERM => {}
                other => other?,
            }
        }
        fd::change_dir(&self.cwd)?;
        privilege::set_umask(0o022);
        for (_, resource, soft, hard) in LIMITS {
            privilege::set_limit(resource, soft, hard)?;
        }
        let fixed = if self.conditions.random_addresses { 0 } else { libc::ADDR_NO_RANDOMIZE };
        privilege::set_personality(fixed as u64)?;
        if let Some(cpus) = self.conditions.cpus {
            privilege::limit_cpus(cpus)?;
        }
        let (uid, gid) = self.user;
        privilege::bound_capabilities(CAPABILITIES)?;
        privilege::become_user(uid, gid, self.drop_groups)?;
        privilege::set_capabilities(if uid == 0 { CAPABILITIES } else { 0 })?;
        privilege::no_new_privileges()?;
        match filter {
            Filter::Plain(filter) => seccomp::load(filter),
            Filter::Supervised(handover) => handover.load(),
        }
    }

    /// Tries the places of PATH like a shell: the first that exists and may be executed. Failing is the step's
    /// own failure, so it goes to its log, with a shell's exit codes.
    fn exec(&self) -> ! {
        let mut denied = None;
        let mut last = libc::ENOENT;
        for program in &self.programs {
            last = process::exec(program, &self.args, &self.env).errno();
            match last {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => denied = Some(last),
                _ => break,
            }
        }
        let errno = if matches!(last, libc::ENOENT | libc::ENOTDIR) { denied.unwrap_or(last) } else { last };
        let why = std::io::Error::from_raw_os_error(errno);
        // An image may have chosen the name, and the reader may be a terminal.
        let line = format!("isolith: cannot run `{}`: {why}\n", self.name.replace(char::is_control, "?"));
        let _ = fd::write_all(fd::stderr(), line.as_bytes());
        process::exit(if matches!(errno, libc::ENOENT | libc::ENOTDIR) { 127 } else { 126 })
    }
}

/// The action's environment, with HOME and JOBS where it does not set them.
fn environment(spec: &SandboxSpec) -> Result<Vec<CString>> {
    let mut env = spec.action.env.clone();
    if !env.contains_key("HOME") {
        env.insert("HOME".into(), home(spec.action.user.uid));
    }
    env.entry("JOBS".into()).or_insert_with(|| spec.jobs.to_string());
    if spec.conditions.clock_shift != 0 {
        let more = env.remove("LD_PRELOAD").map_or_else(String::new, |own| format!(":{own}"));
        env.insert("LD_PRELOAD".into(), format!("{}{more}", clock::PATH));
    }
    if let Some(extras) = &spec.extras {
        env.extend(extras.env.iter().cloned());
    }
    env.iter().map(|(key, value)| Ok(cstring(format!("{key}={value}"))?)).collect()
}

/// The user's home directory as the stack's /etc/passwd has it.
fn home(uid: u32) -> String {
    if uid == 0 {
        return "/root".to_string();
    }
    // Not a pipe that would block, nor a file that would never end.
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    let file = fd::open_in_root(fd::here(), c"etc/passwd", flags, 0).map(std::fs::File::from);
    let file = file.ok().filter(|file| file.metadata().is_ok_and(|meta| meta.is_file()));
    let mut text = Vec::new();
    if let Some(file) = file {
        let _ = std::io::Read::read_to_end(&mut std::io::Read::take(file, 1 << 20), &mut text);
    }
    let text = String::from_utf8_lossy(&text);
    let find = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| fields.get(5).map(|home| home.to_string()))?
    };
    text.lines().find_map(find).filter(|home| home.starts_with('/')).unwrap_or_else(|| "/".to_string())
}
