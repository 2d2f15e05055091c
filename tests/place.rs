//! A placed manifest is the tree that the manifest describes, for root and for an ordinary user.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use isolith::digest::ContentDigest;
use isolith::error::Result;
use isolith::layer::{Entry, IdShift, Kind, Manifest, Owners, Xattrs, place, verify};
use isolith::path::GuestPath;

fn p(path: &str) -> GuestPath {
    GuestPath::parse(path).unwrap()
}

fn entry(path: &str, mode: u16, mtime: i64, kind: Kind) -> Entry {
    Entry { path: p(path), mode, uid: 0, gid: 0, mtime, xattrs: Xattrs::new(), kind }
}

fn dir(path: &str, mode: u16) -> Entry {
    entry(path, mode, 3, Kind::Dir { opaque: false })
}

/// Contents of files, kept where `place` can find them.
struct Contents {
    dir: tempfile::TempDir,
    paths: HashMap<ContentDigest, PathBuf>,
}

impl Contents {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), paths: HashMap::new() }
    }

    fn file(&mut self, path: &str, mode: u16, content: &[u8]) -> Entry {
        let digest = ContentDigest::of(content);
        let stored = self.dir.path().join(digest.to_hex());
        fs::write(&stored, content).unwrap();
        self.paths.insert(digest, stored);
        entry(path, mode, 1_700_000_000, Kind::File { size: content.len() as u64, digest })
    }

    fn place(&self, manifest: &Manifest, dest: &Path, owners: Owners) -> Result<()> {
        place(manifest, dest, owners, &|entry| match &entry.kind {
            Kind::File { digest, .. } => Ok(self.paths[digest].clone()),
            other => panic!("{other:?} has no content"),
        })
    }
}

/// Guest root's id on disk: the caller's own, or one that is nobody's.
fn ids() -> IdShift {
    let euid = rustix::process::geteuid().as_raw();
    IdShift::by(if euid == 0 { 0x6FFF_0000 } else { euid })
}

/// One of each kind, with awkward modes and names.
fn everything(contents: &mut Contents) -> Vec<Entry> {
    let big: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let mut tagged = contents.file("/d/tagged", 0o444, b"tagged");
    tagged.xattrs.insert(b"user.note".to_vec(), b"\0\xff".to_vec());
    let mut entries = vec![
        dir("/", 0o755),
        dir("/closed", 0o000),
        contents.file("/closed/inside", 0o000, b"secret"),
        dir("/d", 0o1777),
        contents.file("/d/big", 0o640, &big),
        contents.file("/d/empty", 0o666, b""),
        contents.file("/d/setuid", 0o6755, b"#!"),
        tagged,
        entry("/d/pipe", 0o622, 4, Kind::Fifo),
        entry("/d/zz", 0, 0, Kind::HardLink { target: p("/d/pipe") }),
        entry("/link", 0, -5, Kind::Symlink { target: b"/etc/passwd\xff".to_vec() }),
        entry("/name", 0, 0, Kind::HardLink { target: p("/d/big") }),
    ];
    let many = (0..200).map(|n| contents.file(&format!("/many/{n:03}"), 0o644, format!("{n}").as_bytes()));
    entries.extend(many);
    entries.push(dir("/many", 0o711));
    entries
}

#[test]
fn a_placed_layer_verifies() {
    let mut contents = Contents::new();
    let mut entries = everything(&mut contents);
    entries.push(entry("/gone", 0, 0, Kind::Whiteout));
    entries.push(entry("/opaque", 0o700, 9, Kind::Dir { opaque: true }));
    if rustix::process::geteuid().is_root() {
        for entry in entries.iter_mut().filter(|e| !matches!(e.kind, Kind::HardLink { .. } | Kind::Whiteout))
        {
            (entry.uid, entry.gid) = (1000, 65535);
        }
        let mut able = contents.file("/able", 0o755, b"elf");
        let caps = [&0x0200_0001u32.to_le_bytes()[..], &[4, 0, 0, 0], &[0; 12]].concat();
        able.xattrs.insert(b"security.capability".to_vec(), caps);
        entries.push(able);
        entries.push(entry("/tty", 0o620, 2, Kind::CharDevice { major: 5, minor: 300 }));
    } else {
        // Only root can read these again.
        entries.retain(|e| !e.path.starts_with(&p("/closed")));
    }
    let manifest = Manifest::new(entries).unwrap();
    let dest = tempfile::tempdir().unwrap();
    contents.place(&manifest, dest.path(), Owners::Guest(ids())).unwrap();
    let root = fs::metadata(dest.path()).unwrap();
    assert_eq!((root.mode() & 0o7777, root.mtime(), root.atime()), (0o755, 3, 3));
    assert_eq!(verify(&manifest, dest.path(), ids()), Ok(()));

    let whiteout = fs::symlink_metadata(dest.path().join("gone")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    let mark = xattr::get(dest.path().join("opaque"), "user.overlay.opaque").unwrap();
    assert_eq!(mark.as_deref(), Some(&b"y"[..]));
    open_up(dest.path());
}

#[test]
fn the_caller_gets_plain_files_of_their_own() {
    let mut contents = Contents::new();
    let mut entries = everything(&mut contents);
    for entry in entries.iter_mut().filter(|e| !matches!(e.kind, Kind::HardLink { .. })) {
        (entry.uid, entry.gid) = (1234, 70000);
    }
    let manifest = Manifest::new(entries).unwrap();
    let dest = tempfile::tempdir().unwrap();
    // A second time into the same directory replaces what is there.
    for _ in 0..2 {
        contents.place(&manifest, dest.path(), Owners::Caller).unwrap();
    }
    let at = |path: &str| fs::symlink_metadata(dest.path().join(path)).unwrap();
    let me = rustix::process::geteuid().as_raw();
    for (path, mode) in [
        ("d", 0o1777),
        ("closed", 0),
        ("d/setuid", 0o755),
        ("d/tagged", 0o444),
        ("d/pipe", 0o622),
        ("many", 0o711),
    ] {
        assert_eq!((at(path).mode() & 0o7777, at(path).uid()), (mode, me), "{path}");
    }
    assert_eq!((at("name").ino(), at("d/zz").ino()), (at("d/big").ino(), at("d/pipe").ino()));
    assert_eq!((at("link").mtime(), at("d").mtime(), at("name").mtime()), (-5, 3, 1_700_000_000));
    assert_eq!(fs::read(dest.path().join("many/123")).unwrap(), b"123");
    assert_eq!(fs::metadata(dest.path().join("d/big")).unwrap().len(), 1_200_000);
    let note = xattr::get(dest.path().join("d/tagged"), "user.note").unwrap();
    assert_eq!(note.as_deref(), Some(&b"\0\xff"[..]));
    open_up(dest.path());
}

/// The tests above once more, as an ordinary user with an unusual umask.
#[test]
fn an_ordinary_user_can_place_too() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // The test program itself may lie where that user cannot look.
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = place.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    for name in ["a_placed_layer_verifies", "the_caller_gets_plain_files_of_their_own"] {
        let shell = format!("umask 0077; exec {} --exact {name}", program.display());
        let mut command = Command::new("sh");
        command.args(["-c", &shell]).uid(12345).gid(12345).env("TMPDIR", place.path()).current_dir("/");
        let out = command.output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && text.contains("1 passed"), "{text}");
    }
}

#[test]
fn nothing_is_written_through_a_symlink() {
    let outside = tempfile::tempdir().unwrap();
    let mut contents = Contents::new();
    let file = contents.file("/d/file", 0o644, b"x");
    let manifest = Manifest::new(vec![dir("/", 0o755), dir("/d", 0o755), file]).unwrap();
    for owners in [Owners::Caller, Owners::Guest(ids())] {
        let dest = tempfile::tempdir().unwrap();
        symlink(outside.path(), dest.path().join("d")).unwrap();
        let error = contents.place(&manifest, dest.path(), owners).unwrap_err();
        assert!(error.what().ends_with("/d`"), "{error}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
    // A link where the file goes is replaced and not followed.
    let dest = tempfile::tempdir().unwrap();
    fs::create_dir(dest.path().join("d")).unwrap();
    symlink(outside.path().join("target"), dest.path().join("d/file")).unwrap();
    contents.place(&manifest, dest.path(), Owners::Caller).unwrap();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(fs::symlink_metadata(dest.path().join("d/file")).unwrap().is_file());
}

#[test]
fn says_what_cannot_be_placed() {
    let mut contents = Contents::new();
    let mut far = contents.file("/far", 0o644, b"x");
    far.uid = 70000;
    let null = entry("/null", 0o666, 1, Kind::CharDevice { major: 1, minor: 3 });
    let mut wrong = contents.file("/wrong", 0o644, b"right");
    let Kind::File { size, .. } = &mut wrong.kind else { unreachable!() };
    *size = 4;
    for (owners, bad, words) in [
        (Owners::Guest(ids()), far, "/far belongs to 70000:0"),
        (Owners::Caller, null, "/null is a device"),
        (Owners::Caller, wrong, "is not the file that its layer says"),
    ] {
        let dest = tempfile::tempdir().unwrap();
        let manifest = Manifest::new(vec![dir("/", 0o755), bad]).unwrap();
        let error = contents.place(&manifest, dest.path(), owners).unwrap_err();
        assert!(error.what().contains(words) && error.hint_text().is_some(), "{error:?}");
    }
}

/// Lets a temporary directory be removed by an ordinary user.
fn open_up(root: &Path) {
    let _ = fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o700));
}
