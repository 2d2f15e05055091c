//! Reading ahead on another thread: what makes bytes and what takes them each get a cpu.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How many bytes pass at once.
const PIECE: usize = 256 << 10;
/// How many pieces may wait.
const PIECES: usize = 4;

/// Reads `from` on a thread of its own, which is gone at the end, and gives `take` what it read. When `take` ends early,
/// so does the reading.
pub(super) fn ahead<T>(from: &mut (dyn Read + Send), take: impl FnOnce(&mut (dyn Read + Send)) -> T) -> T {
    let (full, filled) = sync_channel::<io::Result<Vec<u8>>>(PIECES);
    let (empty, emptied) = sync_channel::<Vec<u8>>(PIECES + 2);
    std::thread::scope(|scope| {
        scope.spawn(move || fill(from, &full, &emptied));
        take(&mut Pieces { filled, empty, piece: Vec::new(), at: 0, over: false })
    })
}

fn fill(from: &mut dyn Read, full: &SyncSender<io::Result<Vec<u8>>>, emptied: &Receiver<Vec<u8>>) {
    loop {
        let mut piece = emptied.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let mut filled = 0;
        let end = loop {
            if filled == PIECE {
                break None;
            }
            match from.read(&mut piece[filled..]) {
                Ok(0) => break Some(Ok(())),
                Ok(n) => filled += n,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => break Some(Err(why)),
            }
        };
        piece.truncate(filled);
        if !piece.is_empty() && full.send(Ok(piece)).is_err() {
            return;
        }
        match end {
            None => {}
            Some(Ok(())) => return,
            Some(Err(why)) => return drop(full.send(Err(why))),
        }
    }
}

struct Pieces {
    filled: Receiver<io::Result<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    over: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() && !self.over {
            match self.filled.recv() {
                Ok(Ok(piece)) => {
                    let _ = self.empty.try_send(std::mem::replace(&mut self.piece, piece));
                    self.at = 0;
                }
                Ok(Err(why)) => return Err(why),
                Err(_) => self.over = true,
            }
        }
        let n = buffer.len().min(self.piece.len() - self.at);
        buffer[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_and_errors_come_through_and_an_early_end_is_no_hang() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 % 251) as u8).collect();
        let mut out = Vec::new();
        ahead(&mut &bytes[..], |from| from.read_to_end(&mut out)).unwrap();
        assert!(out == bytes);
        struct Broken(u64);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(buffer.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
                Ok(buffer.len())
            }
        }
        let why = ahead(&mut Broken(1 << 20), |from| io::copy(from, &mut io::sink())).unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::InvalidData);
        let mut one = [0; 1];
        ahead(&mut Broken(1 << 40), |from| from.read_exact(&mut one)).unwrap();
    }
}
