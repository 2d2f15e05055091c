//! What one machine has made another one does not make again, and no more moves than has to.

use super::support::*;

#[test]
fn a_second_machine_runs_nothing_and_gets_the_same() {
    for (one, two) in pairs() {
        let shared = Shared::new();
        let (a, b) = (Machine::new(one), Machine::new(two));
        a.shares(&shared.url(), &[]);
        b.shares(&shared.url(), &[&a.key]);
        let made = a.world.build().ok();
        assert_eq!(outcomes(&made, "executed"), 2, "{}", made.run);
        assert_eq!(warnings(&made), Vec::<String>::new());
        let up = number(&made, "bytes_up");
        assert_eq!(up, shared.bytes("blobs") + shared.bytes("records"), "{}", made.run);

        // Known, and nothing of it comes here.
        let known = b.build().ok();
        assert_eq!((outcomes(&known, "executed"), outcomes(&known, "remote-hit")), (0, 2), "{}", known.run);
        assert_eq!((number(&known, "layers_down"), number(&known, "calls")), (0, 1), "{}", known.run);
        assert_eq!(known.finished()["stack"], made.finished()["stack"]);
        assert_eq!(warnings(&known), Vec::<String>::new());
        assert!(b.layers().is_empty(), "{:?}", b.layers());

        // An export gets the layer that it takes.
        let got = b.world.build().ok();
        assert_eq!(outcomes(&got, "executed"), 0, "{}", got.run);
        assert_eq!(number(&got, "layers_down"), 1, "{}", got.run);
        assert_eq!(tree(&got), tree(&made));
        assert_eq!(got.finished()["stack"], made.finished()["stack"]);
        assert_eq!(b.layers().len(), 1);

        // What it got is not asked for again, and not sent back.
        let again = b.world.build().ok();
        assert_eq!(number(&again, "layers_down"), 0, "{}", again.run);
        assert_eq!((number(&again, "bytes_up"), number(&got, "bytes_up")), (0, 0));
        assert_eq!(a.build().ok().finished()["remotes"].as_array().map(Vec::len).unwrap_or_default(), 0);
    }
}

#[test]
fn verify_takes_nothing_from_remotes_and_gives_nothing() {
    let (one, two) = pairs()[0];
    let shared = Shared::new();
    let (a, b) = (Machine::new(one), Machine::new(two));
    a.shares(&shared.url(), &[]);
    b.shares(&shared.url(), &[&a.key]);
    let verify = |machine: &Machine| {
        let store = machine.world.store();
        let store = store.to_str().unwrap();
        let run =
            machine.world.isolith(&["verify", "recipe.toml", "--vary", "umask", "--json", "--store", store]);
        assert_eq!(run.code, 0, "{run}");
        serde_json::from_str::<serde_json::Value>(&run.stdout).unwrap()["stored_reference"].clone()
    };
    // The first round is built under normal conditions, and still nobody's result.
    assert_eq!(verify(&a), false);
    assert_eq!(shared.bytes("records") + shared.bytes("blobs"), 0);
    a.build().ok();
    // A result of which only a remote has the layers is no reference.
    assert_eq!(outcomes(&b.build().ok(), "remote-hit"), 2);
    assert_eq!(verify(&b), false);
    assert!(b.layers().is_empty());
}

#[test]
fn after_a_change_only_what_differs_moves() {
    let (one, two) = pairs()[0];
    let shared = Shared::new();
    let (a, b) = (Machine::new(one), Machine::new(two));
    a.shares(&shared.url(), &[&b.key]);
    b.shares(&shared.url(), &[&a.key]);
    let recipe = r#"
[sources.a]
path = "src/a"
unpack = "/src/a"
[sources.b]
path = "src/b"
unpack = "/src/b"
[[step]]
name = "one"
uses = ["a"]
run = "mkdir /o; cp /src/a /o"
[[step]]
name = "same"
uses = ["b"]
after = []
run = "mkdir -p /o; cp /src/b /o; cp /src/b /o/c"
[[step]]
name = "last"
uses = []
after = ["one", "same"]
run = "true"
[outputs.default]
from = "/o"
"#;
    let noise = |seed: u64| {
        // Nothing that compresses.
        let mut x = seed;
        let next = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            char::from(33 + ((x >> 33) % 90) as u8)
        };
        std::iter::repeat_with(next).take(400_000).collect::<String>()
    };
    for machine in [&a, &b] {
        machine.world.recipe(recipe);
        machine.world.write("src/a", &noise(1));
        machine.world.write("src/b", &noise(2));
    }
    a.world.build().ok();
    let first = b.world.build().ok();
    assert_eq!(outcomes(&first, "executed"), 0, "{}", first.run);
    // The output as it travels is the largest layer; `b` is in it twice, and comes once.
    let output = shared.files("blobs").iter().map(|path| path.metadata().unwrap().len()).max().unwrap();
    let down = number(&first, "bytes_down");
    assert!(down * 20 <= output * 21, "{down} bytes came for a layer of {output}");

    // One file changes: the step that copies it, and the output, are other layers.
    a.world.write("src/a", &noise(3));
    b.world.write("src/a", &noise(3));
    let before = shared.bytes("blobs");
    let made = a.world.build().ok();
    assert_eq!(made.step("same")["outcome"], "hit", "{}", made.run);
    assert_eq!(number(&made, "layers_up"), 2, "{}", made.run);
    let up = number(&made, "bytes_up");
    let grown = shared.bytes("blobs") - before;
    assert!(grown < up && up < grown + 40_000, "{up} bytes went for {grown}");
    let got = b.world.build().ok();
    assert_eq!(outcomes(&got, "executed"), 0, "{}", got.run);
    assert_eq!(tree(&got), tree(&made));
    // Of the output's three files one is new. Of each layer that is looked at the end comes, which has its table.
    let down = number(&got, "bytes_down");
    assert!((300_000..560_000).contains(&down), "{down} bytes for one file of 400,000");
}

#[test]
fn a_nearer_remote_gets_what_came_from_farther_away() {
    let (one, two) = pairs()[0];
    let (near, far) = (Shared::new(), Shared::new());
    let (a, b, c) = (Machine::new(one), Machine::new(two), Machine::new(two));
    a.shares(&far.url(), &[]);
    b.configure(&format!(
        "trusted-keys = [{:?}]\n[remotes]\nnear = {:?}\nteam = {{ url = {:?}, write = false }}\n",
        a.key,
        near.url(),
        far.url()
    ));
    a.world.build().ok();
    let got = b.world.build().ok();
    assert_eq!(outcomes(&got, "executed"), 0, "{}", got.run);
    assert_eq!((number(&got, "layers_down"), remote(&got, "near")["layers_up"].as_u64()), (1, Some(1)));
    assert_eq!(near.files("blobs").len(), 1, "the output and nothing else was needed");
    assert_eq!(warnings(&got), Vec::<String>::new());

    // What was passed on is signed by who made it: without the far one there is the output.
    c.shares(&near.url(), &[&a.key]);
    let got = c.world.build_recipe("recipe.toml", &["--fail-on-miss"]);
    assert_eq!(got.run.code, 4, "the steps are in the far one only: {}", got.run);
    c.shares(&near.url(), &[&b.key]);
    let got = c.world.build().ok();
    assert_eq!(outcomes(&got, "executed"), 2, "b has made nothing: {}", got.run);
}

#[test]
fn remotes_are_chosen_on_the_command_line() {
    let (one, two) = pairs()[0];
    let shared = Shared::new();
    let (a, b) = (Machine::new(one), Machine::new(two));
    let url = shared.url();
    let made = a.world.build_recipe("recipe.toml", &["--remote", &url]).ok();
    assert_eq!(remote(&made, &url)["layers_up"], 3, "{}", made.run);

    b.shares(&url, &[&a.key]);
    let none = b.world.build_recipe("recipe.toml", &["--no-remote"]).ok();
    assert_eq!((outcomes(&none, "executed"), none.finished().get("remotes")), (2, None), "{}", none.run);
    let unknown = b.world.build_recipe("recipe.toml", &["--remote", "taem"]);
    assert_eq!(unknown.run.code, 2);
    assert!(unknown.run.stderr.contains("did you mean `team`?"), "{}", unknown.run);
    let unknown = b.world.build_recipe("recipe.toml", &["--remote", "s4://bucket"]);
    assert_eq!(unknown.run.code, 2, "{}", unknown.run);
    let both = b.world.build_recipe("recipe.toml", &["--remote", "team", "--no-remote"]);
    assert_eq!(both.run.code, 2);
    b.forget();
    let named = b.world.build_recipe("recipe.toml", &["--remote", "team", "--remote", "team"]).ok();
    assert_eq!(outcomes(&named, "remote-hit"), 2, "{}", named.run);
    assert_eq!(named.finished()["remotes"].as_array().unwrap().len(), 1);
}

#[test]
fn where_only_ci_writes_others_write_nothing() {
    let shared = Shared::new();
    let mut a = Machine::new(pairs()[0].0);
    a.configure(&format!("[remotes.team]\nurl = {:?}\nwrite = \"ci\"\n", shared.url()));
    for ci in ["", "false"] {
        a.world.env.insert("CI".into(), ci.into());
        a.world.build().ok();
        assert_eq!(shared.files("records").len() + shared.files("blobs").len(), 0, "CI={ci}");
        a.forget();
    }
    a.world.env.insert("CI".into(), "true".into());
    let made = a.world.build().ok();
    assert_eq!(number(&made, "layers_up"), 3, "{}", made.run);
    assert!(!shared.files("records").is_empty());
}

#[test]
fn the_last_line_says_what_remotes_did() {
    let (one, two) = pairs()[0];
    let shared = Shared::new();
    let (a, b) = (Machine::new(one), Machine::new(two));
    a.shares(&shared.url(), &[]);
    b.shares(&shared.url(), &[&a.key]);
    let text = |machine: &Machine| {
        let store = machine.world.store();
        let run = machine.world.isolith(&["build", "recipe.toml", "--store", store.to_str().unwrap()]);
        assert_eq!(run.code, 0, "{run}");
        run.stderr.lines().last().unwrap().to_string()
    };
    let (made, known) = (text(&a), text(&b));
    assert!(made.contains("2 executed") && made.contains("; team: 0 hits, 0 B down, "), "{made}");
    assert!(known.contains("2 remote hits; team: 3 hits, "), "{known}");
    assert!(known.contains(" KiB down, 0 B up; ") && known.ends_with(" saved"), "{known}");
}

#[test]
fn a_repository_cannot_say_whom_to_trust_or_where_things_go() {
    let (one, two) = pairs()[0];
    let shared = Shared::new();
    let (a, b) = (Machine::new(one), Machine::new(two));
    a.shares(&shared.url(), &[]);
    a.world.build().ok();
    for text in [
        "trusted-keys = []",
        "threshold = 1",
        "key = \"k\"",
        "[remotes.x]\nurl = \"file:///x\"\nthreshold = 1",
    ] {
        b.world.write("isolith.toml", text);
        let run = b.world.build().run;
        assert_eq!(run.code, 2, "{run}");
        assert!(run.stderr.contains("is for its user to say, not for a repository"), "{run}");
    }
    // It may name one to read from; what is there counts by the keys of the user.
    b.world.write("isolith.toml", &format!("[remotes.team]\nurl = {:?}\n", shared.url()));
    let before = shared.files("records").len();
    let build = b.world.build().ok();
    assert_eq!(outcomes(&build, "executed"), 2, "{}", build.run);
    assert_eq!(shared.files("records").len(), before, "something was sent where a repository said");
    b.forget();
    b.configure(&format!("trusted-keys = [{:?}]", a.key));
    let build = b.world.build().ok();
    assert_eq!(outcomes(&build, "remote-hit"), 2, "{}", build.run);
    // The user's own remote of that name stays what it is.
    b.forget();
    b.shares("file:///nonexistent/remote", &[&a.key]);
    let build = b.world.build().ok();
    assert_eq!(outcomes(&build, "executed"), 2, "{}", build.run);
    assert_eq!(warnings(&build).len(), 1, "{}", build.run);
}
