//! Redis as a remote.

use isolith::remote::{Settings, open};

use crate::servers::Server;
use crate::suite::{blob, conforms, only_reads, put};
use crate::{any_key, big, settings};

#[test]
fn redis_is_a_remote() {
    let server = Server::redis(None, None);
    for url in ["/3", "?prefix=a%3Ab%2A%5B1%5D", ""] {
        let url = format!("redis://{}{url}", server.host());
        conforms(&*open(&url, &settings()).unwrap());
        only_reads(&*open(&url, &Settings { read_only: true, ..settings() }).unwrap(), "is read-only");
    }
    big::passes_in_little_memory(&format!("redis://{}/4", server.host()));
}

#[test]
fn passwords_and_full_servers() {
    let server = Server::redis(Some("s@cret"), Some("8mb"));
    let closed = open(&format!("redis://{}", server.host()), &settings()).unwrap();
    let error = closed.put_record(&any_key(), b"x", &[]).unwrap_err();
    assert!(format!("{error:?}").contains("REDIS_PASSWORD"), "{error:?}");
    let remote = open(&format!("redis://:s%40cret@{}", server.host()), &settings()).unwrap();
    remote.put_record(&any_key(), b"x", &[]).unwrap();
    let large = vec![7; 20 << 20];
    let error = put(&*remote, &blob(&large), &large).unwrap_err();
    assert!(format!("{error:?}").contains("maxmemory"), "{error:?}");
    // It goes on, and nothing of the large one is left.
    assert_eq!(remote.has_blobs(&[blob(&large)]).unwrap(), [false]);
    put(&*remote, &blob(b"small"), b"small").unwrap();
    assert_eq!(remote.records(&[any_key()]).unwrap(), [Some(b"x".to_vec())]);
}
