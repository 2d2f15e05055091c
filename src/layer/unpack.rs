//! Unpack: a tar archive becomes a layer's file tree, in one pass over its bytes.

use std::io::{self, BufReader, Read};
use std::path::Path;

use tar::EntryType;

use super::bounded::Bounded;
use super::extract::Limits;
use super::grow::{Outcome, Tree, refused};
use super::pack::{OPAQUE, WHITEOUT};
use super::tar_reader::{Member, TarReader};
use super::{Entry, IdShift, Kind, Manifest, disk, xattrs};
use crate::error::{Class, Error, Result};
use crate::path::GuestPath;

/// Unpacks a plain tar archive (ustar, pax, GNU; see [`super::decompress`]) into the empty directory `dest` and
/// describes it as a layer. Content is hashed while it is written.
///
/// - Whiteouts are OCI's: `.wh.NAME` hides NAME of lower layers, `.wh..wh..opq` all of its directory; their
///   place in the archive does not matter. One whose name the archive also brings only makes a directory
///   opaque. Other names that begin with `.wh..wh.` are notes of aufs and skipped. A character device 0:0 is
///   overlayfs's whiteout and taken for one.
/// - Of several members with one path the last wins; a directory that comes again keeps what is in it.
/// - Directories that have no member of their own, the root included, get mode 0755, owner 0:0, mtime 0.
/// - Names are taken below `dest`, with or without a leading slash. `..`, and a member below something that is
///   not a directory (such as a symlink), are errors: nothing is ever written outside.
/// - Times are rounded down to seconds. User and group names are ignored. Of extended attributes those stay that
///   belong to a layer.
/// - Errors: an owner above 65535, a hard link without its file, a device that may not be made, a sparse
///   member, an archive that is cut off or malformed. `dest` is then of no further use.
pub fn unpack(archive: impl Read, dest: &Path, ids: IdShift) -> Result<Manifest> {
    let limits = Limits { bytes: u64::MAX, entries: u64::MAX };
    unpack_layer(archive, dest, ids, limits).map(|(manifest, _)| manifest)
}

/// The same within limits. Gives the directories too that have no member of their own.
pub fn unpack_layer(
    archive: impl Read,
    dest: &Path,
    ids: IdShift,
    limits: Limits,
) -> Result<(Manifest, Vec<GuestPath>)> {
    let root = disk::open_root(dest).map_err(|why| Error::io("open", dest, why))?;
    let mut tree = Tree::new(root, ids);
    // Headers, padding and what follows the end are read too, and bounded with the rest.
    let left = limits.archive_bytes();
    let archive = Bounded::new(archive, left, "it unpacks to more than `unpack-max-size` allows");
    let mut archive = TarReader::new(BufReader::with_capacity(64 * 1024, archive));
    let malformed = |why: io::Error| {
        // What the system has not refused is the archive's fault, and that of who named it.
        let class = if why.raw_os_error().is_some() { Class::Machine } else { Class::Recipe };
        Error::new(class, "cannot read the tar archive")
            .because(why)
            .hint("get the archive again; it has to be a tar file, plain or compressed with gzip, xz or zstd")
    };
    while let Some(member) = archive.next().map_err(malformed)? {
        let name = String::from_utf8_lossy(&member.path).into_owned();
        put(&mut tree, member, &mut archive).map_err(|problem| problem.into_error(&name))?;
        if tree.len() as u64 > limits.entries {
            return Err(Error::recipe(format!("the archive has more than {} names", limits.entries))
                .hint("if that is meant, raise `unpack-max-entries` in the configuration"));
        }
    }
    tree.finish_with_implied()
}

/// Puts one member into the tree.
fn put(tree: &mut Tree, member: Member, data: &mut impl Read) -> Outcome<()> {
    let path = match GuestPath::from_relative(&member.path) {
        Ok(path) => path,
        Err(why) => return refused(why.to_string(), "archives for layers have plain relative names"),
    };
    if let Some(name) = path.name().strip_prefix(WHITEOUT) {
        return marker(tree, &path, name);
    }
    if path.is_root() && member.kind != EntryType::Directory {
        return refused("the root is no directory", "archives for layers hold a file tree");
    }
    if member.kind == EntryType::Char && member.device == (0, 0) {
        return tree.hide(path);
    }
    let hint = "sandboxes have 65536 ids: make the archive with other numeric owners (tar --owner --group)";
    let mut entry = described(&member, path, hint)?;
    let (major, minor) = member.device;
    match member.kind {
        EntryType::Directory => return tree.directory(entry),
        EntryType::Link => return tree.hard_link(entry.path, &member.link),
        EntryType::Regular | EntryType::Continuous => return tree.file(entry, member.size, data),
        EntryType::Symlink => {
            entry.mode = 0;
            entry.kind = Kind::Symlink { target: member.link };
        }
        EntryType::Fifo => {}
        EntryType::Char => entry.kind = Kind::CharDevice { major, minor },
        EntryType::Block => entry.kind = Kind::BlockDevice { major, minor },
        EntryType::GNUSparse => return refused("it is sparse", "make the archive without --sparse"),
        other => {
            return refused(format!("unknown kind {:?}", char::from(other.as_byte())), "leave it out");
        }
    }
    tree.special(entry)
}

/// What a member says of itself, as a fifo. `hint` is for owners that a sandbox does not have.
pub(super) fn described(member: &Member, path: GuestPath, hint: &'static str) -> Outcome<Entry> {
    let id = |what, id| match u32::try_from(id) {
        Ok(id) if id <= IdShift::MAX_GUEST => Ok(id),
        _ => refused(format!("its {what} id {id} is above {}", IdShift::MAX_GUEST), hint),
    };
    Ok(Entry {
        path,
        mode: member.mode,
        uid: id("user", member.uid)?,
        gid: id("group", member.gid)?,
        mtime: member.mtime,
        xattrs: member.xattrs.iter().filter_map(|(name, value)| xattrs::from_guest(name, value)).collect(),
        kind: Kind::Fifo,
    })
}

/// Puts in what is said by a name that begins with `.wh.`; `name` is the rest.
fn marker(tree: &mut Tree, path: &GuestPath, name: &[u8]) -> Outcome<()> {
    if path.name() == OPAQUE {
        tree.hide_siblings(path)
    } else if matches!(name, b"" | b"." | b"..") {
        refused("it hides no possible name", "whiteouts are called `.wh.NAME`")
    } else if name.starts_with(WHITEOUT) {
        Ok(())
    } else {
        tree.hide(path.parent().unwrap_or_default().join(name))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::super::testing::any_layer;
    use super::super::{pack, verify};
    use super::*;

    fn packed(manifest: &Manifest, files: &Path) -> Vec<u8> {
        let content = |entry: &Entry| match entry.kind {
            Kind::File { size, .. } => Ok::<PathBuf, Error>(files.join(size.to_string())),
            _ => panic!("{entry:?} has no content"),
        };
        let mut out = Vec::new();
        pack(manifest, &content, &mut out).unwrap();
        out
    }

    /// What an unprivileged test may make of a layer: small ids and times that every file system has.
    fn possible(layer: Manifest, shift: u32) -> Manifest {
        let root = shift == 0;
        let mut entries = layer.into_entries();
        for entry in &mut entries {
            let device = matches!(entry.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. });
            if device && !root {
                (entry.kind, entry.xattrs) = (Kind::Fifo, Default::default());
            }
            if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = &mut entry.kind {
                (*major, *minor) = (*major % 4095, *minor % 1_000_000);
            }
            (entry.uid, entry.gid) = if root { (entry.uid, entry.gid % 65536) } else { (0, 0) };
            if !matches!(entry.kind, Kind::HardLink { .. } | Kind::Whiteout) {
                entry.mtime = entry.mtime.rem_euclid(1 << 34) - (1 << 31);
            }
            // Setuid and setgid need the group too; unprivileged, directories must stay open to the test.
            if !root {
                entry.mode = if entry.mode == 0 { 0 } else { 0o700 };
                if !matches!(entry.kind, Kind::Dir { .. } | Kind::File { .. }) {
                    entry.xattrs.clear();
                }
            }
        }
        for entry in &mut entries {
            if let (Kind::File { size, digest }, false) = (&mut entry.kind, root) {
                (*size, *digest) = (1, crate::digest::ContentDigest::of(&[0]));
            }
        }
        Manifest::new(entries).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]
        #[test]
        fn unpacking_what_was_packed_gives_the_same_layer(layer in any_layer()) {
            let shift = rustix::process::geteuid().as_raw();
            let layer = possible(layer, shift);
            let files = tempfile::tempdir().unwrap();
            for size in 0..3usize {
                std::fs::write(files.path().join(size.to_string()), vec![0; size]).unwrap();
            }
            let archive = packed(&layer, files.path());
            let shifts = if shift == 0 { vec![0, 200_000] } else { vec![shift] };
            for offset in shifts {
                let dest = tempfile::tempdir().unwrap();
                let ids = IdShift::by(offset);
                let limits = Limits { bytes: u64::MAX, entries: u64::MAX };
                let (again, implied) = unpack_layer(&archive[..], dest.path(), ids, limits).unwrap();
                prop_assert!(implied.is_empty(), "every directory has a member");
                prop_assert_eq!(&again, &layer);
                prop_assert_eq!(verify(&layer, dest.path(), ids), Ok(()));
                prop_assert_eq!(packed(&again, files.path()), archive.clone());
            }
        }
    }
}
