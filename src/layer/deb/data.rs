//! `data.tar` into a tree, and what dpkg would note about it.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::path::Path;

use md5::{Digest, Md5};
use tar::EntryType;

use super::super::grow::{Outcome, Tree, failing, refused};
use super::super::tar_reader::{Member, TarReader};
use super::super::unpack::described;
use super::super::{Entry, IdShift, Kind, Manifest, Xattrs, disk};
use super::control::{Conffile, Control};
use super::{Bounded, DATABASE, Limits, TOO_MUCH, unreadable};
use crate::error::{Error, Result};
use crate::path::GuestPath;

/// Directories of the root that are symlinks to those of `/usr` on a system whose `/usr` is merged.
const MERGED: [&str; 6] = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

/// Puts the data and what dpkg notes about the package into the empty directory `dest`.
pub(super) fn unpack(
    control: &Control,
    data: impl Read,
    dest: &Path,
    ids: IdShift,
    limits: Limits,
) -> Result<Manifest> {
    let root = disk::open_root(dest).map_err(|why| Error::io("open", dest, why))?;
    let conffiles = control.conffiles()?;
    let mut unpacking = Unpacking {
        tree: Tree::new(root, ids),
        list: Vec::new(),
        hashes: conffiles.iter().map(|conffile| (conffile.path.clone(), None)).collect(),
        limits,
    };
    let bounded = Bounded::new(data, limits.archive_bytes(), TOO_MUCH);
    let mut archive = TarReader::new(BufReader::with_capacity(64 * 1024, bounded));
    while let Some(member) = archive.next().map_err(unreadable)? {
        let name = String::from_utf8_lossy(&member.path).into_owned();
        unpacking.put(member, &mut archive).map_err(|problem| problem.into_error(&name))?;
    }
    unpacking.finish(control, &conffiles)
}

struct Unpacking {
    tree: Tree,
    /// The names as dpkg lists them.
    list: Vec<u8>,
    /// The MD5 sums of the conffiles that have come.
    hashes: BTreeMap<String, Option<String>>,
    limits: Limits,
}

impl Unpacking {
    fn put(&mut self, member: Member, data: &mut impl Read) -> Outcome<()> {
        let hint = "packages have plain relative names";
        let named = match GuestPath::from_relative(&member.path) {
            Ok(path) if !member.path.contains(&b'\n') => path,
            Ok(_) => return refused("its name has a line break in it", hint),
            Err(why) => return refused(why.to_string(), hint),
        };
        if named.name().starts_with(b".wh.") {
            return refused("its name is that of a whiteout", "such a file cannot be part of a layer");
        }
        match self.limits.entries.checked_sub(1) {
            Some(left) => self.limits.entries = left,
            None => return refused("there are more names than allowed", "raise `unpack-max-entries`"),
        }
        self.list.extend_from_slice(if named.is_root() { b"/." } else { b"/" });
        self.list.extend_from_slice(named.as_bytes());
        self.list.push(b'\n');
        let path = merged(&named, member.kind == EntryType::Directory);
        if path != named {
            self.link(&named)?;
        }
        match self.tree.kind(&path) {
            None => {}
            Some(Kind::Dir { .. }) if member.kind == EntryType::Directory => {}
            Some(Kind::Symlink { target }) if member.kind == EntryType::Symlink && *target == member.link => {
                return Ok(());
            }
            Some(_) => return refused("it is there twice", hint),
        }
        let mut entry = described(&member, path, hint)?;
        match member.kind {
            // The directory that a merged one leads to has a member of its own, or does not matter.
            EntryType::Directory if entry.path != named && self.tree.kind(&entry.path).is_some() => Ok(()),
            EntryType::Directory => self.tree.directory(entry),
            EntryType::Regular | EntryType::Continuous => self.file(entry, &named, member.size, data),
            EntryType::Link => match GuestPath::from_relative(&member.link) {
                Ok(target) => self.tree.hard_link(entry.path, merged(&target, false).as_bytes()),
                Err(why) => refused(why.to_string(), hint),
            },
            EntryType::Symlink => {
                entry.mode = 0;
                entry.kind = Kind::Symlink { target: member.link };
                self.tree.special(entry)
            }
            EntryType::Fifo => self.tree.special(entry),
            _ => refused("it is a device or of an unknown kind", "packages have none"),
        }
    }

    /// The symlink in place of a directory that is merged into `/usr`, by a path in it.
    fn link(&mut self, named: &GuestPath) -> Outcome<()> {
        let first = named.ancestors().nth(1).unwrap_or_else(|| named.clone());
        if self.tree.kind(&first).is_some() {
            return Ok(());
        }
        let target = [b"usr/", first.as_bytes()].concat();
        let (path, kind) = (first, Kind::Symlink { target });
        let entry = Entry { path, mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new(), kind };
        self.tree.special(entry)
    }

    fn file(&mut self, entry: Entry, named: &GuestPath, size: u64, data: &mut impl Read) -> Outcome<()> {
        match self.limits.bytes.checked_sub(size) {
            Some(left) => self.limits.bytes = left,
            None => return refused("there are more bytes than allowed", "raise `unpack-max-size`"),
        }
        let path = format!("/{}", String::from_utf8_lossy(named.as_bytes()));
        let Some(hash) = self.hashes.get_mut(&path) else { return self.tree.file(entry, size, data) };
        let mut summed = Summed { data, md5: Md5::new() };
        self.tree.file(entry, size, &mut summed)?;
        *hash = Some(summed.md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        Ok(())
    }

    /// Adds what dpkg notes.
    fn finish(mut self, control: &Control, conffiles: &[Conffile]) -> Result<Manifest> {
        let mtime = control.mtime;
        let info = |name: &str| format!("info/{}.{name}", control.prefix);
        let stanza = control.stanza(conffiles, |path| self.hashes.get(path).cloned().flatten());
        let own = [
            (info("list"), 0o644, mtime, std::mem::take(&mut self.list)),
            (format!("unpacked/{}", control.prefix), 0o644, mtime, stanza.into_bytes()),
        ];
        let files =
            control.files.iter().map(|file| (info(&file.name), file.mode, file.mtime, file.bytes.clone()));
        for (name, mode, mtime, bytes) in own.into_iter().chain(files) {
            let path = GuestPath::from_relative(format!("{DATABASE}/{name}"));
            let put = path.map_err(|why| failing("name the file")(io::Error::other(why))).and_then(|path| {
                let kind = Kind::Fifo;
                let entry = Entry { path, mode, uid: 0, gid: 0, mtime, xattrs: Xattrs::new(), kind };
                self.tree.file(entry, bytes.len() as u64, &mut &bytes[..])
            });
            put.map_err(|problem| problem.into_error(&name))?;
        }
        self.tree.finish()
    }
}

/// Where a path of a package is on a system whose `/usr` is merged. A symlink in place of one of the
/// directories stays what it is.
fn merged(path: &GuestPath, is_directory: bool) -> GuestPath {
    let first = path.as_bytes().split(|byte| *byte == b'/').next().unwrap_or_default();
    let inside = path.as_bytes().len() > first.len();
    if (inside || is_directory) && MERGED.iter().any(|name| name.as_bytes() == first) {
        return GuestPath::from_relative("usr").unwrap_or_default().join_path(path);
    }
    path.clone()
}

/// Hashes what is read through it.
struct Summed<'a, R> {
    data: &'a mut R,
    md5: Md5,
}

impl<R: Read> Read for Summed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.data.read(buffer)?;
        self.md5.update(&buffer[..n]);
        Ok(n)
    }
}
