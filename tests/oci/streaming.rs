//! Layers come in as a stream: once each, in little memory, and with no copy of them on disk.

use std::fs;
use std::time::Duration;

use crate::common::registry::DockerRegistry;
use crate::common::{Run, World, each_mode, modes};
use crate::make::{Layer, Packing, layout, noise, run};

fn recipe(base: &str) -> String {
    format!(
        "name = \"test\"\n[base]\noci = \"{base}\"\n[[step]]\nname = \"s\"\nargs = [\"/.list\", \"/etc\"]\n"
    )
}

/// Puts an image into a registry.
fn put(registry: &DockerRegistry, world: &World, name: &str, layers: &[Vec<u8>]) -> String {
    let at = world.path(name);
    layout(&at, layers, Packing::Zstd);
    let to = format!("{}/{name}:1", registry.host());
    let from = format!("oci:{}:latest", at.display());
    run("skopeo", &["copy", "-q", "--dest-tls-verify=false", &from, &format!("docker://{to}")]);
    fs::remove_dir_all(at).unwrap();
    to
}

/// No file may become as long as a layer is, packed or not, and the program may not hold one.
#[test]
fn a_layer_is_nowhere_as_a_whole() {
    const FILES: usize = 128;
    let registry = DockerRegistry::open();
    let makers = World::new(modes()[0]);
    let mut layer = Layer::new();
    for n in 0..FILES {
        let bytes = noise(n as u64, 1 << 20);
        layer = layer.put(&format!("big{n}"), tar::EntryType::Regular, 0o644, (0, 0), &bytes, "");
    }
    let image = put(&registry, &makers, "large", &[Layer::base().bytes(), layer.bytes()]);
    let mut world = World::new(modes().into_iter().find(|mode| mode.runs).unwrap());
    // Blocks of 512 bytes: 4 MiB, a few times the longest file.
    world.caller = "ulimit -S -f 8192".to_string();
    world.write("recipe.toml", &recipe(&image));
    let store = world.store();
    let mut build = world.spawn(&["build", "recipe.toml", "--store", store.to_str().unwrap()]);
    let status = format!("/proc/{}/status", build.id());
    let mut peak = 0;
    while build.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kib) = line.and_then(|line| line.trim().split(' ').next()?.parse::<usize>().ok()) {
            peak = peak.max(kib);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let run: Run = build.into();
    assert_eq!(run.code, 0, "{run}");
    assert!(peak > 1024 && peak < FILES * 1024 * 3 / 4, "{peak} KiB at most");
}

#[test]
fn a_layer_that_images_share_is_fetched_once() {
    let registry = DockerRegistry::open();
    let makers = World::new(modes()[0]);
    let shared = Layer::base().file("shared", "shared").bytes();
    let own = |text| Layer::new().dir("./", 0o755, 0).file("own", text).bytes();
    let one = put(&registry, &makers, "one", &[shared.clone(), own("1")]);
    let two = put(&registry, &makers, "two", &[shared, own("2")]);
    each_mode(|world| {
        let before = registry.requests().len();
        for image in [&one, &two] {
            world.write("recipe.toml", &recipe(image));
            world.build().ok();
        }
        let asked = registry.requests().split_off(before);
        let mut blobs: Vec<&str> = asked
            .iter()
            .filter(|asked| asked.method == "GET")
            .filter_map(|asked| Some(asked.path.split_once("/blobs/")?.1))
            .collect();
        // Two configurations, two layers of their own, one shared.
        assert_eq!(blobs.len(), 5, "{asked:?}");
        blobs.sort_unstable();
        blobs.dedup();
        assert_eq!(blobs.len(), 5, "{asked:?}");
    });
}
