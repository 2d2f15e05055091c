//! What the command does without running anything: starters, settings, mistakes, exit codes.

mod common;

use std::process::Stdio;

use common::{World, modes};

fn world() -> World {
    World::new(modes()[0])
}

#[test]
fn init_writes_a_starter_and_never_overwrites() {
    let world = world();
    let run = world.isolith(&["init"]);
    assert_eq!(run.code, 0, "{run}");
    let written = std::fs::read_to_string(world.path("work/recipe.toml")).unwrap();
    assert!(written.contains("[[step]]"));

    world.write("recipe.toml", "mine");
    let run = world.isolith(&["init"]);
    assert_eq!(run.code, 2, "{run}");
    assert!(run.stderr.contains("exists already") && run.stderr.contains("hint:"), "{run}");
    assert_eq!(std::fs::read_to_string(world.path("work/recipe.toml")).unwrap(), "mine");
    assert_eq!(world.isolith(&["init", "other.toml"]).code, 0);
}

#[test]
fn the_store_is_where_the_strongest_says() {
    let mut world = world();
    let path = |world: &World, args: &[&str]| {
        let run = world.isolith(&[&["store", "path"], args].concat());
        assert_eq!(run.code, 0, "{run}");
        run.stdout.trim_end().to_owned()
    };
    let at = |world: &World, name: &str| world.path(name).to_str().unwrap().to_owned();
    assert_eq!(path(&world, &[]), at(&world, "home/cache/isolith"));
    world.write("isolith.toml", "store = 'here'\n");
    assert_eq!(path(&world, &[]), at(&world, "work/here"));
    world.env.insert("ISOLITH_STORE".into(), at(&world, "env"));
    assert_eq!(path(&world, &[]), at(&world, "env"));
    assert_eq!(path(&world, &["--store", "flag"]), at(&world, "work/flag"));

    world.write("r.toml", "name = \"r\"\n[base]\nscratch = true\n");
    assert_eq!(world.isolith(&["explain", "r.toml"]).code, 0);
    let run = world.isolith(&["store", "info"]);
    assert_eq!(run.code, 0, "{run}");
    assert!(run.stdout.contains("environment variable ISOLITH_STORE"), "{run}");
    let run = world.isolith(&["store", "info", "--json"]);
    let info: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(info["holds"]["layers"], 0, "{run}");
}

#[test]
fn mistakes_have_exit_codes_places_and_hints() {
    let world = world();
    for args in [&["build"][..], &["frobnicate"], &["build", "x.toml", "--jobs", "0"]] {
        assert_eq!(world.isolith(args).code, 2, "{args:?}");
    }

    let run = world.isolith(&["build", "absent.toml"]);
    assert_eq!(run.code, 3, "{run}");
    assert!(run.stderr.starts_with("error: ") && run.stderr.contains("absent.toml"), "{run}");

    world.write("wrong.toml", "name = \"x\"\n[base]\nscratch = true\n[[stpe]]\n");
    let run = world.isolith(&["build", "wrong.toml"]);
    assert_eq!(run.code, 3, "{run}");
    assert!(run.stderr.contains("wrong.toml:4:3"), "no place: {run}");
    assert!(run.stderr.contains("step"), "no nearest word: {run}");
    assert_eq!(run.stdout, "", "{run}");

    world.write("isolith.toml", "stroe = 'x'\n");
    let run = world.isolith(&["store", "path"]);
    assert_eq!(run.code, 2, "{run}");
    assert!(run.stderr.contains("isolith.toml:1:1") && run.stderr.contains("`store`"), "{run}");
}

#[test]
fn a_home_that_cannot_be_read_is_named_and_one_that_is_not_there_is_not_needed() {
    use std::os::unix::fs::PermissionsExt;
    for mode in modes().into_iter().filter(|mode| mode.runs && mode.uid != 0) {
        let mut world = World::new(mode);
        world.recipe("[[step]]\nname = \"s\"\nrun = 'true'\n");
        let locked = world.path("locked");
        std::fs::create_dir(&locked).unwrap();
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).unwrap();
        world.env.insert("HOME".into(), locked.display().to_string());
        let store = world.store();
        let args = ["build", "recipe.toml", "--store", store.to_str().unwrap()];
        let run = world.isolith(&args);
        assert_eq!(run.code, 125, "{run}");
        let path = locked.join(".config/isolith/config.toml");
        assert!(run.stderr.contains(path.to_str().unwrap()) && run.stderr.contains("hint: HOME"), "{run}");

        world.env.insert("HOME".into(), "/nonexistent".into());
        assert_eq!(world.isolith(&args).code, 0);
        let verify = ["verify", "recipe.toml", "--vary", "umask,environment", args[2], args[3]];
        let run = world.isolith(&verify);
        assert_eq!(run.code, 0, "{run}");
    }
}

#[test]
fn a_secret_that_is_not_there_is_a_mistake_of_the_caller() {
    let world = world();
    world.write("r.toml", "name = \"r\"\n[base]\nscratch = true\n[[step]]\nname = \"a\"\nargs = [\"/x\"]\n");
    let run = world.isolith(&["build", "r.toml", "--secret", "NOT_SET"]);
    assert_eq!(run.code, 2, "{run}");
    assert!(run.stderr.contains("NOT_SET") && run.stderr.contains("hint:"), "{run}");
    let run = world.isolith(&["build", "r.toml", "--secret", "T=hunter2"]);
    assert_eq!(run.code, 2, "a value on the command line: {run}");
}

#[test]
fn completions_know_every_subcommand() {
    let world = world();
    for shell in ["bash", "zsh", "fish"] {
        let run = world.isolith(&["completions", shell]);
        assert_eq!(run.code, 0, "{run}");
        for command in ["build", "explain", "log", "shell", "export", "store", "doctor", "init"] {
            assert!(run.stdout.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn a_closed_pipe_ends_the_command_quietly() {
    let world = world();
    let mut command = world.command();
    command.args(["completions", "zsh"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked") && !stderr.contains("error"), "{stderr}");
}

#[test]
fn looking_at_a_store_makes_none() {
    let world = world();
    for args in [["store", "info"], ["store", "fsck"], ["store", "clear"]] {
        let run = world.isolith(&[&args[..], &["--store", "none"]].concat());
        assert_eq!(run.code, 2, "{run}");
        assert!(run.stderr.contains("not an isolith store") && run.stderr.contains("hint:"), "{run}");
        assert!(!world.path("work/none").exists(), "{run}");
    }
}

#[test]
fn targets_that_cannot_be_meant_are_refused_before_anything_is_built() {
    let world = world();
    world.write("r.toml", "name = \"r\"\n[base]\nscratch = true\n");
    for (target, said) in
        [("zip:e.zip", "unknown kind `zip`"), ("tar:no/x.tar", "mkdir -p no"), ("no/x", "mkdir -p no")]
    {
        for args in [&["build", "r.toml", "--output", target][..], &["export", "r.toml", target]] {
            let run = world.isolith(args);
            assert_eq!(run.code, 2, "{run}");
            assert!(run.stderr.contains(said), "{run}");
        }
    }
}

#[test]
fn every_mistake_comes_with_a_way_out() {
    let world = world();
    world.write(
        "r.toml",
        "name = \"r\"\n[base]\nscratch = true\n[sources.s]\npath = \"s\"\nunpack = \"/s\"\n",
    );
    world.write("s/file", "x");
    world.write("plain", "x");
    let fails = |args: &[&str], code: i32, said: &[&str]| {
        let run = world.isolith(args);
        assert_eq!(run.code, code, "{args:?}: {run}");
        assert!(run.stderr.contains("\nhint: "), "{args:?}: {run}");
        assert!(said.iter().all(|part| run.stderr.contains(part)), "{args:?}: {run}");
    };
    fails(&["build", "r.toml:a"], 2, &["isolith build r.toml --until a"]);
    fails(&["build", "r.toml", "--store", "plain"], 125, &["--store"]);
    fails(&["build", "r.toml", "--store", "/proc/x"], 125, &["--store"]);
    fails(&["build", "r.toml", "--secret", "T=file:absent"], 2, &["absent"]);
    fails(&["diff", "s", "nope"], 2, &["`nope` is neither a file, nor a directory, nor a layer"]);
    for side in ["no/x.tar", "no.toml", "no.toml:a", "no.toml#a"] {
        fails(&["diff", "s", side], 2, &["there is no `no"]);
    }
    std::fs::write(world.path("work/s/.isolithignore"), b"\xff\n").unwrap();
    fails(&["build", "r.toml"], 3, &[".isolithignore` is not UTF-8"]);
}
