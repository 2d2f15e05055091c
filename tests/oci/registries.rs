//! Bases from registries and archives: pinned, cached, chosen by platform, built by programs of others, and refused.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::bases::recipe;
use crate::common::registry::{Auth, DockerRegistry};
use crate::common::{World, each_mode, modes};
use crate::make::{Layer, Packing, architecture, image, index, layout, lister, run};

/// Copies an image between places that skopeo knows.
fn copy(from: &str, to: &str, more: &[&str]) {
    let mut args =
        vec!["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    args.extend(more);
    args.extend([from, to]);
    run("skopeo", &args);
}

fn one(at: &Path, text: &str) -> PathBuf {
    let layers = [Layer::base().bytes(), Layer::new().dir("./", 0o755, 0).file("own", text).bytes()];
    layout(at, &layers, Packing::Gzip);
    at.to_path_buf()
}

fn size(lines: &[String], path: &str) -> String {
    let line = lines
        .iter()
        .find(|line| line.starts_with(&format!("{path} ")))
        .unwrap_or_else(|| panic!("{lines:?}"));
    line.split(" size=").nth(1).unwrap().split(' ').next().unwrap().to_string()
}

#[test]
fn tags_are_pinned_and_a_cached_build_asks_nobody() {
    let mut registry = Some(DockerRegistry::start(Auth::Password));
    let host = registry.as_ref().unwrap().host();
    let config = registry.as_ref().unwrap().config();
    let dir = tempfile::tempdir().unwrap();
    let auth = dir.path().join("auth.json");
    fs::write(&auth, &config).unwrap();
    let auth = ["--dest-authfile", auth.to_str().unwrap()];
    let first = format!("oci:{}:latest", one(&dir.path().join("1"), "1").display());
    let second = format!("oci:{}:latest", one(&dir.path().join("2"), "22").display());
    let tag = format!("docker://{host}/team/app:1");
    let mut worlds = Vec::new();
    copy(&first, &tag, &auth);
    for mode in modes().into_iter().filter(|mode| mode.runs) {
        let mut world = World::new(mode);
        world.write("config.json", &config);
        let home = world.path("work").to_str().unwrap().to_string();
        world.write("recipe.toml", &recipe(&format!("oci = \"{host}/team/app:1\"")));
        let store = world.store();
        let args = ["build", "recipe.toml", "--store", store.to_str().unwrap(), "--locked"];
        let refused = world.isolith(&args);
        assert!(refused.code == 3 && refused.stderr.contains("isolith lock"), "{refused}");
        let anonymous = world.isolith(&args[..4]);
        assert!(anonymous.code == 125 && anonymous.stderr.contains("docker login"), "{anonymous}");
        world.env.insert("DOCKER_CONFIG".into(), home);
        let build = world.build().ok();
        assert_eq!(size(&build.log("s"), "/own"), "1");
        let lock = fs::read_to_string(world.path("work/recipe.lock")).unwrap();
        assert!(
            lock.contains(&format!("image = \"{host}/team/app:1\"")) && lock.contains("digest = \"sha256:"),
            "{lock}"
        );
        worlds.push(world);
    }
    copy(&second, &tag, &auth);
    for world in &worlds {
        assert_eq!(world.build().ok().step("s")["outcome"], "hit", "the tag has moved, the pin has not");
    }
    let world = &worlds[0];
    let update =
        world.isolith(&["lock", "recipe.toml", "--update", "--store", world.store().to_str().unwrap()]);
    assert_eq!(update.code, 0, "{update}");
    assert_eq!(size(&world.build().ok().log("s"), "/own"), "2");
    drop(registry.take());
    assert_eq!(world.build().ok().step("s")["outcome"], "hit", "nobody is there to ask");
    let offline = world.build_recipe("recipe.toml", &["--offline"]).ok();
    assert_eq!(offline.step("s")["outcome"], "hit");
}

#[test]
fn images_that_others_built_are_bases() {
    let registry = DockerRegistry::open();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    // Docker's own formats, by skopeo.
    let image = one(&dir.path().join("image"), "333");
    let from = format!("oci:{}:latest", image.display());
    copy(&from, &format!("docker-archive:{}:example/app:1", at("saved.tar")), &[]);
    copy(&from, &format!("oci-archive:{}:latest", at("archive.tar")), &[]);
    copy(&from, &format!("docker://{}/docker:1", registry.host()), &["--format", "v2s2"]);
    // One that umoci changed.
    run("umoci", &["unpack", "--rootless", "--image", &format!("{}:latest", image.display()), &at("bundle")]);
    fs::write(dir.path().join("bundle/rootfs/own"), "666666").unwrap();
    run("umoci", &["repack", "--image", &format!("{}:new", image.display()), &at("bundle")]);
    let mut bases = vec![
        (format!("docker-archive = {:?}", at("saved.tar")), "3"),
        (format!("docker-archive = \"{}:example/app:1\"", at("saved.tar")), "3"),
        (
            format!(
                "docker-archive = {{ path = {:?}, name = \"docker.io/example/app:1\" }}",
                at("saved.tar")
            ),
            "3",
        ),
        (format!("oci-layout = {:?}", at("archive.tar")), "3"),
        (format!("oci-layout = \"{}:latest\"", image.display()), "3"),
        (format!("oci-layout = \"{}:new\"", image.display()), "6"),
        (format!("oci = \"{}/docker:1\"", registry.host()), "3"),
    ];
    if rustix::process::geteuid().is_root() {
        // And one that buildah put together.
        let storage = ["--root", &at("storage"), "--runroot", &at("run"), "--storage-driver", "vfs"];
        let buildah = |args: &[&str]| run("buildah", &[&storage[..], args].concat());
        let container = buildah(&["from", "scratch"]);
        let container = container.trim();
        buildah(&["copy", "--quiet", container, lister().to_str().unwrap(), "/.list"]);
        fs::write(dir.path().join("own"), "4444").unwrap();
        buildah(&["copy", "--quiet", container, &at("own"), "/own"]);
        let to = format!("docker://{}/built:1", registry.host());
        buildah(&["commit", "--quiet", container, "built"]);
        buildah(&["push", "--quiet", "--tls-verify=false", "built", &to]);
        buildah(&["rm", container]);
        bases.push((format!("oci = \"{}/built:1\"", registry.host()), "4"));
    }
    run("chmod", &["-R", "a+rX", dir.path().to_str().unwrap()]);
    each_mode(|world| {
        for (base, wanted) in &bases {
            world.write("recipe.toml", &recipe(base));
            let build = world.build().ok();
            // The step of an image of equal layers has run before: its log is in the store.
            if build.step("s")["outcome"] == "executed" {
                assert_eq!(size(&build.log("s"), "/own"), *wanted, "{base}");
            }
            // Their layers go out as they are, in OCI's words; skopeo hashes all of them.
            let store = world.store();
            let out = world.path("work/out");
            let target = format!("oci-layout:{}:latest", out.display());
            let run = world.isolith(&["export", "recipe.toml", &target, "--store", store.to_str().unwrap()]);
            assert_eq!(run.code, 0, "{base}: {run}");
            let (from, to) = (format!("oci:{}:latest", out.display()), format!("dir:{}", at("copied")));
            copy(&from, &to, &[]);
            let manifest = fs::read_to_string(dir.path().join("copied/manifest.json")).unwrap();
            assert!(!manifest.contains("vnd.docker"), "{base}: {manifest}");
            fs::remove_dir_all(out).unwrap();
            fs::remove_dir_all(dir.path().join("copied")).unwrap();
        }
    });
}

#[test]
fn the_platform_is_chosen_and_what_is_wrong_is_refused() {
    let mode = modes().into_iter().find(|mode| mode.runs).unwrap();
    let world = World::new(mode);
    let work = world.path("work");
    let both = work.join("both");
    let of = |arch: &str, text: &str| {
        let layers = [Layer::base().file("own", text).bytes()];
        let mut entry = image(&both, &layers, Packing::Gzip, arch);
        entry["platform"] = json!({ "os": "linux", "architecture": arch });
        entry
    };
    let entries = [of("riscv64", "1"), of(architecture(), "22")];
    let kind = "application/vnd.oci.image.index.v1+json";
    let inner = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries });
    let inner = crate::make::blob(&both, inner.to_string().as_bytes(), kind);
    index(&both, &[inner]);
    let own = |base: &str| {
        world.write("recipe.toml", &recipe(base));
        world.build()
    };
    assert_eq!(size(&own("oci-layout = \"both\"").ok().log("s"), "/own"), "2");
    let other = own("oci-layout = { path = \"both\", platform = \"linux/riscv64\" }").ok();
    assert_eq!(size(&other.log("s"), "/own"), "1");
    let none = own("oci-layout = { path = \"both\", platform = \"linux/s390x\" }");
    assert!(none.run.stderr.contains("linux/riscv64"), "{}", none.run);

    let refused = |base: &str, code: i32, words: &[&str]| {
        let run = own(base).run;
        assert_eq!(run.code, code, "{base}: {run}");
        for word in words {
            assert!(run.stderr.contains(word), "{base}: no `{word}` in {run}");
        }
        world.assert_clean();
    };
    refused("oci = \"No Such\"", 3, &["does not name an image", "recipe.toml:3"]);
    refused("oci-layout = \"none\"", 3, &["does not exist"]);
    refused("oci-layout = \"both:none\"", 3, &["no image of the name `none`"]);
    fs::create_dir(work.join("empty")).unwrap();
    refused("oci-layout = \"empty\"", 3, &["no image layout"]);
    // A layer of other bytes than its digest says, and one whose plain bytes are not those of the configuration.
    let damaged = one(&work.join("damaged"), "x");
    let blob = fs::read_dir(damaged.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let largest = blob.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    refused("oci-layout = \"damaged\"", 3, &["cannot get layer 1 of 2"]);
    let lying = work.join("lying");
    let mut manifest = image(&lying, &[Layer::base().bytes()], Packing::Gzip, architecture());
    let path =
        |digest: &serde_json::Value| lying.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
    let mut text: serde_json::Value =
        serde_json::from_slice(&fs::read(path(&manifest["digest"])).unwrap()).unwrap();
    let other = crate::make::pack(&Layer::base().file("evil", "evil").bytes(), Packing::Gzip);
    text["layers"][0] = crate::make::blob(&lying, &other, "application/vnd.oci.image.layer.v1.tar+gzip");
    manifest =
        crate::make::blob(&lying, text.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    index(&lying, &[manifest]);
    refused("oci-layout = \"lying\"", 3, &["cannot get layer 1 of 1", "not those of"]);
    // More names than are allowed.
    let names = (0..50).fold(Layer::base(), |layer, n| layer.file(&n.to_string(), ""));
    layout(&work.join("many"), &[names.bytes()], Packing::Zstd);
    world.write("isolith.toml", "unpack-max-entries = 40\n");
    refused("oci-layout = \"many\"", 3, &["more than 40 names", "unpack-max-entries"]);
    world.write("isolith.toml", "unpack-max-size = 1000\nunpack-max-entries = 1\n");
    let bomb = Layer::base().put("zero", tar::EntryType::Regular, 0o644, (0, 0), &vec![0; 4 << 20], "");
    layout(&work.join("bomb"), &[bomb.bytes()], Packing::Zstd);
    refused("oci-layout = \"bomb\"", 3, &["cannot get layer 1 of 1"]);
}
