//! The cache of GitHub Actions as a remote, in both versions of its protocol.
//!
//! The library that speaks it takes the version from the environment, so each has a process of its own: this test binary,
//! run again.

use std::process::Command;

use isolith::remote::{Settings, VARIABLES, open};

use crate::servers::Server;
use crate::settings;
use crate::suite::{conforms_frozen, left_behind, only_reads_known};

const TOKEN: &str = "of-this-run";

#[test]
fn both_versions_of_the_protocol_are_spoken() {
    for version in [&[("ACTIONS_CACHE_SERVICE_V2", "True")][..], &[]] {
        let server = Server::ghac(TOKEN);
        let home = format!("http://{}/", server.host());
        let place = if version.is_empty() { "ACTIONS_CACHE_URL" } else { "ACTIONS_RESULTS_URL" };
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["ghac::is_a_remote", "--exact", "--ignored", "--nocapture"])
            .env_remove("GITHUB_SERVER_URL")
            .env_remove("ACTIONS_CACHE_SERVICE_V2")
            .envs(version.iter().copied())
            .envs([(place, home.as_str()), ("ACTIONS_RUNTIME_TOKEN", TOKEN)])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let log = std::fs::read_to_string(server.dir.path().join("log")).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{version:?}: {text} {error} {log}");
        assert_eq!(log, "", "{version:?}");
    }
}

#[test]
#[ignore = "run by another, in a process of its own"]
fn is_a_remote() {
    let variable = |name: &&str| Some((name.to_string(), std::env::var(name).ok()?));
    let settings = Settings { variables: VARIABLES.iter().filter_map(variable).collect(), ..settings() };
    conforms_frozen(&*open("ghac:team", &settings).unwrap());
    let reader = open("ghac:team", &Settings { read_only: true, ..settings.clone() }).unwrap();
    only_reads_known(&*reader, left_behind(), "is read-only");
    // Another version is another cache, and another token is nobody.
    let key = left_behind();
    let other = open("ghac:team?version=2", &settings).unwrap();
    assert_eq!(other.records(&[key]).unwrap(), [None]);
    let mut stranger = settings;
    stranger.variables.insert("ACTIONS_RUNTIME_TOKEN".to_string(), "wrong".to_string());
    let error = open("ghac:team", &stranger).unwrap().records(&[key]).unwrap_err();
    assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
}
