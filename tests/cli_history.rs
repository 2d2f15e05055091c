//! `history`, `tag`, `untag`, earlier builds wherever a recipe can be named, and `store gc`.

mod common;

use common::{Run, World, each_mode};

const RECIPE: &str = r#"
[args]
WORD = "one"
[sources.src]
path = "src"
unpack = "/src"
[[step]]
name = "first"
run  = "cp /src/file /first"
[[step]]
name = "second"
run  = "mkdir /out; cat /first > /out/second; echo ${WORD} >> /out/second"
[outputs.default]
from = "/out"
"#;

fn isolith(world: &World, args: &[&str]) -> Run {
    let store = world.store();
    world.isolith(&[&["--store", store.to_str().unwrap()], args].concat())
}

fn ok(world: &World, args: &[&str]) -> String {
    let run = isolith(world, args);
    assert_eq!(run.code, 0, "{args:?} ({}): {run}", world.mode.name);
    run.stdout
}

fn fails(world: &World, code: i32, args: &[&str], with: &str) {
    let run = isolith(world, args);
    assert!(run.code == code && run.stderr.contains(with), "{args:?} ({}): {run}", world.mode.name);
}

/// Each build of the recipe as JSON, newest first.
fn history(world: &World) -> Vec<serde_json::Value> {
    let lines = ok(world, &["history", "recipe.toml", "--json"]);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(world: &World) -> Vec<u64> {
    history(world).iter().map(|build| build["number"].as_u64().unwrap()).collect()
}

fn changed(build: &serde_json::Value) -> Vec<&str> {
    build["changed"].as_array().unwrap().iter().map(|change| change.as_str().unwrap()).collect()
}

/// Three builds: `a`, `b` in the file of the source, then another step.
fn three(world: &World) {
    world.recipe(RECIPE);
    for text in ["a", "b"] {
        world.write("src/file", text);
        ok(world, &["build", "recipe.toml"]);
    }
    world.recipe(&RECIPE.replace("cat /first", "cat /first /first"));
    ok(world, &["build", "recipe.toml"]);
}

#[test]
fn builds_are_listed_named_compared_and_made_again() {
    each_mode(|world| {
        world.recipe(RECIPE);
        world.write("src/file", "a");
        fails(world, 2, &["history", "recipe.toml"], "nothing is known of a build of `recipe.toml`");
        three(world);
        // One that hits is no other build.
        ok(world, &["build", "recipe.toml"]);
        let builds = history(world);
        assert_eq!(numbers(world), [3, 2, 1]);
        assert_eq!(changed(&builds[0]), ["step second", "output default"]);
        assert_eq!(changed(&builds[1]), ["source src", "step first", "step second", "output default"]);
        assert!(builds[0]["steps"]["first"] == builds[1]["steps"]["first"] && builds[0]["missing"] == 0);
        let text = ok(world, &["history", "recipe.toml"]);
        assert!(text.starts_with("@3 20") && text.contains("changed: step second, output default"), "{text}");

        // Back to the second: it has its number again, and is the newest.
        world.recipe(RECIPE);
        ok(world, &["build", "recipe.toml"]);
        assert_eq!(numbers(world), [2, 3, 1]);

        let differs = isolith(world, &["diff", "recipe.toml@1", "recipe.toml@2"]);
        assert!(differs.code == 4 && differs.stdout.contains("/second"), "{differs}");
        assert_eq!(isolith(world, &["diff", "recipe.toml@2", "recipe.toml"]).code, 0);
        let step = isolith(world, &["diff", "recipe.toml@1:first", "recipe.toml@3:first"]);
        assert!(step.code == 4 && step.stdout.contains("/first"), "{step}");
        fails(
            world,
            2,
            &["diff", "recipe.toml@1:none", "recipe.toml"],
            "step `first`, step `second`, output `default`",
        );

        // As they were, while the files are others now.
        world.write("src/file", "c");
        world.recipe("[[step]]\nname = \"other\"\nrun = \"true\"\n");
        for (build, text) in [("recipe.toml@1", "aone\n"), ("recipe.toml@3", "bbone\n")] {
            assert_eq!(ok(world, &["run", build, "--fail-on-miss", "--", "cat", "/out/second"]), text);
            ok(world, &["build", build, "--no-cache", "--output", "out"]);
            assert_eq!(std::fs::read_to_string(world.path("work/out/second")).unwrap(), text);
        }
        // To build an earlier one is no new build, and does not touch the recipe.
        assert_eq!(numbers(world).len(), 3);
        ok(world, &["export", "recipe.toml@1", "tar:old.tar"]);
        fails(world, 2, &["build", "recipe.toml@9"], "those that are: ");
        fails(world, 2, &["build", "recipe.toml@1", "--set", "WORD=x"], "has the arguments that it had");
        fails(world, 2, &["verify", "recipe.toml@1"], "only a recipe as it is now can be verified");
        world.assert_clean();
    });
}

#[test]
fn tags_name_builds_and_outlive_the_recipe() {
    each_mode(|world| {
        three(world);
        ok(world, &["tag", "recipe.toml@1", "v1"]);
        ok(world, &["tag", "recipe.toml", "latest-one"]);
        let tags = ok(world, &["tag"]);
        assert!(
            tags.contains("@v1 recipe.toml@1 20") && tags.contains("@latest-one recipe.toml@3 "),
            "{tags}"
        );
        assert_eq!(history(world)[2]["tags"][0], "v1");
        let moved = isolith(world, &["tag", "recipe.toml@2", "v1"]);
        assert!(
            moved.stderr.contains("@v1 is build 2") && moved.stderr.contains("it was build 1"),
            "{moved}"
        );
        ok(world, &["tag", "@v1", "copy"]);
        std::fs::remove_file(world.path("work/recipe.toml")).unwrap();
        std::fs::remove_dir_all(world.path("work/src")).unwrap();
        assert_eq!(ok(world, &["run", "@v1", "--", "cat", "/out/second"]), "bone\n");
        assert_eq!(isolith(world, &["diff", "@v1", "@copy"]).code, 0);
        ok(world, &["untag", "copy", "@v1"]);
        fails(world, 2, &["run", "@v1"], "the tags are latest-one");
        fails(world, 2, &["untag", "latest-one", "none"], "no build has the tag `none`");
        assert!(ok(world, &["tag"]).contains("latest-one"), "all or none");
        for name in ["7", "../x", "a/b", "a b", "-x", ".x", "", "a@b", "é", "a\u{1b}[31m"] {
            fails(world, 2, &["tag", "recipe.toml@1", "--", name], "expected letters, digits");
        }
        // Several at once: the last one counts, and none is lost.
        std::thread::scope(|scope| {
            for n in 0..6 {
                scope.spawn(move || ok(world, &["tag", "recipe.toml@1", &format!("t{n}")]));
            }
        });
        assert_eq!(ok(world, &["tag"]).lines().count(), 7);
    });
}

#[test]
fn what_is_collected_is_what_no_build_and_no_tag_needs() {
    each_mode(|world| {
        three(world);
        let none = ok(world, &["store", "gc"]);
        assert_eq!(none, "nothing to remove\n", "every build is remembered");
        ok(world, &["tag", "recipe.toml@1", "v1"]);
        let gone = ok(world, &["store", "gc", "--keep", "1", "--json"]);
        let gone: serde_json::Value = serde_json::from_str(&gone).unwrap();
        // Of the second build its last step alone: the third one has the first step and the source too.
        assert_eq!((&gone["builds"], &gone["results"]), (&2.into(), &1.into()), "{gone}");
        assert!(gone["bytes"].as_u64().unwrap() > 0, "{gone}");
        ok(world, &["run", "@v1", "--fail-on-miss", "--", "true"]);
        ok(world, &["build", "recipe.toml", "--fail-on-miss"]);
        fails(world, 2, &["run", "recipe.toml@2"], "those that are: 3");
        assert_eq!(ok(world, &["store", "fsck"]), "the store is whole\n");
        // What was removed can be built again.
        world.recipe(RECIPE);
        ok(world, &["build", "recipe.toml"]);
        assert_eq!(numbers(world), [4, 3], "a number is given once");
        ok(world, &["store", "gc", "--unused-for", "1h"]);
        ok(world, &["untag", "v1"]);
        std::thread::sleep(std::time::Duration::from_millis(1100));
        ok(world, &["store", "gc", "--unused-for", "1s"]);
        let info = ok(world, &["store", "info", "--json"]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        assert_eq!((&info["holds"]["layers"], &info["holds"]["recipes"]), (&0.into(), &0.into()), "{info}");
        assert_eq!(ok(world, &["store", "fsck"]), "the store is whole\n");
        let texts = std::fs::read_dir(world.store().join("notes/text")).unwrap().count();
        assert_eq!(texts, 0, "texts of builds that are forgotten");
        ok(world, &["build", "recipe.toml"]);
        assert_eq!(numbers(world), [5], "a number is given once");

        // A tag that cannot be read may have kept anything.
        ok(world, &["tag", "recipe.toml", "v2"]);
        let tags = world.store().join("tags");
        let tag = std::fs::read_dir(&tags).unwrap().next().unwrap().unwrap().path();
        std::fs::write(&tag, "junk").unwrap();
        fails(world, 125, &["store", "gc"], "is damaged");
        let run = isolith(world, &["store", "fsck"]);
        assert!(run.code == 125 && run.stdout.contains("tags/"), "{run}");
        assert_eq!(ok(world, &["store", "gc"]), "nothing to remove\n");

        // Not while somebody builds.
        let store = world.store();
        let mut running = world.spawn(&[
            "run",
            "--store",
            store.to_str().unwrap(),
            "recipe.toml",
            "--",
            "sh",
            "-c",
            "echo up; sleep 100",
        ]);
        let mut line = String::new();
        use std::io::BufRead;
        std::io::BufReader::new(running.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        fails(world, 125, &["store", "gc"], "is used by process");
        let pid = running.id().to_string();
        assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
        running.wait_with_output().unwrap();
        world.assert_clean();
    });
}

fn swept(world: &World, args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&ok(world, &[&["store", "gc", "--json"], args].concat())).unwrap()
}

#[test]
fn what_is_kept_is_for_the_settings_to_say() {
    each_mode(|world| {
        three(world);
        let store = world.store();
        let config = |text: &str| world.write("isolith.toml", &format!("store = {store:?}\n[gc]\n{text}"));
        let gc = |args: &[&str]| {
            let run = world.isolith(&[&["store", "gc", "--json"], args].concat());
            assert_eq!(run.code, 0, "{run}");
            serde_json::from_str::<serde_json::Value>(&run.stdout).unwrap()
        };
        // To look first changes nothing, beside a running one too.
        config("keep = 2\n");
        let script = "echo up; sleep 100";
        let mut running = world.spawn(&["run", "recipe.toml", "--", "sh", "-c", script]);
        let mut line = String::new();
        use std::io::BufRead;
        std::io::BufReader::new(running.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let would = gc(&["--dry-run"]);
        assert_eq!(
            (&would["builds"], &would["layers"], &would["results"]),
            (&1.into(), &4.into(), &2.into()),
            "{would}"
        );
        assert_eq!(numbers(world), [3, 2, 1]);
        drop(running);
        let text = world.isolith(&["store", "gc", "--dry-run"]).stdout;
        assert!(text.starts_with("would remove 1 build, 4 layers, 2 results: "), "{text}");
        // Then what was said is what is done; and flags are stronger.
        assert_eq!(gc(&["--keep", "3"])["builds"], 0);
        assert_eq!(gc(&[]), would);
        assert_eq!(numbers(world), [3, 2]);
        // By size: the oldest goes first, then the rest; what is tagged stays, and that is told.
        ok(world, &["tag", "recipe.toml@2", "kept"]);
        config("max-size = \"1KiB\"\n");
        let run = world.isolith(&["store", "gc"]);
        assert!(run.code == 0 && run.stderr.contains("is its limit"), "{run}");
        fails(world, 2, &["history", "recipe.toml"], "nothing is known of a build");
        assert_eq!(ok(world, &["run", "@kept", "--fail-on-miss", "--", "cat", "/out/second"]), "bone\n");
        assert_eq!(ok(world, &["store", "fsck"]), "the store is whole\n");
        // By age, of each build by itself.
        ok(world, &["untag", "kept"]);
        ok(world, &["build", "recipe.toml", "--set", "WORD=x"]);
        std::thread::sleep(std::time::Duration::from_millis(3100));
        ok(world, &["build", "recipe.toml", "--set", "WORD=y"]);
        config("unused-for = \"3s\"\nmax-size = \"none\"\n");
        assert_eq!(gc(&[])["builds"], 1);
        // What a repository says of a store that is not its own does not count.
        config("max-size = \"1KiB\"\n");
        assert_eq!(swept(world, &[])["builds"], 0);
        for (wrong, with) in [
            ("keep = 0", "whole number of at least 1"),
            ("keeps = 1", "did you mean `keep`"),
            ("unused-for = \"a month\"", "expected a time"),
            ("max-size = \"0%\"", "expected a size such as"),
            ("max-size = 5", "expected a string"),
        ] {
            config(wrong);
            let run = world.isolith(&["store", "gc"]);
            assert!(
                run.code == 2 && run.stderr.contains(with) && run.stderr.contains("isolith.toml:3"),
                "{wrong}: {run}"
            );
        }
        world.assert_clean();
    });
}

/// Processes that build, tag and collect, all at once: nothing that somebody has is lost, and who is refused is told
/// why.
#[test]
fn builds_tags_and_collections_at_the_same_time() {
    const ROUNDS: usize = 8;
    each_mode(|world| {
        world.write("src/file", "a");
        world.recipe(RECIPE);
        ok(world, &["build", "recipe.toml"]);
        ok(world, &["tag", "recipe.toml", "first"]);
        let collected = std::thread::scope(|scope| {
            for builder in ["p", "q"] {
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let word = format!("WORD={builder}{round}");
                        ok(world, &["build", "recipe.toml", "--set", &word]);
                        // What was just built may have been forgotten, but not taken from under a run.
                        let ran =
                            ok(world, &["run", "recipe.toml", "--set", &word, "--", "cat", "/out/second"]);
                        assert_eq!(ran, format!("a{builder}{round}\n"));
                    }
                });
            }
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    ok(world, &["tag", "recipe.toml", &format!("t{round}")]);
                }
            });
            let collector = scope.spawn(move || {
                let mut done = 0;
                for _ in 0..4 * ROUNDS {
                    let run = isolith(world, &["store", "gc", "--keep", "1"]);
                    assert!(run.code == 0 || run.stderr.contains("is used by "), "{run}");
                    done += usize::from(run.code == 0);
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                done
            });
            collector.join().unwrap()
        });
        let last = swept(world, &["--keep", "1"]);
        assert!(collected > 0 || last["builds"].as_u64().unwrap() > 0, "{last}");
        assert_eq!(ok(world, &["store", "fsck"]), "the store is whole\n");
        assert_eq!(ok(world, &["tag"]).lines().count(), 1 + ROUNDS);
        assert_eq!(ok(world, &["run", "@first", "--fail-on-miss", "--", "cat", "/out/second"]), "aone\n");
        for round in 0..ROUNDS {
            ok(world, &["run", &format!("@t{round}"), "--fail-on-miss", "--", "true"]);
        }
        // A build whose layers are gone cannot be tagged: there would be nothing to keep.
        let newest = history(world).swap_remove(0);
        let layer = newest["outputs"]["default"].as_str().unwrap().to_string();
        std::fs::rename(world.store().join("layers").join(&layer[..2]).join(&layer), world.path("gone"))
            .unwrap();
        fails(world, 2, &["tag", "recipe.toml", "late"], "is gone from the store");
        fails(world, 2, &["run", "@late"], "no build has the tag `late`");
        world.assert_clean();
    });
}

#[test]
fn an_earlier_build_is_the_same_or_refused() {
    each_mode(|world| {
        three(world);
        // A text that is lost.
        let texts = world.store().join("notes/text");
        let notes: Vec<_> = std::fs::read_dir(&texts).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(notes.len(), 2, "a text is kept once");
        for note in &notes {
            std::fs::write(note, "junk").unwrap();
        }
        fails(world, 2, &["build", "recipe.toml@1"], "is lost");
        // The recipe as it is now does not need it, and brings it back.
        ok(world, &["build", "recipe.toml", "--fail-on-miss"]);
        ok(world, &["build", "recipe.toml@3", "--fail-on-miss"]);
        fails(world, 2, &["build", "recipe.toml@1"], "is lost");
        world.recipe(RECIPE);
        world.write("src/file", "z");
        ok(world, &["build", "recipe.toml"]);
        assert_eq!(ok(world, &["run", "recipe.toml@1", "--", "cat", "/out/second"]), "aone\n");
        // Its source, which nobody can fetch, is gone.
        let one = history(world).into_iter().find(|build| build["number"] == 1).unwrap();
        let source = one["stack"][0].as_str().unwrap().to_string();
        let dir = world.store().join("layers").join(&source[..2]).join(&source);
        assert!(dir.is_dir(), "{one}");
        std::fs::rename(&dir, world.path("gone")).unwrap();
        fails(
            world,
            2,
            &["build", "recipe.toml@1", "--no-cache"],
            "as it was for that build is gone from the store",
        );
        world.assert_clean();
    });
}

/// What nothing pins has to be as it was; what is pinned has to be got by somebody.
#[test]
fn inputs_of_an_earlier_build_that_changed_or_vanished_are_named() {
    each_mode(|world| {
        let work = world.path("work");
        let far = world.write("far.txt", "far\n");
        let pack = |word: &str| {
            world.write("word", word);
            let mut tar = std::process::Command::new("tar");
            tar.arg("-cf").arg(work.join("base.tar")).args(["--sort=name", "--mtime=@1", "-C"]);
            tar.arg(common::base()).arg(".").arg("-C").arg(&work).arg("word");
            assert!(tar.status().unwrap().success());
        };
        pack("old\n");
        world.write(
            "recipe.toml",
            &format!(
                "name = \"test\"\n[base]\ntar = {{ path = \"base.tar\" }}\n\
                 [sources.far]\nurl = \"file://{}\"\nfile = \"/far\"\n\
                 [[step]]\nname = \"join\"\nrun = \"mkdir /out; cat /word /far > /out/both\"\n\
                 [outputs.default]\nfrom = \"/out\"\n",
                far.display()
            ),
        );
        ok(world, &["build", "recipe.toml"]);
        let shown = || {
            ok(world, &["build", "recipe.toml@1", "--no-cache", "--output", "out"]);
            std::fs::read_to_string(work.join("out/both")).unwrap()
        };
        assert_eq!(shown(), "old\nfar\n");
        // Another archive in its place: never that one under the number of the other.
        pack("new\n");
        ok(world, &["build", "recipe.toml"]);
        for args in [&["build", "recipe.toml@1"][..], &["run", "recipe.toml@1", "--", "true"]] {
            fails(world, 2, args, "step `join` of build 1");
            fails(world, 2, args, "a base of this machine");
        }
        // To look at what both left needs none of it.
        let differs = isolith(world, &["diff", "recipe.toml@1", "recipe.toml@2"]);
        assert!(differs.code == 4 && differs.stdout.contains("both"), "{differs}");
        pack("old\n");
        assert_eq!(shown(), "old\nfar\n");
        // The file of a source is another one, then it is gone: the store has the bytes that were pinned.
        std::fs::write(&far, "near\n").unwrap();
        assert_eq!(shown(), "old\nfar\n");
        std::fs::remove_file(&far).unwrap();
        assert_eq!(shown(), "old\nfar\n");
        // Until those are gone too, with the layers.
        ok(world, &["store", "gc", "--fetched"]);
        let one = history(world).into_iter().find(|build| build["number"] == 1).unwrap();
        for id in one["stack"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()) {
            let layer = world.store().join("layers").join(&id[..2]).join(id);
            std::fs::rename(&layer, world.path(&format!("gone-{id}"))).unwrap();
        }
        fails(world, 125, &["build", "recipe.toml@1", "--no-cache"], "far.txt: No such file");
        world.write("far.txt", "near\n");
        fails(world, 3, &["build", "recipe.toml@1", "--no-cache"], "far.txt");
        world.write("far.txt", "far\n");
        assert_eq!(shown(), "old\nfar\n");
        world.assert_clean();
    });
}
