use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_documented_command_line_parses() {
    for line in [
        "isolith build a.toml",
        "isolith build a.toml --set A=1 --set B=2 --jobs 4 --no-cache --progress json --output out",
        "isolith build a.toml --no-cache-from x --store s --output tar:x.tar",
        "isolith build a.toml --fail-on-miss --until x --secret T --secret U=env:V --secret W=file:p",
        "isolith --store s -v --color never explain a.toml:x --set A=1 --json",
        "isolith log a.toml:x",
        "isolith shell a.toml:x --after -- ls -l --color",
        "isolith shell a.toml",
        "isolith export a.toml dir:out --name doc",
        "isolith export a.toml tar:x.tar -q",
        "isolith store path --store s",
        "isolith store info --json",
        "isolith store fsck --json",
        "isolith store clear",
        "isolith doctor --json",
        "isolith init",
        "isolith init x/y.toml",
        "isolith completions bash",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn wrong_command_lines_are_refused_with_2() {
    for line in [
        "isolith",
        "isolith build",
        "isolith build a.toml --set A",
        "isolith build a.toml --jobs 0",
        "isolith build a.toml --no-cache --no-cache-from x",
        "isolith build a.toml --no-cache --fail-on-miss",
        "isolith build a.toml --output tar:",
        "isolith build a.toml --secret T=hunter2",
        "isolith build a.toml --progress loud",
        "isolith build a.toml -v -q",
        "isolith build a.toml --until x --output out",
        "isolith store",
        "isolith export a.toml",
        "isolith shell a.toml ls",
        "isolith frobnicate",
    ] {
        match parse(line) {
            Ok(cli) => panic!("{line}: {cli:?}"),
            Err(error) => assert_eq!(error.exit_code(), 2, "{line}"),
        }
    }
}

#[test]
fn what_follows_two_dashes_belongs_to_the_command() {
    let Command::Shell(args) = parse("isolith shell a.toml:x --after -- sh -c ls --after").unwrap().command
    else {
        panic!("not shell");
    };
    insta::assert_debug_snapshot!(args);
}

#[test]
fn the_starter_is_a_recipe_without_mistakes() {
    let recipe =
        crate::recipe::parse(init::STARTER, std::path::Path::new("/x/recipe.toml"), &Default::default());
    let recipe = recipe.expect("the starter has a mistake");
    assert_eq!(recipe.name, "starter");
    assert_eq!(recipe.steps.len(), 2);
    assert!(recipe.outputs.contains_key("default"));
}

#[test]
fn the_recipes_that_ship_have_no_mistakes() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    for name in ["hello", "diamond", "tally", "counter"] {
        let path = dir.join(name).with_extension("toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let recipe = crate::recipe::parse(&text, &path, &Default::default());
        assert_eq!(recipe.expect("a shipped recipe has a mistake").name, name);
    }
}
