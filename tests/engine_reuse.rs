//! What is run again and what is not: hits, cutoff hits, misses, and what is said of them.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use common::{Build, World, each_mode, modes};

/// A program of two files: compiled with the sources in sight, packed without them.
const PROGRAM: &str = r#"
[sources.src]
path = "src"
unpack = "/src"
exclude = ["*.md"]

[[step]]
name = "compile"
# What a compiler does with comments.
run = "mkdir /obj; for f in a b; do grep -v '^#' /src/$f > /obj/$f; done"

[[step]]
name = "pack"
uses = []
run = "mkdir /out; cat /obj/a /obj/b > /out/program"

[[step]]
name = "check"
uses = []
run = "grep -q one /out/program"

[outputs.default]
from = "/out"
"#;

fn program(world: &World) {
    world.recipe(PROGRAM);
    world.write("src/a", "one\n# comment\n");
    world.write("src/b", "two\n");
}

fn outcomes(build: &Build) -> Vec<(String, String)> {
    let steps = build.finished()["steps"].as_array().unwrap();
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    steps.iter().map(|s| (text(&s["name"]), text(&s["outcome"]))).collect()
}

fn assert_outcomes(build: &Build, expected: [&str; 3]) {
    let found: Vec<_> = outcomes(build).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(found, expected, "{}", build.run);
}

fn stdout(world: &World, args: &[&str]) -> String {
    let run = world.isolith(args);
    assert_eq!(run.code, 0, "{run}");
    run.stdout
}

fn touch(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let file = fs::File::options().read(true).open(entry.path()).unwrap();
        file.set_times(fs::FileTimes::new().set_modified(SystemTime::now())).unwrap();
    }
}

#[test]
fn touched_files_and_another_umask_are_hits() {
    each_mode(|world| {
        program(world);
        assert_outcomes(&world.build().ok(), ["executed"; 3]);
        assert_outcomes(&world.build().ok(), ["hit"; 3]);
        let src = world.path("work/src");
        touch(&src);
        assert_outcomes(&world.build().ok(), ["hit"; 3]);
        // As a checkout under umask 077 would have them.
        for (path, mode) in [(src.join("a"), 0o600), (src.join("b"), 0o640), (src.clone(), 0o700)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        assert_outcomes(&world.build().ok(), ["hit"; 3]);
        // An excluded file is no input.
        world.write("src/README.md", "words");
        assert_outcomes(&world.build().ok(), ["hit"; 3]);
        // The right to execute is one.
        fs::set_permissions(src.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_outcomes(&world.build().ok(), ["executed", "cutoff-hit", "cutoff-hit"]);
    });
}

#[test]
fn a_comment_runs_the_compile_step_and_stops_there() {
    each_mode(|world| {
        program(world);
        let first = world.build().ok();
        world.write("src/a", "one\n# another comment\n");
        let store = world.store();
        let store = store.to_str().unwrap();
        let why = stdout(world, &["explain", "recipe.toml", "--store", store]);
        assert!(why.contains("/src/a has other content"), "{why}");
        assert!(!why.contains("/src/b"), "{why}");
        let second = world.build().ok();
        assert_outcomes(&second, ["executed", "cutoff-hit", "cutoff-hit"]);
        for step in ["compile", "pack", "check"] {
            assert_eq!(first.step(step)["layer"], second.step(step)["layer"]);
        }
        assert_ne!(first.step("compile")["key"], second.step("compile")["key"]);
        assert_eq!(first.step("pack")["key"], second.step("pack")["key"]);
        let started = second.events.iter().find(|e| e["event"] == "started").unwrap();
        assert_eq!(started["why"][0], "source src changed: /src/a has other content");
        // By now all of it is known by its definition.
        assert_outcomes(&world.build().ok(), ["hit"; 3]);
        // A change that shows runs everything above it, and back again nothing.
        world.write("src/a", "one more\n");
        assert_outcomes(&world.build().ok(), ["executed", "executed", "executed"]);
        world.write("src/a", "one\n# comment\n");
        assert_outcomes(&world.build().ok(), ["hit"; 3]);
    });
}

#[test]
fn explain_names_variable_command_and_layer() {
    each_mode(|world| {
        let recipe = |level: &str, word: &str| {
            world.recipe(&format!(
                "[[step]]\nname = \"one\"\nenv = {{ LEVEL = \"{level}\" }}\nrun = \"echo $LEVEL {word} > /a\"\n\
                 [[step]]\nname = \"two\"\nrun = \"cat /a > /b\"\n"
            ));
        };
        let store = world.store();
        let store = store.to_str().unwrap();
        let explain = |step: &str| stdout(world, &["explain", step, "--store", store]);
        recipe("2", "x");
        assert!(explain("recipe.toml").contains("has not been run before"));
        world.build().ok();
        recipe("3", "x");
        let why = explain("recipe.toml:one");
        assert!(why.contains("env LEVEL was `2`, is `3`"), "{why}");
        assert!(!why.contains("command"), "{why}");
        let why = explain("recipe.toml:two");
        assert!(why.contains("what `one` will yield"), "{why}");
        recipe("2", "y");
        let why = explain("recipe.toml:one");
        assert!(
            why.contains("the command changed: `echo $LEVEL x > /a` is now `echo $LEVEL y > /a`"),
            "{why}"
        );
        let built = world.build().ok();
        let started: Vec<_> = built.events.iter().filter(|e| e["event"] == "started").collect();
        assert_eq!(started[1]["why"][0], "the layer of step `one` changed: /a has other content");
    });
}

#[test]
fn switches_of_the_cache() {
    each_mode(|world| {
        program(world);
        world.build().ok();
        let with = |flags: &[&str]| world.build_recipe("recipe.toml", flags).ok();
        assert_outcomes(&with(&["--no-cache"]), ["executed"; 3]);
        assert_outcomes(&with(&["--no-cache-from", "pack"]), ["hit", "executed", "executed"]);
        assert_outcomes(&with(&["--fail-on-miss"]), ["hit"; 3]);
        world.write("src/b", "changed\n");
        let missed = world.build_recipe("recipe.toml", &["--fail-on-miss"]);
        assert_eq!(missed.run.code, 4, "{}", missed.run);
        assert!(missed.run.stderr.contains("step `compile` would have to run"), "{}", missed.run);
        assert!(missed.run.stderr.contains("/src/b has other content"), "{}", missed.run);
        let unknown = world.build_recipe("recipe.toml", &["--no-cache-from", "pakc"]);
        assert_eq!(unknown.run.code, 2, "{}", unknown.run);
        assert!(unknown.run.stderr.contains("`pack`"), "{}", unknown.run);
    });
}

/// What is written out is what the steps of this very build gave, also when they give something else each time.
#[test]
fn without_the_cache_outputs_are_those_of_the_new_run() {
    each_mode(|world| {
        world.recipe(
            r#"
[[step]]
name = "draw"
run = "mkdir /out; cat /proc/sys/kernel/random/uuid > /out/drawn"

[[step]]
name = "copy"
run = "cp /out/drawn /out/copy"

[outputs.default]
from = "/out"
"#,
        );
        let drawn = |flags: &[&str]| {
            let build = world.build_recipe("recipe.toml", flags).ok();
            let read = |name: &str| fs::read_to_string(build.out.join(name)).unwrap();
            assert_eq!(read("drawn"), read("copy"));
            read("drawn")
        };
        let first = drawn(&[]);
        assert_eq!(drawn(&[]), first);
        let second = drawn(&["--no-cache"]);
        assert_ne!(second, first);
        assert_eq!(drawn(&[]), second);
        let third = drawn(&["--no-cache-from", "draw"]);
        assert_ne!(third, second);
        assert_eq!(drawn(&["--no-cache-from", "copy"]), third);
    });
}

#[test]
fn two_users_in_two_places_get_the_same_ids() {
    let mut all = Vec::new();
    for mode in modes().into_iter().filter(|mode| mode.runs) {
        let world = World::new(mode);
        program(&world);
        let build = world.build().ok();
        let mut last = build.finished().clone();
        last["wall_ms"] = 0.into();
        for step in last["steps"].as_array_mut().unwrap() {
            step["wall_ms"] = 0.into();
        }
        let last = serde_json::to_string(&last).unwrap();
        all.push((world.mode.name, last, build.file("program")));
    }
    for (mode, events, file) in &all[1..] {
        assert_eq!((&all[0].1, &all[0].2), (events, file), "{} against {}", all[0].0, mode);
    }
}

#[test]
fn a_lost_or_damaged_layer_is_a_miss() {
    each_mode(|world| {
        program(world);
        let first = world.build().ok();
        let layer = |step: &str| {
            let id = first.step(step)["layer"].as_str().unwrap().to_owned();
            world.store().join("layers").join(&id[..2]).join(id)
        };
        fs::remove_dir_all(layer("pack")).unwrap();
        let again = world.build().ok();
        assert_outcomes(&again, ["hit", "executed", "hit"]);
        assert_eq!(again.file("program"), first.file("program"));
        // A record that was cut short.
        let key = first.step("compile")["key"].as_str().unwrap();
        let record = world.store().join("actions").join(&key[..2]).join(key);
        let bytes = fs::read(&record).unwrap();
        fs::write(&record, &bytes[..bytes.len() / 2]).unwrap();
        for definition in walk(&world.store().join("definitions")) {
            fs::remove_file(definition).unwrap();
        }
        let again = world.build().ok();
        assert_outcomes(&again, ["executed", "cutoff-hit", "cutoff-hit"]);
    });
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let inner = fs::read_dir(dir).unwrap().flatten();
    inner.flat_map(|e| if e.path().is_dir() { walk(&e.path()) } else { vec![e.path()] }).collect()
}

#[test]
fn a_failed_step_is_never_cached_and_can_be_entered() {
    each_mode(|world| {
        world.recipe(
            "[[step]]\nname = \"good\"\nrun = \"echo fine; echo 1 > /a\"\n\
             [[step]]\nname = \"bad\"\nrun = \"echo 2 > /b; seq 100; exit 7\"\n",
        );
        for outcome in ["executed", "hit"] {
            let build = world.build();
            assert_eq!(build.run.code, 1, "{}", build.run);
            assert_eq!(build.finished()["status"], "failed");
            assert_eq!(build.step("good")["outcome"], *outcome);
            assert_eq!(build.step("bad")["outcome"], "failed");
            let err = &build.run.stderr;
            assert!(err.contains("exited with status 7"), "{err}");
            assert!(err.contains("  71\n") && !err.contains("  70\n"), "the last 30 lines: {err}");
            assert!(
                err.contains("isolith shell recipe.toml:bad --store ") && err.contains(" --after"),
                "{err}"
            );
        }
        let store = world.store();
        let store = store.to_str().unwrap();
        let log = stdout(world, &["log", "recipe.toml:bad", "--store", store]);
        assert_eq!(log.lines().count(), 100, "{log}");
        assert_eq!(stdout(world, &["log", "recipe.toml:good", "--store", store]), "fine\n");
        let left = stdout(
            world,
            &["shell", "recipe.toml:bad", "--after", "--store", store, "--", "cat", "/a", "/b"],
        );
        assert_eq!(left, "1\n2\n");
        let before = world.isolith(&["shell", "recipe.toml:bad", "--store", store, "--", "cat", "/b"]);
        assert_eq!(before.code, 1, "{before}");
        // Looking around changes nothing.
        stdout(world, &["shell", "recipe.toml:bad", "--store", store, "--", "touch", "/c"]);
        let none = world.isolith(&["shell", "recipe.toml:bad", "--store", store, "--", "ls", "/c"]);
        assert_eq!(none.code, 1, "{none}");
    });
}
