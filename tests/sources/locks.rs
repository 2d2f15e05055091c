//! Recipes with fetched inputs, driven the way people do.

use crate::common::{World, each_mode};
use crate::git::git;
use crate::server::{Server, ok};

/// A tar archive with one file.
fn archive(text: &str) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(text.len() as u64);
    header.set_cksum();
    out.append_data(&mut header, "top/file", text.as_bytes()).unwrap();
    out.into_inner().unwrap()
}

fn recipe(world: &World, url: &str, more: &str) {
    world.recipe(&format!(
        "[sources.src]\nurl = {url:?}\nunpack = \"/src\"\n{more}\n[[step]]\nname = \"look\"\nrun = \"cat /src/file; ls -ln /src\"\n"
    ));
}

fn lock_of(world: &World) -> String {
    std::fs::read_to_string(world.path("work/recipe.lock")).unwrap_or_default()
}

fn lock(world: &World, args: &[&str]) -> crate::common::Run {
    let store = world.store();
    let all = [&["lock", "recipe.toml", "--store", store.to_str().unwrap()], args].concat();
    world.isolith(&all)
}

#[test]
fn the_first_build_pins_and_the_next_ones_keep_to_it() {
    each_mode(|world| {
        let server =
            Server::new(|asked, stream| ok(stream, &archive(if asked.nth == 0 { "one\n" } else { "two\n" })));
        recipe(world, &server.url("x.tar"), "");
        let locked = world.build_recipe("recipe.toml", &["--locked"]);
        assert_eq!(locked.run.code, 3, "{}", locked.run);
        assert!(
            locked.run.stderr.contains("source `src`") && locked.run.stderr.contains("isolith lock"),
            "{}",
            locked.run
        );
        assert_eq!(server.asked().len(), 0);

        let first = world.build().ok();
        assert_eq!(first.log("look")[0], "one");
        assert!(
            first.log("look").iter().any(|line| line.starts_with("-rw-r--r--")),
            "{:?}",
            first.log("look")
        );
        assert!(
            first.events.iter().any(|event| event["event"] == "fetching" && event["done"] == true),
            "{}",
            first.run
        );
        let pinned = lock_of(world);
        assert!(pinned.contains("[sources.src]") && pinned.contains("sha256 = "), "{pinned}");

        let again = world.build_recipe("recipe.toml", &["--locked", "--offline"]).ok();
        assert_eq!(again.step("look")["outcome"], "hit");
        assert_eq!((lock_of(world), server.asked().len()), (pinned.clone(), 1));

        // Upstream has changed: a store that does not have the bytes must not take the new ones.
        let other = world.path("other-store");
        let args = ["build", "recipe.toml", "--store", other.to_str().unwrap()];
        let changed = world.isolith(&args);
        assert_eq!(changed.code, 3, "{changed}");
        for part in ["expected sha256:", "got      sha256:", &server.url("x.tar"), "hint:"] {
            assert!(changed.stderr.contains(part), "{part}: {changed}");
        }
        assert_eq!(lock_of(world), pinned);

        // Unless that is asked for.
        assert_eq!(lock(world, &[]).code, 0);
        assert_eq!(lock_of(world), pinned);
        let wrong = lock(world, &["--update", "srx"]);
        assert_eq!(wrong.code, 2, "{wrong}");
        let update = lock(world, &["--update", "src"]);
        assert_eq!(update.code, 0, "{update}");
        assert_ne!(lock_of(world), pinned);
        assert_eq!(world.build().ok().log("look")[0], "two");
        world.isolith(&["store", "clear", "--store", other.to_str().unwrap()]);
    });
}

#[test]
fn a_lock_for_another_url_does_not_count() {
    let world = &World::new(crate::common::modes()[0]);
    if !world.mode.runs {
        return;
    }
    let server = Server::of(archive("text\n"));
    recipe(world, &server.url("a.tar"), "");
    assert_eq!(lock(world, &[]).code, 0);
    std::fs::write(world.path("work/recipe.lock"), format!("# mine\n{}", lock_of(world))).unwrap();
    recipe(world, &server.url("b.tar"), "");
    let locked = world.build_recipe("recipe.toml", &["--locked"]);
    assert!(locked.run.code == 3 && locked.run.stderr.contains("a.tar"), "{}", locked.run);
    let build = world.build().ok();
    assert!(build.events.iter().any(|event| event["event"] == "warning"), "{}", build.run);
    assert!(lock_of(world).starts_with("# mine\n") && lock_of(world).contains("b.tar"), "{}", lock_of(world));
    // Pinned in the recipe, it leaves the lock file when that is asked for.
    let hex = lock_of(world).split("sha256 = \"").nth(1).unwrap()[..64].to_string();
    recipe(world, &server.url("b.tar"), &format!("sha256 = \"{hex}\""));
    world.build_recipe("recipe.toml", &["--locked"]).ok();
    assert_eq!(lock(world, &[]).code, 0);
    assert!(!lock_of(world).contains("[sources.src]"), "{}", lock_of(world));
}

#[test]
fn a_source_is_unpacked_once_whatever_else_changes() {
    let world = &World::new(crate::common::modes()[0]);
    if !world.mode.runs {
        return;
    }
    let server = Server::of(archive("text\n"));
    recipe(world, &server.url("a.tar"), "");
    world.build().ok();
    let blobs = world.store().join("blobs");
    // Without the archive nothing can be unpacked again.
    std::fs::remove_dir_all(&blobs).unwrap();
    world.write("extra/file", "x");
    recipe(
        world,
        &server.url("a.tar"),
        "[sources.extra]\npath = \"extra\"\nunpack = \"/extra\"\n[[step]]\nname = \"more\"\nrun = \"true\"\n",
    );
    world.build_recipe("recipe.toml", &["--offline"]).ok();
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_base_can_be_fetched() {
    each_mode(|world| {
        let server = Server::of(archive("text\n"));
        let text = format!(
            "name = \"test\"\n[base]\ntar = {{ url = {:?} }}\n[outputs.default]\nfrom = \"/top\"\n",
            server.url("base.tar")
        );
        world.write("recipe.toml", &text);
        let build = world.build().ok();
        assert_eq!(build.file("file"), "text\n");
        assert!(lock_of(world).contains("[base]"), "{}", lock_of(world));
    });
}

#[test]
fn everything_that_nothing_pins_is_named() {
    let world = &World::new(crate::common::modes()[0]);
    let server = Server::of(archive("text\n"));
    let git = server.url("x.git");
    world.write("isolith.toml", &format!("[debian]\nmirrors = [{:?}]\n", server.url("debian")));
    let text = format!(
        "name = \"test\"\nbase = {{ debian = {{ suite = \"bookworm\", include = [\"gcc\"] }} }}\n\
         [sources.a-file]\nurl = {url:?}\nunpack = \"/a\"\n\
         [sources.a-tag]\ngit = {git:?}\ntag = \"v1\"\nunpack = \"/b\"\n\
         [sources.a-branch]\ngit = {git:?}\nbranch = \"main\"\nunpack = \"/c\"\n\
         [sources.a-package]\ndebian = \"zlib\"\nsuite = \"bookworm\"\nunpack = \"/d\"\n\
         [sources.a-pinned]\nurl = {url:?}\nsha256 = \"{zeros}\"\nunpack = \"/e\"\n\
         [sources.a-commit]\ngit = {git:?}\nrev = \"{commit}\"\nunpack = \"/f\"\n\
         [outputs.default]\nfrom = \"/\"\n",
        url = server.url("x.tar"),
        zeros = "0".repeat(64),
        commit = "0".repeat(40),
    );
    world.write("recipe.toml", &text);
    let open = ["the base", "source `a-branch`", "source `a-file`", "source `a-package`", "source `a-tag`"];
    let refused = |open: &[&str]| {
        let run = world.build_recipe("recipe.toml", &["--locked"]).run;
        let said = format!("`: {}\n", open.join(", "));
        assert!(
            run.code == 3 && run.stderr.contains(&said) && run.stderr.contains("isolith lock"),
            "{said}{run}"
        );
    };
    refused(&open);
    assert!(server.asked().is_empty() && lock_of(world).is_empty());
    // Some are pinned, one for another branch.
    let rev = "1".repeat(40);
    world.write(
        "recipe.lock",
        &format!(
            "version = 1\n[sources.a-branch]\ngit = {git:?}\nbranch = \"old\"\nrev = \"{rev}\"\n\
             [sources.a-tag]\ngit = {git:?}\ntag = \"v1\"\nrev = \"{rev}\"\n"
        ),
    );
    let stale = format!("source `a-branch` (the lock file has it for git `{git}`, branch `old`)");
    refused(&["the base", &stale, "source `a-file`", "source `a-package`"]);
}

#[test]
fn one_entry_is_updated_and_the_rest_stays_as_people_wrote_it() {
    let world = &World::new(crate::common::modes()[0]);
    if !world.mode.runs {
        return;
    }
    let repository = world.path("repository");
    std::fs::create_dir(&repository).unwrap();
    let commit = |text: &str| {
        std::fs::write(repository.join("file"), text).unwrap();
        git(&repository, &["add", "."], b"");
        git(&repository, &["commit", "--quiet", "-m", text], b"");
        git(&repository, &["rev-parse", "HEAD"], b"")
    };
    git(&repository, &["init", "--quiet"], b"");
    let one = commit("one\n");
    let url = format!("file://{}", repository.display());
    world.write(
        "recipe.toml",
        &format!(
            "name = \"test\"\nbase = {{ scratch = true }}\n\
             [sources.kept]\ngit = {url:?}\nbranch = \"main\"\nunpack = \"/kept\"\n\
             [sources.moved]\ngit = {url:?}\nbranch = \"main\"\nunpack = \"/moved\"\n\
             [outputs.default]\nfrom = \"/\"\n"
        ),
    );
    let run = lock(world, &[]);
    assert_eq!(run.code, 0, "{run}");
    // What people add: a head, a remark on an entry, one behind a value, another order of keys.
    let noted = lock_of(world)
        .replace("[sources.kept]", "# Not before the release.\n[sources.kept]")
        .replace(&format!("rev = \"{one}\""), &format!("rev = \"{one}\"  # good"));
    world.write("recipe.lock", &format!("# Ours.\n{noted}\n# The end.\n"));
    let noted = lock_of(world);
    assert_eq!(noted.matches("# good").count(), 2, "{noted}");

    let two = commit("two\n");
    let build = world.build_recipe("recipe.toml", &["--locked"]).ok();
    assert_eq!((build.file("kept/file"), build.file("moved/file")), ("one\n".into(), "one\n".into()));
    let run = lock(world, &["--update", "moved"]);
    assert_eq!(run.code, 0, "{run}");
    let (before, after) = noted.split_once("[sources.moved]").unwrap();
    let expected = format!("{before}[sources.moved]{}", after.replace(&one, &two));
    assert_eq!(lock_of(world), expected);
    let build = world.build_recipe("recipe.toml", &["--locked"]).ok();
    assert_eq!((build.file("kept/file"), build.file("moved/file")), ("one\n".into(), "two\n".into()));
}
