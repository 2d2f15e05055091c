//! How the program asks registries: with which credentials, in plain http or not, and by which mirrors.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::registry::{Auth, DockerRegistry, SECRET, USER};
use crate::common::{Run, World, modes};
use crate::make::{Layer, Packing, layout, run};

fn recipe(base: &str) -> String {
    format!("name = \"test\"\n[base]\noci = \"{base}\"\n[[step]]\nname = \"s\"\nargs = [\"/.list\", \"/\"]\n")
}

/// A world, and a registry with an image, `team/app:1`.
fn with_image(auth: Auth) -> (World, DockerRegistry) {
    let registry = DockerRegistry::start(auth);
    let world = World::new(modes().into_iter().find(|mode| mode.runs).unwrap());
    let image = world.path("work/image");
    layout(&image, &[Layer::base().bytes()], Packing::Gzip);
    let (from, to) =
        (format!("oci:{}:latest", image.display()), format!("docker://{}/team/app:1", registry.host()));
    let login = world.write("skopeo.json", &registry.config());
    let login = login.to_str().unwrap();
    run("skopeo", &["copy", "-q", "--dest-authfile", login, "--dest-tls-verify=false", &from, &to]);
    world.write("recipe.toml", &recipe(&format!("{}/team/app:1", registry.host())));
    (world, registry)
}

fn build(world: &World) -> Run {
    let _ = fs::remove_file(world.path("work/recipe.lock"));
    let store = world.path("store");
    let _ = world.isolith(&["store", "clear", "--store", store.to_str().unwrap()]);
    world.build().run
}

#[test]
fn credentials_come_from_every_usual_place() {
    let (mut world, registry) = with_image(Auth::Password);
    let none = build(&world);
    assert!(none.code != 0 && none.stderr.contains("no credentials"), "{none}");
    let config = registry.config();
    let top = world.path("");
    let dir = |name: &str| top.join(name).to_str().unwrap().to_string();
    // Each place alone, and a file in the home too.
    let places = [
        ("home/.docker/config.json", None),
        ("home/.config/containers/auth.json", None),
        ("run/containers/auth.json", Some(("XDG_RUNTIME_DIR", dir("run")))),
        ("docker/config.json", Some(("DOCKER_CONFIG", dir("docker")))),
        ("mine.json", Some(("REGISTRY_AUTH_FILE", dir("mine.json")))),
    ];
    for (name, env) in places {
        let path = world.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &config).unwrap();
        world.env = env.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        let built = build(&world);
        assert_eq!(built.code, 0, "{name}: {built}");
        fs::remove_file(&path).unwrap();
    }
    world.env.clear();
    // A helper, for one registry and for all.
    let helper = format!(
        "#!/bin/sh\n[ \"$1\" = get ] && read -r server; [ \"$server\" = {} ] || {{ echo credentials not found; exit 1; }}\n\
         echo '{{\"ServerURL\":\"\",\"Username\":\"{USER}\",\"Secret\":\"{SECRET}\"}}'\n",
        registry.host()
    );
    let program = world.write("bin/docker-credential-mine", &helper);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(world.path("home/.docker")).unwrap();
    let text =
        [format!(r#"{{"credHelpers":{{"{}":"mine"}}}}"#, registry.host()), r#"{"credsStore":"mine"}"#.into()];
    for text in text {
        fs::write(world.path("home/.docker/config.json"), &text).unwrap();
        world.env.insert("PATH".into(), "/usr/bin:/bin:/usr/sbin:/sbin".into());
        let absent = build(&world);
        assert!(absent.code != 0 && absent.stderr.contains("docker-credential-mine"), "{absent}");
        world.env.insert("PATH".into(), format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", dir("work/bin")));
        let built = build(&world);
        assert_eq!(built.code, 0, "{text}: {built}");
        assert!(!built.stderr.contains(SECRET));
    }
}

#[test]
fn tokens_are_asked_for_with_and_without_a_name() {
    let (world, registry) = with_image(Auth::Token);
    let before = registry.tokens().len();
    assert_eq!(build(&world).code, 0);
    assert_eq!(registry.tokens()[before..], ["- repository:team/app:pull"]);
    fs::create_dir_all(world.path("home/.docker")).unwrap();
    fs::write(world.path("home/.docker/config.json"), registry.config()).unwrap();
    let store = world.store();
    let to = format!("oci://{}/team/other:1", registry.host());
    let pushed = world.isolith(&["push", "recipe.toml", &to, "--store", store.to_str().unwrap()]);
    assert_eq!(pushed.code, 0, "{pushed}");
    assert!(
        registry
            .tokens()
            .iter()
            .any(|asked| asked.starts_with("kim") && asked.contains("team/other:pull,push"))
    );
}

/// `127.1` is another way to write a loopback address that isolith does not take for one.
#[test]
fn http_is_for_this_machine_and_for_those_that_are_named() {
    let (world, registry) = with_image(Auth::Open);
    let port = registry.host().rsplit_once(':').unwrap().1.to_string();
    world.write("recipe.toml", &recipe(&format!("127.1:{port}/team/app:1")));
    let before = registry.requests().len();
    let refused = build(&world);
    assert!(refused.code != 0 && refused.stderr.contains("https://127.1"), "{refused}");
    assert_eq!(registry.requests().len(), before, "nothing is asked in the clear");
    world.write("isolith.toml", &format!("plain-http = [\"127.1:{port}\"]\n"));
    let built = build(&world);
    assert_eq!(built.code, 0, "{built}");
}

#[test]
fn a_mirror_stands_in_for_a_registry() {
    let (world, registry) = with_image(Auth::Open);
    world.write("recipe.toml", &recipe("registry.example/team/app:1"));
    let mirrors = format!("[mirrors]\n\"https://registry.example/\" = \"http://{}/\"\n", registry.host());
    world.write("isolith.toml", &format!("allowed-hosts = [\"127.0.0.1\"]\n{mirrors}"));
    let built = build(&world);
    assert_eq!(built.code, 0, "{built}");
    let lock = fs::read_to_string(world.path("work/recipe.lock")).unwrap();
    assert!(lock.contains("registry.example/team/app:1") && !lock.contains("127.0.0.1"), "{lock}");
}
