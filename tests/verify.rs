//! Upper directories made by hand, with what no mount here would leave, and layers damaged in every way.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use isolith::layer::{IdShift, Kind, Manifest, View, commit, verify};
use isolith::path::GuestPath;
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

fn ids() -> IdShift {
    IdShift::by(rustix::process::geteuid().as_raw())
}

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn make(path: &Path, kind: FileType, device: u64) {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o644), device).unwrap();
}

fn paths(manifest: &Manifest) -> Vec<String> {
    manifest.entries().iter().map(|entry| entry.path.to_string()).collect()
}

/// A directory to commit; the root gets its usual mode.
fn upper() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

#[test]
fn what_overlayfs_notes_and_processes_leave_is_gone() {
    let lower = upper();
    std::fs::create_dir(lower.path().join("d")).unwrap();
    std::fs::write(lower.path().join("d/old"), "old").unwrap();
    let below = View::new(vec![Arc::new(commit(lower.path(), &View::default(), 1, ids()).unwrap())]);
    let fs = upper();
    let at = |path: &str| fs.path().join(path);
    std::fs::create_dir(at("d")).unwrap();
    for (path, name, value) in [
        (".", "user.overlay.uuid", &b"0123456789abcdef"[..]),
        (".", "user.overlay.impure", b"y"),
        ("d", "user.overlay.opaque", b"x"),
        ("d", "user.overlay.origin", b"somewhere"),
        ("d", "user.overlay.overlay.opaque", b"y"),
    ] {
        set(&at(path), name, value);
    }
    for name in ["old", "never"] {
        std::fs::write(at("d").join(name), "").unwrap();
        set(&at("d").join(name), "user.overlay.whiteout", b"y");
    }
    make(&at("nothing-below"), FileType::CharacterDevice, 0);
    let _listener = UnixListener::bind(at("d/socket")).unwrap();
    std::fs::write(at("d/new"), "n").unwrap();
    set(&at("d/new"), "user.overlay.origin", b"somewhere");
    set(&at("d/new"), "user.mine", b"1");
    let layer = commit(fs.path(), &below, 1, ids()).unwrap();
    assert_eq!(paths(&layer), ["/", "/d", "/d/new", "/d/old"]);
    assert_eq!(layer.get(&GuestPath::parse("/d/old").unwrap()).unwrap().kind, Kind::Whiteout);
    verify(&layer, fs.path(), ids()).unwrap();
    for path in [".", "d", "d/new"] {
        let mut names = vec![0; 1000];
        let len = rustix::fs::listxattr(at(path), &mut names[..]).unwrap();
        assert!(!String::from_utf8_lossy(&names[..len]).contains("overlay"), "{path}");
    }
}

#[test]
fn a_device_or_a_foreign_owner_is_an_error() {
    if ids().offset != 0 {
        // Only root can make either. Seen from another range, though, all of our files have foreign owners.
        let fs = upper();
        std::fs::write(fs.path().join("f"), "").unwrap();
        let ids = IdShift::by(ids().offset + 1);
        commit(fs.path(), &View::default(), 1, ids).unwrap_err();
        return;
    }
    let fs = upper();
    make(&fs.path().join("null"), FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    let error = commit(fs.path(), &View::default(), 1, ids()).unwrap_err();
    assert!(error.to_string().contains("`/null` is a device"), "{error}");
    let fs = upper();
    std::fs::write(fs.path().join("f"), "").unwrap();
    chown(fs.path().join("f"), Some(70_000), None).unwrap();
    let error = commit(fs.path(), &View::default(), 1, ids()).unwrap_err();
    assert!(error.to_string().contains("`/f`") && error.to_string().contains("70000"), "{error}");
}

#[test]
fn ids_of_a_range_are_guest_ids_in_the_layer() {
    if ids().offset != 0 {
        return;
    }
    let layers = [0u32, 100_000].map(|offset| {
        let fs = upper();
        let file = fs.path().join("f");
        std::fs::write(&file, "x").unwrap();
        chown(&file, Some(offset + 12), Some(offset + 34)).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o000)).unwrap();
        let acl = |id: u32| {
            let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[4, 0], &id.to_le_bytes()].concat();
            let none = u32::MAX;
            let entries = [entry(1, none), entry(2, id), entry(4, none), entry(16, none), entry(32, none)];
            [&2u32.to_le_bytes()[..], &entries.concat()].concat()
        };
        set(&file, "system.posix_acl_access", &acl(offset + 7));
        chown(fs.path(), Some(offset), Some(offset)).unwrap();
        let layer = commit(fs.path(), &View::default(), 1, IdShift::by(offset)).unwrap();
        let entry = &layer.entries()[1];
        assert_eq!((entry.uid, entry.gid, entry.mode), (12, 34, 0o444));
        assert_eq!(entry.xattrs[&b"system.posix_acl_access".to_vec()], acl(7));
        layer
    });
    assert_eq!(layers[0], layers[1]);
}

/// A layer with something of every kind.
fn sample() -> (tempfile::TempDir, Manifest) {
    let fs = upper();
    let at = |path: &str| fs.path().join(path);
    std::fs::create_dir(at("d")).unwrap();
    std::fs::write(at("d/f"), "content").unwrap();
    std::fs::hard_link(at("d/f"), at("d/g")).unwrap();
    std::fs::write(at("d/h"), "content").unwrap();
    symlink("d", at("s")).unwrap();
    make(&at("p"), FileType::Fifo, 0);
    set(&at("d/h"), "user.a", b"1");
    let layer = commit(fs.path(), &View::default(), 5, ids()).unwrap();
    verify(&layer, fs.path(), ids()).unwrap();
    (fs, layer)
}

/// Sets the time of a commit again, after a test has changed something else.
fn settle(path: &Path) {
    let time = Timespec { tv_sec: 5, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn every_damage_is_found_and_named() {
    type Change = fn(&Path);
    let changes: [(&str, &str, Change); 16] = [
        ("/d/f", "digest", |fs| std::fs::write(fs.join("d/f"), "CONTENT").unwrap()),
        ("/d/f", "3 bytes", |fs| std::fs::write(fs.join("d/f"), "con").unwrap()),
        ("/d/h", "missing", |fs| std::fs::remove_file(fs.join("d/h")).unwrap()),
        ("/d/e", "not part", |fs| std::fs::write(fs.join("d/e"), "").unwrap()),
        ("/z", "not part", |fs| std::fs::write(fs.join("z"), "").unwrap()),
        ("/d/f", "mode", |fs| {
            std::fs::set_permissions(fs.join("d/f"), PermissionsExt::from_mode(0o600)).unwrap()
        }),
        ("/d", "mode", |fs| {
            std::fs::set_permissions(fs.join("d"), PermissionsExt::from_mode(0o1755)).unwrap()
        }),
        ("/d/g", "is a file, not hard link", |fs| {
            std::fs::remove_file(fs.join("d/g")).unwrap();
            std::fs::write(fs.join("d/g"), "content").unwrap();
        }),
        ("/d/h", "is a hard link, not file", |fs| {
            std::fs::remove_file(fs.join("d/h")).unwrap();
            std::fs::hard_link(fs.join("d/f"), fs.join("d/h")).unwrap();
        }),
        ("/s", "target", |fs| {
            std::fs::remove_file(fs.join("s")).unwrap();
            symlink("e", fs.join("s")).unwrap();
        }),
        ("/p", "is a file, not fifo", |fs| {
            std::fs::remove_file(fs.join("p")).unwrap();
            std::fs::write(fs.join("p"), "").unwrap();
        }),
        ("/d/h", "attribute user.a", |fs| set(&fs.join("d/h"), "user.a", b"2")),
        ("/d", "attribute user.b", |fs| set(&fs.join("d"), "user.b", b"")),
        ("/d", "opaque", |fs| set(&fs.join("d"), "user.overlay.opaque", b"y")),
        ("/d/h", "is a whiteout", |fs| {
            std::fs::remove_file(fs.join("d/h")).unwrap();
            make(&fs.join("d/h"), FileType::CharacterDevice, 0);
        }),
        ("/e", "socket", |fs| drop(UnixListener::bind(fs.join("e")).unwrap())),
    ];
    for (path, what, change) in changes {
        let (fs, layer) = sample();
        change(fs.path());
        for path in [".", "d", "s", "p", "d/f", "d/g", "d/h"] {
            if fs.path().join(path).symlink_metadata().is_ok() {
                settle(&fs.path().join(path));
            }
        }
        let damage = verify(&layer, fs.path(), ids()).unwrap_err();
        assert_eq!(damage.path.to_string(), path, "{damage}");
        assert!(damage.what.contains(what), "{damage}: {what}");
    }
    let (fs, layer) = sample();
    std::fs::write(fs.path().join("d/f"), "content").unwrap();
    assert!(verify(&layer, fs.path(), ids()).unwrap_err().what.contains("mtime"));
    assert!(verify(&Manifest::default(), fs.path(), ids()).is_err());
    assert!(verify(&layer, &fs.path().join("missing"), ids()).is_err());
    assert_eq!(verify(&Manifest::default(), upper().path(), ids()), Ok(()));
}

#[test]
fn a_large_file_is_hashed_like_any_other() {
    let fs = upper();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 / 3) as u8).collect();
    std::fs::write(fs.path().join("big"), &bytes).unwrap();
    let layer = commit(fs.path(), &View::default(), 1, ids()).unwrap();
    let digest = isolith::digest::ContentDigest::of(&bytes);
    assert_eq!(layer.entries()[1].kind, Kind::File { size: 3_000_000, digest });
    assert_eq!(fs.path().join("big").metadata().unwrap().mtime(), 1);
}

#[test]
fn deep_trees_are_no_danger() {
    let fs = upper();
    let depth = 1900;
    let mut dir = std::fs::File::open(fs.path()).unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        dir = rustix::fs::openat(&dir, "d", flags, Mode::empty()).unwrap().into();
    }
    drop(dir);
    let layer = commit(fs.path(), &View::default(), 1, ids()).unwrap();
    assert_eq!(layer.entries().len(), depth + 1);
    verify(&layer, fs.path(), ids()).unwrap();
}
