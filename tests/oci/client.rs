//! The client for registries, against a real one.

use std::io::Cursor;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use isolith::net::{Access, Progress, Watch};
use isolith::oci::registry::{Credentials, Registry};
use isolith::oci::{Descriptor, Digest, Document, Hasher, MediaType, Reference, parse_reference};

use crate::common::registry::{Auth, DockerRegistry, free_port};

pub struct Quiet;

impl Watch for Quiet {
    fn progress(&self, _: Progress) {}
    fn cancelled(&self) -> bool {
        false
    }
}

fn client(files: &[PathBuf]) -> Registry {
    let access = Access { tries: 2, pause: std::time::Duration::from_millis(10), ..Access::default() };
    Registry::new(Arc::new(access), Arc::new(Credentials { files: files.to_vec() }))
}

fn digest(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    hasher.text().parse().unwrap()
}

fn image(registry: &DockerRegistry, rest: &str) -> Reference {
    parse_reference(&format!("{}/{rest}", registry.host())).unwrap()
}

fn push(client: &Registry, image: &Reference, bytes: &[u8]) -> isolith::Result<()> {
    let copy = bytes.to_vec();
    client.push_blob(image, (&digest(bytes), bytes.len() as u64), &Quiet, &mut || {
        Ok(Box::new(Cursor::new(copy.clone())))
    })
}

fn read(client: &Registry, image: &Reference, digest: &Digest, size: u64) -> isolith::Result<Vec<u8>> {
    let blob = Descriptor::new(MediaType::ImageLayer, size, digest.clone());
    client.blob(image, &blob, &Quiet, |bytes| {
        let mut out = Vec::new();
        let read = bytes.read_to_end(&mut out);
        read.map(|_| out).map_err(|why| isolith::Error::machine("cannot read it").because(why))
    })
}

/// Puts an image with one small layer there.
fn push_image(client: &Registry, image: &Reference) -> isolith::Result<Digest> {
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    push(client, image, config)?;
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{}","size":{}}},"layers":[]}}"#,
        MediaType::ImageManifest,
        MediaType::ImageConfig,
        digest(config),
        config.len()
    );
    client.push_manifest(image, &MediaType::ImageManifest, manifest.as_bytes(), &Quiet)
}

#[test]
fn blobs_and_manifests_go_in_and_out() {
    let registry = DockerRegistry::open();
    let client = client(&[]);
    let here = image(&registry, "team/app:1");
    let bytes: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let sum = digest(&bytes);
    assert!(!client.has_blob(&here, &sum, &Quiet).unwrap());
    push(&client, &here, &bytes).unwrap();
    assert!(client.has_blob(&here, &sum, &Quiet).unwrap());
    assert_eq!(read(&client, &here, &sum, bytes.len() as u64).unwrap(), bytes);

    let other = &bytes[1..];
    let uploaded = client.push_stream(&here, &mut &other[..], &Quiet).unwrap();
    assert_eq!((&uploaded.digest, uploaded.size), (&digest(other), other.len() as u64));
    assert_eq!(read(&client, &here, &uploaded.digest, uploaded.size).unwrap(), other);

    let there = image(&registry, "team/other:1");
    assert!(client.mount_blob(&there, &sum, "team/app", &Quiet).unwrap());
    assert!(client.has_blob(&there, &sum, &Quiet).unwrap());
    assert!(!client.mount_blob(&there, &digest(b"none"), "team/app", &Quiet).unwrap());

    let pushed = push_image(&client, &here).unwrap();
    let by_tag = client.resolve(&here, &Quiet).unwrap();
    assert_eq!(by_tag.digest, pushed);
    assert!(matches!(Document::parse(&by_tag.bytes, Some(&by_tag.media_type)), Ok(Document::Image(_))));
    assert_eq!(client.manifest(&here, &pushed, &Quiet).unwrap(), by_tag);
    let output = Command::new("skopeo")
        .args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"])
        .arg(format!("docker://{here}"))
        .output()
        .expect("no skopeo: install the Debian package `skopeo`");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), pushed.as_ref(), "{output:?}");

    // A registry that gives other bytes than were asked for.
    let hex = sum.digest();
    let data = registry.storage().join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
    let mut changed = bytes.clone();
    changed[1_000_000] ^= 1;
    std::fs::write(data, changed).unwrap();
    let error = read(&client, &here, &sum, bytes.len() as u64).unwrap_err().to_string();
    assert!(error.contains("not those of"), "{error}");
    let error = format!("{:?}", client.resolve(&image(&registry, "team/app:2"), &Quiet).unwrap_err());
    assert!(error.contains("404") && error.contains("check its name and tag"), "{error}");
}

#[test]
fn passwords_are_given_where_they_are_asked_for() {
    let registry = DockerRegistry::start(Auth::Password);
    let here = image(&registry, "app:1");
    let error = format!("{:?}", push_image(&client(&[]), &here).unwrap_err());
    assert!(error.contains("no credentials") && error.contains("docker login"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    std::fs::write(&file, registry.config()).unwrap();
    let with = client(std::slice::from_ref(&file));
    let pushed = push_image(&with, &here).unwrap();
    assert_eq!(with.resolve(&here, &Quiet).unwrap().digest, pushed);
    std::fs::write(&file, registry.config().replace("a2lt", "a2lu")).unwrap();
    let error = format!("{:?}", client(&[file]).resolve(&here, &Quiet).unwrap_err());
    assert!(error.contains("401") && !error.contains("secret"), "{error}");
}

#[test]
fn tokens_are_fetched_kept_and_fetched_anew() {
    let mut registry = DockerRegistry::start(Auth::Token);
    let here = image(&registry, "team/app:1");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auth.json");
    std::fs::write(&file, registry.config()).unwrap();
    let owner = client(&[file]);
    let pushed = push_image(&owner, &here).unwrap();
    assert_eq!(registry.tokens(), ["kim repository:team/app:pull,push"]);
    // Anybody may read, nobody may write.
    let reader = client(&[]);
    assert_eq!(reader.resolve(&here, &Quiet).unwrap().digest, pushed);
    assert_eq!(reader.resolve(&here, &Quiet).unwrap().digest, pushed);
    assert_eq!(registry.tokens()[1..], ["- repository:team/app:pull"], "one token is enough");
    assert!(push_image(&reader, &here).is_err());
    registry.forget_tokens();
    assert_eq!(reader.resolve(&here, &Quiet).unwrap().digest, pushed);
    push_image(&owner, &here).unwrap();
    let there = image(&registry, "team/other:1");
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    assert!(owner.mount_blob(&there, &digest(config), "team/app", &Quiet).unwrap());
}

#[test]
fn mirrors_come_first_and_the_registry_itself_last() {
    let mirror = DockerRegistry::open();
    let here = image(&mirror, "library/app:1");
    let pushed = push_image(&client(&[]), &here).unwrap();
    let from = |name: &str, to: String| {
        let access = Access {
            mirrors: vec![(name.to_string(), vec![to])],
            tries: 1,
            allowed_hosts: Some(vec!["127.0.0.1".into()]),
            ..Access::default()
        };
        Registry::new(Arc::new(access), Arc::default())
    };
    let there = format!("http://{}/", mirror.host());
    let resolved =
        from("https://docker.io/", there.clone()).resolve(&parse_reference("app:1").unwrap(), &Quiet);
    assert_eq!(resolved.unwrap().digest, pushed);
    let part = from("https://docker.io/v2/library/", format!("{there}v2/library/"));
    assert_eq!(part.resolve(&parse_reference("app:1").unwrap(), &Quiet).unwrap().digest, pushed);
    // Nobody is at the first one.
    let dead = format!("http://127.0.0.1:{}/", free_port());
    let own = from(&format!("https://{}/", mirror.host()), dead);
    assert_eq!(own.resolve(&here, &Quiet).unwrap().digest, pushed);
    let error = from("https://docker.io/", there).resolve(&parse_reference("app:2").unwrap(), &Quiet);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("404") && error.contains("allowed-hosts"), "{error}");
}
