//! Remotes: one suite for all of them, against real servers on this machine.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "net")]
mod big;
mod directory;
#[cfg(feature = "object-store")]
mod ghac;
#[cfg(feature = "object-store")]
mod objects;
#[cfg(feature = "reapi")]
mod reapi;
#[cfg(feature = "object-store")]
mod redis;
#[cfg(feature = "net")]
mod registry;
#[cfg(any(feature = "object-store", feature = "reapi"))]
mod servers;
mod suite;

#[cfg(feature = "net")]
use isolith::remote::Settings;

/// Little patience: the servers are near.
#[cfg(feature = "net")]
fn settings() -> Settings {
    use std::time::Duration;

    let limits = isolith::remote::Limits {
        connect: Duration::from_secs(5),
        idle: Duration::from_secs(20),
        total: Duration::from_secs(120),
    };
    Settings { limits, ..Settings::default() }
}

/// Runs an ignored test of this program in a process of its own, and gives what it printed.
#[cfg(feature = "net")]
fn alone(test: &str, env: &[(&str, &str)]) -> String {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--ignored", "--nocapture"]).envs(env.iter().copied());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{test}, {env:?}: {output:?}");
    text.into_owned()
}

#[cfg(feature = "net")]
fn any_key() -> isolith::remote::RecordKey {
    use isolith::digest::DefinitionKey;
    suite::key(isolith::remote::Subject::Definition(DefinitionKey::from_bytes([42; 32])), 1)
}
