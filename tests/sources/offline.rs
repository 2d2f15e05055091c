//! `--offline` opens no socket: counted by `strace` for every kind of input, and for remotes.

use std::process::Command;

use crate::common::{World, modes};
use crate::server::Server;

/// The system calls that reach for a network, of the program and of all that it starts.
fn reached(world: &World, args: &[&str]) -> (bool, Vec<String>) {
    let trace = world.path("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=socket,connect", "-o"]).arg(&trace);
    command.arg(env!("CARGO_BIN_EXE_isolith")).args(args).arg("--store").arg(world.store());
    command.current_dir(world.path("work")).env("XDG_CONFIG_HOME", world.path("home"));
    let variables = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_REGION", "c")];
    let done = command.envs(variables).output().expect("no strace: install the Debian package `strace`");
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() || stderr.contains("offline"), "{args:?}: {stderr}");
    // A sandbox brings its own loopback up through a socket of this kind, which goes nowhere.
    let is_far = |line: &&str| {
        line.contains("AF_INET") && !line.contains("socket(AF_INET, SOCK_DGRAM|SOCK_CLOEXEC, IPPROTO_IP)")
    };
    let text = std::fs::read_to_string(&trace).unwrap();
    (done.status.success(), text.lines().filter(is_far).map(str::to_owned).collect())
}

#[test]
fn offline_opens_no_socket_for_any_input_or_remote() {
    let world = &World::new(modes()[0]);
    if !world.mode.runs {
        return;
    }
    let server = Server::of(b"body".to_vec());
    let host = server.url("").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let (zeros, url) = ("0".repeat(64), server.url("x"));
    let packages = format!(
        "suite = [\"bookworm\"]\ncomponents = [\"main\"]\nvariant = \"minbase\"\ninclude = []\npackages = [\n  \
         {{ name = \"dpkg\", version = \"1\", arch = \"ARCH\", sha256 = \"{zeros}\", size = 1, path = \"pool/dpkg.deb\" }},\n]\nadded = []\n"
    );
    let recipe = |name: &str, base: &str, source: &str| {
        let source = match source {
            "" => String::new(),
            source => format!("[sources.src]\n{source}\n"),
        };
        let text = format!("name = \"x\"\nbase = {{ {base} }}\n{source}[outputs.default]\nfrom = \"/\"\n");
        world.write(&format!("{name}.toml"), &text);
    };
    let (scratch, file) = ("scratch = true", format!("url = {url:?}\nfile = \"/src/x\"\n"));
    let git = format!("git = \"http://{host}/x.git\"\nunpack = \"/src\"\n");
    recipe("there", scratch, &file);
    recipe("url", scratch, &format!("url = {:?}\nfile = \"/x\"\nsha256 = \"{zeros}\"", server.url("y")));
    recipe("git", scratch, &format!("{git}rev = \"{}\"", &zeros[..40]));
    recipe("branch", scratch, &format!("{git}branch = \"main\""));
    recipe("image", &format!("oci = \"{host}/a@sha256:{zeros}\""), "");
    recipe("tag", &format!("oci = \"{host}/a:1\""), "");
    if cfg!(feature = "debian") {
        recipe("debian", "debian = { suite = \"bookworm\" }", "");
        recipe("package", "debian = { suite = \"bookworm\" }", "");
        recipe("source", scratch, "debian = \"zlib\"\nsuite = \"bookworm\"\nunpack = \"/src\"");
        let arch = isolith::base::debian::architecture().expect("Debian runs here");
        world.write(
            "package.lock",
            &format!("version = 1\n[base.{arch}]\n{}", packages.replace("ARCH", arch)),
        );
    }
    world.write(
        "isolith.toml",
        &format!("plain-http = [\"127.0.0.1\"]\n[debian]\nmirrors = [\"http://{host}/debian\"]\n"),
    );
    world.recipe("[[step]]\nname = \"s\"\nrun = \"true\"\n");
    std::fs::rename(world.path("work/recipe.toml"), world.path("work/step.toml")).unwrap();

    // What strace shows when it is not offline, and what the next run needs.
    let (done, online) = reached(world, &["build", "there.toml"]);
    assert!(done && online.iter().any(|line| line.contains("connect(")), "{online:?}");
    let asked = server.asked().len();

    let mut runs = vec![vec!["build", "there.toml"], vec!["lock", "there.toml"]];
    let names = ["url", "git", "branch", "image", "tag", "debian", "package", "source"]
        .map(|name| format!("{name}.toml"));
    for name in names.iter().filter(|name| world.path("work").join(name).exists()) {
        runs.extend([vec!["build", name], vec!["lock", name, "--update"]]);
    }
    let remotes = ["oci", "s3", "redis", "webdav"].map(|kind| match kind {
        "s3" => format!("s3://bucket/x?endpoint=http://{host}"),
        kind => format!("{kind}://{host}/0"),
    });
    for remote in &remotes {
        runs.push(vec!["build", "step.toml", "--remote", remote]);
    }
    let mut failed = 0;
    for mut args in runs {
        args.push("--offline");
        let (done, reached) = reached(world, &args);
        assert!(reached.is_empty(), "{args:?}: {reached:?}");
        failed += usize::from(!done);
    }
    assert!(failed >= 6, "inputs that are not there cannot be used: {failed}");
    assert_eq!(server.asked().len(), asked);
}
