//! `isolith diff`, as people use it.

mod common;

use common::{World, modes};
use serde_json::Value;

const RECIPE: &str = r#"
[[step]]
name = "one"
run = "mkdir /out; echo one > /out/text; echo x > /out/same; ln /out/same /out/link; printf 'a\\0b' > /out/bin; chown 7:8 /out/text"
[[step]]
name = "two"
run = "echo two > /out/text; printf 'a\\0c' > /out/bin; chmod 700 /out/bin; rm /out/same; touch -h /out/text"
[outputs.default]
from = "/out"
"#;

/// In every mode that can run sandboxes: a world with the recipe built.
fn each(test: impl Fn(&World, &str)) {
    for mode in modes().into_iter().filter(|mode| mode.runs) {
        let world = World::new(mode);
        world.recipe(RECIPE);
        let build = world.build().ok();
        let out = build.out.to_str().unwrap().to_owned();
        test(&world, &out);
    }
}

fn diff(world: &World, a: &str, b: &str, code: i32) -> Value {
    let store = world.store();
    let run = world.isolith(&["diff", a, b, "--json", "--store", store.to_str().unwrap()]);
    assert_eq!(run.code, code, "{a} and {b}: {run}");
    serde_json::from_str(&run.stdout).unwrap_or(Value::Null)
}

fn paths(found: &Value) -> Vec<&str> {
    found["differences"].as_array().unwrap().iter().map(|d| d["path"].as_str().unwrap()).collect()
}

#[test]
fn steps_layers_outputs_and_directories() {
    each(|world, out| {
        let found = diff(world, "recipe.toml:one", "recipe.toml:two", 4);
        assert_eq!(paths(&found), ["/out/bin", "/out/link", "/out/same", "/out/text"], "{found}");
        let text = &found["differences"][3];
        assert_eq!(text["content"]["text"], "@@ -1 +1 @@\n-one\n+two\n");
        let bin = &found["differences"][0];
        assert_eq!(bin["changes"][0], serde_json::json!({"what": "mode", "a": "0644", "b": "0700"}));
        assert_eq!(bin["content"]["bytes"]["offset"], 2);

        // By id, the beginning of an id, and by name it is the same layer.
        let id = found["ids"][0].as_str().unwrap();
        assert_eq!(diff(world, id, "recipe.toml:one", 0)["differences"], serde_json::json!([]));
        diff(world, &id[..8], "recipe.toml:one", 0);
        // The output as a directory has no owners; nothing else may differ.
        diff(world, "recipe.toml#default", out, 0);
        diff(world, "recipe.toml", "recipe.toml", 0);
        assert!(paths(&diff(world, "recipe.toml", out, 4)).contains(&"/bin"));
    });
}

#[test]
fn archives_keep_owners() {
    each(|world, out| {
        let store = world.store();
        let store = store.to_str().unwrap();
        let run = world.isolith(&["export", "recipe.toml", "tar:out.tar", "--store", store]);
        assert_eq!(run.code, 0, "{run}");
        diff(world, "recipe.toml#default", "out.tar", 0);
        diff(world, "out.tar", out, 0);
        let run = world.isolith(&["diff", "recipe.toml#default", "out.tar", "--store", store]);
        assert!(run.stdout.contains("are the same"), "{run}");
    });
}

#[test]
fn what_is_not_there_is_said() {
    each(|world, _| {
        let store = world.store();
        for (side, word) in [
            ("recipe.toml:none", "no step `none`"),
            ("recipe.toml#none", "no output `none`"),
            ("ffffffffffff", "no layer"),
            ("no/such.tar", "no/such.tar"),
        ] {
            let run = world.isolith(&["diff", "recipe.toml", side, "--store", store.to_str().unwrap()]);
            assert!(run.code != 0 && run.code != 4, "{run}");
            assert!(run.stderr.contains(word), "{run}");
        }
        world.write(
            "other.toml",
            "name = \"other\"\n[base]\nscratch = true\n[[step]]\nname = \"x\"\nargs = [\"/x\"]\n",
        );
        let run = world.isolith(&["diff", "recipe.toml", "other.toml:x", "--store", store.to_str().unwrap()]);
        assert!(run.stderr.contains("build it first"), "{run}");
    });
}
