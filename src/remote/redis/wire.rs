//! Requests and answers of Redis (its serialization protocol, RESP version 2), and a connection that has time-outs.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::Limits;
use super::super::settings::Deadline;

/// The longest line of an answer, in bytes.
const MOST_LINE: u64 = 64 << 10;
/// The most values in an answer.
const MOST_VALUES: usize = 100_000;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A short text.
    Text(String),
    /// What the server does not like.
    Refused(String),
    /// A number.
    Number(i64),
    /// Bytes; none where there are none.
    Bytes(Option<Vec<u8>>),
    /// Several.
    Several(Vec<Answer>),
}

/// A connection.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    moved: Arc<AtomicU64>,
}

impl Connection {
    /// Connects to `host:port`; bytes that go and come are added to `moved`.
    pub fn open(host: &str, limits: Limits, moved: Arc<AtomicU64>) -> io::Result<Connection> {
        let mut last = io::Error::new(ErrorKind::NotFound, "the host is not known");
        for address in host.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, limits.connect) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(limits.idle))?;
                    stream.set_write_timeout(Some(limits.idle))?;
                    return Ok(Connection { stream: BufReader::with_capacity(64 << 10, stream), moved });
                }
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    /// Sends commands together and gives their answers in their order. No value of an answer has more than `most` bytes.
    pub fn ask(
        &mut self,
        commands: &[Vec<&[u8]>],
        most: usize,
        deadline: Deadline,
    ) -> io::Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(commands.len());
        // The server does not read on while nobody takes its answers, so not too much goes out at a time.
        for together in commands.chunks(128) {
            let mut bytes = Vec::new();
            for command in together {
                write!(bytes, "*{}\r\n", command.len())?;
                for word in command {
                    write!(bytes, "${}\r\n", word.len())?;
                    bytes.extend_from_slice(word);
                    bytes.extend_from_slice(b"\r\n");
                }
            }
            for piece in bytes.chunks(64 << 10) {
                in_time(deadline)?;
                self.stream.get_mut().write_all(piece).map_err(stalled)?;
                self.moved.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
            for _ in together {
                answers.push(self.answer(most, deadline, 0)?);
            }
        }
        Ok(answers)
    }

    fn answer(&mut self, most: usize, deadline: Deadline, depth: usize) -> io::Result<Answer> {
        let line = self.line(deadline)?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| garbage("an empty line"))?;
        let number = || rest.parse::<i64>().map_err(|_| garbage("no number"));
        Ok(match kind {
            "+" => Answer::Text(rest.to_string()),
            "-" => Answer::Refused(rest.chars().filter(|c| !c.is_control()).take(200).collect()),
            ":" => Answer::Number(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Answer::Bytes(None),
                Ok(length) if length > most => return Err(garbage("more bytes than were asked for")),
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.fill(&mut bytes, deadline)?;
                    if !bytes.ends_with(b"\r\n") {
                        return Err(garbage("bytes without an end"));
                    }
                    bytes.truncate(length);
                    Answer::Bytes(Some(bytes))
                }
            },
            "*" => {
                let count = usize::try_from(number()?).unwrap_or(0);
                if count > MOST_VALUES || depth > 2 {
                    return Err(garbage("too many values"));
                }
                let mut all = Vec::new();
                for _ in 0..count {
                    all.push(self.answer(most, deadline, depth + 1)?);
                }
                Answer::Several(all)
            }
            _ => return Err(garbage("an unknown kind of value")),
        })
    }

    fn line(&mut self, deadline: Deadline) -> io::Result<String> {
        in_time(deadline)?;
        let mut line = Vec::new();
        (&mut self.stream).take(MOST_LINE).read_until(b'\n', &mut line).map_err(stalled)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => String::from_utf8(line.to_vec()).map_err(|_| garbage("a line that is no text")),
            None if line.is_empty() => Err(io::Error::new(ErrorKind::UnexpectedEof, "the server hung up")),
            None => Err(garbage("a line without an end")),
        }
    }

    fn fill(&mut self, mut bytes: &mut [u8], deadline: Deadline) -> io::Result<()> {
        while !bytes.is_empty() {
            in_time(deadline)?;
            match self.stream.read(bytes) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server hung up")),
                Ok(n) => {
                    self.moved.fetch_add(n as u64, Ordering::Relaxed);
                    bytes = &mut bytes[n..];
                }
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return Err(stalled(why)),
            }
        }
        Ok(())
    }
}

fn in_time(deadline: Deadline) -> io::Result<()> {
    match deadline.left() {
        Some(_) => Ok(()),
        None => Err(io::Error::new(ErrorKind::TimedOut, "no time is left")),
    }
}

/// A time-out of a socket, said plainly.
fn stalled(why: io::Error) -> io::Error {
    match why.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            io::Error::new(ErrorKind::TimedOut, "the server has stalled")
        }
        _ => why,
    }
}

fn garbage(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the server does not speak as Redis does: {what}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    fn answer(bytes: &'static [u8]) -> io::Result<Vec<Answer>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || listener.accept().unwrap().0.write_all(bytes));
        let second = Duration::from_secs(1);
        let limits = Limits { connect: second, idle: second, total: second };
        let mut connection = Connection::open(&host, limits, Arc::default()).unwrap();
        let answers = connection.ask(&[vec![b"PING"]], 100, Deadline::moving(0, limits));
        server.join().unwrap().unwrap();
        answers
    }

    #[test]
    fn answers_are_read_and_garbage_is_not() {
        use Answer::*;
        assert_eq!(answer(b"+OK\r\n").unwrap(), [Text("OK".into())]);
        assert_eq!(answer(b"-ERR no\r\n").unwrap(), [Refused("ERR no".into())]);
        assert_eq!(answer(b"$-1\r\n").unwrap(), [Bytes(None)]);
        assert_eq!(answer(b"$3\r\na\r\n\r\n").unwrap(), [Bytes(Some(b"a\r\n".to_vec()))]);
        let nested = Several(vec![Bytes(Some(b"0".to_vec())), Several(vec![Number(-1)])]);
        assert_eq!(answer(b"*2\r\n$1\r\n0\r\n*1\r\n:-1\r\n").unwrap(), [nested]);
        for bad in [
            &b""[..],
            b"\r\n",
            b"+OK",
            b"?\r\n",
            b":x\r\n",
            b"$101\r\n",
            b"$3\r\nab",
            b"$1\r\nabc",
            b"+\xff\r\n",
            b"*99999999\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"$\xc3\xa9\r\n",
        ] {
            assert!(answer(bad).is_err(), "{bad:?}");
        }
    }
}
