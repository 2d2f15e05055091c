//! Layers of a base image go out as they came in, and a registry that has them is not sent them again.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use serde_json::Value;
use tar::EntryType::Regular;

use crate::common::registry::{DockerRegistry, Request};
use crate::common::{World, modes};
use crate::make::{Layer, Packing, digest, layout, run};

/// The layers of an image with a shell; files of the second one are in no order that isolith would write them in.
fn layers() -> Vec<Vec<u8>> {
    let sh = fs::read(crate::common::base().join("bin/busybox")).unwrap();
    let low = Layer::base().dir("bin", 0o755, 0).put("bin/sh", Regular, 0o755, (0, 0), &sh, "");
    vec![low.bytes(), Layer::new().file("z", "z").file("a", "a").gone("none").bytes()]
}

fn recipe(base: &str) -> String {
    format!(
        "name = \"test\"\n[base]\noci = \"{base}\"\n[[step]]\nname = \"s\"\nrun = \"echo built > /made\"\n"
    )
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// What skopeo says the layers of an image are.
fn seen(image: &str) -> (Vec<String>, String) {
    let image = json(run("skopeo", &["inspect", "--tls-verify=false", image]).as_bytes());
    let layers = image["Layers"].as_array().unwrap().iter().map(|layer| layer.as_str().unwrap().to_string());
    (layers.collect(), image["Digest"].as_str().unwrap().to_string())
}

fn blob(layout: &Path, digest: &str) -> Vec<u8> {
    fs::read(layout.join("blobs").join(digest.replace(':', "/"))).unwrap()
}

fn uploads(requests: &[Request]) -> usize {
    requests.iter().filter(|asked| asked.method == "PUT" && asked.path.contains("/blobs/uploads/")).count()
}

fn mounts(requests: &[Request]) -> usize {
    requests.iter().filter(|asked| asked.path.contains("mount=") && asked.status == 201).count()
}

#[test]
fn layers_of_a_base_keep_their_digests_and_are_mounted() {
    let (registry, other) = (DockerRegistry::open(), DockerRegistry::open());
    let dir = tempfile::tempdir().unwrap();
    let plain = layers();
    layout(&dir.path().join("base"), &plain, Packing::Gzip);
    let upstream = format!("{}/upstream/base:1", registry.host());
    let made = format!("oci:{}:latest", dir.path().join("base").display());
    run("skopeo", &["copy", "-q", "--dest-tls-verify=false", &made, &format!("docker://{upstream}")]);
    let (base, _) = seen(&format!("docker://{upstream}"));
    assert_eq!(base.len(), 2);
    let first: Mutex<Option<[String; 2]>> = Mutex::default();
    for mode in modes().into_iter().filter(|mode| mode.runs) {
        let world = World::new(mode);
        world.write("recipe.toml", &recipe(&upstream));
        let store = world.store();
        let isolith = |args: &[&str]| {
            let run = world.isolith(&[args, &["--store", store.to_str().unwrap()]].concat());
            world.assert_clean();
            run
        };
        let ok = |args: &[&str]| {
            let run = isolith(args);
            assert_eq!(run.code, 0, "{args:?}: {run}");
            run.stdout
        };
        let work = world.path("work");
        world.build().ok();

        // To the registry that has them: none is read and none is sent.
        let before = registry.requests().len();
        let to = format!("{}/{}/app:1", registry.host(), mode.name.replace(' ', "-"));
        ok(&["push", "recipe.toml", &format!("oci://{to}")]);
        let asked = registry.requests().split_off(before);
        let (pushed, digest_pushed) = seen(&format!("docker://{to}"));
        assert_eq!(pushed[..2], base[..]);
        let own = pushed.len() - 2;
        assert_eq!(
            (uploads(&asked), mounts(&asked)),
            (own + 1, 2),
            "the config and what the step made: {asked:?}"
        );
        let fetched = |asked: &Request| asked.method == "GET" && asked.path.contains("/blobs/");
        assert!(!asked.iter().any(fetched), "{asked:?}");
        let before = registry.requests().len();
        ok(&["push", "recipe.toml", &format!("oci://{to}")]);
        assert_eq!(uploads(&registry.requests()[before..]), 0);

        // To one that does not.
        let before = other.requests().len();
        let there = format!("{}/{}/app:1", other.host(), mode.name.replace(' ', "-"));
        ok(&["push", "recipe.toml", &format!("oci://{there}")]);
        let asked = other.requests().split_off(before);
        assert_eq!((uploads(&asked), mounts(&asked)), (pushed.len() + 1, 0));
        assert_eq!(seen(&format!("docker://{there}")), (pushed.clone(), digest_pushed.clone()));
        let copied = format!("oci:{}:1", dir.path().join(mode.name.replace(' ', "-")).display());
        run("skopeo", &["copy", "-q", "--src-tls-verify=false", &format!("docker://{there}"), &copied]);

        // To files.
        ok(&["export", "recipe.toml", "oci-layout:lay:v"]);
        ok(&["export", "recipe.toml", "oci-layout:lay:g", "--compress", "gzip"]);
        ok(&["export", "recipe.toml", "oci-archive:a.tar:v"]);
        ok(&["export", "recipe.toml", "docker-archive:d.tar:v"]);
        let lay = work.join("lay");
        for (at, name) in base.iter().enumerate() {
            assert_eq!(blob(&lay, name), blob(&dir.path().join("base"), name), "layer {at}");
        }
        let (layers, digest_here) = seen(&format!("oci:{}:v", lay.display()));
        assert_eq!((layers, &digest_here), (pushed.clone(), &digest_pushed));
        assert_eq!(seen(&format!("oci-archive:{}:v", work.join("a.tar").display())), (pushed, digest_here));
        let (gzip, digest_gzip) = seen(&format!("oci:{}:g", lay.display()));
        assert_eq!(gzip[..2], base[..]);
        // Docker's archives have plain layers: those that the image was made of.
        let saved = run("tar", &["-xOf", work.join("d.tar").to_str().unwrap(), "manifest.json"]);
        for (at, bytes) in plain.iter().enumerate() {
            let name = json(saved.as_bytes())[0]["Layers"][at].as_str().unwrap().to_string();
            run(
                "tar",
                &["-xf", work.join("d.tar").to_str().unwrap(), "-C", dir.path().to_str().unwrap(), &name],
            );
            assert_eq!(digest(&fs::read(dir.path().join(&name)).unwrap()), digest(bytes));
        }
        // What made them is told of them too.
        let manifest = json(&blob(&lay, &digest_pushed));
        let told: Vec<_> =
            manifest["layers"].as_array().unwrap().iter().map(|layer| &layer["annotations"]).collect();
        assert_eq!(told[0]["dev.isolith.made-by"], "base layer 1");
        assert_eq!(told.last().unwrap()["dev.isolith.made-by"], "step s");
        assert!(told.iter().all(|told| told["dev.isolith.recipe"] == "test"));
        assert!(told.iter().all(|told| told["dev.isolith.key"].as_str().unwrap().len() == 64));

        let digests = [digest_pushed, digest_gzip];
        match &mut *first.lock().unwrap() {
            first @ None => *first = Some(digests),
            Some(first) => assert_eq!(&digests, first, "{}", world.mode.name),
        }
    }
}

#[test]
fn layers_that_are_nowhere_any_more_are_missed_with_a_hint() {
    let registry = DockerRegistry::open();
    let world = World::new(modes().into_iter().find(|mode| mode.runs).unwrap());
    let base = world.path("work/base");
    layout(&base, &layers(), Packing::Gzip);
    let upstream = format!("{}/upstream/base:1", registry.host());
    let (made, there) = (format!("oci:{}:latest", base.display()), format!("docker://{upstream}"));
    run("skopeo", &["copy", "-q", "--dest-tls-verify=false", &made, &there]);
    world.write("recipe.toml", &recipe(&upstream));
    world.build().ok();
    drop(registry);
    let store = world.store();
    let export = |target: &str, flags: &[&str]| {
        let args = ["export", "recipe.toml", target, "--store", store.to_str().unwrap()];
        let run = world.isolith(&[&args, flags].concat());
        world.assert_clean();
        run
    };
    let missed = export("oci-archive:a.tar", &[]);
    assert!(missed.code != 0 && missed.stderr.contains("as it is there"), "{missed}");
    assert!(missed.stderr.contains("--layers one") && !world.path("work/a.tar").exists(), "{missed}");
    assert_eq!(export("oci-archive:a.tar", &["--layers", "one"]).code, 0);
}
