//! Images that isolith made come in with what is here already: a registry is asked for the rest only.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::common::registry::{DockerRegistry, Request};
use crate::common::{World, base, each_mode, modes};
use crate::make::{digest, noise, run};

/// Pushes an image of a large file, many small ones, and `own`.
fn push(registry: &DockerRegistry, tag: &str, own: &[u8]) {
    let world = World::new(modes()[0]);
    let src = world.path("work/src");
    fs::create_dir_all(src.join("many")).unwrap();
    fs::write(src.join("large"), noise(1, 3 << 20)).unwrap();
    (0..300).for_each(|n| fs::write(src.join("many").join(n.to_string()), noise(n + 2, 700)).unwrap());
    fs::write(src.join("own"), own).unwrap();
    fs::set_permissions(src.join("own"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    world.recipe("[sources.src]\npath = \"src\"\nunpack = \"/src\"\n");
    let to = format!("oci://{}/team/app:{tag}", registry.host());
    let store = world.store();
    let run =
        world.isolith(&["push", "recipe.toml", &to, "--layers", "one", "--store", store.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{run}");
}

fn recipe(registry: &DockerRegistry, tag: &str) -> String {
    let image = format!("{}/team/app:{tag}", registry.host());
    let sums = "cd /src; sha256sum large own many/7; ls -l /src /src/many";
    format!("name = \"test\"\n[base]\noci = \"{image}\"\n[[step]]\nname = \"s\"\nrun = \"{sums}\"\n")
}

/// Bytes of blobs that were read, and in how many requests.
fn read(requests: &[Request]) -> (u64, usize) {
    let blobs: Vec<_> = requests.iter().filter(|r| r.method == "GET" && r.path.contains("/blobs/")).collect();
    (blobs.iter().map(|request| request.bytes).sum(), blobs.len())
}

/// The ids of a store's layers.
fn layers(store: &Path) -> BTreeSet<String> {
    let names = |dir: &Path| -> Vec<_> { fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect() };
    let shards = names(&store.join("layers")).into_iter().flat_map(|shard| names(&shard));
    shards.map(|layer| layer.file_name().unwrap().to_str().unwrap().to_string()).collect()
}

#[test]
fn only_what_is_not_here_is_fetched() {
    let registry = DockerRegistry::open();
    push(&registry, "1", b"one");
    push(&registry, "2", &noise(1000, 20_000));
    let whole = fs::metadata(base().join("bin/busybox")).unwrap().len() / 3 + (3 << 20);
    each_mode(|world| {
        let build = |world: &World, tag| {
            world.write("recipe.toml", &recipe(&registry, tag));
            let before = registry.requests().len();
            let build = world.build().ok();
            (build.log("s"), read(&registry.requests()[before..]))
        };
        let (_, (bytes, _)) = build(world, "1");
        assert!(bytes > whole, "the first time everything comes: {bytes}");
        let (partly, (bytes, requests)) = build(world, "2");
        assert!(bytes < 200_000 && requests > 2, "{bytes} in {requests} requests ({})", world.mode.name);
        // Another store, which has nothing, gets the same layer in one stream.
        let fresh = World::new(world.mode);
        let (wholly, (bytes, _)) = build(&fresh, "2");
        assert!(bytes > whole);
        assert_eq!(partly, wholly);
        assert!(layers(&fresh.store()).is_subset(&layers(&world.store())));
    });
}

/// What does not come as it should is no part of a layer, whichever way it comes.
#[test]
fn a_blob_that_was_changed_is_refused() {
    let registry = DockerRegistry::open();
    push(&registry, "1", b"one");
    push(&registry, "2", &noise(1000, 20_000));
    let world = World::new(modes()[0]);
    world.write("recipe.toml", &recipe(&registry, "1"));
    world.build().ok();
    let had = layers(&world.store());
    // The file that is only in the second image, in the blob of that image.
    let wanted = noise(1000, 64);
    let blobs = registry.storage().join("docker/registry/v2/blobs/sha256");
    let mut changed = 0;
    for shard in fs::read_dir(blobs).unwrap() {
        for blob in fs::read_dir(shard.unwrap().path()).unwrap() {
            let path = blob.unwrap().path().join("data");
            let mut bytes = fs::read(&path).unwrap();
            if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
                bytes[at + 10] ^= 1;
                fs::write(&path, bytes).unwrap();
                changed += 1;
            }
        }
    }
    assert_eq!(changed, 1);
    world.write("recipe.toml", &recipe(&registry, "2"));
    let build = world.build();
    assert_ne!(build.run.code, 0);
    assert!(build.run.stderr.contains("cannot get layer 1 of 1"), "{}", build.run);
    assert_eq!(layers(&world.store()), had);
}

/// buildah reads the table of `zstd:chunked`, and does the same.
#[test]
fn others_fetch_parts_too() {
    if modes()[0].uid != 0 {
        return; // The storage of an ordinary user takes no parts.
    }
    let registry = DockerRegistry::open();
    push(&registry, "1", b"one");
    let own = noise(1000, 20_000);
    push(&registry, "2", &own);
    let world = World::new(modes()[0]);
    let conf = format!(
        "[storage]\ndriver = \"overlay\"\nrunroot = {:?}\ngraphroot = {:?}\n\
         [storage.options]\npull_options = {{ enable_partial_images = \"true\", use_hard_links = \"false\" }}\n",
        world.path("runroot"),
        world.path("storage"),
    );
    let conf = world.write("storage.conf", &conf);
    // What it mounts is gone with each process.
    let buildah = |args: &[&str]| {
        let conf = format!("CONTAINERS_STORAGE_CONF={}", conf.display());
        run("unshare", &[&["-m", "env", &conf, "buildah"], args].concat())
    };
    let pull = |tag: &str| {
        let before = registry.requests().len();
        let image = format!("{}/team/app:{tag}", registry.host());
        buildah(&["from", "--tls-verify=false", "--name", tag, &image]);
        read(&registry.requests()[before..]).0
    };
    assert!(pull("1") > 3 << 20);
    let bytes = pull("2");
    assert!((20_000..100_000).contains(&bytes), "{bytes}");
    let sums = buildah(&["run", "--isolation", "chroot", "2", "sha256sum", "/src/own"]);
    assert!(sums.starts_with(digest(&own).strip_prefix("sha256:").unwrap()), "{sums}");
}
