//! isolith's side of a sandbox: starts the executor, asks it for sandboxes, waits for them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::cgroup::Cgroup;
use super::wire::{self, Reply, Report};
use super::{Limits, Outcome, SandboxSpec, Status, Usage, server};
use crate::error::{Error, Result};
use crate::layer::IdShift;
use crate::sys::{fd, process, socket};

/// The process that makes sandboxes: forked before any thread exists and single-threaded for life, so that
/// what it clones may run ordinary code. Dropping it kills every sandbox that is left.
pub struct Executor {
    /// Closed before the process is waited for. The lock keeps a request and its answer together.
    socket: Option<Mutex<Line>>,
    pid: i32,
    store: PathBuf,
    ids: IdShift,
}

impl Executor {
    /// Forks the executor for the store at `store_root`, whose files have ids as `ids` says. The directories
    /// `layers`, `tmp`, `mounts` and `failed` are made if they do not exist.
    ///
    /// Fails when this process has more than one thread. The executor sets up its mounts while the caller goes on: when
    /// it cannot, the first sandbox fails.
    pub fn start(store_root: &Path, ids: IdShift) -> Result<Executor> {
        if !process::is_single_threaded() {
            return Err(Error::machine(
                "the executor must be started before the process has a second thread",
            ));
        }
        let store = store_root.canonicalize().map_err(|e| Error::io("find the store", store_root, e))?;
        if ids.recorded {
            check_closed(&store)?;
        }
        for dir in server::STORE_DIRS {
            make_searchable(&store.join(dir))?;
        }
        let (ours, theirs) = socket::pair()?;
        let Some(pid) = process::fork()? else {
            drop(ours);
            server::run(theirs, &store, ids);
        };
        drop(theirs);
        let line = Line { socket: ours, ready: None };
        Ok(Executor { socket: Some(Mutex::new(line)), pid, store, ids })
    }

    /// Starts a sandbox. `stdio` becomes descriptors 0, 1 and 2 of its command, but for 0 of one without
    /// extras: that is `/dev/null`. What fails while the sandbox sets itself up is reported by
    /// [`Sandbox::wait`].
    pub fn spawn(&self, spec: &SandboxSpec, stdio: [OwnedFd; 3]) -> Result<Sandbox> {
        let user = &spec.action.user;
        if self.ids.recorded && (user.uid, user.gid) != (0, 0) {
            return Err(super::ids::no_such_user(user.uid, user.gid));
        }
        let cgroup = Cgroup::create(&spec.limits)?;
        let body = socket::memory_file(&wire::encode(spec))?;
        let (report, result) = socket::pipe()?;
        let [stdin, stdout, stderr] = &stdio;
        let mut fds = vec![body.as_fd(), stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), result.as_fd()];
        let hold = cgroup.as_ref().map(|_| socket::pipe()).transpose()?;
        fds.extend(hold.iter().map(|(held, _)| held.as_fd()));
        let network = match spec.extras.as_ref().is_some_and(|extras| extras.ports) {
            true => Some(socket::pair()?),
            false => None,
        };
        fds.extend(network.iter().map(|(_, theirs)| theirs.as_fd()));
        let more = wire::More { hold: hold.is_some(), network: network.is_some() };
        let (reply, sent) = self.exchange(&wire::encode(&wire::Request::new(spec, more)), &fds)?;
        let pid = match reply {
            Reply::Started { pid } => pid,
            Reply::Failed(failure) => return Err(failure.into()),
            Reply::Ready => return Err(Error::machine("the executor answered what nobody asked")),
        };
        let pidfd =
            sent.into_iter().next().ok_or_else(|| Error::machine("the executor sent no descriptor"))?;
        let killer = Killer { pidfd: Arc::new(pidfd), used: Arc::new(AtomicBool::new(false)) };
        let upper = self.store.join("tmp").join(&spec.run).join("upper");
        let (limits, network) = (spec.limits.clone(), network.map(|(ours, _)| ours));
        let sandbox = Sandbox { killer, report, cgroup, limits, upper, network, started: Instant::now() };
        if let (Some(cgroup), Some((_, hold))) = (&sandbox.cgroup, &hold) {
            // The init waits for this byte before it does anything. Dropping `sandbox` kills it.
            cgroup.add(pid)?;
            fd::write_all(hold.as_fd(), b"g")?;
        }
        Ok(sandbox)
    }

    /// Sends a request and takes the answer.
    fn exchange(&self, request: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>)> {
        let line = self.socket.as_ref().ok_or_else(gone)?;
        let mut line = line.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        line.until_ready()?;
        socket::send(line.socket.as_fd(), request, fds).map_err(|e| gone().because(e))?;
        line.receive()
    }
}

/// The way to the executor.
struct Line {
    socket: OwnedFd,
    /// Whether its mounts are there, once it has said so.
    ready: Option<std::result::Result<(), wire::Failure>>,
}

impl Line {
    fn until_ready(&mut self) -> Result<()> {
        let ready = match self.ready.take() {
            Some(ready) => ready,
            None => match self.receive()?.0 {
                Reply::Ready => Ok(()),
                Reply::Failed(failure) => Err(failure),
                Reply::Started { .. } => {
                    return Err(Error::machine("the executor answered what nobody asked"));
                }
            },
        };
        Ok(self.ready.insert(ready).clone()?)
    }

    fn receive(&self) -> Result<(Reply, Vec<OwnedFd>)> {
        let mut buf = vec![0; server::MESSAGE_LEN];
        let (len, fds) = socket::receive(self.socket.as_fd(), &mut buf)?.ok_or_else(gone)?;
        Ok((wire::decode(&buf[..len])?, fds))
    }
}

fn gone() -> Error {
    Error::machine("the executor process is gone").hint("it may have been killed; start again")
}

impl Drop for Executor {
    fn drop(&mut self) {
        drop(self.socket.take());
        let _ = process::wait(self.pid, true);
    }
}

/// Where all files of a store belong to the caller, so do those with the setuid bit: nobody else may come near.
fn check_closed(store: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let meta = std::fs::metadata(store).map_err(|e| Error::io("examine", store, e))?;
    match meta.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => Err(Error::machine(format!("the store `{}` is open to other users", store.display()))
            .because("setuid files in it belong to you, since you have no range of ids for sandboxes")
            .hint(format!("close it: `chmod 700 {}`", store.display()))),
    }
}

/// Makes a directory that everyone may pass through: the inits of steps have no rights outside.
fn make_searchable(dir: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    match std::fs::DirBuilder::new().mode(0o711).create(dir) {
        Ok(()) => {
            let mode = std::fs::Permissions::from_mode(0o711);
            std::fs::set_permissions(dir, mode).map_err(|e| Error::io("set the mode of", dir, e))
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Error::io("make", dir, e)),
    }
}

/// Ends a sandbox from anywhere.
#[derive(Clone)]
pub struct Killer {
    pidfd: Arc<OwnedFd>,
    used: Arc<AtomicBool>,
}

impl Killer {
    /// Kills the sandbox with all its processes. One that has ended already is left alone.
    pub fn kill(&self) {
        self.used.store(true, Ordering::Release);
        let _ = process::kill(self.pidfd.as_fd());
    }

    /// Passes a signal on to the command of a sandbox with extras: SIGINT, SIGQUIT and SIGHUP to its whole process
    /// group, as a terminal would. One that has ended already gets none.
    pub fn pass_on(&self, signal: i32) {
        let _ = process::send_signal(self.pidfd.as_fd(), signal);
    }
}

/// A running sandbox. Dropping it kills it.
pub struct Sandbox {
    killer: Killer,
    report: OwnedFd,
    cgroup: Option<Cgroup>,
    limits: Limits,
    upper: PathBuf,
    network: Option<OwnedFd>,
    started: Instant,
}

impl Sandbox {
    /// A handle to end it with.
    pub fn killer(&self) -> Killer {
        self.killer.clone()
    }

    /// Where the network namespace of a sandbox with published ports comes, once.
    pub(super) fn take_network(&mut self) -> Option<OwnedFd> {
        self.network.take()
    }

    /// Waits until no process of the sandbox is left. Enforces the limits on time and disk meanwhile.
    ///
    /// A killed sandbox is `Signaled(9)`, with `limit` set if one of its limits did it. Fails when the sandbox
    /// could not be set up, in which case the command has not run.
    pub fn wait(self) -> Result<Outcome> {
        self.wait_looking(None, None, |_, _| true)
    }

    /// The same; meanwhile `look` is called whenever there is something to read at `also`, which it is told, and at least
    /// every `every`. It says whether `also` still matters.
    pub fn wait_looking(
        self,
        also: Option<BorrowedFd<'_>>,
        every: Option<Duration>,
        look: impl FnMut(&Killer, bool) -> bool,
    ) -> Result<Outcome> {
        let limit = self.watch(also, every, look)?;
        let mut text = Vec::new();
        let mut buf = [0; 4096];
        // The init is gone and the executor has closed its end: this cannot block.
        loop {
            match fd::read(self.report.as_fd(), &mut buf)? {
                0 => break,
                n => text.extend_from_slice(&buf[..n]),
            }
        }
        let limit = limit.or_else(|| self.cgroup.as_ref().and_then(Cgroup::over));
        let (status, usage, again) = match text.split(|b| *b == b'\n').next() {
            None | Some([]) if limit.is_some() || self.killer.used.load(Ordering::Acquire) => {
                (Status::Signaled(libc::SIGKILL), Usage::default(), false)
            }
            None | Some([]) => {
                return Err(Error::machine("a sandbox ended without a word: its init was killed").hint(
                    "look for the out-of-memory killer in `dmesg`; else the step set a limit for process 1",
                ));
            }
            Some(first) => match wire::decode(first)? {
                Report::Done { status, usage, again } => (status, usage, again),
                Report::Failed(failure) => return Err(failure.into()),
            },
        };
        // A limit on processes that was met and survived did not end the step.
        let limit = limit.filter(|_| status != Status::Exited(0));
        // What was written after the last look counts too.
        let too_much = || self.limits.disk.filter(|most| disk_usage(&self.upper, *most) > *most);
        let limit = limit.or_else(|| too_much().map(|_| "disk"));
        Ok(Outcome { status, usage, limit, again })
    }

    /// Waits for the init to be gone; the limit that had to end it.
    fn watch(
        &self,
        mut also: Option<BorrowedFd<'_>>,
        every: Option<Duration>,
        mut look: impl FnMut(&Killer, bool) -> bool,
    ) -> Result<Option<&'static str>> {
        let pidfd = self.killer.pidfd.as_fd();
        let end = self.limits.time.map(|s| self.started + Duration::from_secs(s));
        let mut limit = None;
        let mut pause = Duration::from_millis(20);
        let mut measured = Instant::now();
        loop {
            let now = Instant::now();
            let left = end.map(|end| end.saturating_duration_since(now));
            let measure = self.limits.disk.map(|_| (measured + pause).saturating_duration_since(now));
            let timeouts = left.into_iter().chain(measure).filter(|_| limit.is_none());
            let [gone, said] =
                fd::wait_readable([pidfd, also.unwrap_or(pidfd)], timeouts.chain(every).min())?;
            if gone {
                return Ok(limit);
            }
            let goes_on = look(&self.killer, said && also.is_some());
            also = also.filter(|_| goes_on);
            if limit.is_some() {
                continue;
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                limit = Some("time");
            } else if let Some(most) = self.limits.disk.filter(|_| measured.elapsed() >= pause) {
                let began = Instant::now();
                if disk_usage(&self.upper, most) > most {
                    limit = Some("disk");
                }
                // Looking takes at most a twentieth of the time.
                pause = (began.elapsed() * 20).clamp(Duration::from_millis(20), Duration::from_secs(2));
                measured = Instant::now();
            }
            if limit.is_some() {
                process::kill(pidfd)?;
            }
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Whoever does not wait must not leave a process behind, and the cgroup can only go when it is empty.
        let pidfd = self.killer.pidfd.as_fd();
        if matches!(fd::wait_readable([pidfd], Some(Duration::ZERO)), Ok([false])) {
            let _ = process::kill(pidfd);
            let _ = fd::wait_readable([pidfd], None);
        }
    }
}

/// Bytes that the files below `dir` take up or say they have; stops counting past `most`.
fn disk_usage(dir: &Path, most: u64) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut total: u64 = 0;
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        let entries = std::fs::read_dir(&dir);
        // Deeper than a path can say, where much could be hidden; it could not become a layer either.
        if entries.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::ENAMETOOLONG)) {
            return u64::MAX;
        }
        // What vanishes meanwhile does not count.
        for entry in entries.into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            total = total.saturating_add(match meta.is_dir() {
                true => meta.blocks() * 512,
                // Of a sparse file every byte counts: all of them are read when the layer is kept.
                false => (meta.blocks() * 512).max(meta.len()) / meta.nlink().max(1),
            });
            if meta.is_dir() {
                open.push(entry.path());
            }
            if total > most {
                return total;
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hides_from_the_disk_limit() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("small"), "x").unwrap();
        assert!((1..1 << 20).contains(&disk_usage(dir.path(), 1 << 20)));

        let sparse = std::fs::File::create(dir.path().join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        assert!(disk_usage(dir.path(), 1 << 20) > 1 << 20);
        std::fs::remove_file(dir.path().join("sparse")).unwrap();

        let name = "d".repeat(250);
        let mut deep = std::fs::File::open(dir.path()).unwrap().into();
        for _ in 0..20 {
            rustix::fs::mkdirat(&deep, &name, rustix::fs::Mode::RWXU).unwrap();
            let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY;
            deep = rustix::fs::openat(&deep, &name, flags, rustix::fs::Mode::empty()).unwrap();
        }
        assert!(disk_usage(dir.path(), 1 << 20) > 1 << 20, "out of reach of a path");
    }
}
