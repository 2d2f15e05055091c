//! A base of Debian packages, real ones, from this machine's package sources: one base for every user; a package more
//! leaves the others alone; what a mirror gets wrong is an error.

mod common;
#[path = "sources/server.rs"]
#[allow(dead_code)]
mod server;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Build, World, modes};
use serde_json::Value;
use server::Server;
use sha2::{Digest, Sha256};

fn asset(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/debian").join(name)).unwrap()
}

/// A world with both recipes, which takes packages from `mirror`; from this machine's sources without one.
fn world(mode: common::Mode, mirror: Option<&str>) -> World {
    let world = World::new(mode);
    for name in ["one.toml", "one.lock", "two.toml", "two.lock"] {
        world.write(name, &asset(name));
    }
    if let Some(mirror) = mirror {
        world.write("isolith.toml", &format!("[debian]\nmirrors = [{mirror:?}]\n"));
    }
    world
}

/// The packages of both lock files: digest and path.
fn pinned() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for line in asset("two.lock").lines().filter(|line| line.trim_start().starts_with("{ name")) {
        let field = |key: &str| line.split_once(&format!("{key} = \"")).unwrap().1.split('"').next().unwrap();
        all.push((field("sha256").to_string(), field("path").to_string()));
    }
    assert!(all.len() > 20, "{all:?}");
    all
}

/// A directory like a mirror with all of them; none where there is no mirror to fetch them from.
fn mirror() -> Option<tempfile::TempDir> {
    // They are kept from one run to the next; every use checks them.
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian-mirror");
    if pinned().iter().any(|(_, path)| !kept.join(path).is_file()) {
        let world = world(modes().into_iter().find(|mode| mode.runs).unwrap(), None);
        let build = world.build_recipe("two.toml", &[]);
        if build.run.code != 0 && build.run.stderr.contains("cannot fetch") {
            eprintln!("debian_base: SKIPPED, Debian's packages cannot be fetched: {}", build.run.stderr);
            return None;
        }
        build.ok();
        let shards = fs::read_dir(world.store().join("blobs")).unwrap().flatten();
        for blob in shards.flat_map(|shard| fs::read_dir(shard.path()).unwrap().flatten()) {
            let bytes = fs::read(blob.path()).unwrap();
            let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            let (_, path) = pinned().into_iter().find(|(pin, _)| *pin == digest).expect("a package");
            fs::create_dir_all(kept.join(&path).parent().unwrap()).unwrap();
            fs::write(kept.join(path), bytes).unwrap();
        }
    }
    // Where every user can read it, and it can be damaged.
    let copy = tempfile::Builder::new().prefix("isolith-mirror-").tempdir_in(common::place()).unwrap();
    fs::set_permissions(copy.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for (_, path) in pinned() {
        let to = copy.path().join(&path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(kept.join(path), to).unwrap();
    }
    Some(copy)
}

fn url(dir: &Path) -> String {
    format!("file://{}", dir.display())
}

fn fetched(build: &Build) -> Vec<String> {
    let mut what: Vec<String> = build
        .events
        .iter()
        .filter(|event| event["event"] == "fetching" && event["done"] == true)
        .map(|event| event["what"].as_str().unwrap().to_string())
        .collect();
    what.sort();
    what
}

/// The mirror on the network, and how many packages it was asked for at once. It answers none before it was asked for two.
fn at_once(dir: PathBuf) -> (Server, Arc<AtomicUsize>) {
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let server = Server::new(move |asked, stream| {
        seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let began = Instant::now();
        while seen.load(Ordering::SeqCst) < 2 && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(2));
        }
        now.fetch_sub(1, Ordering::SeqCst);
        server::ok(stream, &fs::read(dir.join(asked.path.trim_start_matches('/')))?)
    });
    (server, most)
}

#[test]
fn one_base_for_everybody_that_grows_by_a_package() {
    let Some(mirror) = mirror() else { return };
    let mirror = mirror.path();
    let mut first: Option<(Value, Value)> = None;
    for mode in modes().into_iter().filter(|mode| mode.runs) {
        // The first one's packages come over the network, several at a time; a directory is no network.
        let (server, most) = at_once(mirror.to_owned());
        let (from, flags) = match first {
            None => (server.url("").trim_end_matches('/').to_string(), &["--locked"][..]),
            Some(_) => (url(mirror), &["--locked", "--offline"][..]),
        };
        let world = world(mode, Some(&from));
        let one = world.build_recipe("one.toml", flags).ok();
        assert!(first.is_some() || most.load(Ordering::SeqCst) > 1, "one package after the other");
        assert_eq!(one.log("look").last().map(String::as_str), Some("checked"), "{}", one.run);
        assert_eq!(one.log("look").len(), 2, "dpkg has nothing to say: {}", one.run);

        // One package more: it alone is fetched, and the base stays as it is.
        let two = world.build_recipe("two.toml", &["--locked"]).ok();
        assert_eq!(fetched(&two), ["the package `make`"]);
        assert_eq!(two.step("debian:base")["outcome"], "hit");
        assert_eq!(two.step("debian:include")["outcome"], "executed");
        let layers = |build: &Build| build.finished()["stack"].as_array().unwrap().clone();
        let kept = layers(&one).iter().filter(|layer| layers(&two).contains(layer)).count();
        assert_eq!(kept, 3, "packages, their configuration and `tree`");

        // All is there: no socket is opened, although the mirror would be on one, and nothing runs.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let mirror = format!("http://{}", listener.local_addr().unwrap());
        world.write("isolith.toml", &format!("[debian]\nmirrors = [{mirror:?}]\n"));
        let again = world.build_recipe("two.toml", &["--locked", "--offline"]).ok();
        assert_eq!(again.finished()["stack"], two.finished()["stack"]);
        assert_eq!(again.step("debian:include")["outcome"], "hit");
        // A round of `verify` unpacks the same packages without fetching any, and makes the same base of them.
        world.write("isolith.toml", &format!("offline = true\n[debian]\nmirrors = [{mirror:?}]\n"));
        let store = world.store();
        let run =
            world.isolith(&["verify", "one.toml", "--vary", "umask", "--store", store.to_str().unwrap()]);
        assert!(run.code == 0 && run.stdout.contains("identical"), "{run}");
        assert!(listener.accept().is_err());

        let result = (one.finished()["stack"].clone(), two.finished()["stack"].clone());
        assert_eq!(first.get_or_insert(result.clone()), &result, "{}", world.mode.name);
    }

    // A file that is missing, cut off, or another one.
    let mode = modes().into_iter().find(|mode| mode.runs).unwrap();
    let (_, path) = pinned().into_iter().find(|(_, path)| path.contains("/make_")).unwrap();
    let file = mirror.join(&path);
    let bytes = fs::read(&file).unwrap();
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    for (left, expected) in [
        (None, "cannot fetch the package `make`"),
        (Some(&bytes[..99]), "not the pinned ones"),
        (Some(&other[..]), "not the pinned ones"),
    ] {
        match left {
            Some(bytes) => fs::write(&file, bytes).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let world = world(mode, Some(&url(mirror)));
        let build = world.build_recipe("two.toml", &["--locked", "--offline"]);
        assert_ne!(build.run.code, 0);
        assert!(build.run.stderr.contains(expected) && build.run.stderr.contains("hint: "), "{}", build.run);
        assert!(build.run.stderr.contains("`make`"), "{}", build.run);
    }
}
