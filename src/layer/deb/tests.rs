//! Packages made byte by byte: what dpkg-deb makes, and what it never would.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::layer::testing::{file as plain, layer};
use crate::layer::{Entry, Kind, View};
use crate::path::GuestPath;

const CONTROL: &str =
    "Package: tool\nVersion: 1:2-3\nArchitecture: amd64\nMulti-Arch: same\nDescription: a tool\n of tools\n";

/// One member of a tar archive: name, kind, mode, content or link.
type Member<'a> = (&'a str, tar::EntryType, u32, &'a str);

const DIR: tar::EntryType = tar::EntryType::Directory;
const FILE: tar::EntryType = tar::EntryType::Regular;
const SYMLINK: tar::EntryType = tar::EntryType::Symlink;
const LINK: tar::EntryType = tar::EntryType::Link;

fn tar(members: &[Member]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, kind, mode, text) in members {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        let data = if *kind == FILE { text.as_bytes() } else { b"" };
        if *kind != FILE && *kind != DIR {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_size(data.len() as u64);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, data) in members {
        writeln!(out, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100_644, data.len()).unwrap();
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(2), b'\n');
    }
    out
}

fn deb(control: &[Member], data: &[Member]) -> Vec<u8> {
    let zstd = |bytes: Vec<u8>| zstd::encode_all(&bytes[..], 1).unwrap();
    let (control, data) = (zstd(tar(control)), zstd(tar(data)));
    ar(&[("debian-binary", b"2.0\n"), ("control.tar.zst", &control), ("data.tar.zst", &data)])
}

fn open(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn ids() -> IdShift {
    IdShift::by(rustix::process::geteuid().as_raw())
}

fn unpacked(bytes: &[u8], dest: &Path) -> Result<(Control, Manifest)> {
    unpack(open(bytes), dest, ids(), Limits { bytes: 1 << 20, entries: 50 })
}

fn p(path: &str) -> GuestPath {
    GuestPath::parse(path).unwrap()
}

#[test]
fn a_package_is_what_dpkg_leaves_before_it_configures() {
    let control = [
        ("./", DIR, 0o755, ""),
        ("./control", FILE, 0o644, CONTROL),
        ("./conffiles", FILE, 0o644, "/etc/tool.conf\nremove-on-upgrade /etc/old.conf\n"),
        ("./postinst", FILE, 0o755, "#!/bin/sh\n"),
        ("./md5sums", FILE, 0o644, "x"),
    ];
    let data = [
        ("./", DIR, 0o755, ""),
        ("./bin/", DIR, 0o755, ""),
        ("./bin/tool", FILE, 0o4755, "elf"),
        ("./bin/tool2", LINK, 0o4755, "./bin/tool"),
        ("./etc/", DIR, 0o755, ""),
        ("./etc/tool.conf", FILE, 0o640, "a=1\n"),
        ("./lib64/ld.so", SYMLINK, 0o777, "../lib/ld.so"),
    ];
    let dest = tempfile::tempdir().unwrap();
    let (control, manifest) = unpacked(&deb(&control, &data), dest.path()).unwrap();
    assert_eq!(
        (control.name.as_str(), control.version.as_str(), control.arch.as_str()),
        ("tool", "1:2-3", "amd64")
    );
    assert_eq!(crate::layer::verify(&manifest, dest.path(), ids()), Ok(()));
    let read = |path: &str| std::fs::read_to_string(dest.path().join(path)).unwrap();
    let info = "var/lib/dpkg/info/tool:amd64";
    assert_eq!(
        read(&format!("{info}.list")),
        "/.\n/bin\n/bin/tool\n/bin/tool2\n/etc\n/etc/tool.conf\n/lib64/ld.so\n"
    );
    assert_eq!(
        read("var/lib/dpkg/unpacked/tool:amd64"),
        format!(
            "{CONTROL}Status: install ok unpacked\nConffiles:\n /etc/tool.conf d5e29449b9e66d5b4bb0d6ce48fbbcb1\n \
             /etc/old.conf newconffile remove-on-upgrade\n\n"
        )
    );
    let kind = |path: &str| manifest.get(&p(path)).map(|entry| (entry.kind.clone(), entry.mode));
    assert_eq!(kind("/bin"), Some((Kind::Symlink { target: b"usr/bin".to_vec() }, 0)));
    assert_eq!(kind("/lib64"), Some((Kind::Symlink { target: b"usr/lib64".to_vec() }, 0)));
    assert_eq!(kind("/usr/bin/tool2"), Some((Kind::HardLink { target: p("/usr/bin/tool") }, 0)));
    assert_eq!(kind("/usr/lib64/ld.so"), Some((Kind::Symlink { target: b"../lib/ld.so".to_vec() }, 0)));
    assert_eq!(kind("/usr/bin/tool").unwrap().1, 0o4755);
    assert_eq!(kind(&format!("/{info}.postinst")).unwrap().1, 0o755);
    assert_eq!(kind(&format!("/{info}.control")), None);
}

#[test]
fn what_is_wrong_with_a_package_is_said() {
    let control = || vec![("./control", FILE, 0o644, CONTROL)];
    let data = [("./a", FILE, 0o644, "a")];
    let good = deb(&control(), &data);
    let with = |member: Member<'static>| deb(&control(), &[member]);
    let fields = |text: &'static str| deb(&[("control", FILE, 0o644, text)], &data);
    let zst = |members: &[Member]| zstd::encode_all(&tar(members)[..], 1).unwrap();
    let long = "x".repeat(2 << 20);
    let many: Vec<String> = (0..60).map(|n| format!("./f{n}")).collect();
    let many: Vec<Member> = many.iter().map(|name| (name.as_str(), FILE, 0o644, "")).collect();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "not an ar archive"),
        (b"!<arch>\n".to_vec(), "cut off"),
        (good[..100].to_vec(), "cut off"),
        (good[..good.len() - 2].to_vec(), "cut off"),
        (ar(&[("debian-binary", b"3.0\n")]), "version 2"),
        (ar(&[("control.tar", b"")]), "version 2"),
        (ar(&[("debian-binary", b"2.0\n"), ("data.tar", b"")]), "where `control.tar` should be"),
        (ar(&[("debian-binary", b"2.0\n"), ("control.tar.lzma", b"")]), "lzma"),
        (
            ar(&[("debian-binary", b"2.0\n"), ("control.tar", &tar(&control())), ("x", b"")]),
            "`data.tar` should be",
        ),
        (ar(&[("debian-binary", b"2.0\n"), ("control.tar.zst", &zst(&control()))]), "cut off"),
        (ar(&[("debian-binary", b"2.0\n"), ("control.tar.xz", b"\xfd7zXZ\0garbage")]), "cannot read"),
        (
            b"!<arch>\ndebian-binary   0           0     0     100644  99999999999999999999`\n".to_vec(),
            "malformed|cut off",
        ),
        (b"!<arch>\ndebian-binary   0           0     0     100644  -1        `\n".to_vec(), "malformed"),
        (deb(&[("./postinst", FILE, 0o755, "")], &data), "no control file"),
        (deb(&[("./control", SYMLINK, 0o644, "/etc/passwd")], &data), "not a regular file"),
        (deb(&[("./../../x", FILE, 0o644, "")], &data), "cannot be the name of a control file"),
        (
            deb(&[("./control", FILE, 0o644, CONTROL), ("control", FILE, 0o644, CONTROL)], &data),
            "one too many",
        ),
        (fields("Package: ../x\nVersion: 1\nArchitecture: all\n"), "no proper `Package`"),
        (fields("Package: x\nArchitecture: all\n"), "no proper `Version`"),
        (fields("Package: x\n\nPackage: y\n"), "has the line ``"),
        (fields("Package: x\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n"), "Status"),
        (fields(" x\nPackage: x\n"), "has the line"),
        (deb(&[control()[0], ("conffiles", FILE, 0o644, "etc/x\n")], &data), "cannot be a conffile"),
        (with(("../../etc/passwd", FILE, 0o644, "")), "`..`"),
        (with(("./a\nb", FILE, 0o644, "")), "line break"),
        (with(("./.wh.a", FILE, 0o644, "")), "whiteout"),
        (with(("./dev/sda", tar::EntryType::Block, 0o644, "")), "a device"),
        (with(("./a", LINK, 0o644, "../../etc/shadow")), "`..`"),
        (with(("./a", LINK, 0o644, "./b")), "not there"),
        (deb(&control(), &[data[0], data[0]]), "there twice"),
        (deb(&control(), &[("./bin/a", FILE, 0o644, ""), ("./usr/bin/a", FILE, 0o644, "")]), "there twice"),
        (deb(&control(), &[("./d", SYMLINK, 0o644, "/etc"), ("./d/x", FILE, 0o644, "")]), "not a directory"),
        (deb(&control(), &[("./a", FILE, 0o644, &long)]), "more bytes than allowed"),
        (deb(&control(), &many), "more names than allowed"),
    ];
    for (bytes, why) in cases {
        let dest = tempfile::tempdir().unwrap();
        let error = unpacked(&bytes, dest.path()).expect_err(why);
        let chain = chain(&error);
        assert!(why.split('|').any(|why| chain.contains(why)), "{why}: {chain}");
        assert!(error.hint_text().is_some(), "{chain}");
    }
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Unpacks packages beside each other and joins them.
fn joined(packages: &[(&str, Vec<Member>)]) -> Result<Manifest> {
    let dir = tempfile::tempdir().unwrap();
    let mut trees = Vec::new();
    for (at, (name, data)) in packages.iter().enumerate() {
        let tree = dir.path().join(at.to_string());
        std::fs::create_dir(&tree).unwrap();
        let control = CONTROL.replace("tool", name);
        let (_, manifest) = unpacked(&deb(&[("control", FILE, 0o644, &control)], data), &tree).unwrap();
        trees.push((*name, tree, manifest));
    }
    let parts: Vec<(Package, &Path)> =
        trees.iter().map(|(name, tree, manifest)| (Package { name, manifest }, tree.as_path())).collect();
    let dest = dir.path().join("joined");
    std::fs::create_dir(&dest).unwrap();
    let manifest = join(&parts, &dest, ids())?;
    assert_eq!(crate::layer::verify(&manifest, &dest, ids()), Ok(()));
    Ok(manifest)
}

#[test]
fn joined_packages_share_directories_and_nothing_else() {
    let one =
        vec![("./usr/share/d/one", FILE, 0o644, "1"), ("./lib/a", FILE, 0o644, ""), ("./e/", DIR, 0o755, "")];
    let two = vec![
        ("./usr/share/d/", DIR, 0o2775, ""),
        ("./usr/share/d/two", FILE, 0o644, "2"),
        ("./usr/share/d-e/x/y", FILE, 0o644, "2"),
        ("./lib/b", FILE, 0o644, ""),
        ("./usr/share/d/three", LINK, 0o644, "./usr/share/d/two"),
    ];
    let both = joined(&[("one", one.clone()), ("two", two.clone())]).unwrap();
    let turned = joined(&[("two", two), ("one", one)]).unwrap();
    assert_eq!(both, turned);
    assert_eq!(both.get(&p("/usr/share/d")).unwrap().mode, 0o2775);
    for path in
        ["/usr/share/d/one", "/usr/share/d/two", "/usr/share/d-e/x/y", "/usr/lib/a", "/usr/lib/b", "/e"]
    {
        assert!(both.get(&p(path)).is_some(), "{path}");
    }
    let error = joined(&[("one", vec![("./a", FILE, 0o644, "")]), ("two", vec![("./a", FILE, 0o644, "")])]);
    assert!(error.unwrap_err().what().contains("the packages `two` and `one` both have `/a`"));
    let error =
        joined(&[("one", vec![("./a", SYMLINK, 0o644, "b")]), ("two", vec![("./a/", DIR, 0o755, "")])]);
    assert!(error.unwrap_err().what().contains("both have `/a`"));
}

#[test]
fn directories_stay_as_they_are_below() {
    let mode = |mode: u16, path: &str| {
        let kind = Kind::Dir { opaque: false };
        Entry { path: p(path), mode, uid: 0, gid: 0, mtime: 1, xattrs: Default::default(), kind }
    };
    let below = layer([plain("/installed", "a"), mode(0o1777, "/tmp"), plain("/made", "c")]);
    let installed = layer([plain("/installed", "a"), mode(0o1777, "/tmp")]);
    let view = View::new(vec![Arc::new(installed), Arc::new(below)]);
    let fix = |first: Manifest, second: Manifest| {
        let packages =
            [Package { name: "one", manifest: &first }, Package { name: "two", manifest: &second }];
        directories(&view, &[0], &packages).map_err(|error| error.what().to_string())
    };
    let none = || layer([plain("/x", "")]);
    assert_eq!(fix(none(), layer([plain("/y", ""), plain("/made", "d")])), Ok(Manifest::default()));
    let fixed = fix(none(), layer([mode(0o755, "/tmp"), plain("/tmp/z", "")])).unwrap();
    assert_eq!(fixed.get(&p("/tmp")).unwrap().mode, 0o1777);
    let fixed = fix(layer([mode(0o700, "/own")]), layer([mode(0o755, "/own")])).unwrap();
    assert_eq!(fixed.get(&p("/own")).unwrap().mode, 0o700);
    for (second, path) in
        [(plain("/x", ""), "/x"), (plain("/installed", "b"), "/installed"), (mode(0o755, "/x"), "/x")]
    {
        let error = fix(none(), layer([second])).unwrap_err();
        assert!(error.contains(path) && error.contains("two"), "{error}");
    }
}
