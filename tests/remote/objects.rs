//! Object stores and WebDAV as remotes.

use std::collections::BTreeMap;

use isolith::remote::{Settings, open};

use crate::servers::Server;
use crate::suite::{conforms, only_reads};
use crate::{any_key, big, settings};

fn s3_settings() -> Settings {
    let variables = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let variables: BTreeMap<_, _> = variables.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
    Settings { variables, ..settings() }
}

#[test]
fn an_s3_bucket_is_a_remote() {
    let server = Server::s3();
    // The name of a prefix may have in it what has to be escaped.
    for prefix in ["/team", "/a%20b/%C3%A4%2Bc"] {
        let url = format!("s3://bucket{prefix}?endpoint=http://{}", server.host());
        conforms(&*open(&url, &s3_settings()).unwrap());
        only_reads(&*open(&url, &Settings { read_only: true, ..s3_settings() }).unwrap(), "is read-only");
    }
    big::passes_in_little_memory(&format!(
        "s3://bucket/big?anonymous=true&endpoint=http://{}",
        server.host()
    ));
    // A bucket that is not there is an error, not an empty remote.
    let url = format!("s3://none?endpoint=http://{}", server.host());
    let none = open(&url, &s3_settings()).unwrap();
    assert!(none.put_record(&any_key(), b"x", &[]).is_err());
}

#[test]
#[ignore = "run by tests/long/azure, which installs the server"]
fn a_container_of_azure_is_a_remote() {
    // The account that every Azurite has: it is published, and opens nothing else.
    const KEY: &str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    let server = Server::azure();
    let account = format!("http://{}/devstoreaccount1", server.host());
    let made = std::process::Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/remote/azure_container.py"))
        .args([&account, "box", KEY])
        .status()
        .unwrap();
    assert!(made.success());
    let variables = [("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1"), ("AZURE_STORAGE_ACCOUNT_KEY", KEY)];
    let variables: BTreeMap<_, _> = variables.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
    let settings = Settings { variables, ..settings() };
    let url = |name: &str| format!("azblob://{name}/team?endpoint={account}");
    conforms(&*open(&url("box"), &settings).unwrap());
    only_reads(
        &*open(&url("box"), &Settings { read_only: true, ..settings.clone() }).unwrap(),
        "is read-only",
    );
    assert!(open(&url("none"), &settings).unwrap().put_record(&any_key(), b"x", &[]).is_err());
}

#[test]
fn a_webdav_server_is_a_remote() {
    let server = Server::webdav(false);
    let url = format!("webdav://{}/team/a%20b%2B%C3%A4", server.host());
    let remote = open(&url, &settings()).unwrap();
    conforms(&*remote);
    only_reads(&*open(&url, &Settings { read_only: true, ..settings() }).unwrap(), "is read-only");
    let root = server.dir.path().join("files/team/a b+ä");
    assert_eq!(std::fs::read_dir(root.join("tmp")).unwrap().count(), 0, "something is left over");
    big::passes_in_little_memory(&format!("webdav://{}/big", server.host()));
}

#[test]
fn webdav_takes_a_password() {
    let server = Server::webdav(true);
    let error = open(&format!("webdav://{}/x", server.host()), &settings()).unwrap();
    let error = error.put_record(&any_key(), b"x", &[]).unwrap_err();
    assert!(format!("{error:?}").contains("WEBDAV_PASSWORD"), "{error:?}");
    conforms(&*open(&format!("webdav://kim:s%40cret@{}/x", server.host()), &settings()).unwrap());
    let variables = [("WEBDAV_USER", "kim"), ("WEBDAV_PASSWORD", "s@cret")];
    let variables = variables.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
    conforms(
        &*open(&format!("webdav://{}/y", server.host()), &Settings { variables, ..settings() }).unwrap(),
    );
}
