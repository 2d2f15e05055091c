//! Some of `recipes/debian/`, the smallest: C and C++ from Debian's sources on a toolchain of Debian's packages. The
//! layers are the same for every user, and under all variations. `recipes/debian/verify-all` does it for all of them.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::{Build, World, modes};
use serde_json::Value;

/// A Makefile, a Makefile, and a configure script in front of C++; each with the program that it makes.
const PACKAGES: [(&str, &str); 3] =
    [("dos2unix", "usr/bin/dos2unix"), ("tree", "usr/bin/tree"), ("lzip", "usr/bin/lzip")];

/// Copies the recipes and what they need to where every user can read it; none where it cannot be fetched.
fn checkout() -> Option<tempfile::TempDir> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/debian");
    let names = PACKAGES.map(|(name, _)| name);
    let fetched = Command::new(from.join("fetch.sh")).args(names).output().unwrap();
    let said = String::from_utf8_lossy(&fetched.stderr);
    if fetched.status.code() == Some(3) {
        eprintln!(
            "debian_packages: SKIPPED, without Debian's package sources there is nothing to build: {said}"
        );
        return None;
    }
    assert!(fetched.status.success(), "recipes/debian/fetch.sh: {said}");
    // On a disk: the toolchain is large.
    let to = tempfile::Builder::new().prefix("isolith-debian-").tempdir_in("/var/tmp").unwrap();
    fs::create_dir(to.path().join("cache")).unwrap();
    for name in ["toolchain"].into_iter().chain(names) {
        for file in [format!("{name}.toml"), format!("cache/{name}.tar")] {
            fs::copy(from.join(&file), to.path().join(&file)).unwrap();
            fs::set_permissions(to.path().join(&file), PermissionsExt::from_mode(0o644)).unwrap();
        }
    }
    for dir in [to.path().to_owned(), to.path().join("cache")] {
        fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
    }
    Some(to)
}

/// Name, key and layer of every step.
fn steps(build: &Build) -> Vec<[Value; 3]> {
    let steps = build.finished()["steps"].as_array().unwrap();
    steps.iter().map(|step| ["name", "key", "layer"].map(|field| step[field].clone())).collect()
}

#[test]
fn packages_are_the_same_for_every_user_and_under_all_variations() {
    let Some(checkout) = checkout() else { return };
    let recipe = |name: &str| checkout.path().join(format!("{name}.toml")).to_str().unwrap().to_owned();
    let mut first: Vec<Vec<[Value; 3]>> = Vec::new();
    for mode in modes().into_iter().filter(|mode| mode.runs) {
        let world = World::new_in(mode, Path::new("/var/tmp"));
        let mut all = Vec::new();
        for (name, program) in PACKAGES {
            let build = world.build_recipe(&recipe(name), &[]).ok();
            assert!(build.out.join(program).metadata().unwrap().permissions().mode() & 0o111 != 0);
            all.push(steps(&build));
        }
        if first.is_empty() {
            first = all;
            let store = world.store();
            for (name, _) in PACKAGES {
                let flags = ["--rounds", "1", "--json", "--store", store.to_str().unwrap()];
                let run = world.isolith(&[&["verify", &recipe(name)], &flags[..]].concat());
                assert_eq!(run.code, 0, "{run}");
                let found: Value = serde_json::from_str(&run.stdout).unwrap();
                assert_eq!((&found["identical"], &found["stored_reference"]), (&true.into(), &true.into()));
            }
        } else {
            assert_eq!(all, first, "{}", mode.name);
        }
    }
    assert!(!first.is_empty(), "nobody here can run sandboxes");
}
