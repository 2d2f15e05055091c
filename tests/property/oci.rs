//! The plainest reader of layer archives: applies one after the other to a directory, by the rules of the
//! OCI image specification ("Image Layer Filesystem Changeset").

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{chown, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};
use tar::EntryType;

/// Applies an archive to a directory that has the lower layers.
pub fn apply(archive: &[u8], root: &Path) {
    let members: Vec<Member> = members(archive);
    // What is hidden is of lower layers, wherever the archive says so.
    for member in &members {
        let name = member.path.file_name().map_or(&b""[..], OsStr::as_bytes);
        let above = member.path.parent().unwrap_or(Path::new(""));
        // Not through symlinks of lower layers, which this one replaces.
        let real = above.ancestors().all(|dir| is_dir(&root.join(dir)));
        let dir = root.join(above);
        if !real {
            continue;
        }
        if name == b".wh..wh..opq" {
            for entry in fs::read_dir(&dir).into_iter().flatten() {
                remove(&entry.unwrap().path());
            }
        } else if let Some(name) = name.strip_prefix(b".wh.") {
            remove(&dir.join(OsStr::from_bytes(name)));
        }
    }
    let mut dirs = Vec::new();
    for member in &members {
        if member.path.file_name().is_some_and(|name| name.as_bytes().starts_with(b".wh.")) {
            continue;
        }
        let path = root.join(&member.path);
        if member.kind == EntryType::Directory {
            if !is_dir(&path) {
                remove(&path);
                fs::create_dir(&path).unwrap_or_else(|why| panic!("{path:?}: {why}"));
            }
            dirs.push((path, member));
            continue;
        }
        remove(&path);
        match member.kind {
            EntryType::Regular => fs::write(&path, &member.data).unwrap(),
            EntryType::Symlink => symlink(OsStr::from_bytes(&member.link), &path).unwrap(),
            EntryType::Link => {
                fs::hard_link(root.join(OsStr::from_bytes(&member.link)), &path).unwrap();
                continue;
            }
            kind => {
                let kind = match kind {
                    EntryType::Char => FileType::CharacterDevice,
                    EntryType::Block => FileType::BlockDevice,
                    EntryType::Fifo => FileType::Fifo,
                    other => panic!("{other:?}"),
                };
                let number = rustix::fs::makedev(member.device.0, member.device.1);
                rustix::fs::mknodat(CWD, &path, kind, Mode::empty(), number).unwrap();
            }
        }
        dress(&path, member);
    }
    for (path, member) in dirs.iter().rev() {
        dress(path, member);
    }
}

struct Member {
    path: PathBuf,
    kind: EntryType,
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    link: Vec<u8>,
    device: (u32, u32),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    data: Vec<u8>,
}

/// Reads ustar headers and pax records (POSIX.1-2017, "pax Interchange Format"). The `tar` crate cannot read
/// names with newlines in them.
fn members(mut archive: &[u8]) -> Vec<Member> {
    let mut members = Vec::new();
    let mut records: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    while archive[..512].iter().any(|b| *b != 0) {
        let (header, rest) = archive.split_at(512);
        let text = |field: std::ops::Range<usize>| header[field].split(|b| *b == 0).next().unwrap().to_vec();
        let number = |field: std::ops::Range<usize>| match &text(field)[..] {
            b"" => 0,
            digits => u64::from_str_radix(std::str::from_utf8(digits).unwrap().trim(), 8).unwrap(),
        };
        let size = number(124..136) as usize;
        let data = rest[..size].to_vec();
        archive = &rest[size.next_multiple_of(512)..];
        if header[156] == b'x' {
            records = pax(&data);
            continue;
        }
        let mut said = |key: &[u8]| records.remove(key);
        let path = said(b"path").unwrap_or_else(|| text(0..100));
        let link = said(b"linkpath").unwrap_or_else(|| text(157..257));
        let mtime = said(b"mtime").map(|time| String::from_utf8(time).unwrap().parse().unwrap());
        let attribute =
            |(key, value): (Vec<u8>, Vec<u8>)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value));
        members.push(Member {
            path: PathBuf::from(OsStr::from_bytes(path.strip_suffix(b"/").unwrap_or(&path))),
            kind: EntryType::new(header[156]),
            mode: number(100..108) as u32,
            owner: (number(108..116) as u32, number(116..124) as u32),
            mtime: mtime.unwrap_or(number(136..148) as i64),
            link,
            device: (number(329..337) as u32, number(337..345) as u32),
            xattrs: std::mem::take(&mut records).into_iter().filter_map(attribute).collect(),
            data,
        });
    }
    members
}

/// `LENGTH KEY=VALUE\n`, over and over.
fn pax(mut data: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut records = BTreeMap::new();
    while !data.is_empty() {
        let space = data.iter().position(|b| *b == b' ').unwrap();
        let length: usize = std::str::from_utf8(&data[..space]).unwrap().parse().unwrap();
        let record = data[space + 1..length].strip_suffix(b"\n").unwrap();
        let equals = record.iter().position(|b| *b == b'=').unwrap();
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        data = &data[length..];
    }
    records
}

/// Owner, attributes, mode and time, and nothing of what was there before.
fn dress(path: &Path, member: &Member) {
    let (uid, gid) = (Some(member.owner.0), Some(member.owner.1));
    let symlink = member.kind == EntryType::Symlink;
    if symlink {
        lchown(path, uid, gid).unwrap()
    } else {
        chown(path, uid, gid).unwrap()
    }
    if !symlink {
        // Also what came from a default access list of the directory above.
        for name in xattr::list(path).unwrap() {
            xattr::remove(path, name).unwrap();
        }
        for (name, value) in &member.xattrs {
            xattr::set(path, OsStr::from_bytes(name), value).unwrap();
        }
    }
    if !symlink {
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(member.mode), AtFlags::empty()).unwrap();
    }
    let time = Timespec { tv_sec: member.mtime, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|stat| stat.is_dir())
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(stat) if stat.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}
