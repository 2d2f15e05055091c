//! Servers with small limits, and servers that do wrong.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use isolith::remote::{Limits, Remote, Settings, open};

use super::fake::{Fake, Way};
use crate::suite::{blob, conforms_unlisted, get, key, put};
use crate::{any_key, settings};

fn remote(fake: &Fake) -> Box<dyn Remote> {
    open(&fake.url, &settings()).unwrap()
}

/// What another remote, which knows nothing yet, says.
fn error<T>(fake: &Fake, ask: impl Fn(&dyn Remote) -> isolith::Result<T>) -> String {
    format!("{:?}", ask(&*remote(fake)).map(drop).unwrap_err())
}

/// Bytes that do not get smaller.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..size).map(next).collect()
}

#[test]
fn limits_are_kept_and_blobs_are_compressed() {
    let fake = Fake::new(Way { batch: 1000, zstd: true, ..Way::default() });
    let remote = remote(&fake);
    conforms_unlisted(&*remote);
    let seen = &fake.state.seen;
    assert!((500..=1000).contains(&seen.largest_batch.load(Relaxed)), "{:?}", seen.largest_batch);
    assert!(seen.packed_in_batches.load(Relaxed) > 0 && seen.packed_streams.load(Relaxed) > 1);
    // What is compressed already is sent as it is.
    let layer = zstd::encode_all(&noise(5000)[..], 1).unwrap();
    let before = seen.plain_streams.load(Relaxed);
    put(&*remote, &blob(&layer), &layer).unwrap();
    assert_eq!(seen.plain_streams.load(Relaxed), before + 1);
    assert_eq!(get(&*remote, &blob(&layer)).unwrap(), Some(layer));
}

#[test]
fn many_are_asked_for_at_once() {
    let fake = Fake::new(Way::default());
    let remote = remote(&fake);
    let keys: Vec<_> = (0..200u8).map(|n| key(isolith::remote::Subject::Plan([n; 32]), 1)).collect();
    for key in keys.iter().take(50) {
        remote.put_record(key, key.to_string().as_bytes(), &[]).unwrap();
    }
    let seen = &fake.state.seen;
    let before = seen.batches.load(Relaxed);
    let found = remote.records(&keys).unwrap();
    for (key, found) in keys.iter().zip(&found).take(50) {
        assert_eq!(found.as_deref(), Some(key.to_string().as_bytes()));
    }
    assert_eq!(found.iter().flatten().count(), 50);
    assert_eq!((seen.results_asked.load(Relaxed), seen.batches.load(Relaxed)), (200, before + 1));
    let before = seen.find_missing.load(Relaxed);
    let blobs: Vec<_> = (0..1000u32).map(|n| blob(&n.to_le_bytes())).collect();
    assert_eq!(remote.has_blobs(&blobs).unwrap(), [false; 1000]);
    assert_eq!(seen.find_missing.load(Relaxed), before + 1);
}

#[test]
fn wrong_bytes_are_not_given_for_right_ones() {
    for zstd in [false, true] {
        let fake = Fake::new(Way { zstd, ..Way::default() });
        let remote = remote(&fake);
        let (small, large) = (b"small".to_vec(), noise(300_000));
        for bytes in [&small, &large] {
            put(&*remote, &blob(bytes), bytes).unwrap();
        }
        remote.put_record(&any_key(), b"record", &[]).unwrap();
        assert_eq!(remote.records(&[any_key()]).unwrap(), [Some(b"record".to_vec())]);
        fake.state.way.wrong.store(true, Relaxed);
        for bytes in [&small, &large] {
            let error = get(&*remote, &blob(bytes)).unwrap_err();
            assert!(error.to_string().contains("gives other bytes than those of"), "{error}");
        }
        assert_eq!(remote.records(&[any_key()]).unwrap(), [None]);
        // A record whose bytes are lost is none; a blob that is lost is not there.
        fake.state.way.wrong.store(false, Relaxed);
        fake.state.blobs.lock().unwrap().clear();
        assert_eq!(remote.records(&[any_key()]).unwrap(), [None]);
        assert_eq!(get(&*remote, &blob(&large)).unwrap(), None);
        assert!(!remote.blob(&blob(&large), Some(5..10), &mut |_| panic!("it is lost")).unwrap());
    }
}

#[test]
fn what_passes_is_tried_again_and_what_lasts_is_told() {
    let fake = Fake::new(Way::default());
    let (remote, way) = (remote(&fake), &fake.state.way);
    let bytes = noise(3 << 20);
    way.busy.store(1, Relaxed);
    remote.put_record(&any_key(), b"record", &[]).unwrap();
    way.busy.store(1, Relaxed);
    assert_eq!(remote.records(&[any_key()]).unwrap(), [Some(b"record".to_vec())]);
    way.cut.store(1, Relaxed);
    put(&*remote, &blob(&bytes), &bytes).unwrap();
    // A stream goes on where it broke off, and one that breaks off again and again gets there too.
    for cut in [1, 3] {
        way.cut.store(cut, Relaxed);
        assert!(get(&*remote, &blob(&bytes)).unwrap().as_ref() == Some(&bytes), "cut {cut} times");
    }
    way.cut.store(0, Relaxed);
    way.busy.store(usize::MAX, Relaxed);
    let text = error(&fake, |remote| remote.records(&[any_key()]));
    assert!(text.contains("come back later"), "{text}");
    error(&fake, |remote| get(remote, &blob(&bytes)));
    error(&fake, |remote| put(remote, &blob(b"x"), b"x"));
}

#[test]
fn what_a_server_cannot_do_is_told_before_anything_is_sent() {
    let fake = Fake::new(Way { frozen: true, most_blob: 100, ..Way::default() });
    let text = error(&fake, |remote| remote.put_record(&any_key(), b"x", &[]));
    assert!(text.contains("takes no records") && text.contains("write = false"), "{text}");
    let large = noise(101);
    let text = error(&fake, |remote| put(remote, &blob(&large), &large));
    assert!(text.contains("at most 100"), "{text}");
    assert!(fake.state.blobs.lock().unwrap().is_empty());
    let fake = Fake::new(Way { sha1: true, ..Way::default() });
    let text = error(&fake, |remote| put(remote, &blob(b"x"), b"x"));
    assert!(text.contains("SHA-256"), "{text}");
}

/// A server that takes connections and does with each what it likes.
fn listener(serve: impl Fn(std::net::TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
    format!("grpc://{address}/x")
}

#[test]
fn a_server_that_stalls_costs_a_bounded_time() {
    let fake = Fake::new(Way::default());
    let bytes = noise(300_000);
    put(&*remote(&fake), &blob(&bytes), &bytes).unwrap();
    remote(&fake).put_record(&any_key(), b"record", &[]).unwrap();
    fake.state.way.stalled.store(true, Relaxed);
    let second = Duration::from_secs(1);
    let limits = Limits { connect: second, idle: second / 4, total: 10 * second };
    let short = Limits { total: second, idle: 60 * second, ..limits };
    let silent = std::sync::Mutex::new(Vec::new());
    let silent = listener(move |stream| silent.lock().unwrap().push(stream));
    for limits in [limits, short] {
        for url in [&fake.url, &silent] {
            let remote = open(url, &Settings { limits, ..settings() }).unwrap();
            type Ask<'a> = &'a dyn Fn() -> isolith::Result<()>;
            let asks: [Ask; 2] =
                [&|| get(&*remote, &blob(&bytes)).map(drop), &|| remote.records(&[any_key()]).map(drop)];
            for ask in asks {
                let began = Instant::now();
                let text = format!("{:?}", ask().unwrap_err());
                assert!(text.contains("stalled") || text.contains("takes too long"), "{text}");
                // What it may take to move a piece comes on top.
                assert!(began.elapsed() < 4 * second, "{:?}", began.elapsed());
            }
        }
    }
}

#[test]
fn servers_of_something_else() {
    let http = listener(|mut stream| {
        let _ = stream.read(&mut [0; 1000]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    });
    let closed = listener(drop);
    let gone = listener(|_| ()).replace("grpc://127.0.0.1:", "grpc://127.0.0.2:");
    for url in [http, closed, gone] {
        let began = Instant::now();
        let error = open(&url, &settings()).unwrap().records(&[any_key()]).unwrap_err();
        assert!(error.to_string().contains("cannot ask for records in grpc://"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
