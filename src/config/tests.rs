use std::fs;

use super::*;

fn env(cwd: &Path) -> Env {
    Env { cwd: cwd.to_path_buf(), home: Some("/home/u".into()), cpus: 3, ..Env::default() }
}

#[test]
fn defaults_follow_xdg_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut env = env(dir.path());
    let settings = Settings::load(&env, &Flags::default()).unwrap();
    assert_eq!(settings.store.value, Path::new("/home/u/.cache/isolith"));
    assert_eq!((settings.jobs.value, settings.jobs.origin), (3, Origin::Default));
    assert_eq!(settings.output_dir.value, None);

    env.xdg_cache_home = Some("relative/is/ignored".into());
    assert_eq!(
        Settings::load(&env, &Flags::default()).unwrap().store.value,
        Path::new("/home/u/.cache/isolith")
    );
    env.xdg_cache_home = Some("/x".into());
    assert_eq!(Settings::load(&env, &Flags::default()).unwrap().store.value, Path::new("/x/isolith"));

    let nowhere = Env { cwd: dir.path().into(), ..Env::default() };
    let error = Settings::load(&nowhere, &Flags::default()).unwrap_err();
    assert!(error.what().contains("XDG_CACHE_HOME"), "{error}");
}

#[test]
fn each_layer_wins_over_the_one_below() {
    let dir = tempfile::tempdir().unwrap();
    let user = dir.path().join("config");
    let repo = dir.path().join("repo");
    let deep = repo.join("a/b");
    fs::create_dir_all(user.join("isolith")).unwrap();
    fs::create_dir_all(&deep).unwrap();
    fs::write(user.join("isolith/config.toml"), "jobs = 7\nstore = \"/user/store\"\nprogress = \"plain\"\n")
        .unwrap();
    fs::write(repo.join("isolith.toml"), "# ours\nstore = \"cache\"\noutput-dir = \"out\"\n").unwrap();

    let mut env = Env { xdg_config_home: Some(user), ..env(&deep) };
    let settings = Settings::load(&env, &Flags::default()).unwrap();
    assert_eq!(settings.store.value, repo.join("cache"));
    assert_eq!(settings.store.origin, Origin::File(repo.join("isolith.toml"), 2));
    assert_eq!(settings.output_dir.value, Some(repo.join("out")));
    assert_eq!((settings.jobs.value, settings.progress.value), (7, Progress::Plain));

    env.store = Some("from-env".into());
    let settings = Settings::load(&env, &Flags::default()).unwrap();
    assert_eq!(settings.store.value, deep.join("from-env"));
    assert_eq!(settings.store.origin.to_string(), "environment variable ISOLITH_STORE");

    let flags =
        Flags { store: Some("/flag".into()), jobs: Some(1), progress: Some(Progress::Json), offline: true };
    let settings = Settings::load(&env, &flags).unwrap();
    assert_eq!(settings.store, Setting { value: "/flag".into(), origin: Origin::Flag("--store") });
    assert_eq!((settings.jobs.value, settings.progress.value), (1, Progress::Json));
}

#[test]
fn mistakes_show_their_place_and_the_nearest_word() {
    let dir = tempfile::tempdir().unwrap();
    let mut shown = String::new();
    for text in [
        "jobs = 2\nstroe = \"cache\"\n",
        "colour = 1",
        "jobs = 0",
        "store = 5",
        "output-dir = \"\"",
        "progress = \"plian\"",
        "stroe = \"cache\"\nprogress = \"live\"\njobs = 0\n",
        "store = ",
    ] {
        fs::write(dir.path().join("isolith.toml"), text).unwrap();
        let error = Settings::load(&env(dir.path()), &Flags::default()).unwrap_err();
        assert_eq!(error.class(), crate::error::Class::Usage);
        shown += &format!("{}\nhint: {}\n\n", error.what(), error.hint_text().unwrap_or("-"));
    }
    insta::assert_snapshot!(shown.replace(dir.path().to_str().unwrap(), "[DIR]"));
}

#[test]
fn a_repository_cannot_undo_what_its_user_says_about_the_network() {
    let dir = tempfile::tempdir().unwrap();
    let (user, repo) = (dir.path().join("config"), dir.path().join("repo"));
    fs::create_dir_all(user.join("isolith")).unwrap();
    fs::create_dir_all(&repo).unwrap();
    let config = user.join("isolith/config.toml");
    fs::write(&config, "offline = true\nallowed-hosts = [\"A.org\"]\nfetch-max-size = 5\n[mirrors]\n\"https://a/\" = \"https://m/\"\n")
        .unwrap();
    let text = "offline = false\nallowed-hosts = [\"b.org\"]\nfetch-max-size = 7\n[mirrors]\n\"https://b/\" = [\"file:///b/\"]\n";
    fs::write(repo.join("isolith.toml"), text).unwrap();
    let mut env = Env { xdg_config_home: Some(user), ..env(&repo) };
    let inputs = Settings::load(&env, &Flags::default()).unwrap().inputs;
    assert!(inputs.offline.unwrap().value);
    assert_eq!(inputs.allowed_hosts.unwrap().value, ["a.org"]);
    assert_eq!(inputs.fetch_max_size.unwrap().value, 7);
    let mirrors: Vec<&str> = inputs.mirrors.iter().map(|(prefix, _)| prefix.as_str()).collect();
    assert_eq!(mirrors, ["https://a/", "https://b/"]);
    // A user who says nothing leaves it to the repository.
    env.xdg_config_home = None;
    let inputs = Settings::load(&env, &Flags::default()).unwrap().inputs;
    assert!(!inputs.offline.unwrap().value);
    assert_eq!(inputs.allowed_hosts.unwrap().value, ["b.org"]);
}

#[test]
fn headers_name_variables_and_are_the_users() {
    let dir = tempfile::tempdir().unwrap();
    let (user, repo) = (dir.path().join("config"), dir.path().join("repo"));
    fs::create_dir_all(user.join("isolith")).unwrap();
    fs::create_dir_all(&repo).unwrap();
    let config = user.join("isolith/config.toml");
    let env = Env { xdg_config_home: Some(user), ..env(&repo) };
    let load = || Settings::load(&env, &Flags::default());
    let text = |headers: &str| format!("[remotes.team]\nurl = \"grpcs://h\"\nheaders = {headers}\n");
    fs::write(&config, text("{ x-key = \"CACHE_KEY\" }")).unwrap();
    let headers = &load().unwrap().remotes.list[0].headers;
    assert_eq!(*headers, [("x-key".to_string(), "CACHE_KEY".to_string())]);
    for bad in ["{ x-key = \"Bearer abc\" }", "{ x-key = \"\" }", "{ x-key = \"1A\" }"] {
        fs::write(&config, text(bad)).unwrap();
        let error = load().unwrap_err();
        assert!(error.what().contains("no value but a variable"), "{bad}: {error}");
    }
    fs::write(&config, text("\"x\"")).unwrap();
    assert!(load().unwrap_err().what().contains("a table of headers"));
    // A repository could have any variable sent anywhere.
    fs::write(&config, "").unwrap();
    fs::write(repo.join("isolith.toml"), text("{ x-key = \"AWS_SECRET_ACCESS_KEY\" }")).unwrap();
    assert!(load().unwrap_err().what().contains("is for its user to say"));
}
