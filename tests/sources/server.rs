//! A web server that does as it is told, for as long as it lives.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// One request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// How many came before it.
    pub nth: usize,
    pub path: String,
    /// `Range: bytes=N-`.
    pub from: Option<usize>,
    pub headers: Vec<String>,
}

pub struct Server {
    port: u16,
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<Asked>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn new(
        answer: impl Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (ends, notes, answer) = (stop.clone(), asked.clone(), Arc::new(answer));
        let count = Arc::new(AtomicUsize::new(0));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let (mut stream, notes, answer, count) =
                    (stream.unwrap(), notes.clone(), answer.clone(), count.clone());
                // Connections end with the client's, or after a while.
                stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
                std::thread::spawn(move || {
                    let Some(asked) = read(&stream, &count) else { return };
                    notes.lock().unwrap().push(asked.clone());
                    let _ = answer(&asked, &mut stream);
                });
            }
        });
        Server { port, stop, asked, thread: Some(thread) }
    }

    /// Always these bytes.
    pub fn of(bytes: Vec<u8>) -> Server {
        Server::new(move |_, stream| ok(stream, &bytes))
    }

    /// Headers without an end.
    pub fn of_headers() -> Server {
        Server::new(|_, stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            for at in 0..100_000 {
                stream.write_all(format!("X-{at}: {}\r\n", "y".repeat(1000)).as_bytes())?;
            }
            Ok(())
        })
    }

    /// A body without an end.
    pub fn without_end() -> Server {
        Server::new(|_, stream| {
            head(stream, "200 OK", &[])?;
            loop {
                stream.write_all(&[0; 65536])?;
            }
        })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn read(stream: &TcpStream, count: &AtomicUsize) -> Option<Asked> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let path = first.split(' ').nth(1)?.to_string();
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let from = headers.iter().find_map(|header| {
        let (name, value) = header.split_once(": ")?;
        let range = value.strip_prefix("bytes=").filter(|_| name.eq_ignore_ascii_case("range"))?;
        range.strip_suffix('-')?.parse().ok()
    });
    Some(Asked { nth: count.fetch_add(1, Ordering::SeqCst), path, from, headers })
}

/// A whole answer.
pub fn ok(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    head(stream, "200 OK", &[&format!("Content-Length: {}", bytes.len())])?;
    stream.write_all(bytes)
}

pub fn head(stream: &mut TcpStream, status: &str, headers: &[&str]) -> std::io::Result<()> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    stream.write_all(format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n").as_bytes())
}

/// The rest of the bytes, as was asked for.
pub fn rest(stream: &mut TcpStream, bytes: &[u8], from: usize) -> std::io::Result<()> {
    let range = format!("Content-Range: bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
    head(stream, "206 Partial Content", &[&range, &format!("Content-Length: {}", bytes.len() - from)])?;
    stream.write_all(&bytes[from..])
}

pub fn redirect(stream: &mut TcpStream, to: &str) -> std::io::Result<()> {
    head(stream, "302 Found", &[&format!("Location: {to}"), "Content-Length: 0"])
}
