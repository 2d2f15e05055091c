//! `build`, `export`, `log` and `explain`, as people use them.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

use common::{World, each_mode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const TWO_STEPS: &str = r#"
[args]
WHO = "world"
[[step]]
name = "greet"
env  = { WHO = "${WHO}" }
run  = "mkdir /out && echo hello $WHO > /out/greeting && echo greeted"
[[step]]
name = "count"
run  = "wc -c < /out/greeting > /out/size"
[outputs.default]
from = "/out"
"#;

/// Runs the program on the world's own store.
fn isolith(world: &World, args: &[&str]) -> common::Run {
    let store = world.store();
    world.isolith(&[args, &["--store", store.to_str().unwrap()]].concat())
}

fn last_event(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap_or(Value::Null)
}

fn outcomes(stdout: &str) -> Vec<String> {
    let steps = last_event(stdout)["steps"].as_array().cloned().unwrap_or_default();
    steps.iter().map(|step| step["outcome"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn plain_output_streams_logs_and_ends_with_a_summary() {
    each_mode(|world| {
        world.recipe(TWO_STEPS);
        let run = isolith(world, &["build", "recipe.toml", "--output", "out"]);
        assert_eq!(run.code, 0, "{run}");
        assert_eq!(run.stdout, "", "people's output is not for pipes: {run}");
        assert!(run.stderr.contains("[greet] started"), "{run}");
        assert!(run.stderr.contains("[greet] greeted"), "{run}");
        assert!(run.stderr.contains("exported default to out"), "{run}");
        let last = run.stderr.lines().last().unwrap();
        assert!(last.starts_with("built test in "), "{run}");
        assert!(last.ends_with(": 2 executed, 0 hits, 0 cutoff hits"), "{run}");
        assert_eq!(fs::read_to_string(world.path("work/out/greeting")).unwrap(), "hello world\n");
        assert_eq!(fs::read_to_string(world.path("work/out/size")).unwrap().trim(), "12");

        let run = isolith(world, &["build", "recipe.toml"]);
        assert!(run.stderr.trim_end().ends_with(": 0 executed, 2 hits, 0 cutoff hits"), "{run}");
        assert!(!run.stderr.contains('\x1b'), "colour in a pipe: {run}");
        assert_eq!(isolith(world, &["build", "recipe.toml", "-q"]).stderr, "");
        world.assert_clean();
    });
}

#[test]
fn json_ends_with_finished_even_when_something_is_exported() {
    each_mode(|world| {
        world.recipe(TWO_STEPS);
        let run = isolith(world, &["build", "recipe.toml", "--progress", "json", "--output", "tar:out.tar"]);
        assert_eq!(run.code, 0, "{run}");
        let events: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
        assert_eq!(names.first(), Some(&"planned"), "{run}");
        assert_eq!(&names[names.len() - 2..], ["exported", "finished"], "{run}");
        assert_eq!(events.last().unwrap()["status"], "ok");
        assert_eq!(outcomes(&run.stdout), ["executed", "executed"]);
        assert!(fs::metadata(world.path("work/out.tar")).unwrap().len() > 0);
        assert_eq!(run.stderr, "", "{run}");
    });
}

#[test]
fn arguments_change_what_is_built() {
    each_mode(|world| {
        world.recipe(TWO_STEPS);
        assert_eq!(isolith(world, &["build", "recipe.toml"]).code, 0);
        let run = isolith(world, &["build", "recipe.toml", "--set", "WHO=earth", "--output", "out"]);
        assert_eq!(run.code, 0, "{run}");
        assert_eq!(fs::read_to_string(world.path("work/out/greeting")).unwrap(), "hello earth\n");
        let run = isolith(world, &["build", "recipe.toml", "--set", "WHOM=x"]);
        assert_eq!(run.code, 3, "an argument that is not declared: {run}");
        assert!(run.stderr.contains("WHOM"), "{run}");
    });
}

#[test]
fn explain_names_the_variable() {
    each_mode(|world| {
        world.recipe(TWO_STEPS);
        assert_eq!(isolith(world, &["build", "recipe.toml"]).code, 0);
        let run = isolith(world, &["explain", "recipe.toml"]);
        assert_eq!(run.code, 0, "{run}");
        assert!(run.stdout.contains("hit greet") && run.stdout.contains("hit count"), "{run}");

        let run = isolith(world, &["explain", "recipe.toml:greet", "--set", "WHO=earth"]);
        assert!(run.stdout.contains("miss greet") && run.stdout.contains("WHO"), "{run}");
        assert!(run.stdout.contains("world") && run.stdout.contains("earth"), "{run}");

        let run = isolith(world, &["explain", "recipe.toml", "--set", "WHO=earth", "--json"]);
        let lines: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{run}");
        assert_eq!(
            (lines[0]["verdict"].as_str(), lines[1]["verdict"].as_str()),
            (Some("miss"), Some("unknown"))
        );
    });
}

#[test]
fn a_failed_step_says_where_to_look() {
    each_mode(|world| {
        let script = "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); done; exit 7";
        world.recipe(&format!("[[step]]\nname = \"breaks\"\nrun = {script:?}\n"));
        let run = isolith(world, &["build", "recipe.toml", "--progress", "json"]);
        assert_eq!(run.code, 1, "{run}");
        assert_eq!(last_event(&run.stdout)["status"], "failed");
        assert_eq!(outcomes(&run.stdout), ["failed"]);
        assert!(run.stderr.contains("step `breaks` exited with status 7"), "{run}");
        assert!(!run.stderr.contains("line 9\n") && run.stderr.contains("line 10\n"), "not 30 lines: {run}");
        assert!(run.stderr.contains("line 39\n"), "{run}");
        let open = format!("isolith shell recipe.toml:breaks --store {} --after", world.store().display());
        assert!(run.stderr.contains(&open), "{run}");
        let log = run.stderr.split("whole log: ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        assert!(world.path("work").join(log).is_file(), "no file {log}: {run}");

        let run = isolith(world, &["log", "recipe.toml:breaks"]);
        assert_eq!(run.code, 0, "{run}");
        assert_eq!(run.stdout.lines().count(), 40, "{run}");
        assert!(run.stdout.starts_with("line 0\n"), "{run}");

        // Failures are not cached.
        let run = isolith(world, &["build", "recipe.toml", "--progress", "json"]);
        assert_eq!(outcomes(&run.stdout), ["failed"]);
        world.assert_clean();
    });
}

#[test]
fn cache_policies() {
    each_mode(|world| {
        world.recipe(TWO_STEPS);
        let run = isolith(world, &["build", "recipe.toml", "--fail-on-miss"]);
        assert_eq!(run.code, 4, "{run}");
        assert!(run.stderr.contains("greet"), "the step is not named: {run}");
        let run = isolith(world, &["build", "recipe.toml", "--fail-on-miss", "--set", "WHO=a b"]);
        let hint = format!("isolith explain recipe.toml --set 'WHO=a b' --store {}", world.store().display());
        assert!(run.stderr.contains(&hint), "{run}");
        let json = |flags: &[&str]| {
            let run = isolith(world, &[&["build", "recipe.toml", "--progress", "json"], flags].concat());
            assert_eq!(run.code, 0, "{run}");
            outcomes(&run.stdout)
        };
        assert_eq!(json(&["--until", "greet"]), ["executed"]);
        assert_eq!(json(&[]), ["hit", "executed"]);
        assert_eq!(json(&["--fail-on-miss"]), ["hit", "hit"]);
        assert_eq!(json(&["--no-cache"]), ["executed", "executed"]);
        assert_eq!(json(&["--no-cache-from", "count"]), ["hit", "executed"]);
        let run = isolith(world, &["build", "recipe.toml", "--until", "cuont"]);
        assert_ne!(run.code, 0, "{run}");
        assert!(run.stderr.contains("cuont"), "{run}");
    });
}

#[test]
fn outputs_are_chosen_by_name_or_go_to_directories_of_their_own() {
    each_mode(|world| {
        world.recipe(
            "[[step]]\nname = \"both\"\nrun = \"mkdir /a /b; echo a > /a/x; echo b > /b/x\"\n\
             [outputs.first]\nfrom = \"/a\"\n[outputs.second]\nfrom = \"/b\"\n",
        );
        let run = isolith(world, &["build", "recipe.toml", "--output", "all"]);
        assert_eq!(run.code, 0, "{run}");
        let read = |path: &str| fs::read_to_string(world.path("work").join(path)).unwrap_or_default();
        assert_eq!((read("all/first/x"), read("all/second/x")), ("a\n".into(), "b\n".into()));
        let run = isolith(world, &["export", "recipe.toml", "dir:one", "--name", "second"]);
        assert_eq!(run.code, 0, "{run}");
        assert_eq!(read("one/x"), "b\n");
        let run = isolith(world, &["export", "recipe.toml", "tar:x.tar"]);
        assert_eq!(run.code, 2, "which one? {run}");
        assert!(run.stderr.contains("`first`, `second`"), "{run}");
        let run = isolith(world, &["export", "recipe.toml", "dir:no", "--name", "third"]);
        assert_eq!(run.code, 2, "{run}");

        world.write("isolith.toml", "output-dir = \"results\"\n");
        let run = isolith(world, &["build", "recipe.toml"]);
        assert_eq!(run.code, 0, "{run}");
        assert_eq!(read("results/test/first/x"), "a\n", "{run}");
    });
}

#[test]
fn a_secret_is_seen_by_the_step_and_kept_nowhere() {
    each_mode(|world| {
        world.recipe(
            "[[step]]\nname = \"use\"\nrun = \"md5sum < /run/secrets/token\"\n\
             mounts = [{ secret = \"TOKEN\", at = \"/run/secrets/token\" }]\n",
        );
        world.write("token.txt", "a very secret word");
        let flags = ["build", "recipe.toml", "--secret", "TOKEN=file:token.txt"];
        let run = isolith(world, &flags);
        assert_eq!(run.code, 0, "{run}");
        // printf 'a very secret word' | md5sum
        assert!(run.stderr.contains("[use] 4901f221f901096b77c94879c1eb1c9f"), "{run}");
        assert!(!contains_anywhere(&world.store(), b"a very secret word"), "the store knows the secret");
        let run = isolith(world, &["build", "recipe.toml", "--no-cache"]);
        assert_ne!(run.code, 0, "built without its secret: {run}");
        assert!(run.stderr.contains("TOKEN"), "{run}");
    });
}

fn contains_anywhere(dir: &Path, what: &[u8]) -> bool {
    fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        let file_type = entry.file_type().unwrap();
        if file_type.is_dir() {
            contains_anywhere(&path, what)
        } else {
            file_type.is_file()
                && fs::read(&path).is_ok_and(|bytes| bytes.windows(what.len()).any(|part| part == what))
        }
    })
}

#[test]
fn ctrl_c_stops_the_sandboxes_and_keeps_what_is_finished() {
    each_mode(|world| {
        world.recipe(
            "[[step]]\nname = \"quick\"\nrun = \"echo x > /x\"\n\
             [[step]]\nname = \"slow\"\nrun = \"echo sleeping; sleep 1000\"\n",
        );
        let store = world.store();
        let store = store.to_str().unwrap();
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let mut child = world.spawn(&["build", "recipe.toml", "--progress", "json", "--store", store]);
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let asleep = lines.by_ref().map_while(Result::ok).any(|line| line.contains("\"sleeping\""));
            assert!(asleep, "the slow step never ran");
            kill_process(Pid::from_child(&child), signal).unwrap();
            let last = lines.map_while(Result::ok).last().unwrap_or_default();
            assert_eq!(child.wait().unwrap().code(), Some(130), "{signal:?}");
            assert_eq!(last_event(&last)["status"], "failed", "{last}");
            world.assert_clean();
        }
        let run = isolith(world, &["build", "recipe.toml", "--until", "quick", "--progress", "json"]);
        assert_eq!(outcomes(&run.stdout), ["hit"], "{run}");
        let run = isolith(world, &["store", "fsck"]);
        assert_eq!((run.code, run.stdout.as_str()), (0, "the store is whole\n"), "{run}");
    });
}

#[test]
fn ctrl_c_while_a_huge_file_is_hashed_ends_soon() {
    each_mode(|world| {
        // Hashing all of it would take minutes.
        world.recipe("[[step]]\nname = \"big\"\nrun = \"truncate -s 2000G /big; echo made\"\n");
        let store = world.store();
        let mut child =
            world.spawn(&["build", "recipe.toml", "--progress", "json", "--store", store.to_str().unwrap()]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains("\"made\"")));
        // Until nothing runs in the sandbox any more.
        std::thread::sleep(std::time::Duration::from_millis(500));
        let began = std::time::Instant::now();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        assert!(lines.map_while(Result::ok).last().unwrap_or_default().contains("finished"));
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
        world.assert_clean();
    });
}

#[test]
fn a_reader_that_goes_away_stops_the_build() {
    each_mode(|world| {
        world.recipe("[[step]]\nname = \"talks\"\nrun = \"while true; do echo x; sleep 0.01; done\"\n");
        let store = world.store();
        let flags = ["build", "recipe.toml", "--progress", "json", "--store", store.to_str().unwrap()];
        let mut child = world.spawn(&flags);
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(130));
        world.assert_clean();
    });
}

#[test]
fn the_store_is_removed_without_root() {
    each_mode(|world| {
        world.recipe(
            "[[step]]\nname = \"owned\"\nrun = \"mkdir -m 700 /x; chown 1000:1000 /x; touch /x/y\"\n",
        );
        assert_eq!(isolith(world, &["build", "recipe.toml"]).code, 0);
        let run = isolith(world, &["store", "info", "--json"]);
        let info: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(info["holds"]["actions"], 1, "{run}");
        assert_eq!(info["holds"]["unreadable"], 0, "{run}");
        let run = isolith(world, &["store", "clear"]);
        assert_eq!(run.code, 0, "{run}");
        assert!(!world.store().exists(), "{run}");
        let run = isolith(world, &["store", "clear"]);
        assert_eq!(run.code, 2, "not a store: {run}");
    });
}
