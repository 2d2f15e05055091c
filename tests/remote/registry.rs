//! A repository of a real registry as a remote.

use std::fs;
use std::process::Command;

use isolith::remote::{Remote, Settings, open};

use crate::common::registry::{Auth, DockerRegistry};
use crate::suite::{blob, conforms, key, only_reads, put};
use crate::{big, settings};

fn remote(registry: &DockerRegistry, settings: &Settings) -> Box<dyn Remote> {
    open(&format!("oci://{}/team/cache", registry.host()), settings).unwrap()
}

#[test]
fn a_registry_is_a_remote() {
    let registry = DockerRegistry::open();
    conforms(&*remote(&registry, &settings()));
    only_reads(&*remote(&registry, &Settings { read_only: true, ..settings() }), "is read-only");
    big::passes_in_little_memory(&format!("oci://{}/team/big", registry.host()));
}

#[test]
fn credentials_are_those_of_images() {
    for auth in [Auth::Password, Auth::Token] {
        let registry = DockerRegistry::start(auth);
        let error = remote(&registry, &settings()).put_record(&crate::any_key(), b"x", &[]).unwrap_err();
        assert!(format!("{error:?}").contains("docker login"), "{error:?}");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        fs::write(&file, registry.config()).unwrap();
        conforms(&*remote(&registry, &Settings { registry_credentials: vec![file], ..settings() }));
    }
}

#[test]
fn records_are_artifacts_that_keep_their_blobs() {
    let registry = DockerRegistry::open();
    let remote = remote(&registry, &settings());
    let layer = blob(b"a layer");
    put(&*remote, &layer, b"a layer").unwrap();
    let key = crate::any_key();
    remote.put_record(&key, b"the record", std::slice::from_ref(&layer)).unwrap();
    // Others see an artifact with the record and the layer in it.
    let output = Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false"])
        .arg(format!("docker://{}/team/cache:{key}", registry.host()))
        .output()
        .expect("no skopeo: install the Debian package `skopeo`");
    let manifest: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(manifest["artifactType"], "application/vnd.isolith.record.v1");
    assert_eq!(manifest["layers"][1]["digest"], layer.digest.as_ref());
    // What a registry throws away is not what a record refers to.
    let config = registry.storage().parent().unwrap().join("config.yml");
    let collected = Command::new("docker-registry").arg("garbage-collect").arg(config).output().unwrap();
    assert!(collected.status.success(), "{collected:?}");
    assert_eq!(remote.has_blobs(&[layer, blob(b"the record")]).unwrap(), [true, true]);
    // The record of another key under this one's tag is none.
    let other = key_of(5);
    let from = format!("docker://{}/team/cache:{key}", registry.host());
    let to = format!("docker://{}/team/cache:{other}", registry.host());
    let args = ["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    let copied = Command::new("skopeo").args(args).args([&from, &to]).output().unwrap();
    assert!(copied.status.success(), "{copied:?}");
    assert_eq!(remote.records(&[other, key]).unwrap(), [None, Some(b"the record".to_vec())]);
}

fn key_of(n: u8) -> isolith::remote::RecordKey {
    key(isolith::remote::Subject::plan([isolith::digest::DefinitionKey::from_bytes([n; 32])]), n)
}

#[test]
fn names_that_are_no_repositories_are_refused() {
    for url in
        ["oci://r.example", "oci:///x", "oci://r.example/X", "oci://r.example/x:tag", "oci://r.example/x?a=b"]
    {
        let error = open(url, &settings()).err().unwrap_or_else(|| panic!("{url} is open"));
        assert_eq!(error.class(), isolith::error::Class::Usage, "{url}");
    }
}
