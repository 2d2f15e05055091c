//! The servers behind the proxy. One that speaks anything over TCP is another function here.

use std::any::Any;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::proxy::Dice;
use super::servers::Server;
use crate::common::registry::DockerRegistry;

/// A server and how to reach it.
pub struct Backend {
    pub name: &'static str,
    pub port: u16,
    /// Where the remote of a run is, at a port.
    pub place: fn(u16, u64) -> Place,
    /// What such a server says when it does not want to.
    pub answers: &'static [&'static str],
    /// Takes some of the blobs of a run away.
    pub lose: Box<Lose>,
    /// Stops the server when it is dropped.
    _server: Box<dyn Any>,
}

/// The URL of a remote, and what the environment has to say for it.
pub struct Place {
    pub url: String,
    pub env: Vec<(&'static str, String)>,
}

impl Place {
    /// One that its URL alone tells.
    pub fn at(url: String) -> Place {
        Place { url, env: Vec::new() }
    }
}

type Lose = dyn Fn(u64, &mut Dice);

const HTTP: &[&str] = &[
    "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 301 Moved Permanently\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 50000\r\nConnection: close\r\n\r\nand no more",
    "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4/5\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    "SSH-2.0-OpenSSH_9.2\r\n",
];

const REDIS: &[&str] = &[
    "-ERR something\r\n",
    "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n",
    "-LOADING Redis is loading the dataset in memory\r\n",
    "-READONLY You can't write against a read only replica.\r\n",
    "+OK\r\n",
    ":0\r\n",
    "$5\r\nhello\r\n",
    "$50000\r\nand no more",
    "*-1\r\n",
    "HTTP/1.1 400 Bad Request\r\n\r\n",
];

/// A server's settings, then: the end of the connection (GOAWAY), of the first stream (RST_STREAM), an empty answer, a frame
/// longer than may be; and what is no HTTP/2 at all.
const HTTP2: &[&str] = &[
    "\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\x02",
    "\0\0\0\x04\0\0\0\0\0\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07",
    "\0\0\0\x04\0\0\0\0\0\0\0\x05\0\x01\0\0\0\x01hello",
    "\x7f\x7f\x7f\x04\0\0\0\0\0",
    "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    "SSH-2.0-OpenSSH_9.2\r\n",
];

pub fn registry() -> Backend {
    let server = DockerRegistry::open();
    let port = server.host().rsplit(':').next().unwrap().parse().unwrap();
    // Repositories share the bytes of blobs; there is one at a time that is asked.
    let blobs = server.storage().join("docker/registry/v2/blobs/sha256");
    let place = |port, run| Place::at(format!("oci://127.0.0.1:{port}/run{run}/cache"));
    let lose = Box::new(move |_, dice: &mut Dice| remove_some(&blobs, dice));
    Backend { name: "docker-registry", port, place, answers: HTTP, lose, _server: Box::new(server) }
}

pub fn webdav() -> Backend {
    let server = Server::webdav(false);
    let files = server.dir.path().join("files");
    let place = |port, run| Place::at(format!("webdav://127.0.0.1:{port}/run{run}"));
    let lose =
        Box::new(move |run, dice: &mut Dice| remove_some(&files.join(format!("run{run}/blobs")), dice));
    Backend {
        name: "nginx (WebDAV)",
        port: server.port,
        place,
        answers: HTTP,
        lose,
        _server: Box::new(server),
    }
}

pub fn s3() -> Backend {
    let server = Server::s3();
    let port = server.port;
    let place = |port, run| {
        Place::at(format!("s3://bucket/run{run}?region=us-east-1&endpoint=http://127.0.0.1:{port}"))
    };
    let lose = Box::new(move |run, dice: &mut Dice| {
        let bucket = format!("http://127.0.0.1:{port}/bucket");
        // What others have signed is theirs; moto does not look who signs.
        let signed = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
                      SignedHeaders=host, Signature=0";
        let list = ureq::get(format!("{bucket}?list-type=2&prefix=run{run}/blobs/"));
        let list = list.header("authorization", signed).call().unwrap();
        let list = list.into_body().read_to_string().unwrap();
        for key in list.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
            if dice.roll(2) == 0 {
                ureq::delete(format!("{bucket}/{key}")).header("authorization", signed).call().unwrap();
            }
        }
    });
    Backend { name: "moto (S3)", port, place, answers: HTTP, lose, _server: Box::new(server) }
}

pub fn redis() -> Backend {
    let server = Server::redis(None, None);
    let port = server.port;
    let place = |port, run| Place::at(format!("redis://127.0.0.1:{port}/0?prefix=run{run}:"));
    let lose = Box::new(move |run, dice: &mut Dice| {
        let ask = |words: &[&str]| {
            let mut command = Command::new("redis-cli");
            let out = command.args(["-p", &port.to_string(), "--raw"]).args(words).output().unwrap();
            String::from_utf8(out.stdout).unwrap()
        };
        for key in ask(&["keys", &format!("run{run}:blobs/*")]).lines() {
            if dice.roll(2) == 0 {
                ask(&["del", key]);
            }
        }
    });
    Backend { name: "redis", port, place, answers: REDIS, lose, _server: Box::new(server) }
}

pub fn reapi() -> Backend {
    let server = Server::reapi();
    let blobs = server.dir.path().join("cache/cas/objects");
    let place = |port, _| Place::at(format!("grpc://127.0.0.1:{port}/team/cache"));
    let lose = Box::new(move |_, dice: &mut Dice| remove_some(&blobs, dice));
    Backend {
        name: "buildbox-casd",
        port: server.port,
        place,
        answers: HTTP2,
        lose,
        _server: Box::new(server),
    }
}

pub fn actions() -> Backend {
    const TOKEN: &str = "of-this-job";
    let server = Server::ghac(TOKEN);
    let port = server.port;
    let place = |port, run| Place {
        url: format!("ghac:run{run}"),
        env: vec![
            ("ACTIONS_CACHE_SERVICE_V2", "True".to_string()),
            ("ACTIONS_RESULTS_URL", format!("http://127.0.0.1:{port}/")),
            ("ACTIONS_RUNTIME_TOKEN", TOKEN.to_string()),
        ],
    };
    let lose = Box::new(move |run, dice: &mut Dice| {
        let home = format!("http://127.0.0.1:{port}/entries");
        let keys = ureq::get(&home).call().unwrap().into_body().read_to_string().unwrap();
        for key in keys.lines().filter(|key| key.starts_with(&format!("run{run}/blobs/"))) {
            if dice.roll(2) == 0 {
                ureq::delete(format!("{home}/{key}")).call().unwrap();
            }
        }
    });
    Backend { name: "cache of Actions", port, place, answers: HTTP, lose, _server: Box::new(server) }
}

/// Files below a directory, in their order.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

fn remove_some(dir: &Path, dice: &mut Dice) {
    for file in files(dir) {
        if dice.roll(2) == 0 {
            fs::remove_file(file).unwrap();
        }
    }
}
