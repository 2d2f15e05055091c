//! What good recipes become, and that no text at all makes the reader panic.

use std::collections::BTreeMap;
use std::path::Path;

use isolith::base::debian::Variant;
use isolith::key::Network;
use isolith::recipe::{self, Base, Mount, Origin, Recipe};
use isolith::sandbox::Limits;
use proptest::prelude::*;

const FULL: &str = "tests/recipes/full/full.toml";

fn load(set: &[(&str, &str)]) -> Recipe {
    let set = set.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    recipe::load(Path::new(FULL), &set).unwrap_or_else(|error| panic!("{error}"))
}

/// A recipe over scratch whose file would be in the root directory.
fn parse(rest: &str) -> Recipe {
    let text = format!("name = \"demo\"\n[base]\nscratch = true\n{rest}");
    recipe::parse(&text, Path::new("/demo.toml"), &BTreeMap::new())
        .unwrap_or_else(|found| panic!("{}", found[0]))
}

fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(String::from).into()
}

#[test]
fn every_key_is_read() {
    let recipe = load(&[]);
    let here = Path::new("tests/recipes").canonicalize().unwrap();
    assert_eq!(recipe.path, here.join("full/full.toml"));
    assert_eq!(
        (recipe.name.as_str(), recipe.version.as_deref(), recipe.epoch),
        ("full", Some("1.3"), 1705881600)
    );

    let files = here.join("errors/files");
    let Base::Tar { path, sha256, line: 13 } = &recipe.base else { panic!("{:?}", recipe.base) };
    assert_eq!(path, &files.join("motd"));
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(sha256.as_deref(), Some(empty));

    let src = &recipe.sources["src"];
    assert!(matches!(&src.origin, Origin::Path(path) if *path == files.join("src")), "{src:?}");
    assert_eq!(src.unpack.to_string(), "/src");
    assert_eq!(src.exclude, ["*.o", "build-3/"]);
    assert_eq!(recipe.sources["motd"].unpack.to_string(), "/etc/motd");
    assert_eq!(recipe.deps["other"].recipe, files.join("other.toml"));
    assert_eq!(
        (recipe.deps["other"].output.as_str(), recipe.deps["plain"].output.as_str()),
        ("lib", "default")
    );
    let outputs: Vec<_> = recipe.outputs.iter().map(|(name, out)| format!("{name}={}", out.from)).collect();
    assert_eq!(outputs, ["default=/out", "everything=/"]);

    let step = &recipe.steps[0];
    assert_eq!((step.name.as_str(), step.cwd.to_string().as_str()), ("configure", "/src"));
    assert_eq!((step.uid, step.gid, step.network), (1000, 100, Network::None));
    assert_eq!((&step.sources, &step.deps), (&names(["src"]), &names(["other"])));
    let limits = Limits {
        memory: Some(2 << 30),
        cpus: Some(1.5),
        pids: Some(512),
        time: Some(5400),
        disk: Some(1_500_000_000),
    };
    assert_eq!(step.limits, limits);
    let mounts: Vec<_> = step.mounts.iter().map(shown).collect();
    assert_eq!(
        mounts,
        [
            "cache /ccache shared-3",
            "cache /root/.cache full:/root/.cache",
            "secret /run/secrets/token TOKEN",
            "tmpfs /scratch"
        ]
    );

    let step = &recipe.steps[1];
    assert_eq!((&step.argv, step.network), (&names(["make", "-C", "/src"]), Network::Host));
    assert_eq!(step.limits.cpus, Some(2.0));
    assert_eq!((&step.sources, &step.deps), (&names(["motd", "src"]), &names(["other", "plain"])));
}

#[test]
fn the_image_is_read() {
    let image = load(&[]).image;
    let strings = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
    assert_eq!(image.output.as_deref(), Some("everything"));
    assert_eq!(image.entrypoint, Some(strings(&["/usr/bin/prog", "--level=2"])));
    assert_eq!(image.cmd, Some(vec![]));
    assert_eq!(image.env["PATH"], "/usr/bin:/bin");
    assert_eq!(image.user.as_deref(), Some("www-data:1000"));
    assert_eq!(image.workdir.unwrap().to_string(), "/src");
    assert_eq!(image.labels["org.opencontainers.image.title"], "full 3");
    assert_eq!(image.ports.into_iter().collect::<Vec<_>>(), ["53/udp", "8080/tcp"]);
    assert_eq!(image.volumes.iter().map(|path| path.to_string()).collect::<Vec<_>>(), ["/var/lib/full"]);
    assert_eq!(image.stop_signal.as_deref(), Some("SIGRTMIN+3"));
    assert_eq!(image.author.as_deref(), Some("A. N. Other <other@example.org>"));
    let check = image.healthcheck.unwrap();
    assert_eq!(check.test, strings(&["CMD", "prog", "--check"]));
    let times = (check.interval, check.timeout, check.start_period, check.retries);
    assert_eq!(times, (Some(30), Some(90), Some(5), Some(3)));

    let check = |test: &str| parse(&format!("[image]\nhealthcheck = {{ test = {test} }}")).image.healthcheck;
    assert_eq!(check("\"a && b\"").unwrap().test, strings(&["CMD-SHELL", "a && b"]));
    assert_eq!(check("[]").unwrap().test, strings(&["NONE"]));
    assert_eq!(parse("").image, Default::default());
}

fn shown(mount: &Mount) -> String {
    match mount {
        Mount::Cache { at, id } => format!("cache {at} {id}"),
        Mount::Tmpfs { at } => format!("tmpfs {at}"),
        Mount::Secret { at, name } => format!("secret {at} {name}"),
    }
}

#[test]
fn steps_come_after_what_they_say() {
    let after: Vec<_> = load(&[]).steps.into_iter().map(|step| (step.name, step.after)).collect();
    let expected = [
        ("configure", vec![]),
        ("compile", vec![0]),
        ("docs", vec![0]),
        ("apart", vec![]),
        ("all", vec![1, 2, 5]),
        ("late", vec![3]),
    ];
    assert_eq!(after, expected.map(|(name, after)| (name.to_string(), after)));
    assert!(load(&[]).steps[2].sources.is_empty() && load(&[]).steps[2].deps.is_empty());
}

#[test]
fn arguments_go_everywhere_but_into_the_shells_own() {
    let recipe = load(&[("LEVEL", "${MINOR} $x"), ("PLACE", "/s")]);
    let step = &recipe.steps[0];
    assert_eq!(step.env["CFLAGS"], "-O${MINOR} $x");
    assert_eq!((step.env["LITERAL"].as_str(), step.env["grüße"].as_str()), ("${LEVEL}", "ü"));
    assert_eq!(
        (step.cwd.to_string().as_str(), recipe.sources["src"].unpack.to_string().as_str()),
        ("/s", "/s")
    );
    assert_eq!(recipe.steps[1].argv, ["make", "-C", "/s"]);
    assert_eq!((recipe.args["LEVEL"].as_str(), recipe.args["MINOR"].as_str()), ("${MINOR} $x", "3"));
    assert_eq!(step.argv[..4], ["/bin/bash", "-euo", "pipefail", "-c"]);
    let text = "./configure --prefix=${PREFIX:-/usr} --level=${MINOR} $x\n\
                echo \"$HOME ${HOME} ${LEVEL}\" | awk '{ print $1 }'\n";
    assert_eq!(step.argv[4..], [text]);
}

#[test]
fn what_is_not_said_has_a_default() {
    let recipe =
        parse("[[step]]\nname = \"one\"\nrun = \"true\"\n[[step]]\nname = \"two\"\nargs = [\"true\"]\n");
    assert_eq!((recipe.version, recipe.epoch, recipe.args.len()), (None, 1, 0));
    assert!(matches!(recipe.base, Base::Scratch));
    let [one, two] = &recipe.steps[..] else { panic!("two steps") };
    assert_eq!(one.argv, ["/bin/sh", "-euc", "true"]);
    assert_eq!(two.argv, ["true"]);
    assert!(one.env.is_empty() && one.cwd.is_root() && one.mounts.is_empty());
    assert_eq!((one.uid, one.gid, one.network, &one.limits), (0, 0, Network::None, &Limits::default()));
    assert_eq!((&one.after, &two.after), (&vec![], &vec![0]));
}

#[test]
fn line_ends_of_another_system_are_no_part_of_a_script() {
    let text = |step: &str| {
        let recipe = parse(&format!("[[step]]\r\nname = \"one\"\r\nrun = {step}\r\n"));
        recipe.steps[0].argv[2].clone()
    };
    assert_eq!(text("\"\"\"\r\nif true; then\r\n  true\r\nfi\r\n\"\"\""), "if true; then\n  true\nfi\n");
    assert_eq!(text("'''\r\ntrue\r\n'''"), "true\n");
    // Whoever writes the escape means it.
    assert_eq!(text("\"printf a\\r\\nb\""), "printf a\r\nb");
}

#[test]
fn what_the_kernel_would_not_start_is_a_mistake() {
    let read = |step: String| {
        let text = format!("name = \"demo\"\n[base]\nscratch = true\n[[step]]\nname = \"one\"\n{step}\n");
        recipe::parse(&text, Path::new("/demo.toml"), &BTreeMap::new())
    };
    let most = (128 << 10) - 1;
    for step in ["run = \"_\"", "args = [\"a\", \"_\"]", "run = \"true\"\nenv = { V = \"_\" }"] {
        let of = |length: usize| read(step.replace('_', &"x".repeat(length)));
        let name = if step.contains("env") { 2 } else { 0 };
        assert!(of(most - name).is_ok(), "{step}");
        let found = of(most - name + 1).unwrap_err();
        assert!(found.len() == 1 && found[0].message.contains("131072 bytes"), "{step}: {}", found[0]);
    }
}

#[test]
fn bases() {
    let base = |base: &str| {
        let text = format!("name = \"demo\"\n[base]\n{base}\n");
        let file = Path::new("tests/recipes/errors/demo.toml");
        let file = std::path::absolute(file).unwrap();
        recipe::parse(&text, &file, &BTreeMap::new()).unwrap_or_else(|found| panic!("{}", found[0])).base
    };
    let Base::Host { paths } = base("host = [\"/usr\", \"/bin\"]") else { panic!("host") };
    assert_eq!(paths.iter().map(|path| path.to_string()).collect::<Vec<_>>(), ["/bin", "/usr"]);
    let Base::Dir { path } = base("dir = \"files/\"") else { panic!("dir") };
    assert!(path.is_absolute() && path.ends_with("tests/recipes/errors/files"));
    let Base::Tar { sha256, .. } = base("tar = { path = \"files/motd\" }") else { panic!("tar") };
    assert_eq!(sha256, None);
    let Base::Debian(debian) = base(
        "debian = { suite = \"bookworm\", include = [\"make\", \"gcc=4:12.2.0-3\"], exclude = [\"perl\"] }",
    ) else {
        panic!("debian")
    };
    assert_eq!((debian.suites, debian.components), (vec!["bookworm".into()], vec!["main".into()]));
    assert_eq!(debian.variant, Variant::Minbase);
    assert_eq!(
        (debian.include, debian.exclude),
        (vec!["gcc=4:12.2.0-3".into(), "make".into()], vec!["perl".into()])
    );
    let text = "debian = { suite = [\"sid\", \"experimental\"], components = [\"main\", \"contrib\"], variant = \"custom\", include = [\"hello\"] }";
    let Base::Debian(debian) = base(text) else { panic!("debian") };
    assert_eq!((debian.suites.len(), debian.components.len()), (2, 2));
    assert_eq!(debian.variant, Variant::Custom);
    let Base::Recipe { path } = base("recipe = \"files/other.toml\"") else { panic!("recipe") };
    assert!(path.is_absolute() && path.ends_with("tests/recipes/errors/files/other.toml"));
}

#[test]
fn the_manual_shows_a_real_recipe_and_a_real_mistake() {
    let manual = std::fs::read_to_string("docs/recipe.md").unwrap();
    let block = |start: &str| manual.split(start).nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let recipe = block("```toml\n");
    // Beside a directory `src`, which the example reads.
    let file = std::path::absolute("tests/recipes/errors/files/hello.toml").unwrap();
    assert_eq!(recipe::parse(recipe, &file, &BTreeMap::new()).unwrap().steps.len(), 2);
    let broken = recipe.replacen("[[step]]", "[[stpe]]", 1);
    let mut found = recipe::parse(&broken, &file, &BTreeMap::new()).unwrap_err();
    found[0].file = "hello.toml".into();
    assert_eq!(format!("{}\n", found[0]), block("```text\n"));
}

#[test]
fn nesting_without_end_is_a_mistake_and_no_overflow() {
    for text in ["[".repeat(100_000), format!("a = {}", "[".repeat(100_000)), "a.".repeat(100_000) + "b = 1"]
    {
        let found = recipe::parse(&text, Path::new("/demo.toml"), &BTreeMap::new()).unwrap_err();
        assert!(!found.is_empty());
    }
}

/// Pieces that mutations put in: the characters TOML and arguments are made of, and things that break them.
const PIECES: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    "\"",
    "\"\"\"",
    "'",
    "\\",
    "\n",
    "\r\n",
    "\t",
    "#",
    ",",
    ".",
    "${",
    "$${",
    "${MINOR}",
    "}",
    "é",
    "名",
    "\u{feff}",
    "\u{1b}",
    "\\u0000",
    "0",
    "-1",
    "1e999",
    "nan",
    "true",
    "1979-05-27",
    "[step]",
    "[[step]]",
    "[base]",
    "name",
    "after = [\"all\"]",
    "..",
    "/",
    "",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// A cut here, a piece there: always a recipe or a list of mistakes that can be shown.
    #[test]
    fn no_text_makes_it_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, 0..PIECES.len()), 1..8)
    ) {
        let mut text: Vec<char> = std::fs::read_to_string(FULL).unwrap().chars().collect();
        for (at, cut, piece) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + cut).min(text.len());
            text.splice(at..end, PIECES[piece].chars());
        }
        let text: String = text.into_iter().collect();
        let path = std::path::absolute(FULL).unwrap();
        if let Err(found) = recipe::parse(&text, &path, &BTreeMap::new()) {
            prop_assert!(!found.is_empty());
            for mistake in found {
                let line = text.split('\n').nth(mistake.line - 1);
                prop_assert_eq!(line.map(|line| line.trim_end_matches('\r')), Some(mistake.source.as_str()));
                prop_assert!(mistake.column <= mistake.source.chars().count() + 1, "{}", mistake);
                prop_assert!(mistake.to_string().lines().count() >= 6);
            }
        }
    }
}
