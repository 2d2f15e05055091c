//! Ports of a sandbox's loopback, published on the loopback of this machine.
//!
//! The sandbox has a network namespace of its own, and no route leads there. Its init hands the namespace out; a
//! thread of isolith enters it, which is for good and for that thread alone, and connects to the one port that it
//! is for. What it accepts here it relays there. Nothing runs inside, and no other port can be reached this way.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::Sandbox;
use crate::error::{Error, Result};
use crate::sys::{process, socket};

/// Connections of one port at a time; more wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 512;
/// Senders of one UDP port that are remembered; the one that was silent the longest makes room.
const MOST_PEERS: usize = 256;
/// Bytes on their way in one direction of a connection.
const BUFFER: usize = 32 * 1024;
/// How long a connection may take to be made inside.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which protocol a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A port of a sandbox's loopback, and the address of this machine's that it is published at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    /// A loopback address here; port 0 takes any that is free.
    pub host: SocketAddr,
    /// The port inside, on 127.0.0.1 or else on ::1.
    pub guest: u16,
    /// Which protocol.
    pub protocol: Protocol,
}

enum Door {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// Addresses of this machine that are taken, and will lead into a sandbox.
pub struct Ports {
    doors: Vec<(Door, Publish)>,
}

impl Ports {
    /// Takes the addresses.
    ///
    /// # Errors
    /// Class `Usage` when one is not of the loopback; `Machine` when it is taken or may not be used.
    pub fn bind(wanted: &[Publish]) -> Result<Ports> {
        let bind = |publish: &Publish| {
            if !publish.host.ip().is_loopback() {
                return Err(Error::usage(format!("`{}` is not a loopback address", publish.host)).hint(
                    "ports are published at 127.0.0.1 or [::1]; put a proxy in front to open one to others",
                ));
            }
            let failed = |why: std::io::Error| {
                let error = Error::machine(format!("cannot publish a port at {}", publish.host));
                match why.kind() {
                    ErrorKind::AddrInUse => {
                        error.because(why).hint("choose another port, or 0 for any that is free")
                    }
                    _ => error.because(why),
                }
            };
            let (door, host) = match publish.protocol {
                Protocol::Tcp => {
                    let listener = TcpListener::bind(publish.host).map_err(failed)?;
                    listener.set_nonblocking(true).map_err(failed)?;
                    let host = listener.local_addr().map_err(failed)?;
                    (Door::Tcp(listener), host)
                }
                Protocol::Udp => {
                    let socket = UdpSocket::bind(publish.host).map_err(failed)?;
                    socket.set_nonblocking(true).map_err(failed)?;
                    let host = socket.local_addr().map_err(failed)?;
                    (Door::Udp(socket), host)
                }
            };
            Ok((door, Publish { host, ..*publish }))
        };
        Ok(Ports { doors: wanted.iter().map(bind).collect::<Result<_>>()? })
    }

    /// What is published where, with the ports that were taken.
    pub fn published(&self) -> impl Iterator<Item = &Publish> {
        self.doors.iter().map(|(_, publish)| publish)
    }

    /// Opens the doors to a sandbox whose spec has `extras.ports`, until what is returned is dropped.
    pub fn open(self, sandbox: &mut Sandbox) -> Result<OpenPorts> {
        let (stopped, stop) = socket::pipe()?;
        let stopped = Arc::new(stopped);
        let namespace = sandbox.take_network();
        let threads = namespace.into_iter().map(|from| {
            let stopped = stopped.clone();
            let doors = self.doors.iter().map(|(door, publish)| Ok((door.try_clone()?, publish.guest)));
            let doors = doors.collect::<std::io::Result<Vec<_>>>();
            let doors = doors.map_err(|why| Error::machine("cannot duplicate a descriptor").because(why))?;
            // An init that fails closes its end.
            Ok(std::thread::spawn(move || {
                if let Ok(Some((_, fds))) = socket::receive(from.as_fd(), &mut [0; 16])
                    && let Some(namespace) = fds.into_iter().next()
                {
                    let (namespace, stopped) = (&namespace, &*stopped);
                    std::thread::scope(|scope| {
                        for (door, guest) in doors {
                            scope.spawn(move || serve(&door, guest, namespace, stopped));
                        }
                    });
                }
            }))
        });
        let threads = threads.collect::<Result<Vec<_>>>()?;
        Ok(OpenPorts { stop: Some(stop), threads })
    }
}

impl Door {
    fn try_clone(&self) -> std::io::Result<Door> {
        Ok(match self {
            Door::Tcp(listener) => Door::Tcp(listener.try_clone()?),
            Door::Udp(socket) => Door::Udp(socket.try_clone()?),
        })
    }
}

/// Ports that lead into a running sandbox. Dropping it closes them and every connection.
pub struct OpenPorts {
    stop: Option<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for OpenPorts {
    fn drop(&mut self) {
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What a thread does for one port, until it is stopped.
fn serve(door: &Door, guest: u16, namespace: &OwnedFd, stopped: &OwnedFd) {
    // This thread, and those it starts, are in the sandbox's network from here on.
    if process::enter_namespace(namespace.as_fd(), libc::CLONE_NEWNET).is_err() {
        return;
    }
    match door {
        Door::Tcp(listener) => streams(listener, guest, stopped),
        Door::Udp(socket) => datagrams(socket, guest, stopped),
    }
}

/// Both addresses that a program inside may listen at.
fn inside(guest: u16) -> [SocketAddr; 2] {
    [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)].map(|ip| (ip, guest).into())
}

/// Waits for one of these; false when everything is over.
fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> bool {
    let timeout = timeout.and_then(|time| time.try_into().ok());
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(_) => return false,
    }
    // The first one is what stops it all.
    fds[0].revents().is_empty()
}

fn streams(listener: &TcpListener, guest: u16, stopped: &OwnedFd) {
    let open = &AtomicUsize::new(0);
    std::thread::scope(|scope| {
        loop {
            let full = open.load(Ordering::Acquire) >= MOST_CONNECTIONS;
            let mut fds = vec![PollFd::new(stopped, PollFlags::IN)];
            if !full {
                fds.push(PollFd::new(listener, PollFlags::IN));
            }
            if !wait(&mut fds, full.then_some(Duration::from_millis(50))) {
                return;
            }
            let Ok((outer, _)) = listener.accept() else { continue };
            open.fetch_add(1, Ordering::AcqRel);
            let spawned = std::thread::Builder::new().spawn_scoped(scope, move || {
                let inner = inside(guest).iter().find_map(|to| TcpStream::connect_timeout(to, PATIENCE).ok());
                // Nobody listens: the connection is closed again.
                if let Some(inner) = inner {
                    relay(&outer, &inner, stopped);
                }
                open.fetch_sub(1, Ordering::AcqRel);
            });
            if spawned.is_err() {
                open.fetch_sub(1, Ordering::AcqRel);
            }
        }
    });
}

/// One direction of a connection.
struct Flow<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    buffer: Vec<u8>,
    /// What of the buffer is still to be written.
    left: std::ops::Range<usize>,
    ended: bool,
}

impl<'a> Flow<'a> {
    fn new(from: &'a TcpStream, to: &'a TcpStream) -> Self {
        Flow { from, to, buffer: vec![0; BUFFER], left: 0..0, ended: false }
    }

    /// What it waits for, if for anything.
    fn waits_for(&self) -> Option<PollFd<'a>> {
        match (self.ended, self.left.is_empty()) {
            (true, _) => None,
            (false, true) => Some(PollFd::new(self.from, PollFlags::IN)),
            (false, false) => Some(PollFd::new(self.to, PollFlags::OUT)),
        }
    }

    /// Moves what can be moved.
    fn go_on(&mut self) -> std::io::Result<()> {
        let moved = if self.left.is_empty() {
            self.from.read(&mut self.buffer).map(|n| {
                self.left = 0..n;
                if n == 0 {
                    self.ended = true;
                    let _ = self.to.shutdown(Shutdown::Write);
                }
            })
        } else {
            self.to.write(&self.buffer[self.left.clone()]).map(|n| self.left.start += n)
        };
        match moved {
            Err(e) if !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Err(e),
            _ => Ok(()),
        }
    }
}

/// Copies both ways until both have ended, one breaks, or everything is over.
fn relay(outer: &TcpStream, inner: &TcpStream, stopped: &OwnedFd) {
    if [outer, inner].iter().any(|stream| stream.set_nonblocking(true).is_err()) {
        return;
    }
    let _ = (outer.set_nodelay(true), inner.set_nodelay(true));
    let mut flows = [Flow::new(outer, inner), Flow::new(inner, outer)];
    loop {
        let mut fds = vec![PollFd::new(stopped, PollFlags::IN)];
        fds.extend(flows.iter().filter_map(Flow::waits_for));
        if fds.len() == 1 || !wait(&mut fds, None) {
            return;
        }
        let ready: Vec<bool> = fds[1..].iter().map(|fd| !fd.revents().is_empty()).collect();
        let waiting = flows.iter_mut().filter(|flow| !flow.ended);
        for (flow, _) in waiting.zip(ready).filter(|(_, ready)| *ready) {
            if flow.go_on().is_err() {
                return;
            }
        }
    }
}

/// A sender and the socket inside that speaks for it.
struct Peer {
    socket: UdpSocket,
    heard: Instant,
}

fn datagrams(outer: &UdpSocket, guest: u16, stopped: &OwnedFd) {
    let mut peers: HashMap<SocketAddr, Peer> = HashMap::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let order: Vec<SocketAddr> = peers.keys().copied().collect();
        let mut fds = vec![PollFd::new(stopped, PollFlags::IN), PollFd::new(outer, PollFlags::IN)];
        fds.extend(order.iter().map(|from| PollFd::new(&peers[from].socket, PollFlags::IN)));
        if !wait(&mut fds, None) {
            return;
        }
        let ready: Vec<bool> = fds[1..].iter().map(|fd| !fd.revents().is_empty()).collect();
        // Lost datagrams are what UDP is about: no error here ends anything.
        for (from, _) in order.iter().zip(&ready[1..]).filter(|(_, ready)| **ready) {
            if let Ok(n) = peers[from].socket.recv(&mut buffer) {
                let _ = outer.send_to(&buffer[..n], from);
            }
        }
        if ready[0]
            && let Ok((n, from)) = outer.recv_from(&mut buffer)
        {
            if !peers.contains_key(&from) {
                if peers.len() >= MOST_PEERS
                    && let Some(silent) = peers.iter().min_by_key(|(_, peer)| peer.heard).map(|(at, _)| *at)
                {
                    peers.remove(&silent);
                }
                let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) else { continue };
                if socket.connect(inside(guest)[0]).is_err() || socket.set_nonblocking(true).is_err() {
                    continue;
                }
                peers.insert(from, Peer { socket, heard: Instant::now() });
            }
            if let Some(peer) = peers.get_mut(&from) {
                peer.heard = Instant::now();
                let _ = peer.socket.send(&buffer[..n]);
            }
        }
    }
}
