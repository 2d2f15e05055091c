//! Many processes on one store, and processes that die.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use common::{World, each_mode, modes};

const STEPS: &str = "
[[step]]
name = \"one\"
run = \"date +%s%N > /a; cat /proc/sys/kernel/random/uuid > /b; sleep 0.2\"
[[step]]
name = \"two\"
after = [\"one\"]
run = \"cat /b > /c; sleep 0.1\"
[[step]]
name = \"three\"
after = [\"one\"]
run = \"cat /b > /d; sleep 0.1\"
[[step]]
name = \"four\"
after = [\"two\", \"three\"]
run = \"cmp /c /d; for i in $(seq 50); do cat /b > /f$i; done\"
";

#[test]
fn twenty_processes_run_each_action_once() {
    each_mode(|world| {
        world.recipe(STEPS);
        let store = world.store();
        let args = ["build", "recipe.toml", "--store", store.to_str().unwrap(), "--progress", "json"];
        let running: Vec<_> = (0..20).map(|_| world.spawn(&args)).collect();
        let mut executed: HashMap<String, usize> = HashMap::new();
        let mut stacks = Vec::new();
        let mut waited = 0;
        for mut process in running {
            use std::io::Read;
            let mut text = String::new();
            process.stdout.take().unwrap().read_to_string(&mut text).unwrap();
            assert!(process.wait().unwrap().success(), "{text}");
            let events: Vec<serde_json::Value> =
                text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
            waited += usize::from(events.iter().any(|e| e["event"] == "waiting"));
            let last = events.last().unwrap();
            for step in last["steps"].as_array().unwrap() {
                *executed.entry(step["name"].as_str().unwrap().to_owned()).or_default() +=
                    usize::from(step["outcome"] == "executed");
            }
            stacks.push(last["stack"].clone());
        }
        let once: Vec<_> = ["four", "one", "three", "two"].map(|s| (s.to_owned(), 1)).into();
        let mut executed: Vec<_> = executed.into_iter().collect();
        executed.sort();
        assert_eq!(executed, once, "each action runs exactly once ({})", world.mode.name);
        // The first step's content is random, so all have got it from the one that ran it.
        assert!(stacks.iter().all(|s| *s == stacks[0]), "{stacks:?}");
        assert!(waited > 0, "nobody said that it waited");
    });
}

/// Kills the program at `moments` of a build, each followed by a build that must succeed.
fn kill_at(world: &World, moments: usize) {
    let store = world.store();
    let store = store.to_str().unwrap();
    let mut seed = 0x9e37_79b9_u64;
    for round in 0..moments {
        // Something new each time, so that there is work to be killed in.
        world.recipe(&format!(
            "{STEPS}\n[[step]]\nname = \"five\"\nrun = \"echo {round} > /g; seq 2000 > /h\"\n"
        ));
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let moment = Duration::from_micros(seed % 600_000);
        let mut victim =
            world.spawn(&["build", "recipe.toml", "--store", store, "--no-cache", "--progress", "json"]);
        std::thread::sleep(moment);
        victim.kill().unwrap();
        victim.wait().unwrap();
        if round % 10 == 9 {
            let build = world.isolith(&["build", "recipe.toml", "--store", store, "--progress", "quiet"]);
            assert_eq!(build.code, 0, "killed after {moment:?}: {build}");
            world.assert_clean();
            let check = world.isolith(&["store", "fsck", "--store", store]);
            assert_eq!(check.code, 0, "killed after {moment:?}: {check}");
        } else {
            // What the next process finds is what the killed one left; the build cleans up.
            let build = world.isolith(&["build", "recipe.toml", "--store", store, "--progress", "quiet"]);
            assert_eq!(build.code, 0, "killed after {moment:?}: {build}");
        }
    }
    world.assert_clean();
    let check = world.isolith(&["store", "fsck", "--store", store]);
    assert_eq!(check.code, 0, "{check}");
    assert!(check.stdout.contains("whole") || check.stderr.contains("whole"), "{check}");
}

#[test]
fn killed_at_fifty_moments() {
    let runnable: Vec<_> = modes().into_iter().filter(|mode| mode.runs).collect();
    let each = 50usize.div_ceil(runnable.len());
    for mode in runnable {
        kill_at(&World::new(mode), each);
    }
}

/// A build that was killed when its last step was done has left nothing to build, but its directories.
#[test]
fn a_cached_build_cleans_up_after_a_killed_one() {
    each_mode(|world| {
        for round in 0..15 {
            world.recipe(&format!("[[step]]\nname = \"last\"\nrun = \"echo {round} > /a\"\n"));
            let store = world.store();
            let args = ["build", "recipe.toml", "--store", store.to_str().unwrap(), "--progress", "json"];
            let mut running = world.spawn(&args);
            let mut lines = std::io::BufRead::lines(std::io::BufReader::new(running.stdout.take().unwrap()));
            assert!(lines.any(|line| line.unwrap().contains("\"executed\"")));
            running.kill().unwrap();
            running.wait().unwrap();
            assert_eq!(world.build().ok().step("last")["outcome"], "hit");
            world.assert_clean();
        }
    });
}

#[test]
fn an_interrupted_build_ends_at_once_and_keeps_what_is_done() {
    each_mode(|world| {
        world.recipe(
            "[[step]]\nname = \"done\"\nrun = \"echo 1 > /a\"\n[[step]]\nname = \"long\"\nrun = \"trap '' INT TERM; sleep 60\"\n",
        );
        let store = world.store();
        let args = ["build", "recipe.toml", "--store", store.to_str().unwrap(), "--progress", "json"];
        for outcome in ["executed", "hit"] {
            let mut running = world.spawn(&args);
            let mut lines = std::io::BufRead::lines(std::io::BufReader::new(running.stdout.take().unwrap()));
            let started = |line: &String| line.contains("\"started\"") && line.contains("\"long\"");
            assert!(lines.any(|line| started(&line.unwrap())));
            let pid = nix::unistd::Pid::from_raw(running.id() as i32);
            let began = std::time::Instant::now();
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
            let rest: Vec<String> = lines.map(|l| l.unwrap()).collect();
            let status = running.wait().unwrap();
            assert_eq!(status.code(), Some(130), "{rest:?}");
            assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
            let last: serde_json::Value = serde_json::from_str(rest.last().unwrap()).unwrap();
            assert_eq!(last["status"], "failed");
            assert_eq!(last["steps"][0]["outcome"], *outcome);
            world.assert_clean();
        }
    });
}

#[test]
fn limits_end_a_step_and_say_which() {
    each_mode(|world| {
        for (limit, run, word) in [
            ("time = \"1s\"", "sleep 30", "time"),
            ("disk = \"4MiB\"", "dd if=/dev/zero of=/big bs=1M count=64; sleep 30", "disk"),
        ] {
            world.recipe(&format!("[[step]]\nname = \"s\"\nlimits = {{ {limit} }}\nrun = \"{run}\"\n"));
            let build = world.build();
            assert_eq!(build.run.code, 1, "{}", build.run);
            assert!(build.run.stderr.contains(word), "{}", build.run);
        }
        // Limits are in no key.
        world.recipe("[[step]]\nname = \"s\"\nlimits = { time = \"10s\" }\nrun = \"true\"\n");
        let first = world.build().ok();
        world.recipe("[[step]]\nname = \"s\"\nlimits = { time = \"20s\" }\nrun = \"true\"\n");
        let second = world.build().ok();
        assert_eq!(first.step("s")["key"], second.step("s")["key"]);
        assert_eq!(second.step("s")["outcome"], "hit");
    });
}
