//! The executor process: takes requests, clones an init for each, reaps, and ends with isolith.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use super::stage::Stage;
use super::wire::{self, Reply, Request};
use super::{hints, ids, init, seccomp};
use crate::error::{Error, Result};
use crate::key::Network;
use crate::layer::IdShift;
use crate::sys::{self, fd, process, socket};

/// The directories of the store that sandboxes use.
pub(super) const STORE_DIRS: [&str; 4] = ["layers", "tmp", "mounts", "failed"];

/// Longest message.
pub(super) const MESSAGE_LEN: usize = 32 * 1024;

struct Server {
    ids: IdShift,
    stage: Stage,
    filter: Vec<sys::seccomp::Instruction>,
    own: OwnedFd,
    /// Every init that has not been reaped.
    inits: Vec<process::Child>,
    /// An init without work: its process id, and where to send it. It was made while the sandbox before it was
    /// running, which takes a third of a step's set-up out of the way of the next one.
    standby: Option<(i32, OwnedFd)>,
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
    server.stand_by();
    loop {
        let [asked, died] = fd::wait_readable([socket.as_fd(), signals.as_fd()], None)?;
        if died {
            let mut info = [0; 1024];
            fd::read(signals.as_fd(), &mut info)?;
            while let Some((pid, _)) = process::wait(-1, false)? {
                server.inits.retain(|init| init.pid != pid);
                server.standby.take_if(|standby| standby.0 == pid);
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
    let high = fd::duplicate_above(null.as_fd(), 3)?;
    fd::set_stdio([high.as_raw_fd(); 3])?;
    // Everything that this function owns is dropped before the rest is closed by number.
    drop((null, high));
    fd::close_all_but(&[0, 1, 2, socket.as_raw_fd()])?;
    process::rename_and_blank(c"init")?;
    sys::privilege::set_umask(0);
    super::command::check_limits()?;
    let signals = process::child_signals()?;
    let stage = Stage::build(store, ids)?;
    let own = process::pidfd(process::own_pid())?;
    let server = Server { ids, stage, filter: seccomp::program(), own, inits: Vec::new(), standby: None };
    Ok((server, signals))
}

fn say(socket: &OwnedFd, reply: &Reply, fd: Option<&OwnedFd>) -> Result<()> {
    let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
    let mut text = wire::encode(reply);
    if text.len() > MESSAGE_LEN {
        text =
            wire::encode(&Reply::Failed(Error::machine("a sandbox failed with too long a message").into()));
    }
    Ok(socket::send(socket.as_fd(), &text, &fds)?)
}

impl Server {
    /// Answers one request; false when isolith is gone.
    fn request(&mut self, socket: &OwnedFd) -> Result<bool> {
        let mut buf = vec![0; MESSAGE_LEN];
        let Some((len, fds)) = socket::receive(socket.as_fd(), &mut buf)? else { return Ok(false) };
        let request = wire::decode::<Request>(&buf[..len]);
        let for_a_person = request.as_ref().is_ok_and(|request| request.extras);
        match request.and_then(|request| self.start(&request, &fds)) {
            Ok(child) => say(socket, &Reply::Started { pid: child.pid }, Some(&child.pidfd))?,
            Err(e) => say(socket, &Reply::Failed(e.into()), None)?,
        }
        drop(fds);
        // Who runs something for a person runs one thing.
        if !for_a_person {
            self.stand_by();
        }
        Ok(true)
    }

    /// Gives an init its work.
    fn start(&mut self, request: &Request, fds: &[OwnedFd]) -> Result<&process::Child> {
        let [_, _, stdout, stderr, ..] = fds else {
            return Err(Error::machine("a request to the executor lacks descriptors"));
        };
        let shift = |id: u32| {
            let none = || Error::machine(format!("there is no user or group {id} in a sandbox"));
            self.ids
                .to_disk(id)
                .ok_or_else(|| none().hint(format!("ids run from 0 to {}", IdShift::MAX_GUEST)))
        };
        if !request.extras {
            let (uid, gid) = (shift(request.uid)?, shift(request.gid)?);
            // So that the step may open /dev/stdout and /dev/stderr, which are these pipes.
            fd::give_pipe(stdout.as_fd(), uid, gid)?;
            fd::give_pipe(stderr.as_fd(), uid, gid)?;
        }
        let mut host = self.stage.host_parts(&request.host, request.network)?;
        // Another user of the machine is mapped where its files are shown.
        let plain = request.network == Network::None && request.binds.is_empty();
        let ready = self.standby.take().filter(|_| plain);
        if let Some((pid, to)) = &ready {
            // One that was killed meanwhile is no loss.
            if init::assign(to, fds, request.more, &host).is_ok() {
                return self.init(*pid);
            }
        }
        let (pid, to) = self.clone_init(request.network, !request.binds.is_empty())?;
        host.binds = self.stage.binds(&request.binds, pid)?;
        init::assign(&to, fds, request.more, &host)?;
        self.init(pid)
    }

    fn init(&self, pid: i32) -> Result<&process::Child> {
        let found = self.inits.iter().find(|init| init.pid == pid);
        found.ok_or_else(|| Error::machine("the init of a sandbox is gone"))
    }

    /// Makes an init in reserve. What prevents it will be an error when one is needed.
    fn stand_by(&mut self) {
        if self.standby.is_none() {
            self.standby = self.clone_init(Network::None, false).ok();
        }
    }

    /// With `caller`, the user who runs isolith has an id in it too: see [`ids::CALLER`].
    fn clone_init(&mut self, network: Network, caller: bool) -> Result<(i32, OwnedFd)> {
        let mut flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID;
        flags |= libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        if network == Network::None {
            flags |= libc::CLONE_NEWNET;
        }
        let (to, from) = socket::pair()?;
        let Some(child) = process::clone_into_namespaces(flags as u64).map_err(hints::explain)? else {
            init::run(init::Origin {
                from: &from,
                executor: &self.own,
                filter: &self.filter,
                network,
                recorded: self.ids.recorded,
            });
        };
        let pid = child.pid;
        self.inits.push(child);
        if let Err(e) =
            self.map_ids(pid, caller).and_then(|()| Ok(socket::send(to.as_fd(), init::MAPPED, &[])?))
        {
            if let Ok(child) = self.init(pid) {
                let _ = process::kill(child.pidfd.as_fd());
            }
            return Err(e);
        }
        Ok((pid, to))
    }

    /// Guest ids 0..65535 are the range at the offset, in this process's own namespace. If that has one id, so
    /// has the guest.
    fn map_ids(&self, pid: i32, caller: bool) -> Result<()> {
        let count = if self.ids.recorded { 1 } else { IdShift::MAX_GUEST + 1 };
        let mut map = format!("0 {} {count}\n", self.ids.offset);
        if caller && ids::is_held() {
            map.push_str(&format!("{} 0 1\n", ids::CALLER));
        }
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
