//! Pack and unpack are each other's inverse, and both say what is on disk.

use isolith::layer::{IdShift, Manifest, Owners, pack, place, unpack, verify};
use proptest::prelude::*;

use super::look::{described, described_groups, difference, groups, look};
use super::mount::IDS;
use super::wild::{Shape, contents, lay_out};

/// The archive of a layer whose files are those of [`contents`].
pub fn packed(manifest: &Manifest) -> Vec<u8> {
    let mut archive = Vec::new();
    pack(manifest, &|entry| contents().of(entry), &mut archive).unwrap();
    archive
}

fn check(manifest: &Manifest) {
    let dir = super::scratch();
    let (placed, unpacked) = (dir.path().join("placed"), dir.path().join("unpacked"));
    lay_out(manifest, &placed, IDS);
    let archive = packed(manifest);
    std::fs::create_dir(&unpacked).unwrap();
    let again = unpack(&archive[..], &unpacked, IDS).unwrap();
    assert_eq!(again.id(), manifest.id(), "{:?}", difference(&described(manifest), &described(&again)));
    for fs in [&placed, &unpacked] {
        if manifest.is_empty() {
            assert_eq!(std::fs::read_dir(fs).unwrap().count(), 0);
            continue;
        }
        let found = look(fs);
        assert_eq!(difference(&described(manifest), &found), None, "{fs:?}");
        assert_eq!(groups(fs, &found), described_groups(manifest), "{fs:?}");
        assert_eq!(verify(manifest, fs, IDS), Ok(()));
    }
    // Other ids on disk, the same layer; and the same bytes from there.
    let shift = IdShift::by(0x6FFF_0000);
    let shifted = dir.path().join("shifted");
    std::fs::create_dir(&shifted).unwrap();
    assert_eq!(unpack(&archive[..], &shifted, shift).unwrap().id(), manifest.id());
    assert_eq!(verify(manifest, &shifted, shift), Ok(()));
    let from = dir.path().join("from");
    std::fs::create_dir(&from).unwrap();
    place(manifest, &from, Owners::Guest(shift), &|entry| Ok(shifted.join(entry.path.as_relative())))
        .unwrap();
    assert_eq!(verify(manifest, &from, shift), Ok(()));
    let mut second = Vec::new();
    pack(manifest, &|entry| Ok(from.join(entry.path.as_relative())), &mut second).unwrap();
    assert!(archive == second, "another place gives another archive");
}

proptest! {
    #![proptest_config(super::cases(60))]
    #[test]
    fn a_layer_survives_the_way_through_an_archive(manifest in Shape::odd().layer(24)) {
        if super::is_root() {
            check(&manifest);
        }
    }

    #[test]
    fn so_does_one_in_which_kinds_and_whiteouts_meet(manifest in Shape::meeting(true).layer(30)) {
        if super::is_root() {
            check(&manifest);
        }
    }
}

/// Deeper than file trees are, and nearly as long as a path can be.
#[test]
fn a_deep_layer_survives() {
    use isolith::layer::{Entry, Kind, Xattrs};
    use isolith::path::GuestPath;
    if !super::is_root() {
        return;
    }
    let entry = |path: GuestPath, kind| {
        let mode = if matches!(kind, Kind::Symlink { .. }) { 0 } else { 0o700 };
        Entry { path, mode, uid: 1, gid: 2, mtime: 3, xattrs: Xattrs::new(), kind }
    };
    for (name, depth) in [(&b"d"[..], 500), (&[b'n'; 255][..], 14)] {
        let mut path = GuestPath::root();
        let mut entries = Vec::new();
        for _ in 0..depth {
            entries.push(entry(path.clone(), Kind::Dir { opaque: false }));
            path = path.join(name);
        }
        entries.push(entry(path, Kind::Symlink { target: b".".to_vec() }));
        check(&Manifest::new(entries).unwrap());
    }
}
