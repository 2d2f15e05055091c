//! Who owns an object inside the sandbox: told by its owner on disk, or, where this process has one id only,
//! by a record beside it.
//!
//! In recorded mode everything on disk belongs to the one id, which is the sandbox's root. The owner of a file
//! or directory that is another one is in the extended attribute [`ATTRIBUTE`]. Symlinks and fifos cannot
//! have such attributes: in a finished layer only the manifest knows their owners, and while a step runs
//! the supervisor remembers them and leaves a [`Recorded`] list for the commit.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Entry, IdShift, Kind, View, disk, xattrs};
use crate::path::GuestPath;

/// User and group inside the sandbox.
pub type Owner = (u32, u32);

/// The extended attribute that holds an owner, as `UID:GID` in decimal.
pub const ATTRIBUTE: &CStr = c"user.isolith.owner";

/// What all names of attributes of isolith's own begin with. They are never part of a layer.
pub const PREFIX: &[u8] = b"user.isolith.";

/// The name of the list in a run directory, beside `upper/`.
pub const LIST: &str = crate::store::OWNERS;

/// An owner in the form of [`ATTRIBUTE`].
pub fn to_text(owner: Owner) -> String {
    format!("{}:{}", owner.0, owner.1)
}

/// Reads that form; none when it is anything else.
pub fn from_text(text: &[u8]) -> Option<Owner> {
    let (uid, gid) = std::str::from_utf8(text).ok()?.split_once(':')?;
    let id = |text: &str| text.parse().ok().filter(|id| *id <= IdShift::MAX_GUEST);
    Some((id(uid)?, id(gid)?))
}

/// The owner inside the sandbox of what was looked at, and whose record was `record`; an error that names the
/// id when the sandbox has no such id.
pub(super) fn of(stat: &Stat, record: Option<Owner>, ids: IdShift) -> io::Result<Owner> {
    let guest = |what, id| {
        let why = || io::Error::other(format!("{what} id {id} of this machine is none of the sandbox's ids"));
        ids.to_guest(id).ok_or_else(why)
    };
    let owner = (guest("user", stat.st_uid)?, guest("group", stat.st_gid)?);
    Ok(if ids.recorded { record.unwrap_or(owner) } else { owner })
}

/// Gives an open file, directory or fifo to the owner of its entry.
pub(super) fn give(file: BorrowedFd, entry: &Entry, ids: IdShift) -> io::Result<()> {
    let owner = (entry.uid, entry.gid);
    let (uid, gid) = on_disk(owner, ids)?;
    rustix::fs::fchown(file, Some(uid), Some(gid))?;
    if ids.recorded && owner != (0, 0) && carries(&entry.kind) {
        record(file, owner)?;
    }
    Ok(())
}

/// Gives what `name` is itself (no file or directory in recorded mode) to a guest user and group.
pub(super) fn give_at(dir: BorrowedFd, name: &[u8], owner: Owner, ids: IdShift) -> io::Result<()> {
    let (uid, gid) = on_disk(owner, ids)?;
    Ok(rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Writes the record of an open file or directory.
pub(super) fn record(file: BorrowedFd, owner: Owner) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(file, ATTRIBUTE, to_text(owner).as_bytes(), XattrFlags::empty())?)
}

fn on_disk((uid, gid): Owner, ids: IdShift) -> io::Result<(Uid, Gid)> {
    let id = |guest| ids.to_disk(guest).ok_or(Errno::OVERFLOW);
    Ok((Uid::from_raw(id(uid)?), Gid::from_raw(id(gid)?)))
}

/// Owners that a step set and that no attribute tells, by inode number of the upper directory.
#[derive(Default)]
pub(super) struct Recorded(HashMap<u64, Owner>);

impl Recorded {
    /// Reads the list that the supervisor left beside `upper`; none is an empty one.
    pub fn read(upper: &Path) -> io::Result<Recorded> {
        let list = upper.with_file_name(LIST);
        let text = match std::fs::read(list) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text?,
        };
        let mut found = HashMap::new();
        let root = disk::open_root(upper)?;
        for (path, owner) in decode_list(&text) {
            let Ok(path) = GuestPath::from_relative(path) else { continue };
            // Under another mount, or gone again with the directory it was in: no part of the layer.
            if let Ok(stat) = rustix::fs::statat(&root, path.as_relative(), AtFlags::SYMLINK_NOFOLLOW) {
                found.insert(stat.st_ino, owner);
            }
        }
        Ok(Recorded(found))
    }

    /// The owner of an object that has no attribute.
    pub fn get(&self, stat: &Stat) -> Option<Owner> {
        self.0.get(&stat.st_ino).copied()
    }
}

/// The list as bytes: `UID:GID PATH` and a NUL for each.
pub fn encode_list<'a>(entries: impl IntoIterator<Item = (&'a [u8], Owner)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, owner) in entries {
        out.extend_from_slice(to_text(owner).as_bytes());
        out.push(b' ');
        out.extend_from_slice(path);
        out.push(0);
    }
    out
}

/// What is in a list.
pub fn decode_list(bytes: &[u8]) -> impl Iterator<Item = (&[u8], Owner)> {
    bytes.split(|b| *b == 0).filter_map(|line| {
        let space = line.iter().position(|b| *b == b' ')?;
        Some((&line[space + 1..], from_text(&line[..space])?))
    })
}

/// What a step in recorded mode has to know of the owners in its stack before it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StackOwners {
    /// Whether anything in the stack belongs to another one than 0:0.
    pub any: bool,
    /// Paths whose owner no attribute tells and the rule for setgid directories would not give: symlinks and
    /// fifos of another owner than 0:0, and what belongs to 0:0 in the directories of `shared`.
    pub bare: Vec<(Vec<u8>, Owner)>,
    /// Directories with the setgid bit and a group that is not 0: what is made in them gets that group.
    pub shared: Vec<Vec<u8>>,
    /// Whether anything has capabilities of its own (`security.capability`).
    pub capable: bool,
}

impl StackOwners {
    /// Adds what is in a stack.
    pub fn with(mut self, view: &View) -> StackOwners {
        let owners = &mut self;
        let entries = || view.layers().iter().flat_map(|layer| layer.entries());
        owners.capable |= entries().any(|entry| entry.xattrs.contains_key(xattrs::CAPABILITY));
        for entry in entries().filter(|entry| (entry.uid, entry.gid) != (0, 0)) {
            owners.any = true;
            let shared = matches!(entry.kind, Kind::Dir { .. }) && entry.mode & 0o2000 != 0 && entry.gid != 0;
            let bare = !matches!(entry.kind, Kind::Dir { .. } | Kind::File { .. });
            if (bare || shared)
                && let Some(found) = view.lookup(&entry.path)
                && found.node == entry
            {
                let path = entry.path.as_bytes().to_vec();
                if bare {
                    owners.bare.push((path, (entry.uid, entry.gid)));
                } else {
                    owners.shared.push(path);
                }
            }
        }
        owners.shared.sort();
        owners.shared.dedup();
        for dir in &owners.shared {
            let Ok(dir) = GuestPath::from_relative(dir) else { continue };
            for name in view.children(&dir) {
                let path = dir.join(&name);
                if view.lookup(&path).is_some_and(|found| (found.node.uid, found.node.gid) == (0, 0)) {
                    owners.bare.push((path.as_bytes().to_vec(), (0, 0)));
                }
            }
        }
        owners.bare.sort();
        owners.bare.dedup();
        self
    }

    /// Adds what the list of a failed step says about the state it left in `upper`.
    pub fn add_list(&mut self, upper: &Path) {
        self.any = true;
        let list = std::fs::read(upper.with_file_name(LIST)).unwrap_or_default();
        for (path, owner) in decode_list(&list) {
            if upper.join(std::ffi::OsStr::from_bytes(path)).symlink_metadata().is_ok() {
                self.bare.retain(|(other, _)| other != path);
                self.bare.push((path.to_vec(), owner));
            }
        }
    }
}

/// True for what can have an attribute of its own.
pub(super) fn carries(kind: &Kind) -> bool {
    matches!(kind, Kind::File { .. } | Kind::Dir { .. })
}

/// The group that new children of a directory get, when it is another one than the maker's.
pub(super) fn inherited(mode: u32, owner: Owner) -> Option<u32> {
    (mode & 0o2000 != 0 && owner.1 != 0).then_some(owner.1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::*;
    use super::super::{Manifest, Owners, Xattrs, commit, pack, place, unpack, verify};
    use super::*;

    #[test]
    fn records_and_lists_are_read_as_written() {
        for owner in [(0, 0), (7, 65535)] {
            assert_eq!(from_text(to_text(owner).as_bytes()), Some(owner));
        }
        for bad in ["", "1", "1:", ":1", "1:2:3", "-1:0", "65536:0", "a:b", "1 :2"] {
            assert_eq!(from_text(bad.as_bytes()), None, "{bad}");
        }
        let list: [(&[u8], Owner); 2] = [(b"a b/\n", (1, 2)), (b"\xff", (3, 4))];
        let text = encode_list(list);
        assert_eq!(decode_list(&text).collect::<Vec<_>>(), list);
        assert_eq!(decode_list(b"").count(), 0);
    }

    fn owned(uid: u32, gid: u32, entry: Entry) -> Entry {
        Entry { uid, gid, ..entry }
    }

    #[test]
    fn a_stack_tells_what_no_attribute_does() {
        let group = |dir| owned(0, 8, mode(0o2775, dir));
        let low = layer([
            owned(1, 1, file("/f", "")),
            owned(1, 2, symlink("/l", "x")),
            owned(3, 0, symlink("/gone", "x")),
            group(dir("/mail")),
            file("/mail/root", ""),
            owned(0, 8, file("/mail/other", "")),
            group(dir("/plain")),
        ]);
        let high = layer([gone("/gone"), dir("/plain")]);
        let view = View::new(vec![Arc::new(low), Arc::new(high)]);
        let owners = StackOwners::default().with(&view);
        assert!(owners.any);
        assert_eq!(owners.shared, [b"mail".to_vec()]);
        assert_eq!(owners.bare, [(b"l".to_vec(), (1, 2)), (b"mail/root".to_vec(), (0, 0))]);
        assert_eq!(StackOwners::default().with(&View::default()), StackOwners::default());
    }

    /// What a file system holds and a user can make.
    fn possible(layer: Manifest) -> Manifest {
        let simple = |mut entry: Entry| {
            if matches!(entry.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. }) {
                (entry.kind, entry.xattrs) = (Kind::Fifo, Xattrs::new());
            }
            entry.gid %= 65536;
            entry.mtime = entry.mtime.rem_euclid(1 << 31);
            entry
        };
        Manifest::new(layer.into_entries().into_iter().map(simple).collect()).unwrap()
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]
        /// Only root may give files to the one id, whoever that is; the whole program is tried as a user.
        #[test]
        fn layers_are_the_same_with_one_id(layer in any_layer()) {
            if !rustix::process::geteuid().is_root() {
                return Ok(());
            }
            let (layer, one) = (possible(layer), IdShift::recorded(77));
            if layer.is_empty() {
                return Ok(()); // Which is never stored, and leaves the directory as it is.
            }
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| {
                let path = dir.path().join(name);
                std::fs::create_dir(&path).unwrap();
                path
            };
            let (files, placed, unpacked) = (at("files"), at("placed"), at("unpacked"));
            for size in 0..3usize {
                std::fs::write(files.join(size.to_string()), vec![0; size]).unwrap();
            }
            let content = |entry: &Entry| match entry.kind {
                Kind::File { size, .. } => Ok(files.join(size.to_string())),
                _ => panic!("{entry:?} has no content"),
            };
            place(&layer, &placed, Owners::Guest(one), &content).unwrap();
            proptest::prop_assert_eq!(verify(&layer, &placed, one), Ok(()));
            let mut archive = Vec::new();
            pack(&layer, &content, &mut archive).unwrap();
            proptest::prop_assert_eq!(&unpack(&archive[..], &unpacked, one).unwrap(), &layer);
            proptest::prop_assert_eq!(verify(&layer, &unpacked, one), Ok(()));
            for path in [placed, unpacked] {
                let all = std::process::Command::new("find").arg(path).args(["!", "-uid", "77"]).output().unwrap();
                proptest::prop_assert_eq!(String::from_utf8(all.stdout).unwrap(), "");
            }
        }
    }

    #[test]
    fn a_commit_takes_owners_from_attributes_the_list_and_the_directory() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let one = IdShift::recorded(0);
        let dir = tempfile::tempdir().unwrap();
        let upper = dir.path().join("upper");
        std::fs::create_dir_all(upper.join("d")).unwrap();
        rustix::fs::chmod(upper.join("d"), rustix::fs::Mode::from_raw_mode(0o2755)).unwrap();
        rustix::fs::setxattr(upper.join("d"), ATTRIBUTE, b"0:9", XattrFlags::empty()).unwrap();
        std::fs::write(upper.join("d/new"), "").unwrap();
        std::fs::write(upper.join("d/own"), "").unwrap();
        rustix::fs::setxattr(upper.join("d/own"), ATTRIBUTE, b"4:5", XattrFlags::empty()).unwrap();
        std::os::unix::fs::symlink("x", upper.join("d/link")).unwrap();
        std::os::unix::fs::symlink("x", upper.join("d/made")).unwrap();
        std::fs::write(dir.path().join(LIST), encode_list([(&b"d/link"[..], (6, 7)), (b"d/none", (1, 1))]))
            .unwrap();
        let layer = commit(&upper, &View::default(), 1, one).unwrap();
        let owner = |path: &str| layer.get(&p(path)).map(|entry| (entry.uid, entry.gid)).unwrap();
        let found = ["/", "/d", "/d/new", "/d/own", "/d/link", "/d/made"].map(owner);
        assert_eq!(found, [(0, 0), (0, 9), (0, 9), (4, 5), (6, 7), (0, 9)]);
        assert!(layer.entries().iter().all(|entry| entry.xattrs.is_empty()));
        assert_eq!(
            verify(&layer, &upper, one),
            Ok(()),
            "what was made in the directory has its own record now"
        );
    }
}
