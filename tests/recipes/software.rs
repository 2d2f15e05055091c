//! Real software on the Debian base: the quick recipes are built and what they made is run. Their outputs are those of
//! `docs/software.md`, whichever machine its table was made on. The others: `tests/long/software`.

use std::fs;
use std::path::Path;

use crate::common::{World, modes};

/// The layer of a recipe's output that the page tells, abbreviated.
fn layer_of(recipe: &str) -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/software.md")).unwrap();
    let row =
        page.lines().find(|line| line.starts_with(&format!("| {recipe} |"))).expect("a line for the recipe");
    row.split('`').nth(1).expect("a layer").to_owned()
}

#[test]
fn zlib_and_lua_are_the_ones_in_the_table_and_work() {
    if std::env::consts::ARCH != "x86_64" {
        return; // what the lock files pin
    }
    let world = World::new(modes().into_iter().find(|mode| mode.runs).unwrap());
    super::checkout(&world);
    for step in ["zlib", "lua"] {
        let build = world.build_recipe("software/check-short.toml", &["--locked", "--until", step]);
        if build.run.code != 0 && build.run.stderr.contains("cannot fetch") {
            eprintln!("software: SKIPPED, Debian's packages cannot be fetched: {}", build.run.stderr);
            return;
        }
        let build = build.ok();
        assert_eq!(build.step(&format!("{step}:build"))["outcome"], "executed");
        let stack = build.finished()["stack"].as_array().unwrap();
        assert!(stack.iter().any(|layer| layer.as_str().unwrap().starts_with(&layer_of(step))), "{stack:?}");
        // What runs it fails when it does not work.
        assert_eq!(build.step(step)["outcome"], "executed");
        // The recipe of another program was not needed for that.
        assert!(!build.finished()["steps"].as_array().unwrap().iter().any(|step| step["name"] == "jq:build"));
    }
}
