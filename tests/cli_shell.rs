//! `shell`: a command in a step's sandbox.

mod common;

use std::io::Write;
use std::process::Stdio;

use common::{Run, World, each_mode};

const RECIPE: &str = r#"
[[step]]
name = "first"
run  = "echo one > /one"
[[step]]
name = "second"
run  = "echo two > /two; test ! -e /break"
"#;

fn shell(world: &World, args: &[&str]) -> Run {
    let store = world.store();
    world.isolith(&[&["shell", "--store", store.to_str().unwrap()], args].concat())
}

#[test]
fn before_and_after_a_step() {
    each_mode(|world| {
        world.recipe(RECIPE);
        // What is missing below is built first.
        let run = shell(world, &["recipe.toml", "--", "ls", "-1", "/"]);
        assert_eq!(run.code, 0, "{run}");
        let names: Vec<&str> = run.stdout.lines().collect();
        assert!(names.contains(&"one") && !names.contains(&"two"), "{run}");

        let run = shell(world, &["recipe.toml:second", "--after", "--", "cat", "/two"]);
        assert_eq!(run.code, 2, "it has not run: {run}");
        let store = world.store();
        assert_eq!(world.isolith(&["build", "recipe.toml", "--store", store.to_str().unwrap()]).code, 0);
        let run = shell(world, &["recipe.toml:second", "--after", "--", "cat", "/one", "/two"]);
        assert_eq!((run.code, run.stdout.as_str()), (0, "one\ntwo\n"), "{run}");
        world.assert_clean();
    });
}

#[test]
fn after_a_failure_the_very_state_is_there() {
    each_mode(|world| {
        world.recipe("[[step]]\nname = \"breaks\"\nrun = \"echo half > /half; false\"\n");
        let store = world.store();
        assert_eq!(world.isolith(&["build", "recipe.toml", "--store", store.to_str().unwrap()]).code, 1);
        let run = shell(world, &["recipe.toml:breaks", "--after", "--", "cat", "/half"]);
        assert_eq!((run.code, run.stdout.as_str()), (0, "half\n"), "{run}");
    });
}

#[test]
fn the_status_of_the_command_is_the_exit_code() {
    each_mode(|world| {
        world.recipe(RECIPE);
        for (script, code) in [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", 137)] {
            let run = shell(world, &["recipe.toml", "--", "sh", "-c", script]);
            assert_eq!(run.code, code, "{script}: {run}");
        }
    });
}

#[test]
fn what_is_written_is_thrown_away() {
    each_mode(|world| {
        world.recipe(RECIPE);
        assert_eq!(shell(world, &["recipe.toml", "--", "touch", "/break"]).code, 0);
        let run = shell(world, &["recipe.toml", "--", "test", "-e", "/break"]);
        assert_eq!(run.code, 1, "{run}");
        let store = world.store();
        let run = world.isolith(&["build", "recipe.toml", "--store", store.to_str().unwrap()]);
        assert_eq!(run.code, 0, "the shell reached the build: {run}");
    });
}

#[test]
fn standard_input_is_passed_through() {
    each_mode(|world| {
        world.recipe(RECIPE);
        let store = world.store();
        let mut command = world.command();
        command.args(["shell", "--store", store.to_str().unwrap(), "recipe.toml", "--", "wc", "-c"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&[b'x'; 100_000]).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "100000");
    });
}
