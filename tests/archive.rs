//! Archives in and out: other people's tar files, hostile ones, and ours as others read them.
//!
//! As an ordinary user the parts that need other owners or devices are left out.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use isolith::layer::{Entry, IdShift, Kind, Manifest, View, commit, decompress, pack, unpack, verify};
use isolith::path::GuestPath;
use tar::{EntryType, Header};

fn ids() -> IdShift {
    IdShift::by(rustix::process::geteuid().as_raw())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn p(path: &str) -> GuestPath {
    GuestPath::parse(path).unwrap()
}

/// An archive that is written member by member.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn with(
        mut self,
        kind: EntryType,
        name: &[u8],
        link: &[u8],
        data: &[u8],
        edit: impl Fn(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        header.set_size(data.len() as u64);
        edit(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.with(EntryType::Regular, name.as_bytes(), b"", data.as_bytes(), |_| ())
    }

    fn dir(self, name: &str) -> Self {
        self.with(EntryType::Directory, name.as_bytes(), b"", b"", |header| header.set_mode(0o750))
    }

    fn symlink(self, name: &str, to: &str) -> Self {
        self.with(EntryType::Symlink, name.as_bytes(), to.as_bytes(), b"", |_| ())
    }

    fn link(self, name: &str, to: &str) -> Self {
        self.with(EntryType::Link, name.as_bytes(), to.as_bytes(), b"", |_| ())
    }

    fn pax(self, records: &[u8]) -> Self {
        self.with(EntryType::XHeader, b"x", b"", records, |_| ())
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    /// Unpacks it, in a directory beside one that must stay as it is.
    fn unpack(self) -> Result<(Manifest, tempfile::TempDir), String> {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("outside"), "untouched").unwrap();
        let dest = place.path().join("fs");
        std::fs::create_dir(&dest).unwrap();
        let result = unpack(&self.end()[..], &dest, ids());
        assert_eq!(std::fs::read_to_string(place.path().join("outside")).unwrap(), "untouched");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2);
        let manifest = result.map_err(|error| format!("{error:?}"))?;
        verify(&manifest, &dest, ids()).unwrap();
        Ok((manifest, place))
    }

    fn manifest(self) -> Manifest {
        self.unpack().unwrap().0
    }

    fn error(self) -> String {
        self.unpack().unwrap_err()
    }
}

fn paths(manifest: &Manifest) -> Vec<String> {
    manifest.entries().iter().map(|entry| entry.path.to_string()).collect()
}

#[test]
fn later_members_win() {
    let layer = Archive::default()
        .file("a", "first")
        .file("a", "second")
        .dir("d/")
        .file("d/x", "in")
        .with(EntryType::Directory, b"d", b"", b"", |header| header.set_mode(0o711))
        .dir("gone/")
        .file("gone/x", "in")
        .file("gone-", "sorts in between")
        .file("gone", "file now")
        .symlink("s", "a")
        .file("s", "not through the link")
        .manifest();
    assert_eq!(paths(&layer), ["/", "/a", "/d", "/d/x", "/gone", "/gone-", "/s"]);
    assert!(matches!(layer.get(&p("/a")).unwrap().kind, Kind::File { size: 6, .. }));
    assert_eq!(layer.get(&p("/d")).unwrap().mode, 0o711);
    assert!(matches!(layer.get(&p("/s")).unwrap().kind, Kind::File { .. }));
}

#[test]
fn parents_that_are_missing_are_plain() {
    let layer = Archive::default().file("/a/b/c", "x").dir("./a/").manifest();
    let about = |path| layer.get(&p(path)).map(|e| (e.mode, e.mtime)).unwrap();
    assert_eq!(about("/"), (0o755, 0));
    assert_eq!(about("/a"), (0o750, 7));
    assert_eq!(about("/a/b"), (0o755, 0));
    assert_eq!(about("/a/b/c"), (0o644, 7));
    assert!(Archive::default().manifest().is_empty());
}

#[test]
fn whiteouts_are_those_of_oci_in_any_order() {
    let layer = Archive::default()
        .file("x/.wh.one", "")
        .file("x/.wh.two", "")
        .file("x/two", "new")
        .dir("x/three/")
        .file("x/three/.wh.in", "")
        .file("x/.wh.three", "")
        .file("y/a", "")
        .file("y/.wh..wh..opq", "")
        .file("y/.wh.b", "")
        .file("y/sub/.wh.c", "")
        .file(".wh..wh.plnk", "")
        .manifest();
    let kinds: Vec<_> = layer.entries().iter().map(|e| (e.path.to_string(), e.kind.clone())).collect();
    let kind = |path: &str| &kinds.iter().find(|(at, _)| at == path).unwrap().1;
    assert_eq!(*kind("/x/one"), Kind::Whiteout);
    assert!(matches!(kind("/x/two"), Kind::File { .. }));
    assert_eq!(*kind("/x/three"), Kind::Dir { opaque: true });
    assert_eq!(*kind("/y"), Kind::Dir { opaque: true });
    assert_eq!(*kind("/x"), Kind::Dir { opaque: false });
    let all = ["/", "/x", "/x/one", "/x/three", "/x/two", "/y", "/y/a", "/y/sub"];
    assert_eq!(paths(&layer), all);
    assert!(Archive::default().file("a/.wh.", "").error().contains("hides no possible name"));
    let overlay = Archive::default().with(EntryType::Char, b"w", b"", b"", |header| {
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
    });
    assert_eq!(overlay.manifest().get(&p("/w")).unwrap().kind, Kind::Whiteout);
}

#[test]
fn the_first_name_in_order_is_the_file() {
    let (layer, place) = Archive::default()
        .file("m", "shared")
        .link("z", "./m")
        .link("a", "/z")
        .symlink("s", "m")
        .link("s2", "s")
        .file("m", "another")
        .unpack()
        .unwrap();
    assert!(matches!(layer.get(&p("/a")).unwrap().kind, Kind::File { size: 6, .. }));
    assert_eq!(layer.get(&p("/z")).unwrap().kind, Kind::HardLink { target: p("/a") });
    assert!(matches!(layer.get(&p("/m")).unwrap().kind, Kind::File { size: 7, .. }));
    assert_eq!(layer.get(&p("/s2")).unwrap().kind, Kind::HardLink { target: p("/s") });
    assert_eq!(std::fs::metadata(place.path().join("fs/a")).unwrap().nlink(), 2);
}

#[test]
fn nothing_leaves_the_directory() {
    let outside = |name: &str| Archive::default().file(name, "evil").error();
    for name in ["../outside", "a/../../outside", "/../outside", "a/.."] {
        assert!(outside(name).contains(&format!("member `{name}`")), "{name}: {}", outside(name));
    }
    for link in ["..", "/", "/tmp", "../outside", "missing"] {
        let error = Archive::default().symlink("s", link).file("s/outside", "evil").error();
        assert!(error.contains("member `s/outside`") && error.contains("`/s` is not a directory"), "{error}");
        Archive::default().symlink("s", link).dir("s/").file("s/outside", "in a directory now").manifest();
        Archive::default().symlink("s", link).file("s/.wh.x", "").error();
    }
    assert!(Archive::default().link("h", "../outside").error().contains("impossible name"));
    assert!(Archive::default().symlink("s", "..").link("h", "s/outside").error().contains("is not there"));
    assert!(Archive::default().file("f", "").file("f/x", "").error().contains("`/f` is not a directory"));
    // An absolute symlink is kept as it is and leads nowhere from outside the sandbox.
    let (layer, _place) = Archive::default().symlink("s", "/outside").file("t", "x").unpack().unwrap();
    assert_eq!(layer.get(&p("/s")).unwrap().kind, Kind::Symlink { target: b"/outside".to_vec() });
}

#[test]
fn what_cannot_be_is_said() {
    let big = |header: &mut Header| header.set_uid(65536);
    let error = Archive::default().with(EntryType::Regular, b"f", b"", b"", big).error();
    assert!(error.contains("member `f`") && error.contains("65536") && error.contains("hint"), "{error}");
    assert!(Archive::default().link("a", "b").error().contains("links to `b`, which is not there"));
    assert!(Archive::default().dir("d").link("a", "d").error().contains("directory"));
    assert!(Archive::default().with(EntryType::GNUSparse, b"s", b"", b"", |_| ()).error().contains("sparse"));
    assert!(Archive::default().file(".", "").error().contains("root"));
    assert!(
        Archive::default().pax(b"29 size=18446744073709551615\n").file("a", "").error().contains("extended")
    );
    let late = |header: &mut Header| header.as_old_mut().mtime = [0x80, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0];
    for kind in [EntryType::Regular, EntryType::Directory, EntryType::Symlink, EntryType::Fifo] {
        let archive = Archive::default().with(kind, b"late", b"x", b"", late);
        // Either the time is kept (tmpfs) and verified by this, or refused.
        if let Err(error) = archive.unpack() {
            assert!(error.contains("member `late`") || error.contains("member `/late`"), "{error}");
            assert!(error.contains("no time"), "{error}");
        }
    }
    assert!(Archive::default().pax(b"9 path=ab\n").file("a", "").error().contains("extended header"));
    let sum = Archive::default().file("a", "x");
    for (at, expected) in
        [(0, "no tar header"), (600, "cut off"), (512, "cut off"), (1024, "cut off"), (1030, "cut off")]
    {
        let mut bytes = Archive(sum.0.clone()).end();
        match at {
            0 => bytes[0] = b'b',
            at => bytes.truncate(at),
        }
        let dest = tempfile::tempdir().unwrap();
        let error = format!("{:?}", unpack(&bytes[..], dest.path(), ids()).unwrap_err());
        assert!(error.contains(expected), "{at}: {error}");
    }
    let dest = tempfile::tempdir().unwrap();
    assert!(unpack(&b"not a tar file"[..], dest.path(), ids()).is_err());
}

#[test]
fn damaged_archives_are_errors_or_other_layers_and_nothing_worse() {
    let fs = tempfile::tempdir().unwrap();
    let archive = pack_tree(&tree(fs.path()), fs.path());
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let mut unpacked = 0;
    for _ in 0..200 {
        let mut bytes = archive.clone();
        for _ in 0..1 + random() % 3 {
            let block = random() % (bytes.len() / 512) * 512;
            bytes[block + random() % 512] = random() as u8;
            // The sum is made right again, so that the change gets past it.
            let mut header = Header::from_byte_slice(&bytes[block..block + 512]).clone();
            if header.as_bytes()[257..262] == *b"ustar" {
                header.set_cksum();
                bytes[block..block + 512].copy_from_slice(header.as_bytes());
            }
        }
        let dest = tempfile::tempdir().unwrap();
        if let Ok(layer) = unpack(&bytes[..], dest.path(), ids()) {
            unpacked += 1;
            assert_eq!(verify(&layer, dest.path(), ids()), Ok(()));
        }
    }
    assert!(unpacked > 20, "{unpacked}");
}

#[test]
fn pax_records_override_headers() {
    let long = "n".repeat(90);
    let name = format!("{long}/{long}/{long}");
    let mut records = Vec::new();
    for (key, value) in [
        ("path", name.as_bytes()),
        ("mtime", b"-12.5"),
        ("size", b"1"),
        ("uid", b"0"),
        ("SCHILY.xattr.user.note", b"a\n=\0b"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.x", b"y"),
        ("comment", b"nothing"),
    ] {
        let body = key.len() + value.len() + 3;
        let length = (1..).find(|n| body + n.to_string().len() == *n).unwrap();
        records.extend([format!("{length} {key}=").as_bytes(), value, b"\n"].concat());
    }
    let layer = Archive::default().pax(&records).file("short", "x").file("next", "").manifest();
    let entry = layer.get(&p(&format!("/{name}"))).unwrap();
    assert_eq!(entry.mtime, -13);
    assert_eq!(entry.xattrs.iter().collect::<Vec<_>>(), [(&b"user.note".to_vec(), &b"a\n=\0b".to_vec())]);
    assert!(layer.get(&p("/next")).unwrap().xattrs.is_empty());
}

/// A tree as steps leave them, committed.
fn tree(fs: &Path) -> Manifest {
    let long = "long".repeat(40);
    std::fs::create_dir_all(fs.join("usr/bin")).unwrap();
    std::fs::create_dir_all(fs.join(&long).join("ü")).unwrap();
    std::fs::write(fs.join(&long).join("ü").join("file"), "x").unwrap();
    std::fs::write(fs.join("usr/bin/prog"), vec![b'p'; 300_000]).unwrap();
    std::fs::hard_link(fs.join("usr/bin/prog"), fs.join("another")).unwrap();
    symlink("l".repeat(300), fs.join("usr/bin/link")).unwrap();
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"usr/\xff\n name");
    std::fs::write(fs.join(odd), "").unwrap();
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::setxattr(fs.join(path), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("usr", "user.binary", b"\0\n=\xff");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(fs.join("usr/bin/prog"), PermissionsExt::from_mode(0o4755)).unwrap();
    std::fs::set_permissions(fs, PermissionsExt::from_mode(0o755)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        fs.join("usr/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let manifest = commit(fs, &View::default(), 77, ids()).unwrap();
    verify(&manifest, fs, ids()).unwrap();
    manifest
}

fn pack_tree(manifest: &Manifest, fs: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    pack(manifest, &|entry: &Entry| Ok::<PathBuf, _>(fs.join(entry.path.as_relative())), &mut out).unwrap();
    out
}

#[test]
fn a_committed_layer_survives_the_way_through_an_archive() {
    let (fs, dest) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let manifest = tree(fs.path());
    let archive = pack_tree(&manifest, fs.path());
    assert_eq!(unpack(&archive[..], dest.path(), ids()).unwrap(), manifest);
    verify(&manifest, dest.path(), ids()).unwrap();
    assert_eq!(pack_tree(&manifest, dest.path()), archive);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).unwrap();
    let dest = tempfile::tempdir().unwrap();
    let plain = decompress(std::io::Cursor::new(gzip.finish().unwrap())).unwrap();
    assert_eq!(unpack(plain, dest.path(), ids()).unwrap().id(), manifest.id());
}

#[test]
fn gnu_tar_reads_our_archives_and_we_its() {
    let fs = tempfile::tempdir().unwrap();
    let manifest = tree(fs.path());
    let archive = pack_tree(&manifest, fs.path());
    let dest = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(dest.path()).args([
        "-xp",
        "--xattrs",
        "--numeric-owner",
        "--warning=no-unknown-keyword",
    ]);
    let mut child = tar.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(child.wait().unwrap().success());
    verify(&manifest, dest.path(), ids()).unwrap();
    for format in ["pax", "gnu"] {
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(fs.path()).arg(format!("--format={format}")).args(["-c", "--owner=0", "--group=0"]);
        // Only pax has room for attributes.
        tar.args((format == "pax").then_some("--xattrs")).arg(".");
        let output = tar.output().unwrap();
        assert!(output.status.success());
        let dest = tempfile::tempdir().unwrap();
        let found = unpack(&output.stdout[..], dest.path(), ids()).unwrap();
        verify(&found, dest.path(), ids()).unwrap();
        if format == "pax" {
            assert_eq!(found, manifest);
        } else {
            assert_eq!(paths(&found), paths(&manifest));
        }
    }
}

#[test]
fn what_tar_cannot_say_is_an_error() {
    let fs = tempfile::tempdir().unwrap();
    std::fs::write(fs.path().join(".wh.file"), "").unwrap();
    let manifest = commit(fs.path(), &View::default(), 1, ids()).unwrap();
    let error = pack(&manifest, &|_| panic!("nothing to read"), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("`/.wh.file`"), "{error}");
    let fs = tempfile::tempdir().unwrap();
    std::fs::write(fs.path().join("f"), "right").unwrap();
    let manifest = commit(fs.path(), &View::default(), 1, ids()).unwrap();
    std::fs::write(fs.path().join("f"), "wrong").unwrap();
    let error = pack(&manifest, &|_| Ok(fs.path().join("f")), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("not what its layer's manifest says"), "{error}");
}

#[test]
fn devices_and_capabilities() {
    if !is_root() {
        let null = Archive::default().with(EntryType::Char, b"null", b"", b"", |header| {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        });
        let error = null.error();
        assert!(error.contains("device") && error.contains("`null`") && error.contains("root"), "{error}");
        return;
    }
    let null = |header: &mut Header| {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_mode(0o4666);
        header.set_uid(5);
    };
    let cap = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let acl = [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 7, 0, 0, 0];
    let acl = [&acl[..], &[4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255]].concat();
    let acl = [&acl[..], &[32, 0, 4, 0, 255, 255, 255, 255]].concat();
    let mut records =
        [b"46 SCHILY.xattr.security.capability=".to_vec(), cap.to_vec(), b"\n".to_vec()].concat();
    let length = records.len();
    records.splice(..2, length.to_string().into_bytes());
    let default =
        [b"00 SCHILY.xattr.system.posix_acl_default=".to_vec(), acl.clone(), b"\n".to_vec()].concat();
    let length = default.len();
    let default = [length.to_string().as_bytes(), &default[2..]].concat();
    let archive = Archive::default()
        .with(EntryType::Char, b"null", b"", b"", null)
        .pax(&default)
        .dir("d/")
        .file("d/inside", "no access list")
        .pax(&records)
        .with(EntryType::Regular, b"capable", b"", b"x", |header| header.set_mode(0o4755))
        .end();
    let layers: Vec<_> = [0, 300_000]
        .map(|offset| {
            let dest = tempfile::tempdir().unwrap();
            let ids = IdShift::by(offset);
            let layer = unpack(&archive[..], dest.path(), ids).unwrap();
            verify(&layer, dest.path(), ids).unwrap();
            assert_eq!(std::fs::metadata(dest.path().join("null")).unwrap().uid(), 5 + offset);
            layer
        })
        .to_vec();
    assert_eq!(layers[0], layers[1]);
    let entry = |path| layers[1].get(&p(path)).unwrap();
    assert_eq!(entry("/null").kind, Kind::CharDevice { major: 1, minor: 3 });
    assert_eq!(entry("/null").mode, 0o4666);
    assert_eq!(entry("/capable").xattrs[&b"security.capability".to_vec()], cap);
    assert_eq!(entry("/capable").mode, 0o4755);
    assert_eq!(entry("/d").xattrs[&b"system.posix_acl_default".to_vec()], acl);
    assert!(entry("/d/inside").xattrs.is_empty());
}
