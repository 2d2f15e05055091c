//! The cache of GitHub Actions as a remote, in both versions of its protocol.
//!
//! The library that speaks it takes the version from the environment, so each has a process of its own: this test binary,
//! run again.

use isolith::remote::{Settings, VARIABLES, open};

use crate::servers::Server;
use crate::settings;
use crate::suite::{conforms_frozen, left_behind, only_reads_known};

const TOKEN: &str = "of-this-run";

#[test]
fn both_versions_of_the_protocol_are_spoken() {
    for (version, place) in [("True", "ACTIONS_RESULTS_URL"), ("", "ACTIONS_CACHE_URL")] {
        let server = Server::ghac(TOKEN);
        let home = format!("http://{}/", server.host());
        let env = [
            ("GITHUB_SERVER_URL", ""),
            ("ACTIONS_CACHE_SERVICE_V2", version),
            (place, &home),
            ("ACTIONS_RUNTIME_TOKEN", TOKEN),
        ];
        crate::alone("ghac::is_a_remote", &env);
        let log = std::fs::read_to_string(server.dir.path().join("log")).unwrap();
        assert_eq!(log, "", "{place}");
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
