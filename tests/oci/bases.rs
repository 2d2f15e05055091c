//! What a step sees of an image is what umoci unpacks from it, entry by entry.

use std::path::Path;

use tar::EntryType::{Block, Char, Fifo, Regular};

use crate::common::{World, each_mode, modes, place};
use crate::make::{Layer, Packing, layout, lister, run};

/// Images with something awkward in each.
fn awkward() -> Vec<(&'static str, Vec<Layer>)> {
    let base = Layer::base;
    let low = || {
        base().dir("d", 0o755, 0).file("d/a", "a").file("d/b", "b").dir("d/e", 0o700, 3).file("d/e/x", "x")
    };
    let cap = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let many = (0..140).map(|n| match n {
        0 => base(),
        n => Layer::new().dir("many", 0o755, 0).file(&format!("many/{}", n % 97), &n.to_string()),
    });
    vec![
        ("one layer", vec![low()]),
        ("a whiteout of a file", vec![low(), Layer::new().dir("d", 0o755, 0).gone("d/a")]),
        ("a whiteout of a directory", vec![low(), Layer::new().gone("d")]),
        (
            "a whiteout of nothing",
            vec![low(), Layer::new().gone("none").dir("new", 0o755, 0).gone("new/none")],
        ),
        ("an opaque directory", vec![low(), Layer::new().dir("d", 0o711, 1).opaque("d").file("d/c", "c")]),
        ("an opaque mark behind what it spares", vec![low(), Layer::new().file("d/c", "c").opaque("d")]),
        ("a directory for a file", vec![low(), Layer::new().dir("d/a", 0o750, 2).file("d/a/y", "y")]),
        ("a file for a directory", vec![low(), Layer::new().file("d/e", "e")]),
        (
            "a symlink for a directory and back",
            vec![low(), Layer::new().symlink("d", "var"), Layer::new().dir("d", 0o700, 0).file("d/z", "z")],
        ),
        (
            "gone and new in one layer",
            vec![low(), Layer::new().gone("d").dir("d", 0o700, 7).file("d/n", "n")],
        ),
        (
            "hard links across directories",
            vec![
                low().link("l1", "d/a").link("d/e/l2", "d/a"),
                Layer::new().file("h1", "h").link("d/h2", "h1"),
            ],
        ),
        (
            "attributes",
            vec![
                base()
                    .xattr("user.one", b"1\0\n=2")
                    .file("x", "x")
                    .xattr("user.dir", b"d")
                    .dir("xd", 0o755, 0),
                Layer::new()
                    .xattr("security.capability", &cap)
                    .file("cap", "cap")
                    .xattr("user.one", b"other")
                    .file("x", "x"),
            ],
        ),
        (
            "setuid, setgid, sticky",
            vec![
                base()
                    .put("su", Regular, 0o4755, (0, 0), b"su", "")
                    .put("sg", Regular, 0o2755, (0, 8), b"sg", "")
                    .dir("st", 0o1777, 0)
                    .dir("sgd", 0o2775, 50)
                    .put("none", Regular, 0, (0, 0), b"", ""),
            ],
        ),
        (
            "foreign owners",
            vec![
                base().put("u", Regular, 0o600, (1000, 100), b"u", "").put(
                    "last",
                    Regular,
                    0o604,
                    (65535, 65534),
                    b"",
                    "",
                ),
                Layer::new().dir("u2", 0o750, 33).put(
                    "u2/s",
                    tar::EntryType::Symlink,
                    0o777,
                    (33, 34),
                    b"",
                    "../u",
                ),
            ],
        ),
        ("fifos", vec![base().put("fifo", Fifo, 0o640, (0, 4), b"", "")]),
        ("device nodes", vec![base().node("null", Char, (1, 3)).node("disk", Block, (7, 300))]),
        (
            "names that are not text",
            vec![
                base().file("n\\xff\\xff", "n").dir("\\xffd", 0o755, 0).file("\\xffd/\u{e9}\\xff", "x"),
                Layer::new().dir("\\xffd", 0o755, 0).gone("\\xffd/\u{e9}\\xff").file("a b\nc", "odd"),
            ],
        ),
        (
            "directories that no member tells of",
            vec![
                base().dir("p", 0o700, 9).dir("p/q", 0o1777, 10).file("p/q/one", "1"),
                Layer::new().file("p/q/two", "2").file("r/s/t", "t"),
                Layer::new().gone("p/q/one").file("r/s/u", "u"),
            ],
        ),
        (
            "a path twice",
            vec![base().file("t", "first").file("t", "second"), Layer::new().dir("t", 0o755, 0)],
        ),
        (
            "a layer twice",
            vec![
                base(),
                Layer::new().file("same", "1").dir("sd", 0o755, 0).file("sd/x", "x"),
                Layer::new().gone("same").gone("sd"),
                Layer::new().file("same", "1").dir("sd", 0o755, 0).file("sd/x", "x"),
            ],
        ),
        ("140 layers", many.collect()),
        ("empty layers", vec![Layer::new(), base(), Layer::new(), Layer::new().file("x", "x"), Layer::new()]),
    ]
}

pub fn recipe(base: &str) -> String {
    format!("name = \"test\"\n[base]\n{base}\n[[step]]\nname = \"s\"\nargs = [\"/.list\", \"/\"]\n")
}

/// The lines of two listings that are not in both.
fn differences(ours: &[String], theirs: &[String]) -> Vec<String> {
    let only = |a: &[String], b: &[String], sign| {
        a.iter().filter(|line| !b.contains(line)).map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    [only(ours, theirs, "ours"), only(theirs, ours, "umoci")].concat()
}

/// The listing of what umoci makes of a layout.
fn unpacked(layout: &Path, scratch: &Path) -> Vec<String> {
    let bundle = scratch.join("bundle");
    let image = format!("{}:latest", layout.display());
    run("umoci", &["unpack", "--image", &image, bundle.to_str().unwrap()]);
    let list = run(lister().to_str().unwrap(), &[bundle.join("rootfs").to_str().unwrap()]);
    std::fs::remove_dir_all(&bundle).unwrap();
    list.lines().map(str::to_string).collect()
}

#[test]
fn a_step_sees_what_umoci_unpacks() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can unpack owners with umoci.
    }
    let dir = tempfile::Builder::new().prefix("isolith-images-").tempdir_in(place()).unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut images = Vec::new();
    for (at, (name, layers)) in awkward().into_iter().enumerate() {
        let layers: Vec<Vec<u8>> = layers.into_iter().map(Layer::bytes).collect();
        let image = dir.path().join(at.to_string());
        let packing = if at % 2 == 0 { Packing::Gzip } else { Packing::Plain };
        layout(&image, &layers, packing);
        let wanted = unpacked(&image, dir.path());
        assert!(wanted.len() > 2, "{name}: {wanted:?}");
        let zstd = dir.path().join(format!("{at}-zstd"));
        layout(&zstd, &layers, Packing::Zstd);
        images.push((name, image, zstd, wanted));
    }
    assert!(images.len() >= 20);
    let mut wrong = Vec::new();
    for (turn, mode) in modes().into_iter().filter(|mode| mode.runs).enumerate() {
        let world = World::new(mode);
        for (at, (name, image, zstd, wanted)) in images.iter().enumerate() {
            world.write("recipe.toml", &recipe(&format!("oci-layout = {image:?}")));
            let build = world.build();
            if *name == "device nodes" && world.mode.name != "root" {
                assert_ne!(build.run.code, 0);
                assert!(build.run.stderr.contains("devices can be made by root only"), "{}", build.run);
                continue;
            }
            let build = build.ok();
            let differ = differences(&build.log("s"), wanted);
            if !differ.is_empty() {
                wrong.push(format!("{name} ({}):\n  {}", world.mode.name, differ.join("\n  ")));
            }
            // The same layers packed otherwise are the same layers: nothing is unpacked and nothing runs.
            world.write("recipe.toml", &recipe(&format!("oci-layout = {zstd:?}")));
            let again = world.build().ok();
            assert_eq!(again.step("s")["outcome"], "hit", "{name}: {}", again.run);
            // And out again: with the layers of the image, or packed anew. (umoci knows no zstd.) As root all of them.
            if turn > 0 && at % 4 != turn {
                continue;
            }
            world.write("recipe.toml", &recipe(&format!("oci-layout = {image:?}")));
            let layers = if (at + turn) % 2 == 0 { "step" } else { "one" };
            let out = world.path(&format!("work/out-{at}"));
            let target = format!("oci-layout:{}:latest", out.display());
            let store = world.store();
            let args =
                ["export", "recipe.toml", &target, "--layers", layers, "--compress", "gzip", "--store"];
            let run = world.isolith(&[&args[..], &[store.to_str().unwrap()]].concat());
            assert_eq!(run.code, 0, "{name}: {run}");
            let differ = differences(&unpacked(&out, dir.path()), wanted);
            if !differ.is_empty() {
                wrong.push(format!("{name} out ({} {layers}):\n  {}", world.mode.name, differ.join("\n  ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn layers_that_images_share_are_stored_once() {
    each_mode(|world| {
        let shared = Layer::base().file("shared", "shared").bytes();
        for (name, own) in [("a", "1"), ("b", "2")] {
            let own = Layer::new().dir("./", 0o755, 0).file("own", own).bytes();
            layout(&world.path("work").join(name), &[shared.clone(), own], Packing::Gzip);
            world.write("recipe.toml", &recipe(&format!("oci-layout = \"{name}\"")));
            world.build().ok();
        }
        let layers = world.store().join("layers");
        let count: usize = std::fs::read_dir(layers)
            .unwrap()
            .map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap().count())
            .sum();
        // One shared, two of their own; the steps write nothing.
        assert_eq!(count, 3);
    });
}
