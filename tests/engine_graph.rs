//! Steps as a graph: branches that run at once, merges, other recipes, outputs, long stacks.

mod common;

use std::fs;

use common::{Build, World, each_mode};

fn outcome<'a>(build: &'a Build, step: &str) -> &'a str {
    build.step(step)["outcome"].as_str().unwrap()
}

#[test]
fn branches_run_at_once_and_a_merge_sees_both() {
    each_mode(|world| {
        // Each branch ends only when it has seen that the other one has begun.
        let branch = |own: &str, other: &str| {
            format!(
                "[[step]]\nname = \"{own}\"\nafter = [\"base\"]\nmounts = [{{ cache = \"/meet\", id = \"meet\" }}]\n\
                 run = \"touch /meet/{own}; for i in $(seq 100); do [ -e /meet/{other} ] && break; sleep 0.1; done; \
                 [ -e /meet/{other} ]; echo {own} > /d/{own}\"\n"
            )
        };
        world.recipe(&format!(
            "[[step]]\nname = \"base\"\nrun = \"mkdir /d\"\n{}{}\
             [[step]]\nname = \"join\"\nafter = [\"left\", \"right\"]\nrun = \"mkdir /out; cat /d/left /d/right > /out/both\"\n\
             [outputs.default]\nfrom = \"/out\"\n",
            branch("left", "right"),
            branch("right", "left"),
        ));
        let build = world.build_recipe("recipe.toml", &["--jobs", "2"]).ok();
        assert_eq!(build.file("both"), "left\nright\n");
    });
}

fn merge(world: &World, left: &str, right: &str, join: &str) -> Build {
    world.recipe(&format!(
        "[[step]]\nname = \"start\"\nrun = \"mkdir /d /e; echo old > /d/f; echo old > /e/g; chmod 755 /d\"\n\
         [[step]]\nname = \"left\"\nafter = [\"start\"]\nrun = \"{left}\"\n\
         [[step]]\nname = \"right\"\nafter = [\"start\"]\nrun = \"{right}\"\n\
         [[step]]\nname = \"join\"\nafter = [\"left\", \"right\"]\nrun = \"mkdir /out; ({join}) > /out/text\"\n\
         [outputs.default]\nfrom = \"/out\"\n"
    ));
    world.build()
}

#[test]
fn branches_that_disagree_are_an_error() {
    each_mode(|world| {
        for (left, right, path) in [
            ("echo 1 > /d/f", "echo 2 > /d/f", "/d/f"),
            ("rm /d/f", "echo 2 > /d/f", "/d/f"),
            ("rm -r /d", "echo 2 > /d/new", "/d"),
            ("chmod 700 /d", "chmod 711 /d", "/d"),
            ("rm -r /d; ln -s e /d", "touch /d/new", "/d"),
        ] {
            let build = merge(world, left, right, "true");
            assert_eq!(build.run.code, 3, "{left} | {right}: {}", build.run);
            let err = &build.run.stderr;
            assert!(err.contains("`left` and `right`") && err.contains(&format!("`{path}")), "{err}");
            assert!(err.contains("hint:"), "{err}");
        }
    });
}

#[test]
fn branches_that_agree_are_joined_right() {
    each_mode(|world| {
        let text = |left: &str, right: &str, join: &str| merge(world, left, right, join).ok().file("text");
        assert_eq!(text("echo 1 > /d/f", "echo 1 > /d/f", "cat /d/f"), "1\n");
        assert_eq!(text("rm /d/f", "rm /d/f", "ls /d | wc -l"), "0\n");
        // One changes a directory, the other writes into it, whichever is stacked above.
        assert_eq!(text("chmod 700 /d", "touch /d/n", "stat -c %a /d; ls /d"), "700\nf\nn\n");
        assert_eq!(text("touch /d/n", "chmod 700 /d", "stat -c %a /d; ls /d"), "700\nf\nn\n");
        assert_eq!(text("rm /d/f", "echo 3 > /e/g", "ls /d | wc -l; cat /e/g"), "0\n3\n");
    });
}

#[test]
fn other_recipes_are_bases_and_deps() {
    each_mode(|world| {
        let base = common::base().to_str().unwrap().to_owned();
        world.write(
            "lib.toml",
            &format!(
                "name = \"lib\"\n[base]\ndir = {base:?}\n[sources.src]\npath = \"lib.src\"\nunpack = \"/src\"\n\
                 [[step]]\nname = \"make\"\nrun = \"mkdir -p /o/usr/lib; grep -v '^#' /src > /o/usr/lib/lib\"\n\
                 [outputs.default]\nfrom = \"/o\"\n[outputs.empty]\nfrom = \"/o/usr\"\n"
            ),
        );
        world.write(
            "tools.toml",
            &format!("name = \"tools\"\n[base]\ndir = {base:?}\n[[step]]\nname = \"tool\"\nrun = \"echo tool > /tool\"\n"),
        );
        world.write("lib.src", "v1\n# note\n");
        world.write(
            "recipe.toml",
            "name = \"app\"\n[base]\nrecipe = \"tools.toml\"\n[deps.lib]\nrecipe = \"lib.toml\"\n\
             [[step]]\nname = \"link\"\nrun = \"mkdir /out; cat /tool /usr/lib/lib > /out/app; ! ls /o /src\"\n\
             [outputs.default]\nfrom = \"/out\"\n",
        );
        let build = world.build().ok();
        assert_eq!(build.file("app"), "tool\nv1\n");
        assert_eq!(outcome(&build, "lib:make"), "executed");
        assert_eq!(outcome(&build, "tools:tool"), "executed");
        let again = world.build().ok();
        assert_eq!(outcome(&again, "link"), "hit");
        // What makes the library runs again, its output is the same: the build ends there.
        world.write("lib.src", "v1\n# other note\n");
        let build = world.build().ok();
        assert_eq!((outcome(&build, "lib:make"), outcome(&build, "link")), ("executed", "cutoff-hit"));
        world.write("lib.src", "v2\n");
        let build = world.build().ok();
        assert_eq!((outcome(&build, "lib:make"), outcome(&build, "link")), ("executed", "executed"));
        assert_eq!(build.file("app"), "tool\nv2\n");
        // What is wrong between recipes.
        world.write(
            "recipe.toml",
            "name = \"app\"\n[base]\nrecipe = \"recipe2.toml\"\n[[step]]\nname = \"s\"\nrun = \"true\"\n",
        );
        world.write(
            "recipe2.toml",
            "name = \"app2\"\n[base]\nrecipe = \"recipe.toml\"\n[[step]]\nname = \"s\"\nrun = \"true\"\n",
        );
        let circle = world.build();
        assert_eq!(circle.run.code, 3, "{}", circle.run);
        assert!(circle.run.stderr.contains("circle"), "{}", circle.run);
        world.write(
            "recipe.toml",
            &format!("name = \"app\"\n[base]\ndir = {base:?}\n[deps.lib]\nrecipe = \"lib.toml\"\noutput = \"nope\"\n[[step]]\nname = \"s\"\nrun = \"true\"\n"),
        );
        let nope = world.build();
        assert_eq!(nope.run.code, 3, "{}", nope.run);
        assert!(nope.run.stderr.contains("`default`"), "{}", nope.run);
    });
}

#[test]
fn a_stack_of_more_layers_than_overlayfs_takes() {
    each_mode(|world| {
        let steps: String = (0..520)
            .map(|i| {
                // Now and then something is deleted again, also across the squash.
                let gone = if i % 50 == 49 { format!("rm /f/{}; ", i - 30) } else { String::new() };
                format!("[[step]]\nname = \"s{i}\"\nrun = \"{gone}mkdir -p /f; echo {i} > /f/{i}\"\n")
            })
            .collect();
        world.recipe(&format!(
            "{steps}[[step]]\nname = \"last\"\nrun = \"mkdir /out; ls /f | wc -l > /out/count; cat /f/0 /f/519 >> /out/count\"\n\
             [outputs.default]\nfrom = \"/out\"\n"
        ));
        let build = world.build().ok();
        assert_eq!(build.file("count"), "510\n0\n519\n");
        let again = world.build().ok();
        assert!(again.finished()["steps"].as_array().unwrap().iter().all(|s| s["outcome"] == "hit"));
        let store = world.store();
        let check = world.isolith(&["store", "fsck", "--store", store.to_str().unwrap()]);
        assert_eq!(check.code, 0, "{check}");
    });
}

#[test]
fn steps_that_change_nothing_leave_nothing() {
    each_mode(|world| {
        world.recipe(
            "[[step]]\nname = \"make\"\nrun = \"mkdir -p /d/e; echo 1 > /d/a; echo 2 > /d/e/b; ln -s a /d/l\"\n\
             [[step]]\nname = \"true\"\nrun = \"true\"\n\
             [[step]]\nname = \"touch\"\nrun = \"touch /d/a /d /bin/busybox; touch -h /d/l\"\n\
             [[step]]\nname = \"there-and-back\"\nrun = \"mv /d/a /d/x; mv /d/x /d/a; mv /d /dd; mv /dd /d\"\n\
             [[step]]\nname = \"again\"\nrun = \"rm -r /d; mkdir -p /d/e; echo 1 > /d/a; echo 2 > /d/e/b; ln -s a /d/l\"\n\
             [[step]]\nname = \"mode\"\nrun = \"chmod 700 /d; chmod 755 /d; echo more >> /d/a; echo 1 > /d/a\"\n\
             [[step]]\nname = \"temporary\"\nrun = \"echo x > /tmp/x; echo x > /var/tmp/x; echo x > /run/x; echo x > /dev/shm/x\"\n",
        );
        let build = world.build().ok();
        let empty = build.step("true")["layer"].clone();
        for step in ["touch", "there-and-back", "again", "mode", "temporary"] {
            assert_eq!(build.step(step)["layer"], empty, "step {step} ({})", world.mode.name);
        }
        assert_ne!(build.step("make")["layer"], empty);
        // They are not in the stack either: the base and one layer.
        assert_eq!(build.finished()["stack"].as_array().unwrap().len(), 2);
    });
}

#[test]
fn deleted_sources_stay_out_of_sight() {
    each_mode(|world| {
        world.write("src/keep", "k");
        world.write("src/drop", "d");
        world.write("src/sub/gone", "g");
        world.recipe(
            "[sources.src]\npath = \"src\"\nunpack = \"/src\"\n\
             [[step]]\nname = \"delete\"\nrun = \"rm /src/drop /src/sub/gone; echo new > /src/sub/new\"\n\
             [[step]]\nname = \"look\"\nuses = []\nrun = \"mkdir /out; ls -l /src /src/sub 2>&1 | wc -l > /out/count; find /src > /out/names\"\n\
             [outputs.default]\nfrom = \"/out\"\n",
        );
        let build = world.build().ok();
        assert_eq!(build.file("names"), "/src\n/src/sub\n/src/sub/new\n");
        assert!(!build.run.stderr.contains("No such file"), "{}", build.run);
        assert_eq!(build.file("count"), "7\n");
    });
}

#[test]
fn outputs_are_exported_and_kept_in_step() {
    each_mode(|world| {
        let recipe = |script: &str| {
            world.recipe(&format!(
                "[[step]]\nname = \"s\"\nrun = \"mkdir -p /out/sub; {script}\"\n[outputs.default]\nfrom = \"/out\"\n"
            ));
        };
        let store = world.store();
        let out = world.path("work/result");
        let build = || {
            let run = world.isolith(&[
                "build",
                "recipe.toml",
                "--store",
                store.to_str().unwrap(),
                "--output",
                out.to_str().unwrap(),
            ]);
            assert_eq!(run.code, 0, "{run}");
        };
        recipe("echo 1 > /out/a; echo 2 > /out/sub/b; chmod 4755 /out/a; ln -s a /out/l");
        build();
        assert_eq!(fs::read_to_string(out.join("l")).unwrap(), "1\n");
        use std::os::unix::fs::MetadataExt;
        let meta = fs::metadata(out.join("a")).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o755, "no setuid outside");
        assert_eq!((meta.uid(), meta.mtime()), (world.mode.uid, 1));
        fs::write(out.join("mine"), "mine").unwrap();
        fs::write(out.join("a"), "spoiled").unwrap();
        recipe("echo 1 > /out/a; chmod 4755 /out/a; ln -s a /out/l");
        build();
        assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "1\n", "what was changed is put right");
        assert!(!out.join("sub/b").exists(), "what is no longer made is gone");
        assert!(out.join("mine").exists(), "what is not ours stays");
        // As an archive: the same bytes each time, with the owners of the sandbox.
        let tar = |name: &str| {
            let to = world.path("work").join(name);
            let run = world.isolith(&[
                "export",
                "recipe.toml",
                &format!("tar:{}", to.display()),
                "--store",
                store.to_str().unwrap(),
            ]);
            assert_eq!(run.code, 0, "{run}");
            fs::read(to).unwrap()
        };
        let first = tar("one.tar");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert!(first == tar("two.tar"), "two exports differ");
    });
}
