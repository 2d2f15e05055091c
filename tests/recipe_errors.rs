//! Every mistake in `tests/recipes/errors/` and exactly what isolith says to it.
//!
//! A case is `NAME.toml` with what is said in `NAME.snap`; `INSTA_UPDATE=always cargo test --test
//! recipe_errors` writes the latter anew. A first line `# --set NAME=VALUE` is what the command line gives.

use std::collections::BTreeMap;
use std::path::Path;

use isolith::error::Class;
use isolith::recipe;

const CASES: &str = "tests/recipes/errors";

#[test]
fn every_mistake_is_shown_with_place_and_hint() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("recipes/errors");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut cases = 0;
    for entry in std::fs::read_dir(CASES).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(case) = name.strip_suffix(".toml") else { continue };
        let path = Path::new(CASES).join(&name);
        let error = recipe::load(&path, &set(&path)).expect_err(&format!("{case} has a mistake"));
        assert_eq!(error.class(), Class::Recipe, "{case}");
        for part in [format!("--> {CASES}/{name}:"), "^\nhint: ".into()] {
            assert!(error.what().contains(&part), "{case}: {part} is not in\n{error}");
        }
        settings.bind(|| insta::assert_snapshot!(case, format!("error: {error}")));
        cases += 1;
    }
    assert!(cases >= 100, "only {cases} cases were found");
}

fn set(path: &Path) -> BTreeMap<String, String> {
    let bytes = std::fs::read(path).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let given = text.lines().next().and_then(|line| line.strip_prefix("# --set "));
    let pair = given.map(|given| given.split_once('=').expect("NAME=VALUE"));
    pair.map(|(name, value)| (name.to_string(), value.to_string())).into_iter().collect()
}

#[test]
fn a_recipe_that_is_not_there() {
    let error = recipe::load(Path::new("tests/recipes/nowhere.toml"), &BTreeMap::new()).unwrap_err();
    assert_eq!(error.class(), Class::Recipe);
    assert_eq!(
        error.to_string(),
        "cannot read the recipe `tests/recipes/nowhere.toml`: No such file or directory (os error 2)"
    );
    assert!(error.hint_text().is_some());
}
