//! Compresses pieces on all threads and gives the results back in order.

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::super::pack::{failed, pack_into};
use super::cut::{Cut, Cutter, Piece};
use crate::error::{Error, Result};
use crate::layer::{Entry, Manifest};

/// A piece and what has become of it.
pub(super) struct Squeezed<T> {
    pub piece: Piece,
    pub result: T,
}

/// Results in the order of the archive.
pub(super) struct Results<T>(Receiver<Receiver<Vec<Squeezed<T>>>>);

impl<T> Results<T> {
    /// The next ones; none at the end.
    pub fn next(&self) -> io::Result<Option<Vec<Squeezed<T>>>> {
        let Ok(results) = self.0.recv() else { return Ok(None) };
        results.recv().map(Some).map_err(|_| io::Error::other("a piece could not be compressed"))
    }
}

struct Job<T> {
    pieces: Vec<Piece>,
    done: SyncSender<Vec<Squeezed<T>>>,
}

/// Runs a layer's archive through `squeeze`, called for each piece on any thread, into `write`, called once on a
/// thread of its own. How much is under way at a time is bounded by the number of threads.
pub(super) fn run<T: Send, O: Send>(
    manifest: &Manifest,
    content: &dyn Fn(&Entry) -> Result<PathBuf>,
    cut: Cut,
    squeeze: &(dyn Fn(&Piece) -> io::Result<T> + Sync),
    write: impl FnOnce(Results<T>) -> io::Result<O> + Send,
) -> Result<O> {
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get());
    let (to_writer, told) = sync_channel(threads + 2);
    let (to_workers, work) = sync_channel::<Job<T>>(1);
    let work = Mutex::new(work);
    let worker = |work: &Mutex<Receiver<Job<T>>>| {
        loop {
            let Ok(job) = work.lock().unwrap_or_else(|e| e.into_inner()).recv() else { return };
            let squeezed = |piece: Piece| squeeze(&piece).map(|result| Squeezed { piece, result });
            // When that fails nothing is sent, and the writer finds the channel closed.
            if let Ok(done) = job.pieces.into_iter().map(squeezed).collect::<io::Result<_>>() {
                let _ = job.done.send(done);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| worker(&work));
        }
        let writer = scope.spawn(move || write(Results(told)));
        let mut hand_out = move |pieces| {
            let (done, results) = sync_channel(1);
            let queued = to_writer.send(results).is_ok() && to_workers.send(Job { pieces, done }).is_ok();
            if queued { Ok(()) } else { Err(Error::machine("cannot write the archive of a layer")) }
        };
        let mut cutter = Cutter::new(cut, &mut hand_out);
        let packed = pack_into(manifest, content, &mut cutter).and_then(|()| cutter.finish());
        drop(hand_out);
        let written = writer.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
        // Where the writer gave up, that is the cause of what was seen here.
        let written = written.map_err(failed)?;
        packed.map(|()| written)
    })
}
