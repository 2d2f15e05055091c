//! The recipes that ship, as a user meets them: built, built again, changed a little.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use common::{Build, Run, World, each_mode};

/// Copies `recipes/` into the world, as a checkout of its user.
fn checkout(world: &World) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    for path in files(&from) {
        if let Ok(text) = fs::read_to_string(&path) {
            world.write(path.strip_prefix(&from).unwrap().to_str().unwrap(), &text);
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("debian/cache") {
            continue; // what fetch.sh got, hundreds of megabytes
        }
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

fn build(world: &World, recipe: &str) -> Build {
    world.build_recipe(recipe, &[]).ok()
}

fn outcomes(build: &Build) -> Vec<String> {
    let steps = build.finished()["steps"].as_array().unwrap();
    steps.iter().map(|step| step["outcome"].as_str().unwrap().to_owned()).collect()
}

fn run(program: &Path, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{} {args:?}: {output:?}", program.display());
    String::from_utf8(output.stdout).unwrap()
}

fn explain(world: &World, target: &str) -> Run {
    let store = world.store();
    world.isolith(&["explain", target, "--store", store.to_str().unwrap()])
}

#[test]
fn hello_is_built_once_and_stops_a_rebuild_that_changes_nothing() {
    each_mode(|world| {
        checkout(world);
        let first = build(world, "hello.toml");
        assert_eq!(outcomes(&first), ["executed"; 3]);
        assert_eq!(run(&first.out.join("bin/hello"), &["reader"]), "Hello, Reader!\n");
        assert_eq!(outcomes(&build(world, "hello.toml")), ["hit"; 3]);

        // Other times and other modes of the checkout are no change.
        for path in files(&world.path("work/hello")) {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(1000)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        assert_eq!(outcomes(&build(world, "hello.toml")), ["hit"; 3]);

        // A comment is one, as far as the object file.
        let greet = world.path("work/hello/greet.c");
        let text = fs::read_to_string(&greet).unwrap();
        fs::write(&greet, text + "\n/* a comment */\n").unwrap();
        let why = explain(world, "hello.toml");
        assert!(why.stdout.contains("miss compile") && why.stdout.contains("greet.c"), "{why}");
        assert!(!why.stdout.contains("main.c"), "{why}");
        assert_eq!(outcomes(&build(world, "hello.toml")), ["executed", "cutoff-hit", "cutoff-hit"]);
        assert_eq!(outcomes(&build(world, "hello.toml")), ["hit"; 3]);

        // And what changes the program changes all of it.
        let text = fs::read_to_string(&greet).unwrap().replace("Hello, %s!", "Hello, %s?");
        fs::write(&greet, text).unwrap();
        let broken = world.build_recipe("hello.toml", &[]);
        assert_eq!(broken.run.code, 1, "its own test has to fail: {}", broken.run);
        assert!(broken.run.stderr.contains("FAILED: a greeting names whom it greets"), "{}", broken.run);
        world.assert_clean();
    });
}

#[test]
fn diamond_runs_both_branches_and_merges_them() {
    each_mode(|world| {
        checkout(world);
        let first = build(world, "diamond.toml");
        assert_eq!(outcomes(&first), ["executed"; 4]);
        let table = first.file("table");
        assert_eq!(table.lines().count(), 1000);
        assert_eq!(table.lines().last(), Some("line 1000\t1000000"));

        let recipe = world.path("work/diamond.toml");
        let text = fs::read_to_string(&recipe).unwrap().replace("s/^/line /", "s/^/row /");
        fs::write(&recipe, text).unwrap();
        let second = build(world, "diamond.toml");
        assert_eq!(outcomes(&second), ["hit", "executed", "hit", "executed"]);
        assert!(second.file("table").starts_with("row 1\t1\n"));
    });
}

#[test]
fn counter_uses_the_output_of_tally() {
    each_mode(|world| {
        checkout(world);
        let first = build(world, "counter.toml");
        assert_eq!(outcomes(&first), ["executed"; 3]);
        assert_eq!(run(&first.out.join("bin/counter"), &["banana", "a"]), "3\n");

        // A comment in the library: it is made again, and nothing that uses it.
        let source = world.path("work/tally/tally.c");
        let text = fs::read_to_string(&source).unwrap();
        fs::write(&source, text + "\n/* a comment */\n").unwrap();
        assert_eq!(outcomes(&build(world, "counter.toml")), ["executed", "cutoff-hit", "cutoff-hit"]);
    });
}

#[test]
fn lua_is_built_from_its_debian_source() {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let archive = recipes.join("lua/lua.tar.gz");
    let fetched = Command::new(recipes.join("fetch-lua.sh")).output().unwrap();
    let why = String::from_utf8_lossy(&fetched.stderr);
    assert!(fetched.status.success(), "cannot fetch the source of Lua through apt: {why}");
    each_mode(|world| {
        checkout(world);
        fs::create_dir_all(world.path("work/lua")).unwrap();
        fs::copy(&archive, world.path("work/lua/lua.tar.gz")).unwrap();
        let first = build(world, "lua.toml");
        assert_eq!(outcomes(&first), ["executed"; 4]);
        let lua = first.out.join("usr/bin/lua");
        assert_eq!(run(&lua, &["-e", "print(('x'):rep(3), 7 // 2)"]), "xxx\t3\n");
        let again = build(world, "lua.toml");
        assert_eq!(outcomes(&again), ["hit"; 4]);
        assert_eq!(again.finished()["stack"], first.finished()["stack"]);
    });
}

#[test]
fn two_checkouts_of_two_users_give_the_same_layers() {
    let seen = std::cell::OnceCell::new();
    each_mode(|world| {
        checkout(world);
        let first = build(world, "hello.toml");
        let mut steps = first.finished()["steps"].clone();
        for step in steps.as_array_mut().unwrap() {
            step.as_object_mut().unwrap().remove("wall_ms");
        }
        let ids = (first.finished()["stack"].clone(), steps);
        assert_eq!(seen.get_or_init(|| ids.clone()), &ids, "{}", world.mode.name);
    });
}

#[test]
fn the_starter_builds_as_it_is() {
    each_mode(|world| {
        assert_eq!(world.isolith(&["init"]).code, 0);
        let first = build(world, "recipe.toml");
        assert_eq!(outcomes(&first), ["executed"; 2]);
        assert_eq!(first.file("greeting"), "Hello, world!\n");
    });
}
