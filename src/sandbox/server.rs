//! The executor process: takes requests, clones an init for each, reaps, and ends with isolith.

use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::path::Path;

use super::stage::{HostParts, Stage};
use super::wire::{self, Reply};
use super::{SandboxSpec, hints, init, seccomp};
use crate::error::{Error, Result};
use crate::key::Network;
use crate::layer::IdShift;
use crate::sys::{self, fd, process, socket};

/// The directories of the store that sandboxes use.
pub(super) const STORE_DIRS: [&str; 4] = ["layers", "tmp", "mounts", "failed"];

/// Longest reply.
pub(super) const REPLY_LEN: usize = 64 * 1024;

/// What is needed to run one sandbox; handed to its init by fork.
pub(super) struct Job<'a> {
    pub(super) spec: &'a SandboxSpec,
    /// Standard input, output and error of the command.
    pub(super) stdio: [OwnedFd; 3],
    /// Where the init reports to.
    pub(super) result: OwnedFd,
    /// A byte comes here when the init is in its cgroup.
    pub(super) hold: Option<OwnedFd>,
    /// A byte comes here when the init's ids are mapped.
    pub(super) gate: OwnedFd,
    /// The executor.
    pub(super) executor: &'a OwnedFd,
    /// What the sandbox shows of the machine.
    pub(super) host: HostParts,
    pub(super) filter: &'a [sys::seccomp::Instruction],
}

struct Server {
    ids: IdShift,
    stage: Stage,
    filter: Vec<sys::seccomp::Instruction>,
    own: OwnedFd,
    inits: Vec<process::Child>,
}

/// Runs the executor; its process ends here.
pub(super) fn run(socket: OwnedFd, store: &Path, ids: IdShift) -> ! {
    // Nothing may unwind into the copy of isolith's stack that is above us.
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| serve(socket, store, ids)));
    process::exit(if matches!(ran, Ok(Ok(()))) { 0 } else { 1 })
}

fn serve(socket: OwnedFd, store: &Path, ids: IdShift) -> Result<()> {
    // Above 2, where /dev/null goes. Copies of isolith's other descriptors are closed by number below and
    // never dropped.
    let socket = fd::duplicate_above(socket.as_fd(), 3)?;
    let (mut server, signals) = match prepare(&socket, store, ids) {
        Ok(ready) => ready,
        Err(e) => return say(&socket, &Reply::Failed(e.into()), None),
    };
    say(&socket, &Reply::Ready, None)?;
    loop {
        let [asked, died] = fd::wait_readable([socket.as_fd(), signals.as_fd()], None)?;
        if died {
            let mut info = [0; 1024];
            fd::read(signals.as_fd(), &mut info)?;
            while let Some((pid, _)) = process::wait(-1, false)? {
                server.inits.retain(|init| init.pid != pid);
            }
        }
        if asked && !server.request(&socket)? {
            break;
        }
    }
    for init in &server.inits {
        let _ = process::kill(init.pidfd.as_fd());
    }
    while process::wait(-1, true)?.is_some() {}
    Ok(())
}

/// Cuts the process off from isolith's and makes its mounts.
fn prepare(socket: &OwnedFd, store: &Path, ids: IdShift) -> Result<(Server, OwnedFd)> {
    process::reset_signals()?;
    process::new_session()?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|e| Error::io("open", Path::new("/dev/null"), e))?;
    let high = fd::duplicate_above(null.as_fd(), 3)?.into_raw_fd();
    fd::set_stdio([high; 3])?;
    // Closed by number below.
    std::mem::forget(null);
    fd::close_all_but(&[0, 1, 2, socket.as_raw_fd()])?;
    process::rename_and_blank(c"init")?;
    sys::privilege::set_umask(0);
    super::command::check_limits()?;
    let signals = process::child_signals()?;
    let stage = Stage::build(store, ids)?;
    let own = process::pidfd(process::own_pid())?;
    let server = Server { ids, stage, filter: seccomp::program(), own, inits: Vec::new() };
    Ok((server, signals))
}

fn say(socket: &OwnedFd, reply: &Reply, fd: Option<&OwnedFd>) -> Result<()> {
    let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
    let mut text = wire::encode(reply);
    if text.len() > REPLY_LEN {
        text =
            wire::encode(&Reply::Failed(Error::machine("a sandbox failed with too long a message").into()));
    }
    Ok(socket::send(socket.as_fd(), &text, &fds)?)
}

impl Server {
    /// Answers one request; false when isolith is gone.
    fn request(&mut self, socket: &OwnedFd) -> Result<bool> {
        let mut buf = [0; 16];
        let Some((_, fds)) = socket::receive(socket.as_fd(), &mut buf)? else { return Ok(false) };
        match self.start(fds) {
            Ok(child) => {
                say(socket, &Reply::Started { pid: child.pid }, Some(&child.pidfd))?;
                self.inits.push(child);
            }
            Err(e) => say(socket, &Reply::Failed(e.into()), None)?,
        }
        Ok(true)
    }

    fn start(&mut self, fds: Vec<OwnedFd>) -> Result<process::Child> {
        let mut fds = fds.into_iter();
        let mut next =
            || fds.next().ok_or_else(|| Error::machine("a request to the executor lacks descriptors"));
        let (body, stdio, result) = (next()?, [next()?, next()?, next()?], next()?);
        let hold = next().ok();
        let spec = read_spec(body)?;
        check(&spec)?;
        let host = self.stage.host_parts(&spec.action)?;
        let mut flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID;
        flags |= libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        if spec.action.network == Network::None {
            flags |= libc::CLONE_NEWNET;
        }
        let (gate, open) = socket::pipe()?;
        let job =
            Job { spec: &spec, stdio, result, hold, gate, executor: &self.own, host, filter: &self.filter };
        let Some(child) = process::clone_into_namespaces(flags as u64).map_err(hints::explain)? else {
            drop(open);
            init::run(job);
        };
        // An init whose gate is closed unopened ends by itself.
        let started = self.map_ids(child.pid).and_then(|()| Ok(fd::write_all(open.as_fd(), b"g")?));
        if let Err(e) = started {
            let _ = process::kill(child.pidfd.as_fd());
            return Err(e);
        }
        Ok(child)
    }

    /// Guest ids 0..65535 are the range at the offset, in this process's own namespace.
    fn map_ids(&self, pid: i32) -> Result<()> {
        let map = format!("0 {} {}\n", self.ids.offset, IdShift::MAX_GUEST + 1);
        for file in ["uid_map", "gid_map"] {
            let path = format!("/proc/{pid}/{file}");
            let written = std::fs::File::options()
                .write(true)
                .open(&path)
                .and_then(|mut f| f.write_all(map.as_bytes()));
            written.map_err(|e| {
                Error::machine(format!(
                    "cannot map the ids of a sandbox: write(\"{path}\", \"{}\") failed",
                    map.trim()
                ))
                .because(e)
                .hint("see `isolith doctor` for id mapping")
            })?;
        }
        Ok(())
    }
}

fn read_spec(body: OwnedFd) -> Result<SandboxSpec> {
    let mut file = std::fs::File::from(body);
    let mut text = Vec::new();
    let read = file.rewind().and_then(|()| file.read_to_end(&mut text));
    read.map_err(|e| Error::machine("cannot read a request to the executor").because(e))?;
    wire::decode(&text)
}

/// The names in a spec must stay inside the store.
fn check(spec: &SandboxSpec) -> Result<()> {
    let plain =
        |path: &str| path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
    let bad = |what: &str, path: &str| Err(Error::machine(format!("{what} `{path}` leaves the store")));
    if !plain(&spec.run) || spec.run.contains('/') {
        return bad("run directory", &spec.run);
    }
    for dir in spec.on_top.iter().chain(spec.caches.iter().map(|cache| &cache.dir)) {
        if !plain(dir)
            || !STORE_DIRS.iter().any(|top| dir.strip_prefix(top).is_some_and(|rest| rest.starts_with('/')))
        {
            return bad("directory", dir);
        }
    }
    Ok(())
}
