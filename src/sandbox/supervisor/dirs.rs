//! Directories listed in another order: answers `getdents64`.
//!
//! The whole directory is read through the caller's own open file, put in order, and served in pieces. The
//! position of the open file counts the entries that were served, so that `rewinddir`, `telldir` and `seekdir`
//! do what they should: a call at position 0 reads the directory anew.
//!
//! The old call `getdents`, which no libc uses any more, is left alone.

use std::collections::HashMap;
use std::os::fd::AsFd;

use rustix::fs::{FileType, RawDir, SeekFrom, fstat, seek};

use super::{Answer, Answered, Asked, Handler, descriptor_of};
use crate::sandbox::conditions::DirOrder;
use crate::sys::process;

/// Listings that are remembered; the oldest ones go when there are more.
const MOST: usize = 256;

/// The feature.
pub(super) struct Dirs {
    order: DirOrder,
    listings: HashMap<Listed, (u64, Vec<Item>)>,
    count: u64,
}

/// Who reads which directory: thread, descriptor, device, inode.
type Listed = (i32, i32, u64, u64);

struct Item {
    inode: u64,
    kind: u8,
    name: Vec<u8>,
}

impl Dirs {
    pub(super) fn new(order: DirOrder) -> Dirs {
        Dirs { order, listings: HashMap::new(), count: 0 }
    }
}

impl Handler for Dirs {
    fn calls(&self) -> Vec<libc::c_long> {
        vec![libc::SYS_getdents64]
    }

    fn handle(&mut self, asked: &Asked<'_>) -> Answered {
        let call = &asked.call;
        let [number, address, room, ..] = call.args;
        let dir = descriptor_of(call, number as i32)?;
        let stat = fstat(&dir).map_err(|e| e.raw_os_error())?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(Answer::Continue);
        }
        let at = seek(&dir, SeekFrom::Current(0)).map_err(|e| e.raw_os_error())?;
        let key = (call.pid, number as i32, stat.st_dev, stat.st_ino);
        if at == 0 || !self.listings.contains_key(&key) {
            let items = match read(&dir, self.order) {
                Ok(items) => items,
                Err(errno) => {
                    let _ = seek(&dir, SeekFrom::Start(at));
                    return Err(errno);
                }
            };
            self.count += 1;
            self.listings.insert(key, (self.count, items));
            self.forget_old();
        }
        let items = self.listings.get(&key).map(|(_, items)| &items[..]).unwrap_or_default();
        let from = (at as usize).min(items.len());
        let (bytes, served) = pack(&items[from..], from as u64, room as u32 as usize);
        if served == 0 && from < items.len() {
            let _ = seek(&dir, SeekFrom::Start(at));
            return Err(libc::EINVAL);
        }
        let next = (from + served) as u64;
        // Where a file system has no such positions the order stays its own.
        if seek(&dir, SeekFrom::Start(next)) != Ok(next) {
            let _ = seek(&dir, SeekFrom::Start(at));
            return Ok(Answer::Continue);
        }
        if let Err(e) = process::write_memory(call.pid, address, &bytes) {
            let _ = seek(&dir, SeekFrom::Start(at));
            return Err(e.errno());
        }
        Ok(Answer::Value(bytes.len() as i64))
    }
}

impl Dirs {
    fn forget_old(&mut self) {
        if self.listings.len() > MOST {
            let oldest = self.count.saturating_sub(MOST as u64 / 2);
            self.listings.retain(|_, (age, _)| *age > oldest);
        }
    }
}

/// Reads all of an open directory from its beginning.
fn read(dir: impl AsFd, order: DirOrder) -> Result<Vec<Item>, i32> {
    seek(&dir, SeekFrom::Start(0)).map_err(|e| e.raw_os_error())?;
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|e| e.raw_os_error())?;
        let name = entry.file_name().to_bytes().to_vec();
        let kind = entry.file_type().as_raw_mode() >> 12;
        let item = Item { inode: entry.ino(), kind: kind as u8, name };
        if matches!(&item.name[..], b"." | b"..") { first.push(item) } else { rest.push(item) }
    }
    match order {
        DirOrder::Reversed => rest.reverse(),
        DirOrder::Shuffled(seed) => rest.sort_by_cached_key(|item| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&seed.to_le_bytes()).update(&item.name);
            *hasher.finalize().as_bytes()
        }),
    }
    first.extend(rest);
    Ok(first)
}

/// As many entries as fit, in the kernel's form (`struct linux_dirent64`), and their number.
fn pack(items: &[Item], base: u64, room: usize) -> (Vec<u8>, usize) {
    const HEAD: usize = 8 + 8 + 2 + 1;
    let mut out = Vec::new();
    for (served, item) in items.iter().enumerate() {
        let len = (HEAD + item.name.len() + 1).next_multiple_of(8);
        if out.len() + len > room {
            return (out, served);
        }
        let end = out.len() + len;
        out.extend_from_slice(&item.inode.to_ne_bytes());
        out.extend_from_slice(&(base + served as u64 + 1).to_ne_bytes());
        out.extend_from_slice(&(len as u16).to_ne_bytes());
        out.push(item.kind);
        out.extend_from_slice(&item.name);
        out.resize(end, 0);
    }
    (out, items.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &std::path::Path, order: DirOrder) -> Vec<String> {
        let items = read(std::fs::File::open(dir).unwrap(), order).unwrap();
        items.into_iter().map(|item| String::from_utf8(item.name).unwrap()).collect()
    }

    #[test]
    fn orders_are_total_and_dots_come_first() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c", "d", "e"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let natural: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(names(dir.path(), DirOrder::Reversed)[2..].iter().eq(natural.iter().rev()));
        let one = names(dir.path(), DirOrder::Shuffled(1));
        assert_eq!(one, names(dir.path(), DirOrder::Shuffled(1)));
        assert!((2..9).any(|seed| names(dir.path(), DirOrder::Shuffled(seed)) != one));
        let mut dots = one[..2].to_vec();
        dots.sort();
        assert_eq!(dots, [".", ".."]);
    }

    #[test]
    fn entries_are_packed_as_the_kernel_does_it() {
        let item = |name: &[u8]| Item { inode: 7, kind: 8, name: name.to_vec() };
        let items = [item(b"abcd"), item(b"abcde")];
        let (bytes, served) = pack(&items, 3, 1000);
        assert_eq!((bytes.len(), served), (24 + 32, 2));
        assert_eq!(bytes[8..16], 4u64.to_ne_bytes());
        assert_eq!(bytes[16..18], 24u16.to_ne_bytes());
        assert_eq!(bytes[18..24], *b"\x08abcd\0");
        assert_eq!(pack(&items, 0, 24).1, 1);
        assert_eq!(pack(&items, 0, 23).1, 0);
    }
}
