//! `isolith verify`: recipes with a planted defect are found out, with the variation that shows it and the cause;
//! good ones are proven good. Stored results stay as they are.

mod common;
#[allow(dead_code)]
#[path = "sources/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{World, each_mode, modes};
use serde_json::Value;

/// Runs `verify` on the world's recipe and reads what it found.
fn verify(world: &World, target: &str, flags: &[&str], code: i32) -> Value {
    let store = world.store();
    let mut args = vec!["verify", target, "--json", "--store", store.to_str().unwrap()];
    args.extend(flags);
    let run = world.isolith(&args);
    assert_eq!(run.code, code, "{} as {}: {run}", target, world.mode.name);
    serde_json::from_str(&run.stdout).unwrap_or_else(|why| panic!("{why}: {run}"))
}

/// A world of the user who can vary the most.
fn world() -> World {
    World::new(modes().into_iter().find(|mode| mode.runs).expect("nobody here can run sandboxes"))
}

const HOST: &str = "name = \"test\"\n[base]\nhost = [\"/usr\", \"/bin\", \"/lib\", \"/lib64\"]\n";

/// Verifies one step that has a defect, with `--bisect`: the smallest set of variations, and the causes.
fn defect(base_of_host: bool, script: &str) -> (Vec<String>, Vec<String>, Value) {
    let world = world();
    let step = format!("[[step]]\nname = \"bad\"\nrun = '''\nmkdir /o\n{script}\n'''\n");
    if base_of_host {
        world.write("recipe.toml", &format!("{HOST}{step}"));
    } else {
        world.recipe(&step);
    }
    let found = verify(&world, "recipe.toml", &["--bisect", "--vary", &quick(&world)], 4);
    let texts = |list: &Value, key: &str| -> Vec<String> {
        let text = |item: &Value| if key.is_empty() { item.clone() } else { item[key].clone() };
        list.as_array().unwrap().iter().map(|item| text(item).as_str().unwrap().to_owned()).collect()
    };
    let paths = found["steps"][0]["paths"].as_array().unwrap();
    let causes = paths.iter().flat_map(|path| texts(&path["causes"], "cause")).collect();
    (texts(&found["bisect"][0]["variations"], ""), causes, found)
}

/// All variations that apply here but the one that slows other tests down.
fn quick(world: &World) -> String {
    let run = world.isolith(&["verify", "--list", "--json", "--store", world.store().to_str().unwrap()]);
    let choices = run.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let names =
        choices.filter(|choice| choice["applied"] == true).map(|c| c["name"].as_str().unwrap().to_owned());
    names.filter(|name| name != "load").collect::<Vec<_>>().join(",")
}

fn has_cpus() -> bool {
    std::thread::available_parallelism().unwrap().get() > 1
}

#[test]
fn a_good_recipe_is_proven_good_and_nothing_stored_is_touched() {
    each_mode(|world| {
        world.recipe(
            "[[step]]\nname = \"one\"\nrun = 'mkdir /o; for i in 1 2 3; do echo $i > /o/$i; done; ls /o > /o/list; chown 5:6 /o/1'\n\
             [[step]]\nname = \"two\"\nrun = 'cat /o/* > /o/all; chmod 711 /o; ln /o/1 /o/link'\n",
        );
        let found = verify(world, "recipe.toml", &[], 0);
        assert_eq!(
            (&found["identical"], &found["stored_reference"]),
            (&Value::from(true), &Value::from(false))
        );
        assert_eq!(found["rounds"].as_array().unwrap().len(), 2);
        assert_eq!(found["steps"].as_array().unwrap().len(), 2);

        // The layers are those that an ordinary build makes, which are the reference from then on.
        let build = world.build().ok();
        assert_eq!(found["steps"][1]["reference"], build.step("two")["layer"]);
        let before = listing(&world.store());
        let found = verify(world, "recipe.toml:one", &["--rounds", "3"], 0);
        assert_eq!(found["stored_reference"], true);
        assert_eq!(found["rounds"].as_array().unwrap().len(), 3);
        assert_eq!(found["steps"].as_array().unwrap().len(), 1);
        assert_eq!(listing(&world.store()), before, "the store has changed");
        assert_eq!(world.build().ok().step("two")["outcome"], "hit");
        let text = world.isolith(&["verify", "recipe.toml", "--store", world.store().to_str().unwrap()]);
        assert!(text.stdout.contains("2 steps, 2 rounds, "), "{text}");
        assert!(text.stdout.contains(": identical; layer of two "), "{text}");
    });
}

/// Path and time of change of everything that is kept in a store.
fn listing(store: &Path) -> BTreeMap<String, (i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    let mut found = BTreeMap::new();
    let mut open: Vec<_> =
        ["layers", "actions", "definitions", "roots", "logs"].map(|dir| store.join(dir)).into();
    while let Some(dir) = open.pop() {
        // Tests of other users cannot look into everything.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let meta = entry.metadata().unwrap();
            found.insert(entry.path().display().to_string(), (meta.ctime(), meta.ctime_nsec()));
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn random_numbers() {
    let (variations, causes, _) = defect(false, "head -c 8 /dev/urandom | od -An -tu2 > /o/x");
    assert_eq!(variations, [""; 0]);
    assert_eq!(causes[0], "random number");
}

#[test]
fn build_dates() {
    let script = "unset SOURCE_DATE_EPOCH\necho 'const char *built = __DATE__; int main() {}' > /tmp/x.c\ngcc -g0 -c /tmp/x.c -o /o/x.o";
    let (variations, causes, found) = defect(true, script);
    assert_eq!(variations, ["clock"]);
    assert_eq!(causes[0], "timestamp", "{found}");
    let member = &found["steps"][0]["paths"][0]["content"]["members"][0]["name"];
    assert!(member.as_str().unwrap().starts_with("section .rodata"), "{found}");
}

#[test]
fn directory_order_in_an_archive() {
    let script = "mkdir /o/d; cd /o/d; for i in 5 3 9 1 7 2 8; do echo $i > f$i; touch -d @1 f$i; done; touch -d @1 .\n\
                  tar cf /o/x.tar -C /o d; rm -r /o/d";
    let (variations, causes, found) = defect(false, script);
    assert_eq!(variations, ["dir-order"]);
    assert_eq!(causes[0], "directory order", "{found}");
}

#[test]
fn cpu_count() {
    if has_cpus() {
        let (variations, causes, _) = defect(false, "echo made with $JOBS jobs > /o/x");
        assert_eq!(variations, ["cpus"]);
        assert_eq!(causes, ["cpu count"]);
    }
}

#[test]
fn addresses() {
    let (variations, causes, _) = defect(false, "grep '.stack.' /proc/self/maps | cut -d' ' -f1 > /o/x");
    assert_eq!(variations, ["aslr"]);
    assert_eq!(causes, ["memory address (ASLR)"]);
}

#[test]
fn inode_numbers() {
    let (_, causes, found) = defect(false, "echo x > /o/x; stat -c 'inode %i' /o/x > /o/y");
    assert_eq!(causes[0], "inode number or disk layout", "{found}");
}

#[test]
fn temporary_names() {
    let (variations, causes, _) = defect(false, "mktemp /o/tmp.XXXXXXXXXX");
    assert_eq!(variations, [""; 0]);
    assert_eq!(causes, ["temporary name", "temporary name"]);
}

#[test]
fn times_in_gzip_headers_and_hash_seeds() {
    // Files that two rounds make are then at least a second apart.
    let script = "sleep 1.1; echo x > /o/x; gzip /o/x\nperl -e '%h = map { $_ => 1 } \"a\"..\"z\"; print join(\" \", keys %h), \"\\n\"' > /o/keys";
    let (variations, _, found) = defect(true, script);
    assert_eq!(variations, [""; 0]);
    let paths = found["steps"][0]["paths"].as_array().unwrap();
    let cause = |at: usize| paths[at]["causes"][0]["cause"].as_str().unwrap();
    assert_eq!((paths[0]["path"].as_str(), cause(0)), (Some("/o/keys"), "hash seed"), "{found}");
    assert_eq!((paths[1]["path"].as_str(), cause(1)), (Some("/o/x.gz"), "gzip header time"), "{found}");
}

#[test]
fn every_path_gets_the_variation_that_it_takes() {
    let script = "head -c 8 /dev/urandom | od -An -tu2 > /o/random\n\
                  grep '.stack.' /proc/self/maps | cut -d' ' -f1 > /o/stack\n\
                  mkdir /tmp/d; for i in 5 3 9 1 7 2 8; do touch /tmp/d/f$i; done; find /tmp/d > /o/found\necho > /o/same";
    let (_, _, found) = defect(false, script);
    let sets = found["bisect"].as_array().unwrap();
    let mut sets: Vec<_> = sets.iter().map(|set| (&set["paths"], &set["variations"])).collect();
    sets.sort_by_key(|(paths, _)| paths.to_string());
    let wanted =
        serde_json::json!([[["/o/found"], ["dir-order"]], [["/o/random"], []], [["/o/stack"], ["aslr"]]]);
    assert_eq!(serde_json::json!(sets), wanted, "{found}");
    let causes: Vec<&Value> =
        found["steps"][0]["paths"].as_array().unwrap().iter().map(|p| &p["causes"][0]["cause"]).collect();
    assert_eq!(causes, ["directory order", "random number", "memory address (ASLR)"]);
}

#[test]
fn a_step_that_fails_only_under_a_variation_is_a_difference() {
    if !has_cpus() {
        return;
    }
    each_mode(|world| {
        world.recipe(
            "[[step]]\nname = \"picky\"\nrun = 'test $(nproc) -gt 1 || { echo too few cpus; exit 3; }; echo > /x'\n",
        );
        let found = verify(world, "recipe.toml", &["--vary", "cpus,aslr,file-system", "--bisect"], 4);
        assert_eq!(found["rounds"][1]["failed"], "picky");
        assert_eq!(found["bisect"][0]["variations"], serde_json::json!(["cpus"]));
        assert_eq!(found["steps"][0]["log"], serde_json::json!(["[picky] too few cpus"]));
    });
}

#[test]
fn steps_above_one_that_differs_say_so_and_the_report_is_written() {
    let world = world();
    world.recipe(
        "[[step]]\nname = \"low\"\nrun = 'head -c 4 /dev/urandom > /x; echo \"<b>\" > /y'\n\
         [[step]]\nname = \"high\"\nrun = 'cp /x /z'\n\
         [[step]]\nname = \"other\"\nafter = []\nrun = 'echo > /w'\n",
    );
    let report = world.path("work/report");
    let store = world.store();
    let (report_text, store_text) = (report.to_str().unwrap(), store.to_str().unwrap());
    let run = world.isolith(&["verify", "recipe.toml", "--store", store_text, "--report", report_text]);
    assert_eq!(run.code, 4, "{run}");
    assert!(run.stdout.contains("step high in round 2") && run.stdout.contains("built on step low"), "{run}");
    assert!(!run.stdout.contains("step other"), "{run}");
    let read = |name: &str| fs::read_to_string(report.join(name)).unwrap();
    let json: Value = serde_json::from_str(&read("report.json")).unwrap();
    assert_eq!(json["steps"][1]["below"], "low");
    assert!(read("index.html").contains("Step low differs in round 2"));
    assert!(read("report.txt").contains("3 steps, 2 rounds"), "{}", read("report.txt"));
    assert!(!store.join("roots").read_dir().unwrap().any(|_| true), "a round has left a root");
}

#[test]
fn variations_are_listed_and_those_that_do_not_apply_are_refused_by_name() {
    each_mode(|world| {
        let store = world.store();
        let store = store.to_str().unwrap();
        let run = world.isolith(&["verify", "--list", "--json", "--store", store]);
        assert_eq!(run.code, 0, "{run}");
        let choices: Vec<Value> =
            run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(choices.len(), 17);
        world.recipe("[[step]]\nname = \"x\"\nrun = 'true'\n");
        for choice in choices.iter().filter(|choice| choice["applied"] == false) {
            let name = choice["name"].as_str().unwrap();
            assert!(!choice["why_not"].as_str().unwrap().is_empty(), "{choice}");
            let run = world.isolith(&["verify", "recipe.toml", "--vary", name, "--store", store]);
            assert_eq!(run.code, 2, "{name}: {run}");
        }
        let run = world.isolith(&["verify", "recipe.toml", "--vary", "nonsense", "--store", store]);
        assert!(run.code == 2 && run.stderr.contains("dir-order"), "{run}");
    });
}

#[test]
fn a_recipe_that_fails_cannot_be_verified() {
    let world = world();
    world.recipe("[[step]]\nname = \"x\"\nrun = 'echo no; false'\n");
    let run = world.isolith(&["verify", "recipe.toml", "--store", world.store().to_str().unwrap()]);
    assert_eq!(run.code, 1, "{run}");
    assert!(run.stderr.contains("step `x` fails"), "{run}");
}

#[test]
fn a_verification_that_is_stopped_leaves_nothing() {
    each_mode(|world| {
        world.recipe("[[step]]\nname = \"long\"\nrun = 'echo begun; sleep 60'\n");
        let store = world.store();
        let mut running = world.spawn(&["verify", "recipe.toml", "--store", store.to_str().unwrap()]);
        // The round's own store is in the temporary part of the world's.
        let begun = || {
            let inits = fs::read_dir("/proc").unwrap().flatten();
            let mut lines = inits.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
            lines
                .any(|line| line.starts_with(b"isolith\0build\0") && contains(&line, world.mark().as_bytes()))
        };
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !begun() {
            assert!(std::time::Instant::now() < end, "no round has begun");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
        let pid = rustix::process::Pid::from_raw(running.0.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = running.0.wait().unwrap();
        assert_eq!(status.code(), Some(130), "{}", world.mode.name);
        world.assert_clean();
    });
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[test]
fn what_is_fetched_is_fetched_once() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = world();
    let server = server::Server::of(b"fetched\n".to_vec());
    let digest = blake3::hash(b"fetched\n");
    // A repository with another in it, and a git that notes what it is asked to fetch.
    let git = |dir: &str, args: &[&str]| -> String {
        let mut git = std::process::Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]);
        git.args(["-c", "safe.directory=*"]).args(args).current_dir(world.path("work").join(dir));
        let output = git.env("HOME", world.path("home")).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for dir in ["below", "above"] {
        world.write(&format!("{dir}/file"), dir);
        git(dir, &["init", "--quiet"]);
        git(dir, &["add", "."]);
        if dir == "above" {
            let below = world.path("work/below").display().to_string();
            git(dir, &["submodule", "--quiet", "add", &below, "sub"]);
        }
        git(dir, &["commit", "--quiet", "-m", "one"]);
    }
    let commit = git("above", &["rev-parse", "HEAD"]);
    if world.mode.uid == 0 {
        // The rounds of other users read them, too.
        let all = std::process::Command::new("chmod").args(["-R", "a+rX"]).arg(world.path("work")).status();
        assert!(all.unwrap().success());
    }
    let notes = world.write("notes", "");
    fs::set_permissions(&notes, fs::Permissions::from_mode(0o666)).unwrap();
    let script = format!(
        "#!/bin/sh\nfor word; do [ \"$word\" != fetch ] || echo fetch >> {}; done\nexec /usr/bin/git -c safe.directory='*' \"$@\"\n",
        notes.display()
    );
    let tool = world.write("tools/git", &script);
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    world.env.insert("PATH".into(), format!("{}:/usr/bin:/bin", tool.parent().unwrap().display()));
    world.recipe(&format!(
        "[sources.file]\nurl = {:?}\nblake3 = \"{digest}\"\nfile = \"/file\"\n\
         [sources.tree]\ngit = {:?}\nrev = \"{commit}\"\nsubmodules = true\nunpack = \"/tree\"\n\
         [[step]]\nname = \"s\"\nrun = 'cat /file /tree/file /tree/sub/file; head -c 4 /dev/urandom > /x'\n",
        server.url("file"),
        format!("file://{}", world.path("work/above").display()),
    ));
    let found = verify(&world, "recipe.toml", &["--rounds", "3", "--bisect", "--vary", &quick(&world)], 4);
    assert_eq!(found["rounds"].as_array().unwrap().len(), 3, "{found}");
    assert_eq!(server.asked().len(), 1, "{:?}", server.asked());
    assert_eq!(fs::read_to_string(notes).unwrap(), "fetch\nfetch\n", "once for each of the two repositories");
}

#[test]
fn a_user_who_cannot_read_the_recipe_is_not_varied() {
    use std::os::unix::fs::PermissionsExt;
    let world = world();
    if world.mode.uid != 0 {
        return;
    }
    let recipe = world.recipe("[[step]]\nname = \"x\"\nrun = 'true'\n");
    fs::set_permissions(recipe, fs::Permissions::from_mode(0o600)).unwrap();
    let found = verify(&world, "recipe.toml", &[], 0);
    let user =
        found["variations"].as_array().unwrap().iter().find(|choice| choice["name"] == "user").unwrap();
    assert!(user["why_not"].as_str().unwrap().contains("cannot read"), "{user}");
}

#[test]
fn diffoscope_is_used_where_it_is_installed() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = world();
    let script = "#!/bin/sh\nfor last; do :; done\nwhile [ \"$1\" != --html ]; do shift; done\nls \"$last\" > \"$2\"\nexit 1\n";
    let tool = world.write("tools/diffoscope", script);
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", tool.parent().unwrap().display());
    world.env.insert("PATH".into(), path);
    world.recipe("[[step]]\nname = \"s\"\nrun = 'head -c 4 /dev/urandom > /marked'\n");
    let report = world.path("work/report");
    let found = verify(&world, "recipe.toml", &["--vary", "umask", "--report", report.to_str().unwrap()], 4);
    let page = found["steps"][0]["diffoscope"].as_str().unwrap();
    assert!(fs::read_to_string(report.join(page)).unwrap().contains("marked"));
    assert!(fs::read_to_string(report.join("index.html")).unwrap().contains(page));
}

#[test]
fn steps_of_recipes_that_are_called_alike_are_told_apart() {
    let world = world();
    for dir in ["a", "b"] {
        let step = format!("[[step]]\nname = \"make\"\nrun = 'mkdir /out; echo {dir} > /out/{dir}'\n");
        let path = world.recipe(&(step + "[outputs.default]\nfrom = \"/out\"\n"));
        let text = fs::read_to_string(path).unwrap().replacen("\"test\"", "\"lib\"", 1);
        world.write(&format!("{dir}/lib.toml"), &text);
    }
    world.recipe(
        "[deps.a]\nrecipe = \"a/lib.toml\"\n[deps.b]\nrecipe = \"b/lib.toml\"\n\
         [[step]]\nname = \"look\"\nrun = 'cat /a /b'\n",
    );
    let build = world.build().ok();
    assert_ne!(build.step("lib:make")["layer"], build.step("lib:make (2)")["layer"]);
    let found = verify(&world, "recipe.toml", &["--rounds", "1", "--vary", "umask"], 0);
    assert_eq!(found["identical"], true, "{found}");
}
