//! A proxy in front of a real server that makes trouble, as a seed has it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What goes wrong with one connection. Numbers of bytes count from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is closed at once.
    Refuse,
    /// What comes is taken and never answered.
    Hang,
    /// Every piece is so many milliseconds late.
    Late(u64),
    /// It passes on so many bytes a second, each way.
    Slow(u64),
    /// It breaks off after so many bytes of what the client sends.
    CutUp(u64),
    /// It breaks off after so many bytes of answers.
    CutDown(u64),
    /// Answers stop coming after so many bytes, and it stays open.
    StallDown(u64),
    /// One bit of that byte of what the client sends is another one.
    FlipUp(u64),
    /// One bit of that byte of the answers is another one.
    FlipDown(u64),
    /// The request with that number, from 0, gets this answer in place of the server's.
    Answer(u64, &'static str),
}

/// Numbers that look random (splitmix64).
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len() as u64) as usize]
    }

    /// A number of bytes: small ones as often as large ones.
    fn bytes(&mut self) -> u64 {
        let most = 1 << (3 + self.roll(17));
        self.roll(most)
    }

    /// Any fault; `answers` are those that a server of this kind gives.
    fn fault(&mut self, answers: &'static [&'static str]) -> Fault {
        let kinds = if answers.is_empty() { 9 } else { 13 };
        match self.roll(kinds) {
            0 => Fault::Refuse,
            1 => Fault::Hang,
            2 => Fault::Late(1 + self.roll(300)),
            3 => Fault::Slow(1 << (10 + self.roll(12))),
            4 => Fault::CutUp(self.bytes()),
            5 => Fault::CutDown(self.bytes()),
            6 => Fault::StallDown(self.bytes()),
            7 => Fault::FlipUp(self.bytes()),
            8 => Fault::FlipDown(self.bytes()),
            _ => Fault::Answer(self.roll(6), self.pick::<&str>(answers)),
        }
    }
}

/// What happens to connections.
enum Weather {
    /// Each goes through.
    Fair,
    /// This, to each.
    All(Fault),
    /// To so many of a hundred, what the dice say.
    Foul(Dice, u64),
}

/// A proxy on 127.0.0.1, for as long as it lives.
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    to: u16,
    answers: &'static [&'static str],
    weather: Mutex<Weather>,
    /// Faults that were begun.
    begun: Mutex<Vec<Fault>>,
    over: AtomicBool,
}

impl Proxy {
    /// One in front of the server at port `to`.
    pub fn new(to: u16, answers: &'static [&'static str]) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // What is slow is to be so, and not to come at once and wait here.
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 64 << 10).unwrap();
        let (weather, begun) = (Mutex::new(Weather::Fair), Mutex::default());
        let state = Arc::new(State { to, answers, weather, begun, over: AtomicBool::new(false) });
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.over.load(Ordering::Relaxed) {
                    return;
                }
                let fault = shared.next();
                shared.begun.lock().unwrap().extend(fault);
                let to = shared.to;
                std::thread::spawn(move || connection(client, to, fault));
            }
        });
        Proxy { port, state }
    }

    pub fn all(&self, fault: Fault) {
        *self.state.weather.lock().unwrap() = Weather::All(fault);
    }

    pub fn foul(&self, dice: Dice, percent: u64) {
        *self.state.weather.lock().unwrap() = Weather::Foul(dice, percent);
    }

    /// Ends the trouble, and gives what there was of it.
    pub fn fair(&self) -> Vec<Fault> {
        *self.state.weather.lock().unwrap() = Weather::Fair;
        std::mem::take(&mut self.state.begun.lock().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl State {
    fn next(&self) -> Option<Fault> {
        match &mut *self.weather.lock().unwrap() {
            Weather::Fair => None,
            Weather::All(fault) => Some(*fault),
            Weather::Foul(dice, percent) => (dice.roll(100) < *percent).then(|| dice.fault(self.answers)),
        }
    }
}

fn connection(client: TcpStream, to: u16, fault: Option<Fault>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { return };
    if fault == Some(Fault::Refuse) {
        return;
    }
    if fault == Some(Fault::Hang) {
        return drain(client);
    }
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let requests = Arc::new(Requests { answered: AtomicBool::new(true), count: AtomicU64::new(0) });
    let (client2, server2) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let seen = requests.clone();
    let down = std::thread::spawn(move || pump(server2, client2, fault, false, &seen));
    pump(client, server, fault, true, &requests);
    let _ = down.join();
}

/// Tells requests apart: one begins when something comes after an answer.
struct Requests {
    answered: AtomicBool,
    count: AtomicU64,
}

/// Passes bytes on until there are no more, or the fault is that there are no more.
fn pump(mut from: TcpStream, mut to: TcpStream, fault: Option<Fault>, up: bool, requests: &Requests) {
    let (mut buffer, mut passed) = (vec![0; 16 << 10], 0);
    let both = |from: &TcpStream, to: &TcpStream| {
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    };
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let bytes = &mut buffer[..n];
        let at = |place: u64| place.checked_sub(passed).filter(|at| *at < n as u64).map(|at| at as usize);
        let first = up && requests.answered.swap(false, Ordering::Relaxed);
        if !up {
            requests.answered.store(true, Ordering::Relaxed);
        }
        match (fault, up) {
            (Some(Fault::Answer(which, text)), true)
                if first && requests.count.fetch_add(1, Ordering::Relaxed) == which =>
            {
                let _ = from.write_all(text.as_bytes());
                let _ = (from.shutdown(Shutdown::Write), to.shutdown(Shutdown::Both));
                return drain(from);
            }
            (Some(Fault::Late(ms)), _) => std::thread::sleep(Duration::from_millis(ms)),
            (Some(Fault::CutUp(place)), true) | (Some(Fault::CutDown(place)), false) => {
                if let Some(at) = at(place) {
                    let _ = to.write_all(&bytes[..at]);
                    return both(&from, &to);
                }
            }
            (Some(Fault::StallDown(place)), false) => {
                if let Some(at) = at(place) {
                    let _ = to.write_all(&bytes[..at]);
                    return drain(from);
                }
            }
            (Some(Fault::FlipUp(place)), true) | (Some(Fault::FlipDown(place)), false) => {
                if let Some(at) = at(place) {
                    bytes[at] ^= 1 << (place % 8);
                }
            }
            _ => {}
        }
        passed += n as u64;
        let sent = match fault {
            Some(Fault::Slow(rate)) => bytes.chunks((rate as usize / 50).max(1)).all(|piece| {
                std::thread::sleep(Duration::from_secs_f64(piece.len() as f64 / rate as f64));
                to.write_all(piece).is_ok()
            }),
            _ => to.write_all(bytes).is_ok(),
        };
        if !sent {
            return both(&from, &to);
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Takes what comes until the other side has had enough.
fn drain(mut from: TcpStream) {
    while let Ok(1..) = from.read(&mut [0; 4096]) {}
}
