//! Images that isolith writes, read and run by others.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;

use crate::common::registry::DockerRegistry;
use crate::common::{World, each_mode, modes};

/// Owners, setuid bits, hard links, fifos, removed and replaced things, and a config with everything in it.
const RECIPE: &str = r#"
[sources.src]
path = "src"
unpack = "/src"

[[step]]
name = "compile"
run = """
mkdir -p /out/d /keep/old
printf hello > /out/hello; chmod 4755 /out/hello; ln /out/hello /out/again
mkfifo /out/fifo; ln -s hello /out/link; printf x > /keep/old/x; printf y > /keep/y
i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i + 1)); done > /out/text
"""

[[step]]
name = "remove"
run = "rm -r /keep/old; rm /src/f; printf new > /keep/new"

[image]
entrypoint = ["/bin/sh", "-c"]
cmd = ["cat /out/hello /keep/new"]
env = { PATH = "/bin", GREETING = "hi there" }
workdir = "/out"
labels = { title = "test" }
ports = [8080]
volumes = ["/data"]
stop-signal = "SIGINT"
healthcheck = { test = ["true"], interval = "30s" }
author = "nobody"
"#;

pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|why| panic!("{program}: {why}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn json(program: &str, args: &[&str]) -> Value {
    serde_json::from_str(&run(program, args)).unwrap()
}

pub fn world_with(world: &World) {
    // The name of the recipe's directory is one of the things that must not matter.
    world.write("src/f", "a file");
    world.write("src/g", "another");
    world.recipe(RECIPE);
}

pub fn export(world: &World, args: &[&str]) {
    let store = world.store();
    let all = [&["export", "--store", store.to_str().unwrap(), "recipe.toml"], args].concat();
    let run = world.isolith(&all);
    assert_eq!(run.code, 0, "{}: {}", world.mode.name, run.stderr);
}

pub fn work(world: &World, name: &str) -> String {
    world.path("work").join(name).to_str().unwrap().to_string()
}

/// Each user in a directory of its own: one digest for each form, whoever builds.
#[test]
fn images_are_the_same_whoever_builds_them() {
    let first: Mutex<Option<Vec<String>>> = Mutex::default();
    each_mode(|world| {
        world_with(world);
        let forms = [
            ("oci-layout:lay:z", "oci:lay:z", &[][..]),
            ("oci-layout:lay:g", "oci:lay:g", &["--compress", "gzip"]),
            ("oci-layout:lay:one", "oci:lay:one", &["--layers", "one"]),
            ("oci-archive:a.tar:v", "oci-archive:a.tar:v", &[]),
            ("docker-archive:d.tar:v", "docker-archive:d.tar:test:v", &[]),
        ];
        let mut digests = Vec::new();
        for (target, reads, flags) in forms {
            export(world, &[&[target], flags].concat());
            let (kind, path) = reads.split_once(':').unwrap();
            let read = format!("{kind}:{}", work(world, path));
            let mut seen = json("skopeo", &["inspect", &read]);
            assert_eq!(seen["Created"], "1970-01-01T00:00:01Z");
            assert_eq!(seen["Labels"]["title"], "test");
            if !kind.starts_with("docker") {
                digests.push(format!("{target} {}", seen["Digest"].take()));
            }
        }
        for archive in ["a.tar", "d.tar"] {
            let path = work(world, archive);
            digests.push(run("sha256sum", &[&path]).split(' ').next().unwrap().to_string());
        }
        match &mut *first.lock().unwrap() {
            first @ None => *first = Some(digests),
            Some(first) => assert_eq!(&digests, &*first, "{}", world.mode.name),
        }
    });
}

/// `umoci` makes the tree of an image layer by layer; it is the one that `export dir:` writes.
#[test]
fn umoci_unpacks_what_was_built() {
    if modes()[0].uid != 0 {
        return; // Only root can give the files away.
    }
    let world = World::new(modes()[0]);
    world_with(&world);
    export(&world, &["oci-layout:lay:v", "--compress", "gzip"]);
    let bundle = work(&world, "bundle");
    run("umoci", &["unpack", "--image", &format!("{}:v", work(&world, "lay")), &bundle]);
    let root = Path::new(&bundle).join("rootfs");
    let names = |dir: &str| {
        let mut names: Vec<_> =
            fs::read_dir(root.join(dir)).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!((names("keep"), names("src")), (vec!["new".into(), "y".into()], vec!["g".into()]));
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let hello = fs::metadata(root.join("out/hello")).unwrap();
    assert_eq!((hello.mode() & 0o7777, hello.nlink(), hello.mtime()), (0o4755, 2, 1));
    assert_eq!(hello.ino(), fs::metadata(root.join("out/again")).unwrap().ino());
    assert!(fs::symlink_metadata(root.join("out/fifo")).unwrap().file_type().is_fifo());
    export(&world, &["tar:whole.tar"]);
    let list = |tar: Vec<&str>| {
        let mut lines: Vec<_> =
            run("tar", &tar).lines().map(|line| line.trim_end_matches('/').to_string()).collect();
        lines.sort();
        lines
    };
    let ours = list(vec!["-tf", &work(&world, "whole.tar")]);
    let theirs = work(&world, "theirs.tar");
    run("tar", &["-cf", &theirs, "-C", root.to_str().unwrap(), "."]);
    let plain = |names: Vec<String>| -> Vec<String> {
        let plain = |name: &String| name.trim_start_matches("./").trim_start_matches('.').to_string();
        let mut all: Vec<String> = names.iter().map(plain).collect();
        all.sort();
        all
    };
    assert_eq!(plain(ours), plain(list(vec!["-tf", &theirs])));
}

/// A push, another push that sends nothing, and others who pull and run what is there.
#[test]
fn others_pull_and_run_what_was_pushed() {
    let registry = DockerRegistry::open();
    let world = World::new(modes()[0]);
    world_with(&world);
    let to = format!("oci://{}/team/test:v1", registry.host());
    let store = world.store();
    let push = |flags: &[&str]| {
        let args = ["push", "recipe.toml", &to, "--store", store.to_str().unwrap(), "--progress", "json"];
        let run = world.isolith(&[&args, flags].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        let events: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let count = |kind: &str| events.iter().filter(|e| e["event"] == kind && e["done"] == true).count();
        let exported = events.iter().find(|event| event["event"] == "exported").unwrap();
        (count("packing"), count("uploading"), exported["digest"].as_str().unwrap().to_string())
    };
    let (packed, uploaded, digest) = push(&[]);
    assert_eq!((packed, uploaded), (4, 4));
    assert_eq!(push(&[]), (0, 0, digest.clone()), "the second push has nothing to do");
    // When the packed bytes are gone, nothing needs them as long as the registry has them.
    fs::remove_dir_all(store.join("blobs")).unwrap();
    assert_eq!(push(&[]), (0, 0, digest.clone()));

    let image = format!("docker://{}/team/test:v1", registry.host());
    let seen = json("skopeo", &["inspect", "--tls-verify=false", &image]);
    assert_eq!(seen["Digest"], digest.as_str());
    export(&world, &["oci-layout:lay:v"]);
    let local = format!("oci:{}:v", work(&world, "lay"));
    assert_eq!(json("skopeo", &["inspect", &local])["Digest"], digest.as_str());
    let copied = work(&world, "copied");
    run("skopeo", &["copy", "--src-tls-verify=false", &image, &format!("oci:{copied}:v")]);

    if modes()[0].uid == 0 {
        let (root, runroot) = (work(&world, "bs"), work(&world, "br"));
        let buildah = |args: &[&str]| {
            let own = ["--storage-driver", "vfs", "--root", &root, "--runroot", &runroot];
            run("buildah", &[&own, args].concat())
        };
        buildah(&["from", "--tls-verify=false", "--name", "c", &image]);
        let out = buildah(&[
            "run",
            "--isolation",
            "chroot",
            "c",
            "/bin/sh",
            "-c",
            "cat hello /keep/new; echo $GREETING",
        ]);
        assert_eq!(out, "hellonewhi there\n");
        let docker = format!("docker-archive:{}", work(&world, "d.tar"));
        export(&world, &["docker-archive:d.tar"]);
        buildah(&["from", "--name", "d", &docker]);
        assert_eq!(buildah(&["run", "--isolation", "chroot", "d", "/bin/cat", "/out/hello"]), "hello");
    }
}

/// GNU tar reads the travelling form of a layer, and the table of contents does not get in the way.
#[test]
fn tar_reads_a_travelling_layer() {
    let world = World::new(modes()[0]);
    world_with(&world);
    export(&world, &["oci-layout:lay:v", "--layers", "one"]);
    let blobs = world.path("work").join("lay/blobs/sha256");
    let layer = fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path());
    let layer = layer.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let names = run("tar", &["--zstd", "-tf", layer.to_str().unwrap()]);
    assert!(names.lines().any(|name| name == "out/text") && names.starts_with("./\n"), "{names}");
    let text = run("tar", &["--zstd", "-xOf", layer.to_str().unwrap(), "out/text"]);
    assert_eq!(text.lines().count(), 3000);
}

/// What a recipe says about images is in no key: with another table every step is a hit.
#[test]
fn the_image_table_is_in_no_key() {
    let world = World::new(modes()[0]);
    world_with(&world);
    assert_eq!(world.build().run.code, 0);
    world.recipe(&RECIPE.replace("SIGINT", "SIGTERM"));
    let build = world.build();
    let steps = build.events.iter().filter(|event| event["event"] == "step");
    assert!(steps.clone().count() == 2 && steps.into_iter().all(|event| event["outcome"] == "hit"));
}
