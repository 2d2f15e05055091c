//! Downloads from servers that behave, and from such that do not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use isolith::digest::ContentDigest;
use isolith::error::{Class, Error};
use isolith::source::fetch::{self, Access, Fetched, Proxies, Want, fetch};
use isolith::source::{Algorithm, Pin};

use crate::server::{Server, head, ok, redirect, rest};
use crate::{Ears, Place};

/// Short of patience.
fn access() -> Access {
    Access {
        stall: Duration::from_millis(400),
        pause: Duration::from_millis(5),
        tries: 3,
        ..Access::default()
    }
}

fn pin(bytes: &[u8]) -> Pin {
    Pin::new(Algorithm::Blake3, &ContentDigest::of(bytes).to_hex()).unwrap()
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 % 251) as u8).collect()
}

fn get(place: &Place, access: &Access, urls: &[String], pin: Option<&Pin>) -> Result<Fetched, Error> {
    let began = Instant::now();
    let got = fetch(&place.store, access, &Want { what: "source `src`", urls, pin }, &Ears::default());
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    place.assert_clean();
    got
}

/// Fails, with a hint, and says each of `parts`.
fn fails(place: &Place, access: &Access, urls: &[String], pin: Option<&Pin>, parts: &[&str]) -> Error {
    let error = get(place, access, urls, pin).unwrap_err();
    assert!(error.hint_text().is_some(), "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "`{part}` is not in: {error}");
    }
    error
}

#[test]
fn bytes_come_once_and_are_shared() {
    let (place, body) = (Place::new(), bytes(300_000));
    let sent = body.clone();
    let server = Server::of(sent);
    let urls = [server.url("x")];
    let got = get(&place, &access(), &urls, None).unwrap();
    assert_eq!((got.blob, got.size), (ContentDigest::of(&body), 300_000));
    assert_eq!(got.pin.algorithm(), Algorithm::Sha256);
    // By any digest, without asking again.
    for pin in [pin(&body), got.pin.clone()] {
        assert_eq!(get(&place, &access(), &urls, Some(&pin)).unwrap().blob, got.blob);
        let mut back = Vec::new();
        fetch::open(&place.store, &pin).unwrap().unwrap().read_to_end(&mut back).unwrap();
        assert!(back == body);
    }
    assert_eq!(server.asked().len(), 1);
    // A blob that was damaged is fetched again.
    std::fs::write(place.store.blob_path(&got.blob), b"damaged").unwrap();
    get(&place, &access(), &urls, Some(&got.pin)).unwrap();
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn other_bytes_than_the_pinned_ones() {
    let place = Place::new();
    let server = Server::of(b"others".to_vec());
    for algorithm in Algorithm::ALL {
        let wanted = Pin::new(algorithm, &"ab".repeat(algorithm.digits() / 2)).unwrap();
        let urls = [server.url("x")];
        let error =
            fails(&place, &access(), &urls, Some(&wanted), &["expected", "got", &urls[0], wanted.hex()]);
        assert_eq!(error.class(), Class::Recipe);
        assert!(error.hint_text().unwrap().contains("isolith lock --update"), "{error}");
    }
    // The next mirror may have the right ones.
    let good = Server::of(b"right".to_vec());
    let urls = [server.url("x"), good.url("x")];
    assert_eq!(
        get(&place, &access(), &urls, Some(&pin(b"right"))).unwrap().blob,
        ContentDigest::of(b"right")
    );
}

#[test]
fn what_breaks_off_is_resumed() {
    let (place, body) = (Place::new(), bytes(200_000));
    let sent = body.clone();
    let server = Server::new(move |asked, stream| match asked.from {
        None => {
            head(stream, "200 OK", &[&format!("Content-Length: {}", sent.len())])?;
            stream.write_all(&sent[..70_000])
        }
        Some(from) => rest(stream, &sent, from),
    });
    get(&place, &access(), &[server.url("x")], Some(&pin(&body))).unwrap();
    let from: Vec<_> = server.asked().iter().map(|asked| asked.from).collect();
    assert_eq!(from, [None, Some(70_000)]);
}

#[test]
fn without_a_pin_only_the_same_version_is_resumed() {
    let (place, body) = (Place::new(), bytes(1000));
    let sent = body.clone();
    let server = Server::new(move |asked, stream| {
        let length = format!("Content-Length: {}", sent.len());
        match (asked.nth, asked.path.as_str(), asked.from) {
            (_, "/tagged", Some(from)) => {
                assert!(
                    asked.headers.iter().any(|h| h.eq_ignore_ascii_case("if-range: \"v1\"")),
                    "{asked:?}"
                );
                rest(stream, &sent, from)
            }
            (_, "/tagged", None) => {
                head(stream, "200 OK", &[&length, "ETag: \"v1\""])?;
                stream.write_all(&sent[..100])
            }
            (_, _, from) => {
                assert_eq!(from, None, "a part of an unknown version was asked for");
                head(stream, "200 OK", &[&length])?;
                stream.write_all(if asked.nth % 2 == 0 { &sent[..100] } else { &sent })
            }
        }
    });
    for path in ["tagged", "plain"] {
        let place = Place::new();
        let got = get(&place, &access(), &[server.url(path)], None).unwrap();
        assert_eq!(got.blob, ContentDigest::of(&body), "{path}");
    }
    drop(place);
}

#[test]
fn a_resumed_file_that_is_wrong_is_fetched_whole() {
    let (place, body) = (Place::new(), bytes(10_000));
    let sent = body.clone();
    // The first half comes from another version.
    let server = Server::new(move |asked, stream| match (asked.nth, asked.from) {
        (0, _) => {
            head(stream, "200 OK", &["Content-Length: 10000"])?;
            stream.write_all(&[7; 5000])
        }
        (_, Some(from)) => rest(stream, &sent, from),
        (_, None) => ok(stream, &sent),
    });
    get(&place, &access(), &[server.url("x")], Some(&pin(&body))).unwrap();
}

#[test]
fn errors_that_pass_and_errors_that_do_not() {
    let (place, body) = (Place::new(), b"body".to_vec());
    let server = Server::new(move |asked, stream| match (asked.path.as_str(), asked.nth) {
        ("/never", _) => head(stream, "503 Service Unavailable", &["Content-Length: 0"]),
        ("/gone", _) => head(stream, "404 Not Found", &["Content-Length: 0"]),
        (_, 0 | 1) => head(stream, "500 Internal Server Error", &["Content-Length: 0"]),
        _ => ok(stream, b"body"),
    });
    get(&place, &access(), &[server.url("x")], Some(&pin(&body))).unwrap();
    assert_eq!(server.asked().len(), 3);
    fails(&place, &access(), &[server.url("gone")], None, &["404"]);
    assert_eq!(server.asked().len(), 4, "what is not there is asked for once");
    fails(&place, &access(), &[server.url("never")], None, &["503", &server.url("never")]);
    assert_eq!(server.asked().len(), 7);
    // Mirrors in order.
    let urls = [server.url("gone"), server.url("x")];
    get(&place, &access(), &urls, None).unwrap();
}

#[test]
fn servers_that_mean_harm() {
    let place = Place::new();
    let cases: Vec<(&str, Server, &str)> = vec![
        (
            "stalls before it answers",
            Server::new(|_, stream| {
                std::thread::sleep(Duration::from_secs(2));
                ok(stream, b"late")
            }),
            "stalled",
        ),
        (
            "stalls in the middle",
            Server::new(|_, stream| {
                head(stream, "200 OK", &["Content-Length: 100000"])?;
                stream.write_all(b"begin")?;
                std::thread::sleep(Duration::from_secs(2));
                Ok(())
            }),
            "stalled",
        ),
        ("drips", Server::new(|_, stream| drip(stream)), "stalled"),
        (
            "breaks off",
            Server::new(|_, stream| {
                head(stream, "200 OK", &["Content-Length: 100000"])?;
                stream.write_all(b"begin")
            }),
            "broken off",
        ),
        ("hangs up", Server::new(|_, _| Ok(())), "127.0.0.1"),
        ("talks nonsense", Server::new(|_, stream| stream.write_all(b"SSH-2.0-hello\r\n\r\n")), "127.0.0.1"),
        ("never ends its headers", Server::of_headers(), "127.0.0.1"),
        ("never ends", Server::without_end(), "limit"),
        (
            "says it is huge",
            Server::new(|_, stream| head(stream, "200 OK", &["Content-Length: 99999999999"])),
            "limit",
        ),
        (
            "redirects to itself",
            Server::new(|asked, stream| redirect(stream, &asked.path)),
            "redirects more than",
        ),
        (
            "redirects on and on",
            Server::new(|asked, stream| redirect(stream, &format!("/{}", asked.nth))),
            "redirects more than",
        ),
        (
            "redirects to a file",
            Server::new(|_, stream| redirect(stream, "file:///etc/passwd")),
            "local file",
        ),
        ("redirects to gopher", Server::new(|_, stream| redirect(stream, "gopher://x/")), "gopher"),
        (
            "redirects to nowhere",
            Server::new(|_, stream| head(stream, "302 Found", &["Content-Length: 0"])),
            "nowhere",
        ),
    ];
    let access = Access { max_size: 1 << 20, tries: 2, ..access() };
    for (name, server, says) in &cases {
        let error = fails(&place, &access, &[server.url("x")], Some(&pin(b"good")), &[says]);
        assert_eq!(error.class(), Class::Machine, "{name}: {error}");
    }
}

fn drip(stream: &mut TcpStream) -> std::io::Result<()> {
    head(stream, "200 OK", &["Content-Length: 100000"])?;
    for _ in 0..100 {
        stream.write_all(b".")?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn a_length_that_is_a_lie() {
    let place = Place::new();
    // Less than there is: the rest is never looked at, and the digest tells.
    let short = Server::new(|_, stream| {
        head(stream, "200 OK", &["Content-Length: 4"])?;
        stream.write_all(b"body and more")
    });
    fails(&place, &access(), &[short.url("x")], Some(&pin(b"body and more")), &["expected", "got"]);
    // A part that is not the one that was asked for.
    let other = Server::new(|asked, stream| match asked.from {
        None => {
            head(stream, "200 OK", &["Content-Length: 10"])?;
            stream.write_all(b"01234")
        }
        Some(_) => {
            head(stream, "206 Partial Content", &["Content-Range: bytes 0-9/10", "Content-Length: 10"])?;
            stream.write_all(b"0123456789")
        }
    });
    fails(&place, &access(), &[other.url("x")], Some(&pin(b"0123456789")), &["broken off"]);
}

#[test]
fn redirects_are_followed_and_each_must_be_allowed() {
    let place = Place::new();
    let server = Server::new(|asked, stream| match asked.path.as_str() {
        "/a/b" => redirect(stream, "../c"),
        "/c" | "/a/../c" => redirect(stream, "/d"),
        _ => ok(stream, b"body"),
    });
    get(&place, &access(), &[server.url("a/b")], Some(&pin(b"body"))).unwrap();
    let only = Access { allowed_hosts: Some(vec!["127.0.0.1".into()]), ..access() };
    let away = Server::new(|_, stream| redirect(stream, "http://localhost:1/x"));
    fails(&place, &only, &[away.url("x")], None, &["allowed-hosts", "localhost"]);
}

#[test]
fn offline_and_hosts_that_are_not_allowed_open_no_socket() {
    let place = Place::new();
    let server = Server::of(b"body".to_vec());
    let urls = [server.url("x")];
    let offline = Access { offline: true, ..access() };
    let error = fails(&place, &offline, &urls, Some(&pin(b"body")), &["source `src`", &urls[0], "offline"]);
    assert!(error.hint_text().unwrap().contains("--offline"));
    let hosts = Access { allowed_hosts: Some(vec!["example.org".into()]), ..access() };
    fails(&place, &hosts, &urls, Some(&pin(b"body")), &["allowed-hosts"]);
    assert_eq!(server.asked().len(), 0);
    // What is there, or on this machine, needs no network.
    std::fs::write(place.path("file"), b"body").unwrap();
    let file = [format!("file://{}", place.path("file").display())];
    get(&place, &offline, &file, Some(&pin(b"body"))).unwrap();
    get(&place, &offline, &urls, Some(&pin(b"body"))).unwrap();
    fails(&place, &offline, &[format!("file://{}", place.path("").display())], None, &["not a regular file"]);
}

#[test]
fn mirrors_come_first_and_the_url_itself_last() {
    let place = Place::new();
    let (mirror, origin) = (Server::of(b"body".to_vec()), Server::of(b"body".to_vec()));
    let to = vec!["http://127.0.0.1:1/".to_string(), mirror.url("m/")];
    let access = Access { mirrors: vec![(origin.url(""), to)], ..access() };
    get(&place, &access, &[origin.url("a/x")], Some(&pin(b"body"))).unwrap();
    assert_eq!(mirror.asked()[0].path, "/m/a/x");
    assert_eq!(origin.asked().len(), 0);
}

#[test]
fn proxies_are_asked() {
    let place = Place::new();
    let proxy = Server::new(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            request.push(byte[0]);
        }
        ok(stream, b"body")
    });
    let proxies = Proxies { http: Some(proxy.url("")), ..Proxies::default() };
    let through = Access { proxies, ..access() };
    get(&place, &through, &["http://nowhere.invalid/x".to_string()], Some(&pin(b"body"))).unwrap();
    assert_eq!(proxy.asked()[0].path, "nowhere.invalid:80");
}

#[test]
fn a_download_that_is_cancelled_ends_at_once() {
    let place = Place::new();
    let server = Server::new(|_, stream| {
        head(stream, "200 OK", &["Content-Length: 100000"])?;
        std::thread::sleep(Duration::from_secs(5));
        stream.write_all(b"late")
    });
    let ears = Ears::default();
    let access = Access { stall: Duration::from_secs(30), ..access() };
    let urls = [server.url("x")];
    let began = Instant::now();
    let got = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            ears.cancel.store(true, Ordering::Relaxed);
        });
        fetch(&place.store, &access, &Want { what: "x", urls: &urls, pin: None }, &ears)
    });
    assert_eq!(got.unwrap_err().class(), Class::Interrupted);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    place.assert_clean();
}

#[test]
fn progress_is_told() {
    let place = Place::new();
    let server = Server::of(bytes(100_000));
    let ears = Ears::default();
    let urls = [server.url("x")];
    fetch(&place.store, &access(), &Want { what: "x", urls: &urls, pin: None }, &ears).unwrap();
    let heard = ears.heard.lock().unwrap();
    let last = heard.last().unwrap();
    assert!(
        last.done && last.bytes == 100_000 && last.total == Some(100_000) && last.url == urls[0],
        "{last:?}"
    );
    assert!(!heard[0].done);
}
