//! The plainest reader of layer archives: applies one after the other to a directory, by the rules of the
//! OCI image specification ("Image Layer Filesystem Changeset").

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
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
        let dir = root.join(member.path.parent().unwrap_or(Path::new("")));
        if name == b".wh..wh..opq" {
            for entry in fs::read_dir(&dir).into_iter().flatten() {
                remove(&entry.unwrap().path());
            }
        } else if let Some(name) = name.strip_prefix(b".wh.") {
            if is_dir(&dir) {
                remove(&dir.join(OsStr::from_bytes(name)));
            }
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
                fs::create_dir(&path).unwrap();
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

fn members(archive: &[u8]) -> Vec<Member> {
    let mut archive = tar::Archive::new(archive);
    let read = |entry: std::io::Result<tar::Entry<&[u8]>>| {
        let mut entry = entry.unwrap();
        let mut mtime = entry.header().mtime().unwrap() as i64;
        let mut xattrs = BTreeMap::new();
        for record in entry.pax_extensions().unwrap().into_iter().flatten() {
            let record = record.unwrap();
            if let Some(name) = record.key_bytes().strip_prefix(b"SCHILY.xattr.") {
                xattrs.insert(name.to_vec(), record.value_bytes().to_vec());
            } else if record.key_bytes() == b"mtime" {
                mtime = record.value().unwrap().parse().unwrap();
            }
        }
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        let header = entry.header();
        let number = |field: std::io::Result<Option<u32>>| field.ok().flatten().unwrap_or(0);
        Member {
            path: PathBuf::from(OsStr::from_bytes(&entry.path_bytes())),
            kind: header.entry_type(),
            mode: header.mode().unwrap(),
            owner: (header.uid().unwrap() as u32, header.gid().unwrap() as u32),
            mtime,
            link: entry.link_name_bytes().map(|link| link.to_vec()).unwrap_or_default(),
            device: (number(header.device_major()), number(header.device_minor())),
            xattrs,
            data,
        }
    };
    archive.entries().unwrap().map(read).collect()
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
    if matches!(member.kind, EntryType::Regular | EntryType::Directory) {
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
