//! `recipes/defects/`: each has one planted defect. `verify` finds it and names the variation that shows it and the
//! likely cause; or the sandbox has removed it; or it is one of those that `docs/reproducibility.md` says are not found.

mod common;

use std::fs;
use std::path::Path;

use common::{World, modes};
use serde_json::Value;

/// Verifies a recipe with all variations and the search for the smallest set.
fn verify(name: &str, code: i32) -> Value {
    let world =
        World::new(modes().into_iter().find(|mode| mode.runs).expect("nobody here can run sandboxes"));
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/defects");
    for file in [&format!("{name}.toml"), "readable/text"] {
        world.write(file, &fs::read_to_string(recipes.join(file)).unwrap());
    }
    let store = world.store();
    let recipe = format!("{name}.toml");
    let run = world.isolith(&["verify", &recipe, "--json", "--bisect", "--store", store.to_str().unwrap()]);
    assert_eq!(run.code, code, "{name}: {run}");
    serde_json::from_str(&run.stdout).unwrap_or_else(|why| panic!("{why}: {run}"))
}

/// It is found, needs no more than these variations to show, and this is its likely cause.
fn found(name: &str, variations: &[&str], cause: &str, path: &str) {
    let found = verify(name, 4);
    let [smallest] = &found["bisect"].as_array().unwrap()[..] else { panic!("not one set: {found:#}") };
    let smallest: Vec<&str> =
        smallest["variations"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(smallest, variations, "{found:#}");
    let paths = found["steps"][0]["paths"].as_array().unwrap();
    let [differing] = &paths[..] else { panic!("not one path: {paths:#?}") };
    assert_eq!(differing["path"], path);
    assert_eq!(differing["causes"][0]["cause"], cause, "{differing:#}");
    assert!(!differing["causes"][0]["fix"].as_str().unwrap().is_empty());
}

/// It is the same in all rounds although this was varied, where it can be.
fn removed(name: &str, variations: &[&str]) {
    let found = verify(name, 0);
    assert_eq!(found["identical"], true);
    for choice in found["variations"].as_array().unwrap() {
        if variations.contains(&choice["name"].as_str().unwrap()) {
            assert!(choice["applied"] == true || !choice["why_not"].as_str().unwrap().is_empty(), "{choice}");
        }
    }
}

macro_rules! defects {
    ($($test:ident: $check:ident($($argument:expr),+);)+) => {
        $(#[test] fn $test() { $check($($argument),+) })+
    };
}

const NONE: &[&str] = &[];

defects! {
    date: found("date", &["clock"], "timestamp", "/out/program");
    random: found("random", NONE, "random number", "/out/session");
    readdir: found("readdir", &["dir-order"], "directory order", "/out/tree.tar");
    inode: found("inode", NONE, "inode number or disk layout", "/out/index");
    race: found("race", NONE, "parallel race", "/out/index");
    hash: found("hash", NONE, "hash seed", "/out/table");
    gzip: found("gzip", NONE, "gzip header time", "/out/file.gz");
    aslr: found("aslr", &["aslr"], "memory address (ASLR)", "/out/report");
    tmpname: found("tmpname", NONE, "temporary name", "/out/object.o");

    dirsize: found("dirsize", &["file-system"], "inode number or disk layout", "/out/list");

    umask: removed("umask", &["umask"]);
    locale: removed("locale", &["environment"]);
    hostname: removed("hostname", &["host-name"]);
    uid: removed("uid", &["user", "ids"]);

    clock_static: removed("clock-static", &["clock"]);
    cpu_model: removed("cpu-model", NONE);
}

#[test]
fn nproc() {
    if std::thread::available_parallelism().unwrap().get() > 1 {
        found("nproc", &["cpus"], "cpu count", "/out/report");
    } else {
        eprintln!("nproc: this machine has one cpu, so the variation does not apply");
    }
}

#[test]
fn pythonhashseed() {
    if Path::new("/usr/bin/python3").exists() {
        found("pythonhashseed", NONE, "hash seed", "/out/table");
    } else {
        eprintln!("pythonhashseed: no /usr/bin/python3; install the Debian package `python3-minimal`");
    }
}

#[test]
fn every_recipe_is_tried() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/defects");
    let text = fs::read_to_string(file!()).unwrap();
    let page = fs::read_to_string("docs/reproducibility.md").unwrap();
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(name) = name.strip_suffix(".toml") {
            assert!(text.contains(&format!("(\"{name}\", ")), "{name} is not tried");
            assert!(page.contains(&format!("| `{name}` |")), "{name} is not in docs/reproducibility.md");
            count += 1;
        }
    }
    assert!(count >= 15, "{count}");
}
