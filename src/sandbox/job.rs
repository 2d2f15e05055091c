//! The work of one init, and its way there from the executor.

use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};

use super::SandboxSpec;
use super::server::{MESSAGE_LEN, STORE_DIRS};
use super::stage::{HostPart, HostParts};
use super::wire::{self, Assignment, More, Part};
use crate::error::{Error, Result};
use crate::sys::socket::{self, MAX_FDS};

/// What is needed to run one sandbox.
pub(super) struct Job {
    /// The file with the spec.
    spec: OwnedFd,
    /// Standard input, output and error of the command.
    pub(super) stdio: [OwnedFd; 3],
    /// Where the init reports to.
    pub(super) result: OwnedFd,
    /// A byte comes here when the init is in its cgroup.
    pub(super) hold: Option<OwnedFd>,
    /// The network namespace goes there.
    pub(super) network: Option<OwnedFd>,
    /// What the sandbox shows of the machine.
    pub(super) host: HostParts,
}

/// Sends an init its work: `fds` as they came with the request.
pub(super) fn assign(to: &OwnedFd, fds: &[OwnedFd], more: More, host: &HostParts) -> Result<()> {
    let part = |part: &HostPart| match part {
        HostPart::Dir(_) => Part::Dir,
        HostPart::File(_) => Part::File,
        HostPart::Link(target) => Part::Link(target.clone()),
    };
    let view = host.view.iter().map(|(path, what)| (path.clone(), part(what))).collect();
    let (resolv, binds) = (host.resolv.clone(), host.binds.len());
    let message = wire::encode(&Assignment { view, resolv, binds, more });
    if message.len() > MESSAGE_LEN {
        return Err(Error::recipe("base `host` shows more paths than can be handled")
            .hint("show directories instead of the files in them"));
    }
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    socket::send(to.as_fd(), &message, &fds)?;
    let trees = host.view.iter().filter_map(|(_, part)| part.tree()).chain(&host.binds);
    let trees: Vec<_> = trees.map(AsFd::as_fd).collect();
    for some in trees.chunks(MAX_FDS) {
        socket::send(to.as_fd(), b"trees", some)?;
    }
    Ok(())
}

impl Job {
    /// Waits for work; none when the executor is gone.
    pub(super) fn receive(from: &OwnedFd) -> Result<Option<Job>> {
        let mut buf = vec![0; MESSAGE_LEN];
        let (len, fds) = loop {
            match socket::receive(from.as_fd(), &mut buf)? {
                None => return Ok(None),
                // What an init that failed early has left unread.
                Some((_, fds)) if fds.is_empty() => continue,
                Some(work) => break work,
            }
        };
        let assignment: Assignment = wire::decode(&buf[..len])?;
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or_else(|| Error::machine("a sandbox was given too few descriptors"));
        let (spec, stdio, result) = (next()?, [next()?, next()?, next()?], next()?);
        let hold = assignment.more.hold.then(&mut next).transpose()?;
        let network = assignment.more.network.then(&mut next).transpose()?;
        let mut trees = Vec::new().into_iter();
        let mut tree = || loop {
            if let Some(tree) = trees.next() {
                return Ok(tree);
            }
            match socket::receive(from.as_fd(), &mut [0; 16])? {
                Some((_, more)) => trees = more.into_iter(),
                None => return Err(Error::machine("the executor is gone")),
            }
        };
        let mut view = Vec::new();
        for (path, part) in assignment.view {
            let part = match part {
                Part::Dir => HostPart::Dir(tree()?),
                Part::File => HostPart::File(tree()?),
                Part::Link(target) => HostPart::Link(target),
            };
            view.push((path, part));
        }
        let binds = (0..assignment.binds).map(|_| tree()).collect::<Result<_>>()?;
        let host = HostParts { view, resolv: assignment.resolv, binds };
        Ok(Some(Job { spec, stdio, result, hold, network, host }))
    }

    /// Reads and checks the spec.
    pub(super) fn read_spec(&self) -> Result<SandboxSpec> {
        let failed = |e| Error::machine("cannot read the spec of a sandbox").because(e);
        let mut file = std::fs::File::from(self.spec.try_clone().map_err(failed)?);
        let mut text = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut text)).map_err(failed)?;
        let spec = wire::decode(&text)?;
        check(&spec)?;
        Ok(spec)
    }
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
        let below = |top: &str| dir.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'));
        if !plain(dir) || !STORE_DIRS.iter().any(|top| below(top)) {
            return bad("directory", dir);
        }
    }
    Ok(())
}
