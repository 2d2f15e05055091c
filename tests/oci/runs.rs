//! `isolith run` of images in a registry, and of images that say odd things about how they run.

use std::fs;

use serde_json::{Value, json};

use crate::common::registry::{Auth, DockerRegistry, SECRET};
use crate::common::{Run, World, each_mode, modes};
use crate::make::{Layer, Packing, architecture, image_that, index, run};

const RECIPE: &str = r#"
[[step]]
name = "only"
run = "mkdir /app; echo inside > /app/file"
[image]
entrypoint = ["/bin/sh", "-c"]
cmd = ["cat file; echo $GREETING"]
workdir = "/app"
env = { GREETING = "hello" }
"#;

fn isolith(world: &World, args: &[&str]) -> Run {
    let store = world.store();
    world.isolith(&[&args[..1], &["--store", store.to_str().unwrap()], &args[1..]].concat())
}

/// Builds an image and pushes it with the registry's own credentials; the digest.
fn push(registry: &DockerRegistry, to: &str) -> String {
    let mut world = World::new(modes().into_iter().find(|mode| mode.runs).unwrap());
    world.recipe(RECIPE);
    let login = world.write("auth.json", &registry.config());
    world.env.insert("REGISTRY_AUTH_FILE".into(), login.to_str().unwrap().into());
    let pushed = isolith(&world, &["push", "recipe.toml", &format!("oci://{}/{to}", registry.host())]);
    assert_eq!(pushed.code, 0, "{pushed}");
    let all = pushed.stdout + &pushed.stderr;
    let at = all.find("sha256:").unwrap_or_else(|| panic!("no digest: {all}"));
    all[at..at + 71].to_string()
}

#[test]
fn an_image_runs_straight_from_its_registry() {
    let registry = DockerRegistry::open();
    let digest = push(&registry, "team/app:v1");
    each_mode(|world| {
        let by_tag = format!("oci://{}/team/app:v1", registry.host());
        let first = isolith(world, &["run", &by_tag]);
        assert_eq!((first.code, first.stdout.as_str()), (0, "inside\nhello\n"), "{first}");
        let before = registry.requests().len();
        let again = isolith(world, &["run", &by_tag, "--env", "GREETING=you", "--", "echo $GREETING"]);
        assert_eq!((again.code, again.stdout.as_str()), (0, "you\n"), "{again}");
        let asked = registry.requests().split_off(before);
        assert!(asked.iter().all(|asked| !asked.path.contains("/blobs/")), "it is all here: {asked:?}");
        // One that says which bytes it is needs nobody.
        let pinned = format!("oci://{}/team/app@{digest}", registry.host());
        let offline = isolith(world, &["run", &pinned, "--offline"]);
        assert_eq!((offline.code, offline.stdout.as_str()), (0, "inside\nhello\n"), "{offline}");
        // A tag is what it was last, and unknown to a store that has never seen it.
        let offline = isolith(world, &["run", &by_tag, "--offline"]);
        assert_eq!((offline.code, offline.stdout.as_str()), (0, "inside\nhello\n"), "{offline}");
        let other = world.path("other");
        let refused = world.isolith(&["run", "--store", other.to_str().unwrap(), &by_tag, "--offline"]);
        assert!(refused.code != 0 && refused.stderr.contains("offline"), "{refused}");
        for (name, with) in [("team/app:v2", "404"), ("team/none:v1", "404")] {
            let missing = isolith(world, &["run", &format!("oci://{}/{name}", registry.host())]);
            assert!(
                missing.code != 0 && missing.stderr.contains(with) && missing.stderr.contains("hint:"),
                "{missing}"
            );
        }
        world.assert_clean();
    });
}

#[test]
fn a_private_image_runs_for_those_with_credentials() {
    for auth in [Auth::Password, Auth::Token] {
        let registry = DockerRegistry::start(auth);
        push(&registry, "team/private:v1");
        let image = format!("oci://{}/team/private:v1", registry.host());
        each_mode(|world| {
            // The server of tokens lets anybody read.
            if auth == Auth::Password {
                let none = isolith(world, &["run", &image]);
                assert!(none.code != 0 && none.stderr.contains("no credentials"), "{none}");
                let wrong = registry.config().replace("\"auth\":\"", "\"auth\":\"eDp5");
                fs::create_dir_all(world.path("home/.docker")).unwrap();
                fs::write(world.path("home/.docker/config.json"), wrong).unwrap();
                let refused = isolith(world, &["run", &image]);
                assert!(refused.code != 0 && refused.stderr.contains("hint:"), "{refused}");
            }
            fs::create_dir_all(world.path("home/.docker")).unwrap();
            fs::write(world.path("home/.docker/config.json"), registry.config()).unwrap();
            let ran = isolith(world, &["run", &image, "--", "cat file; env"]);
            assert!(ran.code == 0 && ran.stdout.starts_with("inside\n"), "{ran}");
            assert!(!ran.stdout.contains(SECRET) && !ran.stderr.contains(SECRET), "{ran}");
        });
    }
}

/// A layout whose image has a busybox and says `runs`.
fn odd(world: &World, runs: &Value) -> String {
    let at = world.path("work/odd");
    let _ = fs::remove_dir_all(&at);
    let busybox = fs::read("/bin/busybox").or_else(|_| fs::read("/usr/bin/busybox")).unwrap();
    let layer = Layer::base()
        .dir("bin", 0o755, 0)
        .put("bin/busybox", tar::EntryType::Regular, 0o755, (0, 0), &busybox, "")
        .symlink("bin/sh", "busybox")
        .symlink("out", "/../../..")
        .symlink("etc/passwd", "/../../../../etc/passwd")
        .bytes();
    let manifest = image_that(&at, &[layer], Packing::Plain, architecture(), runs);
    index(&at, &[manifest]);
    run("chmod", &["-R", "a+rX", at.to_str().unwrap()]);
    format!("oci-layout:{}", at.display())
}

/// Whatever an image says, it is its own sandbox that it says it of: an error that shows what it said, or a run.
#[test]
fn odd_words_of_an_image_are_errors_and_reach_nothing() {
    let shell = json!(["/bin/sh", "-c", "pwd; echo $0 $LD_PRELOAD"]);
    each_mode(|world| {
        // (What the image says, whether it is refused, what is then in the message or printed.)
        let long = "x".repeat(3 << 20);
        let mut wrong = Vec::new();
        for (runs, code, with) in [
            (json!({ "Cmd": shell, "WorkingDir": "/out" }), 0, "/\n"),
            (json!({ "Cmd": shell, "WorkingDir": "relative" }), 3, "says to start in `relative`"),
            (json!({ "Cmd": shell, "WorkingDir": "/a/../../b" }), 3, "says to start in"),
            (
                json!({ "Cmd": shell, "WorkingDir": "/\u{1b}[31m\n/.." }),
                3,
                "says to start in `/\\u{1b}[31m\\n/..`",
            ),
            (json!({ "Cmd": shell, "WorkingDir": "/none" }), 0, "/none\n"),
            (json!({ "Cmd": shell, "WorkingDir": "/proc/1/root" }), 125, "/proc/1/root"),
            (json!({ "Cmd": shell, "User": "nobody-there" }), 2, "nobody-there"),
            (json!({ "Cmd": shell, "User": "-1" }), 2, "-1"),
            (json!({ "Cmd": shell, "User": "\u{1b}[2Jx" }), 2, "no user `x`"),
            (json!({ "Cmd": shell, "User": "0:\u{1b}[2Jx" }), 2, "no group `x`"),
            (json!({ "Cmd": ["\u{1b}[2Jx"] }), 127, "[2Jx"),
            (json!({ "Cmd": shell, "Env": ["\u{1b}[2J=x", "PATH=\u{1b}"] }), 0, "/\n"),
            (json!({ "Cmd": shell, "User": "4294967296" }), 2, "4294967296"),
            (json!({ "Cmd": shell, "User": "0:0:0" }), 2, "no group `0:0`"),
            (json!({ "Cmd": shell, "User": "caller" }), 2, "caller"),
            (json!({ "Cmd": shell, "Env": ["", "=x", "NOTHING", "A=b=c"] }), 0, "/\n"),
            (json!({ "Cmd": ["/bin/sh", "-c", "echo \"[$A]\""], "Env": ["A=b=c\nd"] }), 0, "[b=c\nd]\n"),
            (json!({ "Cmd": shell, "Env": ["A=\u{0}b"] }), 125, ""),
            (json!({ "Cmd": ["/bin/sh\u{0}x"] }), 125, ""),
            (json!({ "Cmd": [""] }), 126, "cannot run ``"),
            (json!({ "Cmd": ["../../bin/sh"] }), 0, ""),
            (json!({ "Cmd": ["/etc/passwd"] }), 126, "/etc/passwd"),
            (json!({ "Cmd": ["/bin/sh", "-c", "exit 0", long] }), 126, ""),
            (json!({ "Entrypoint": [], "Cmd": [] }), 0, ""),
            (json!({ "Entrypoint": "not a list" }), 3, ""),
        ] {
            let image = odd(world, &runs);
            let ran = isolith(world, &["run", &image]);
            let text = if code == 0 { &ran.stdout } else { &ran.stderr };
            let shown: String = runs.to_string().chars().take(200).collect();
            if ran.code != code || !text.contains(with) {
                wrong.push(format!("{shown} ({}) should give {code} with `{with}`: {ran}", world.mode.name));
            }
            assert!(!ran.stderr.contains('\u{1b}') && !ran.stderr.contains("panicked"), "{shown}: {ran}");
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        world.assert_clean();
    });
}
