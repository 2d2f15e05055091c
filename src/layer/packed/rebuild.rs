//! A layer's tree out of its table of contents, what is there already, and only those frames that are not.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::cut::PIECE;
use super::read::{Ranges, Table, refused};
use super::table;
use crate::digest::ContentDigest;
use crate::error::{Error, Result};
use crate::layer::place::place_moving;
use crate::layer::{Entry, IdShift, Kind, Owners, verify};
use crate::path::GuestPath;

/// As many bytes are fetched at once.
const RUN: u64 = 4 << 20;
/// A gap that is fetched too, since another request would take longer.
const GAP: u64 = 16 << 10;
/// Requests under way at a time, at least.
const REQUESTS: usize = 4;

/// What it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Files whose content was found here.
    pub reused: u64,
    /// Files whose content was fetched.
    pub fetched: u64,
    /// Compressed bytes that were fetched for them.
    pub bytes: u64,
}

/// One frame to fetch.
#[derive(Clone, Copy)]
struct Frame {
    at: u64,
    length: u32,
    /// Where its plain bytes go: which file, from which byte on, how many.
    file: usize,
    offset: u64,
    plain: usize,
}

/// Makes the tree of a layer in the empty directory `dest`. `local` finds files that have some content, whoever's
/// they are: they are copied, or share their blocks where the file system can do that, and never linked. All else
/// is fetched into the directory `scratch`, which is on the file system of `dest`. `most` bounds the bytes of
/// content that are fetched. What comes out is hashed and is the layer of the table, or an error.
pub fn rebuild(
    table: &Table,
    ranges: &dyn Ranges,
    local: &dyn Fn(&ContentDigest) -> Option<PathBuf>,
    scratch: &Path,
    dest: &Path,
    ids: IdShift,
    most: u64,
) -> Result<Rebuilt> {
    // Files with a content that only one path has are moved into place.
    let (moved, shared) = (scratch.join("moved"), scratch.join("shared"));
    for dir in [&moved, &shared] {
        fs::create_dir(dir).map_err(|why| Error::io("create directory", dir, why))?;
    }
    let mut wanted: HashMap<ContentDigest, (u64, Option<PathBuf>)> = HashMap::new();
    let mut made = Rebuilt::default();
    for entry in table.manifest.entries() {
        if let Kind::File { digest, .. } = entry.kind {
            let (count, found) = wanted.entry(digest).or_insert_with(|| (0, local(&digest)));
            *count += 1;
            made.reused += u64::from(found.is_some());
        }
    }
    let (mut sources, mut files, mut frames) = (HashMap::new(), Vec::new(), Vec::new());
    let (mut lengths, mut starts) = (table.places.lengths.iter(), table.places.starts.iter());
    let mut left = most;
    for entry in table.manifest.entries() {
        let Kind::File { size, digest } = entry.kind else { continue };
        let count = table::frames(size) as usize;
        let mut at = if size > 0 { starts.next().copied().unwrap_or(0) } else { 0 };
        let lengths: Vec<u32> = lengths.by_ref().take(count).copied().collect();
        let (names, found) = wanted.get_mut(&digest).ok_or_else(|| refused("its manifest changed"))?;
        if found.is_none() {
            let dir = if *names == 1 { &moved } else { &shared };
            let path = dir.join(files.len().to_string());
            left = left.checked_sub(size).ok_or_else(|| refused("it has more content than is allowed"))?;
            made.fetched += 1;
            for (number, length) in lengths.iter().enumerate() {
                let offset = number as u64 * PIECE as u64;
                let plain = (size - offset).min(PIECE as u64) as usize;
                frames.push(Frame { at, length: *length, file: files.len(), offset, plain });
                at += u64::from(*length);
            }
            File::create(&path).map_err(|why| Error::io("create", &path, why))?;
            files.push(path.clone());
            *found = Some(path);
        }
        if let Some(path) = found {
            sources.insert(entry.path.clone(), path.clone());
        }
    }
    made.bytes = fetch(ranges, &runs(&frames), &files)?;
    lay_out(table, &sources, &moved, dest, ids)?;
    Ok(made)
}

/// Frames that are fetched together; they are in order.
fn runs(frames: &[Frame]) -> Vec<&[Frame]> {
    let (mut runs, mut start) = (Vec::new(), 0);
    for at in 1..=frames.len() {
        let together = frames.get(at).is_some_and(|next| {
            let last = &frames[at - 1];
            let gap = next.at.saturating_sub(last.at + u64::from(last.length));
            gap <= GAP && next.at + u64::from(next.length) - frames[start].at <= RUN
        });
        if !together && start < at {
            runs.push(&frames[start..at]);
            start = at;
        }
    }
    runs
}

/// Fetches and decompresses, several runs at a time. Gives the number of bytes fetched.
fn fetch(ranges: &dyn Ranges, runs: &[&[Frame]], files: &[PathBuf]) -> Result<u64> {
    let threads = std::thread::available_parallelism().map_or(REQUESTS, |n| n.get().max(REQUESTS));
    let (next, state) = (AtomicUsize::new(0), Mutex::new((0, None)));
    let work = || {
        let mut plain = Vec::with_capacity(PIECE);
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let done = fetch_run(ranges, run, files, &mut plain);
            let mut state = state.lock().unwrap_or_else(|e| e.into_inner());
            match done {
                Ok(bytes) => state.0 += bytes,
                Err(why) => {
                    next.store(runs.len(), Ordering::Relaxed);
                    state.1.get_or_insert(why);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(runs.len()) {
            scope.spawn(work);
        }
    });
    match state.into_inner().unwrap_or_else(|e| e.into_inner()) {
        (_, Some(why)) => Err(why),
        (bytes, None) => Ok(bytes),
    }
}

fn fetch_run(ranges: &dyn Ranges, run: &[Frame], files: &[PathBuf], plain: &mut Vec<u8>) -> Result<u64> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(0) };
    let length = (last.at + u64::from(last.length) - first.at) as usize;
    let bytes = ranges.read(first.at, length)?;
    let mut decompressor = ::zstd::bulk::Decompressor::new()
        .map_err(|why| Error::machine("cannot decompress a layer").because(why))?;
    for frame in run {
        let from = (frame.at - first.at) as usize;
        let compressed =
            bytes.get(from..from + frame.length as usize).ok_or_else(|| refused("it is cut off"))?;
        plain.clear();
        let done = decompressor.decompress_to_buffer(compressed, plain);
        if !done.is_ok_and(|n| n == frame.plain) {
            return Err(refused("a part of it does not decompress to what it should"));
        }
        let path = &files[frame.file];
        write(path, plain, frame.offset).map_err(|why| Error::io("write", path, why))?;
    }
    Ok(length as u64)
}

fn write(path: &Path, bytes: &[u8], at: u64) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all_at(bytes, at)
}

fn lay_out(
    table: &Table,
    sources: &HashMap<GuestPath, PathBuf>,
    moved: &Path,
    dest: &Path,
    ids: IdShift,
) -> Result<()> {
    let content = |entry: &Entry| {
        let source = sources.get(&entry.path).cloned();
        source.ok_or_else(|| Error::machine(format!("nothing is known of the bytes of `{}`", entry.path)))
    };
    place_moving(&table.manifest, dest, Owners::Guest(ids), &content, moved)?;
    verify(&table.manifest, dest, ids)
        .map_err(|damage| refused("what is in it is not what it says").because(damage.to_string()))
}
