//! A remote that is slow is used as long as it is fast enough, however much there is to move.

use std::time::{Duration, Instant};

use super::backends::{self, Backend};
use super::proxy::{Dice, Fault, Proxy};
use crate::common::{World, modes};
use crate::support::*;

/// One step whose layer is about 13 MiB however it is packed.
const RECIPE: &str = r#"
[[step]]
name = "noise"
run = "mkdir /out; cp /n/noise /out/noise"

[sources.noise]
path = "noise"
unpack = "/n"

[outputs.default]
from = "/out"
"#;

/// Two machines that wait so many seconds for a remote behind a proxy, and the proxy.
fn machines(backend: &Backend, patience: u64) -> (Proxy, Machine, Machine) {
    let proxy = Proxy::new(backend.port, backend.answers);
    let modes = modes();
    let (mut a, mut b) = (Machine::new(modes[0]), Machine::new(modes[modes.len() - 1]));
    for machine in [&mut a, &mut b] {
        machine.world.recipe(RECIPE);
        machine.world.write("noise/noise", &noise());
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            machine.world.env.insert(name.into(), "test".into());
        }
    }
    let url = (backend.place)(proxy.port, 1).url;
    let settings = |keys: &[&str]| {
        format!("trusted-keys = {keys:?}\n[remotes.team]\nurl = {url:?}\npatience = {patience}\n")
    };
    a.configure(&settings(&[]));
    b.configure(&settings(&[&a.key]));
    (proxy, a, b)
}

/// Characters that do not get shorter than about 13 MiB.
fn noise() -> String {
    let mut dice = Dice(1);
    (0..16 << 20).map(|_| char::from(b'!' + dice.roll(94) as u8)).collect()
}

fn goes_on(backend: Backend) {
    let (proxy, a, b) = machines(&backend, 2);
    // Fast enough, and a layer that takes longer than the patience. What goes up is out of sight while it waits in buffers of
    // the kernel, some MiB; what comes down comes over several connections.
    let (up, down) = (Fault::Slow(2 << 20), Fault::Slow(1 << 20));
    let built = |world: &World| {
        let began = Instant::now();
        let build = world.build().ok();
        let what = format!("{}: {}", backend.name, build.run);
        assert_eq!(warnings(&build), Vec::<String>::new(), "{what}");
        assert!(remote(&build, "team")["waited_ms"].as_u64().unwrap() < 2000, "{what}");
        assert!(began.elapsed() > Duration::from_secs(2), "it was not slow: {what}");
        build
    };
    proxy.all(up);
    let made = built(&a.world);
    assert!(number(&made, "bytes_up") > 12 << 20, "{}", made.run);
    proxy.all(down);
    let got = built(&b.world);
    assert_eq!((outcomes(&got, "executed"), tree(&got)), (0, tree(&made)), "{}", got.run);
}

fn is_left_alone(backend: Backend) {
    let (proxy, a, b) = machines(&backend, 1);
    a.world.build().ok();
    let alone = b.world.build_recipe("recipe.toml", &["--no-remote"]).ok();
    let alone = alone.finished()["wall_ms"].as_u64().unwrap();
    b.forget();
    proxy.all(Fault::Slow(20 << 10));
    let build = b.world.build().ok();
    let (wall, what) = (build.finished()["wall_ms"].as_u64().unwrap(), &build.run);
    assert_eq!((outcomes(&build, "executed"), warnings(&build).len()), (1, 1), "{what}");
    assert!(warnings(&build)[0].contains("kept this build waiting for 1 s"), "{what}");
    // What moved in the meantime has paid for less than a second.
    assert!(wall < 2 * alone + 5000, "{wall} ms for {alone}: {what}");
}

#[test]
fn a_slow_registry_is_used_as_long_as_bytes_move() {
    goes_on(backends::registry());
}

#[test]
fn a_slow_s3_is_used_as_long_as_bytes_move() {
    goes_on(backends::s3());
}

#[test]
fn a_slow_webdav_server_is_used_as_long_as_bytes_move() {
    goes_on(backends::webdav());
}

#[test]
fn a_slow_redis_is_used_as_long_as_bytes_move() {
    goes_on(backends::redis());
}

#[test]
fn a_remote_whose_bytes_trickle_is_left_alone() {
    is_left_alone(backends::webdav());
    is_left_alone(backends::redis());
}
