//! Honest archives: whoever packed them, the layer is the same.

use std::fs::File;
use std::io::{Cursor, Write};

use isolith::digest::LayerId;
use isolith::layer::{Kind, Limits};
use isolith::path::GuestPath;
use isolith::source::Lay;

use crate::{Place, ids};

pub fn lay(exclude: &[&str]) -> Lay {
    let exclude = exclude.iter().map(|pattern| pattern.to_string()).collect();
    Lay { at: GuestPath::parse("/src/in").unwrap(), exclude, epoch: 1_700_000_000 }
}

pub fn unpack(place: &Place, bytes: &[u8], strip: usize, limits: Limits) -> isolith::Result<LayerId> {
    unpack_as(place, bytes, strip, limits, &lay(&[]))
}

fn unpack_as(
    place: &Place,
    bytes: &[u8],
    strip: usize,
    limits: Limits,
    lay: &Lay,
) -> isolith::Result<LayerId> {
    let path = place.path("archive");
    std::fs::write(&path, bytes).unwrap();
    lay.archive(&place.store, File::open(&path).unwrap(), strip, limits, ids())
}

/// One member: name, kind, mode, content or target.
type Member<'a> = (&'a str, u8, u32, &'a str);

const TREE: [Member<'static>; 6] = [
    ("top-1.0/", b'5', 0o777, ""),
    ("top-1.0/bin/run", b'0', 0o775, "#!/bin/sh\n"),
    ("top-1.0/doc/read", b'0', 0o600, "text"),
    ("top-1.0/doc/again", b'1', 0o600, "top-1.0/doc/read"),
    ("top-1.0/empty/", b'5', 0o700, ""),
    ("top-1.0/link", b'2', 0o777, "/etc/passwd"),
];

fn tar(members: &[Member], odd: u64) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (name, kind, mode, text) in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_uid(1000 + odd);
        header.set_gid(100_000 + odd);
        header.set_mtime(1_600_000_000 + odd);
        header.set_username(&format!("user{odd}")).unwrap();
        header.set_path(name).unwrap();
        let data = match kind {
            b'1' | b'2' => {
                header.set_link_name(text).unwrap();
                ""
            }
            _ => text,
        };
        header.set_size(data.len() as u64);
        header.set_cksum();
        out.append(&header, data.as_bytes()).unwrap();
    }
    out.into_inner().unwrap()
}

fn zip(members: &[Member]) -> Vec<u8> {
    let mut out = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, kind, mode, text) in members {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(*mode);
        match kind {
            b'5' => out.add_directory(*name, options).unwrap(),
            b'2' => out.add_symlink(*name, *text, options).unwrap(),
            b'1' => {
                out.start_file(*name, options).unwrap();
                out.write_all(b"text").unwrap();
            }
            _ => {
                out.start_file(*name, options).unwrap();
                out.write_all(text.as_bytes()).unwrap();
            }
        }
    }
    out.finish().unwrap().into_inner()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

#[test]
fn one_tree_one_layer_whoever_packed_it() {
    let place = Place::new();
    let plain = tar(&TREE, 0);
    let reversed: Vec<Member> = [5, 4, 2, 3, 1, 0].into_iter().map(|at| TREE[at]).collect();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&plain).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let packed = [
        ("gzip", gzip(&plain)),
        ("xz", xz.finish().unwrap()),
        ("bzip2", bzip2.finish().unwrap()),
        ("zstd", zstd::encode_all(&plain[..], 1).unwrap()),
        ("other owner and time", tar(&TREE, 7)),
        ("other order", tar(&reversed, 0)),
        ("no member for the top", tar(&TREE[1..], 0)),
        ("zip", zip(&TREE)),
    ];
    let id = unpack(&place, &plain, 1, Limits::default()).unwrap();
    for (name, bytes) in packed {
        assert_eq!(unpack(&place, &bytes, 1, Limits::default()).unwrap(), id, "{name}");
    }
    let manifest = place.store.manifest(&id).unwrap().unwrap();
    for entry in manifest.entries() {
        assert_eq!((entry.uid, entry.gid, entry.mtime), (0, 0, 1_700_000_000), "{entry:?}");
    }
    let get =
        |path: &str| manifest.get(&GuestPath::parse(path).unwrap()).unwrap_or_else(|| panic!("no {path}"));
    assert_eq!(get("/src/in/bin/run").mode, 0o755);
    assert_eq!(get("/src/in/doc/read").mode, 0o644);
    assert!(matches!(get("/src/in/doc/again").kind, Kind::File { size: 4, .. }));
    assert_eq!(get("/src/in/empty").mode, 0o755);
    assert!(matches!(&get("/src/in/link").kind, Kind::Symlink { target } if target == b"/etc/passwd"));
    place.assert_clean();
}

#[test]
fn what_is_excluded_is_not_there() {
    let place = Place::new();
    let all = tar(&TREE, 0);
    let id = unpack_as(&place, &all, 1, Limits::default(), &lay(&["doc", "**/run"])).unwrap();
    let manifest = place.store.manifest(&id).unwrap().unwrap();
    let paths: Vec<String> = manifest.entries().iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(paths, ["/", "/src", "/src/in", "/src/in/empty", "/src/in/link"]);
}

#[test]
fn an_empty_archive_is_an_empty_directory() {
    let place = Place::new();
    for bytes in [vec![0; 1024], zip(&[])] {
        let id = unpack(&place, &bytes, 1, Limits::default()).unwrap();
        let manifest = place.store.manifest(&id).unwrap().unwrap();
        assert_eq!(manifest.entries().len(), 3);
    }
}

#[test]
fn a_file_is_laid_in_as_it_is() {
    let place = Place::new();
    std::fs::write(place.path("file"), b"bytes").unwrap();
    let id = lay(&[]).file(&place.store, File::open(place.path("file")).unwrap(), ids()).unwrap();
    let manifest = place.store.manifest(&id).unwrap().unwrap();
    let entry = manifest.get(&GuestPath::parse("/src/in").unwrap()).unwrap();
    assert!(matches!(entry.kind, Kind::File { size: 5, .. }) && entry.mode == 0o644, "{entry:?}");
}
