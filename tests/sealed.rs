//! Sealed inputs: what a source is while a build reads it is what the build's keys say, or there is an error.
//! Somebody writes to the inputs all the time.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Build, World, modes};
use isolith::digest::ContentDigest;
use isolith::layer::{Kind, Manifest};
use isolith::path::GuestPath;

/// The first mode in which steps run.
fn world() -> World {
    World::new(modes().into_iter().find(|mode| mode.runs).unwrap())
}

/// Calls `write` with 0, 1, 2, … until the rounds are over. Bounded by time too.
fn racing(rounds: usize, write: impl Fn(usize) + Sync, mut round: impl FnMut()) {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&over);
        scope.spawn(|| {
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                write(n);
                // Leaves the builds some moments in which nothing changes.
                std::thread::sleep(Duration::from_millis((n % 8) as u64 * 3));
            }
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        for _ in 0..rounds {
            if Instant::now() < deadline {
                round();
            }
        }
    });
}

/// It went well, or says that an input changed.
fn sealed(build: &Build) -> bool {
    if build.run.code == 0 {
        return true;
    }
    assert_eq!(build.run.code, 125, "{}", build.run);
    assert!(build.run.stderr.contains("changed while it was read"), "not clear: {}", build.run);
    assert!(build.run.stderr.contains("hint: let whatever writes there finish"), "{}", build.run);
    false
}

fn content(n: usize) -> Vec<u8> {
    let mut content = vec![b'a' + (n % 26) as u8; 400_000];
    content[..8].copy_from_slice(&(n as u64).to_le_bytes());
    content
}

/// Every layer is what its name says.
fn assert_store_is_sound(world: &World) {
    let fsck = world.isolith(&["store", "fsck", "--store", world.store().to_str().unwrap()]);
    assert_eq!(fsck.code, 0, "{fsck}");
}

/// The manifest of the layer of the stack that has this path, and where the path is in the store.
fn layer_with(world: &World, build: &Build, path: &str) -> (Manifest, std::path::PathBuf) {
    let stack = build.finished()["stack"].as_array().unwrap();
    // An empty layer is nowhere.
    let layers = stack.iter().filter_map(|id| {
        let id = id.as_str().unwrap();
        let dir = world.store().join("layers").join(&id[..2]).join(id);
        dir.exists().then_some((id, dir))
    });
    let mut layers = layers.map(|(id, dir)| {
        // The manifest's name tells the boot that it was written under.
        let mut names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        let is_manifest = |path: &std::path::PathBuf| path.to_str().unwrap().contains("/manifest");
        let manifest = fs::read(names.find(is_manifest).unwrap()).unwrap();
        assert_eq!(Manifest::decode(&manifest).unwrap().id().to_hex(), id);
        (Manifest::decode(&manifest).unwrap(), dir.join("fs").join(&path[1..]))
    });
    let guest = GuestPath::parse(path).unwrap();
    layers.find(|(manifest, _)| manifest.get(&guest).is_some()).unwrap()
}

#[test]
fn a_source_that_changes_is_an_error_and_never_a_wrong_key() {
    let world = world();
    world.recipe(
        "[sources.src]\npath = \"src\"\nunpack = \"/src\"\n\
         [[step]]\nname = \"look\"\nrun = 'cat /src/big | sha256sum; cat /src/small'\n",
    );
    let src = world.path("work/src");
    world.write("src/small", "start");
    world.write("outside/leak", "of no concern");
    fs::write(src.join("big"), content(0)).unwrap();
    let open = || {
        for file in [&src, &src.join("small"), &src.join("big")] {
            let mode = if file.is_dir() { 0o777 } else { 0o666 };
            _ = fs::set_permissions(file, PermissionsExt::from_mode(mode));
        }
    };
    open();
    let write = |n: usize| {
        let (big, small, new) = (src.join("big"), src.join("small"), src.join("new"));
        match n % 6 {
            // In place, so that size and inode stay.
            0 | 3 => File::options().write(true).open(&big).unwrap().write_all_at(&content(n), 0).unwrap(),
            1 => fs::write(&small, format!("{n}")).unwrap(),
            2 => {
                fs::write(&new, content(n)).unwrap();
                fs::rename(&new, &big).unwrap();
            }
            4 => {
                fs::remove_file(&small).unwrap();
                fs::write(&small, "again").unwrap();
            }
            _ => {
                fs::create_dir(src.join("dir")).unwrap();
                fs::write(src.join("dir/file"), "x").unwrap();
                fs::remove_dir_all(src.join("dir")).unwrap();
                symlink("../outside", src.join("dir")).unwrap();
                fs::remove_file(src.join("dir")).unwrap();
            }
        }
        open();
    };
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut well, mut refused) = (0, 0);
    racing(100, write, || {
        let build = world.build();
        if !sealed(&build) {
            refused += 1;
            return;
        }
        well += 1;
        let log = build.log("look");
        if !log.is_empty() {
            // What ran under one key has seen one thing.
            let key = build.step("look")["key"].as_str().unwrap().to_owned();
            assert_eq!(seen.entry(key).or_insert(log.clone()), &log);
        }
        if rustix::process::geteuid().is_root() {
            let (manifest, file) = layer_with(&world, &build, "/src/big");
            assert_eq!(manifest.get(&GuestPath::parse("/src/dir/leak").unwrap()), None);
            let bytes = fs::read(file).unwrap();
            let wanted = Kind::File { size: 400_000, digest: ContentDigest::of(&bytes) };
            assert_eq!(manifest.get(&GuestPath::parse("/src/big").unwrap()).unwrap().kind, wanted);
        }
    });
    eprintln!("{well} builds went well, {refused} were refused");
    assert!(well + refused > 10, "the machine is too slow for this test");
    assert_store_is_sound(&world);
    // Nothing of the race is remembered: what is there now is what a step sees.
    fs::write(src.join("big"), content(7)).unwrap();
    fs::write(src.join("small"), "the end\n").unwrap();
    open();
    assert_eq!(world.build().ok().log("look").last().unwrap(), "the end");
    fs::write(src.join("small"), "The End\n").unwrap();
    assert_eq!(world.build().ok().log("look").last().unwrap(), "The End");
}

#[test]
fn an_archive_that_changes_is_an_error_and_never_another_base() {
    let world = world();
    let archive = |name: &str, who: &str| {
        let tree = world.path("tree");
        _ = fs::remove_dir_all(&tree);
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::copy(common::base().join("bin/busybox"), tree.join("bin/busybox")).unwrap();
        symlink("busybox", tree.join("bin/sh")).unwrap();
        symlink("busybox", tree.join("bin/cat")).unwrap();
        fs::write(tree.join("who"), who).unwrap();
        let path = world.path("work").join(name);
        let tar =
            std::process::Command::new("tar").arg("-cf").arg(&path).arg("-C").arg(&tree).arg(".").status();
        assert!(tar.unwrap().success());
        fs::read(path).unwrap()
    };
    let (one, two) = (archive("one.tar", "one\n"), archive("two.tar", "two\n"));
    assert_eq!(one.len(), two.len());
    let path = world.path("work/base.tar");
    fs::write(&path, &one).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let sha256 = std::process::Command::new("sha256sum").arg(&path).output().unwrap().stdout;
    let sha256 = String::from_utf8(sha256).unwrap()[..64].to_owned();
    let recipe = |pin: &str| {
        let base = format!("[base]\ntar = {{ path = \"base.tar\"{pin} }}");
        world.write(
            "recipe.toml",
            &format!("name = \"t\"\n{base}\n[[step]]\nname = \"who\"\nrun = 'cat /who'\n"),
        );
    };
    let write = |n: usize| {
        let bytes = [&two, &one][n % 2];
        match n % 5 {
            0 => {
                let new = world.path("work/new.tar");
                fs::write(&new, bytes).unwrap();
                fs::rename(&new, &path).unwrap();
            }
            _ => File::options().write(true).open(&path).unwrap().write_all_at(bytes, 0).unwrap(),
        }
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    };
    for pin in ["", &format!(", sha256 = \"{sha256}\"")] {
        recipe(pin);
        let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
        racing(30, write, || {
            let store = world.store();
            _ = fs::remove_dir_all(&store);
            let build = world.build();
            // With a pin, most of what is there is not what is pinned.
            if !pin.is_empty() && build.run.code == 3 && build.run.stderr.contains("pins") {
                return;
            }
            if sealed(&build) {
                let log = build.log("who");
                assert!(pin.is_empty() || log == ["one"], "{}", build.run);
                let key = build.step("who")["key"].as_str().unwrap().to_owned();
                assert_eq!(seen.entry(key).or_insert(log.clone()), &log);
                assert_store_is_sound(&world);
            }
        });
    }
}

/// A change that leaves size and mtime as they were is seen.
#[test]
fn a_change_behind_the_back_of_mtime_is_seen() {
    let world = world();
    world.recipe(
        "[sources.src]\npath = \"src\"\nunpack = \"/src\"\n[[step]]\nname = \"look\"\nrun = 'cat /src/f'\n",
    );
    let file = world.write("src/f", "0000");
    let mtime = fs::metadata(&file).unwrap().modified().unwrap();
    for n in 1..8 {
        let text = format!("{n:04}");
        let open = File::options().write(true).open(&file).unwrap();
        open.write_all_at(text.as_bytes(), 0).unwrap();
        open.set_modified(mtime).unwrap();
        // Some of the changes come at once, others when the digest of the last one has settled.
        std::thread::sleep(Duration::from_millis(n % 3 * 60));
        assert_eq!(world.build().ok().log("look"), [text]);
    }
}

/// A source may be named through a symlink; what is inside is never followed.
#[test]
fn a_source_named_through_a_symlink_is_what_it_leads_to() {
    let world = world();
    world.write("real/f", "dir\n");
    world.write("file", "file\n");
    symlink("real", world.path("work/dir-link")).unwrap();
    symlink("file", world.path("work/file-link")).unwrap();
    symlink("/etc/passwd", world.path("work/real/outside")).unwrap();
    world.recipe(
        "[sources.dir]\npath = \"dir-link\"\nunpack = \"/dir\"\n\
         [sources.file]\npath = \"file-link\"\nunpack = \"/one/file\"\n\
         [[step]]\nname = \"look\"\nrun = 'cat /dir/f /one/file; readlink /dir/outside'\n",
    );
    assert_eq!(world.build().ok().log("look"), ["dir", "file", "/etc/passwd"]);
}

/// Names that are no text, and look alike as text.
#[test]
fn names_that_are_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let world = world();
    world.recipe(
        "[sources.src]\npath = \"src\"\nunpack = \"/src\"\n[[step]]\nname = \"look\"\n\
         run = 'cat \"$(printf \"/src/\\\\376\")\" \"$(printf \"/src/\\\\377\")\"'\n",
    );
    let file = |name: &[u8]| world.path("work/src").join(std::ffi::OsStr::from_bytes(name));
    world.write("src/plain", "");
    for contents in [["one\n", "two\n"], ["two\n", "one\n"], ["one\n", "one\n"]] {
        for (name, content) in [&b"\xfe"[..], b"\xff"].into_iter().zip(contents) {
            fs::write(file(name), content).unwrap();
            fs::set_permissions(file(name), PermissionsExt::from_mode(0o644)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
        // The second time from what is remembered of them.
        for _ in 0..2 {
            let build = world.build().ok();
            let log = build.log("look").concat();
            assert!(log.is_empty() || log == contents.concat().replace('\n', ""), "{log}");
        }
    }
}

/// Paths that a build cannot make sense of are errors, not parts left out.
#[test]
fn a_socket_in_a_source_is_an_error() {
    let world = world();
    let src = world.path("work/src");
    world.write("src/f", "x");
    let listener = std::os::unix::net::UnixListener::bind(src.join("socket"));
    world.recipe("[sources.src]\npath = \"src\"\nunpack = \"/src\"\n[[step]]\nname = \"look\"\nrun = ':'\n");
    let build = world.build();
    assert_eq!(build.run.code, 3, "{}", build.run);
    assert!(build.run.stderr.contains("src/socket"), "{}", build.run);
    drop(listener);
    fs::remove_file(Path::new(&src).join("socket")).unwrap();
    world.build().ok();
}
