//! The digest of a file on disk, on all threads, in memory that does not grow with the file.
//!
//! BLAKE3 is a tree: a large file is cut where the tree cuts it, the pieces are read and hashed in parallel,
//! and their chaining values merged (section 2.1 of the BLAKE3 paper). Unlike a mapping, reading leaves
//! nothing of the file in the process.

use std::cell::RefCell;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root};
use blake3::{Hasher, hazmat::merge_subtrees_root};

use crate::digest::ContentDigest;

/// How much one thread reads and hashes at a time: fits the second-level cache.
const PIECE: u64 = 256 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE as usize]);
}

/// Never set: for what nobody stops.
pub(super) static NEVER: AtomicBool = AtomicBool::new(false);

/// The digest of the first `size` bytes of a file; an error when it has fewer, and soon after `stop` is set.
pub(super) fn digest(file: BorrowedFd, size: u64, stop: &AtomicBool) -> io::Result<ContentDigest> {
    go_on(stop)?;
    if size <= PIECE {
        return with_piece(file, 0, size, ContentDigest::of);
    }
    let left = left_subtree_len(size);
    let (left, right) =
        rayon::join(|| subtree(file, 0, left, stop), || subtree(file, left, size - left, stop));
    Ok(ContentDigest::from_bytes(*merge_subtrees_root(&left?, &right?, Mode::Hash).as_bytes()))
}

fn subtree(file: BorrowedFd, offset: u64, len: u64, stop: &AtomicBool) -> io::Result<ChainingValue> {
    // Not only at the pieces: a huge file has too many to visit each.
    go_on(stop)?;
    if len <= PIECE {
        return with_piece(file, offset, len, |bytes| {
            Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root()
        });
    }
    let left = left_subtree_len(len);
    let (left, right) =
        rayon::join(|| subtree(file, offset, left, stop), || subtree(file, offset + left, len - left, stop));
    Ok(merge_subtrees_non_root(&left?, &right?, Mode::Hash))
}

fn go_on(stop: &AtomicBool) -> io::Result<()> {
    if stop.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}

/// Calls `f` with `len` bytes (at most [`PIECE`]) from `offset` on.
fn with_piece<T>(file: BorrowedFd, offset: u64, len: u64, f: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    BUFFER.with_borrow_mut(|buffer| {
        let piece = &mut buffer[..len as usize];
        let mut done = 0;
        while done < piece.len() {
            match rustix::io::pread(file, &mut piece[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(f(piece))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn is_plain_blake3_at_every_size() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..5 * PIECE + 1234).map(|i| (i * 31 % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        for size in [0, 1, 1024, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 1024, 5 * PIECE + 1234] {
            let digest = digest(file.as_fd(), size, &NEVER).unwrap();
            assert_eq!(digest, ContentDigest::of(&bytes[..size as usize]), "{size}");
        }
        assert!(digest(file.as_fd(), 6 * PIECE, &NEVER).is_err());
        let stopped = digest(file.as_fd(), 5 * PIECE, &AtomicBool::new(true)).unwrap_err();
        assert_eq!(stopped.kind(), io::ErrorKind::Interrupted);
    }
}
