//! The Remote Execution API as a remote: against BuildBox, behind nginx with TLS, and against a server of our own that does
//! what a good one never does.

mod bad;
mod fake;
mod guard;

use std::sync::Arc;

use isolith::net::Access;
use isolith::remote::{Header, Settings, open};

use self::guard::guarded;
use crate::servers::Server;
use crate::suite::{blob, conforms_unlisted, left_behind, only_reads_known, put};
use crate::{any_key, big, settings};

/// A record that the suite leaves there.
#[test]
fn a_cache_of_buildbox_is_a_remote() {
    let server = Server::reapi();
    let url = format!("grpc://{}/team/cache", server.host());
    conforms_unlisted(&*open(&url, &settings()).unwrap());
    let reader = open(&url, &Settings { read_only: true, ..settings() }).unwrap();
    only_reads_known(&*reader, left_behind(), "is read-only");
    big::passes_in_little_memory(&url);
    let none = open(&format!("grpc://{}/other", server.host()), &settings()).unwrap();
    let error = format!("{:?}", none.records(&[any_key()]).unwrap_err());
    assert!(error.contains("grpc://host:port/instance"), "{error}");
}

#[test]
fn a_result_that_has_lost_a_blob_is_a_miss() {
    let server = Server::reapi();
    let remote = open(&format!("grpc://{}/team/cache", server.host()), &settings()).unwrap();
    let (kept, lost) = (blob(b"kept"), blob(b"lost"));
    put(&*remote, &kept, b"kept").unwrap();
    put(&*remote, &lost, b"lost").unwrap();
    let other = left_behind();
    remote.put_record(&any_key(), b"one", &[kept.clone(), lost.clone()]).unwrap();
    remote.put_record(&other, b"two", std::slice::from_ref(&kept)).unwrap();
    let hex = lost.digest.as_ref().trim_start_matches("sha256:").to_string();
    let mut dirs = vec![server.dir.path().join("cache/cas")];
    let mut removed = 0;
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if format!("{}", path.display()).replace('/', "").ends_with(&hex) {
                std::fs::remove_file(path).unwrap();
                removed += 1;
            }
        }
    }
    assert_eq!(removed, 1);
    assert_eq!(remote.records(&[any_key(), other]).unwrap(), [None, Some(b"two".to_vec())]);
    assert_eq!(remote.has_blobs(&[kept, lost]).unwrap(), [true, false]);
}

#[test]
fn tls_a_token_and_a_header() {
    let (behind, header) = (Server::reapi(), |value: Option<&str>| Header {
        name: "X-Account".to_string(),
        variable: "ACCOUNT".to_string(),
        value: value.map(str::to_string),
    });
    let server = guarded(&behind);
    let url = format!("grpcs://{}/team/cache", server.host());
    let access = Access { certificates: Some(server.dir.path().join("ca.pem")), ..Access::default() };
    let access = Arc::new(access);
    let with = |token: Option<&str>, headers: Vec<Header>| Settings {
        access: access.clone(),
        token: token.map(str::to_string),
        headers,
        ..settings()
    };
    let good = with(Some("s3cret-token"), vec![header(Some("k3y-of-account"))]);
    conforms_unlisted(&*open(&url, &good).unwrap());
    let named = url.replace("127.0.0.1", "localhost");
    assert_eq!(open(&named, &good).unwrap().records(&[any_key()]).unwrap(), [None]);

    let fails = |url: &str, settings: Settings| {
        let error = open(url, &settings).and_then(|remote| remote.records(&[any_key()])).unwrap_err();
        let text = format!("{error:?}");
        assert!(!text.contains("s3cret") && !text.contains("k3y"), "{text}");
        text
    };
    for (token, headers) in [
        (None, vec![header(Some("k3y-of-account"))]),
        (Some("s3cret-other"), vec![header(Some("k3y-of-account"))]),
        (Some("s3cret-token"), vec![]),
    ] {
        let text = fails(&url, with(token, headers));
        assert!(text.contains("REAPI_TOKEN") && text.contains("headers"), "{text}");
    }
    let text = fails(&url, with(Some("s3cret-token"), vec![header(None)]));
    assert!(text.contains("ACCOUNT is not set"), "{text}");
    // A header with that name stands in for the token.
    let own = Header {
        name: "authorization".into(),
        variable: "A".into(),
        value: Some("Bearer s3cret-token".into()),
    };
    let own = with(Some("s3cret-other"), vec![own, header(Some("k3y-of-account"))]);
    assert_eq!(open(&url, &own).unwrap().records(&[any_key()]).unwrap(), [None]);
    // The system does not know this authority, and nobody listens without TLS.
    let text = fails(&url, Settings { access: Arc::default(), ..good.clone() });
    assert!(text.to_lowercase().contains("certificate"), "{text}");
    fails(&url.replace("grpcs", "grpc"), good.clone());
    let text = fails("grpcs://no-such-host.invalid/x", good);
    assert!(text.contains("no-such-host.invalid"), "{text}");
}

#[test]
fn urls_and_hosts_that_are_refused() {
    let fails = |url: &str, access: Access| {
        let settings = Settings { access: Arc::new(access), ..settings() };
        let error = open(url, &settings).map(drop).unwrap_err();
        assert_eq!(error.class(), isolith::error::Class::Usage, "{url}");
        format!("{error:?}")
    };
    let text = fails("grpc://cache.example:8980/x", Access::default());
    assert!(text.contains("plain-http = [\"cache.example:8980\"]") && text.contains("grpcs://"), "{text}");
    assert!(fails("grpc://127.0.0.1:1/x?a=b", Access::default()).contains("unknown option `a`"));
    assert!(fails("grpc:///x", Access::default()).contains("names no host"));
    assert!(
        fails("grpcs://cache.example", Access { offline: true, ..Access::default() }).contains("offline")
    );
    let hosts = Some(vec!["other.example".to_string()]);
    assert!(
        fails("grpcs://cache.example", Access { allowed_hosts: hosts, ..Access::default() })
            .contains("allowed-hosts")
    );
    let plain = Access { plain_http: vec!["cache.example:8980".to_string()], ..Access::default() };
    open("grpc://kim:secret@cache.example:8980", &Settings { access: Arc::new(plain), ..settings() })
        .unwrap();
    let headers = vec![Header { name: "x".into(), variable: "X".into(), value: Some("y".into()) }];
    let error = open("redis://127.0.0.1", &Settings { headers, ..settings() }).map(drop).unwrap_err();
    assert!(error.to_string().contains("takes no headers"), "{error}");
}
