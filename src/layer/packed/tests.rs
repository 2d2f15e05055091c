use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use proptest::prelude::*;

use super::super::testing::*;
use super::super::{IdShift, Kind, Xattrs, pack};
use super::*;
use crate::digest::LayerId;

/// Files by their content.
struct Contents {
    dir: tempfile::TempDir,
    by_digest: HashMap<ContentDigest, PathBuf>,
}

impl Contents {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), by_digest: HashMap::new() }
    }

    fn file(&mut self, path: &str, bytes: &[u8]) -> Entry {
        let (size, digest) = (bytes.len() as u64, ContentDigest::of(bytes));
        let at = self.dir.path().join(digest.to_hex());
        std::fs::write(&at, bytes).unwrap();
        self.by_digest.insert(digest, at);
        entry(path, Kind::File { size, digest })
    }

    fn of(&self, entry: &Entry) -> Result<PathBuf> {
        match entry.kind {
            Kind::File { digest, .. } => Ok(self.by_digest[&digest].clone()),
            _ => panic!("{entry:?} has no content"),
        }
    }

    fn tar(&self, manifest: &Manifest) -> Vec<u8> {
        let mut out = Vec::new();
        pack(manifest, &|entry| self.of(entry), &mut out).unwrap();
        out
    }

    fn packed(&self, manifest: &Manifest, compression: Compression) -> (Vec<u8>, Packed) {
        let mut out = Vec::new();
        let known = packed(manifest, &|entry| self.of(entry), compression, &mut out).unwrap();
        (out, known)
    }
}

/// Bytes that compress a little, the same each time.
fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 & 0x3f
    };
    (0..len).map(next).collect()
}

fn sample() -> (Manifest, Contents) {
    let mut contents = Contents::new();
    let capability = hex("0100000200040000000000000000000000000000");
    let xattrs: Xattrs = [(b"security.capability".to_vec(), capability)].into();
    let tool = Entry { mode: 0o4755, xattrs, ..contents.file("/bin/tool", &noise(5000, 1)) };
    let manifest = layer([
        contents.file("/big", &noise(9 << 20, 2)),
        tool,
        link("/bin/tool2", "/bin/tool"),
        contents.file("/empty", b""),
        contents.file("/even", &noise(4 << 20, 3)),
        contents.file("/lib/a", b"the same"),
        contents.file("/lib/b", b"the same"),
        gone("/gone"),
        opaque("/opaque"),
        symlink("/link", "bin/tool"),
        entry("/pipe", Kind::Fifo),
    ]);
    (manifest, contents)
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..][..2], 16).unwrap()).collect()
}

fn decompressed(program: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let mut out = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
    writer.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    out
}

#[test]
fn other_programs_decompress_it_to_the_very_archive() {
    let (manifest, contents) = sample();
    let tar = contents.tar(&manifest);
    for (compression, program) in [(Compression::Gzip, ["gzip", "-d"]), (Compression::Zstd, ["zstd", "-d"])] {
        let (bytes, known) = contents.packed(&manifest, compression);
        assert!(decompressed(&program, &bytes) == tar, "{compression:?}");
        assert_eq!(known.diff_id, digests::sha256(&tar));
        assert_eq!(known.digest, digests::sha256(&bytes));
        assert_eq!((known.blob, known.size), (ContentDigest::of(&bytes), bytes.len() as u64));
        assert!(bytes.len() * 10 < tar.len() * 9, "it is compressed");
        assert_eq!(contents.packed(&manifest, compression).0, bytes, "and the same each time");
    }
}

/// A compressor that has worked before gives what a fresh one gives.
#[test]
fn frames_do_not_depend_on_those_before() {
    let pieces: Vec<Vec<u8>> =
        (0..60u32).map(|n| noise([70, 9000, 400_000, 3 << 20][n as usize % 4] + n as usize, n / 7)).collect();
    let used: Vec<_> = pieces.iter().map(|piece| zstd::frame(piece).unwrap()).collect();
    for (piece, used) in pieces.iter().zip(used) {
        let piece = piece.clone();
        let fresh = std::thread::spawn(move || zstd::frame(&piece).unwrap()).join().unwrap();
        assert!(fresh == used);
    }
}

/// The bytes of version 1. When a library gives others, what is pushed has other digests than before: think twice.
#[test]
fn bytes_stay_the_same() {
    let mut contents = Contents::new();
    let manifest = layer([contents.file("/a", &noise(20_000, 5)), contents.file("/b/c", b"hello")]);
    let digest = |compression| contents.packed(&manifest, compression).1.digest;
    insta::assert_snapshot!(digest(Compression::Gzip), @"sha256:23426a1635066b2f5b336a0ba4c7d7deef5758e1a4ccb80a648f1d1e14111680");
    insta::assert_snapshot!(digest(Compression::Zstd), @"sha256:db5a4012cf5458e7196af3f094ccffa5e7fd34399820ed372a12a04ec17038ae");
}

#[test]
fn a_table_for_zstd_chunked_leads_to_every_file() {
    let (manifest, contents) = sample();
    let (bytes, known) = contents.packed(&manifest, Compression::Zstd);
    let position = |name: &str| -> Vec<usize> {
        let text = &known.annotations[&format!("io.github.containers.zstd-chunked.{name}-position")];
        text.split(':').map(|n| n.parse().unwrap()).collect()
    };
    let [at, length, plain, 1] = position("manifest")[..] else { panic!("four numbers") };
    let toc = &bytes[at..][..length];
    let checksum = &known.annotations["io.github.containers.zstd-chunked.manifest-checksum"];
    assert_eq!(*checksum, digests::sha256(toc));
    let toc = ::zstd::decode_all(toc).unwrap();
    assert_eq!(toc.len(), plain);
    let toc: serde_json::Value = serde_json::from_slice(&toc).unwrap();
    let [split_at, split_length, split_plain] = position("tarsplit")[..] else { panic!("three numbers") };
    let split = &bytes[split_at..][..split_length];
    assert_eq!(toc["tarSplitDigest"], digests::sha256(split));
    let split = ::zstd::decode_all(split).unwrap();
    assert_eq!(split.len(), split_plain);

    // Every file is where the table says, part by part.
    let mut files: HashMap<String, Vec<u8>> = HashMap::new();
    let entries = toc["entries"].as_array().unwrap();
    for (at, entry) in entries.iter().enumerate().filter(|(_, entry)| entry["offset"].is_u64()) {
        let offset = entry["offset"].as_u64().unwrap() as usize;
        let end = entry["endOffset"].as_u64().map(|end| end as usize).unwrap_or(bytes.len());
        let next = entries.get(at + 1).filter(|next| next["type"] == "chunk");
        let end = next.map_or(end, |next| next["offset"].as_u64().unwrap() as usize);
        let part = match entry["chunkSize"].as_u64() {
            Some(size) => {
                let mut part = vec![0; size as usize];
                ::zstd::Decoder::new(&bytes[offset..end]).unwrap().read_exact(&mut part).unwrap();
                assert_eq!(entry["chunkDigest"], digests::sha256(&part));
                part
            }
            None => ::zstd::decode_all(&bytes[offset..end]).unwrap(),
        };
        let file = files.entry(entry["name"].as_str().unwrap().to_string()).or_default();
        assert_eq!(entry["chunkOffset"].as_u64().unwrap_or(0), file.len() as u64);
        file.extend(part);
    }
    assert_eq!(files.len(), 5);
    for entry in entries.iter().filter(|entry| entry["digest"].is_string()) {
        assert_eq!(entry["digest"], digests::sha256(&files[entry["name"].as_str().unwrap()]));
    }

    // The archive comes out of the tar-split lines and the files again.
    let mut tar = Vec::new();
    for line in split.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        use base64::Engine;
        let line: serde_json::Value = serde_json::from_slice(line).unwrap();
        let payload = line["payload"]
            .as_str()
            .map(|text| base64::engine::general_purpose::STANDARD.decode(text).unwrap());
        match (line["type"].as_u64().unwrap(), line["size"].as_u64()) {
            (2, _) => tar.extend(payload.unwrap()),
            (_, None) => assert_eq!(payload, None),
            (_, Some(size)) => {
                let file = &files[line["name"].as_str().unwrap()];
                assert_eq!(file.len() as u64, size);
                assert_eq!(payload.unwrap(), tar_split::CRC.checksum(file).to_be_bytes());
                tar.extend(file);
            }
        }
    }
    assert!(tar == contents.tar(&manifest));
    // From the catalogue of checksums: CRC-64/GO-ISO of "123456789".
    assert_eq!(tar_split::CRC.checksum(b"123456789"), 0xb909_56c7_75a4_1001);
}

#[test]
fn names_that_json_cannot_say_leave_only_our_own_table() {
    let mut contents = Contents::new();
    let mut odd = contents.file("/x", b"1");
    odd.path = crate::path::GuestPath::from_relative(b"\xff").unwrap();
    let manifest = layer([odd, contents.file("/y", b"2")]);
    let (bytes, known) = contents.packed(&manifest, Compression::Zstd);
    assert!(known.annotations.is_empty());
    assert_eq!(decompressed(&["zstd", "-d"], &bytes), contents.tar(&manifest));
    assert_eq!(*Table::read(&Bytes::new(bytes), &manifest.id()).unwrap().manifest(), manifest);
}

/// Bytes that know what was read of them.
struct Bytes {
    bytes: Vec<u8>,
    read: Mutex<u64>,
}

impl Bytes {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, read: Mutex::new(0) }
    }
}

impl Ranges for Bytes {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        *self.read.lock().unwrap() += length as u64;
        let bytes = self.bytes.get(at as usize..).and_then(|rest| rest.get(..length));
        Ok(bytes.expect("only what is there is asked for").to_vec())
    }
}

fn rebuilt(bytes: &Bytes, id: &LayerId, here: &[(ContentDigest, PathBuf)]) -> Result<Rebuilt> {
    let dir = tempfile::tempdir().unwrap();
    let (scratch, dest) = (dir.path().join("scratch"), dir.path().join("fs"));
    std::fs::create_dir(&scratch).unwrap();
    std::fs::create_dir(&dest).unwrap();
    let table = Table::read(bytes, id)?;
    let local =
        |digest: &ContentDigest| here.iter().find(|(known, _)| known == digest).map(|(_, path)| path.clone());
    let ids = IdShift::by(rustix::process::geteuid().as_raw());
    rebuild(&table, bytes, &local, &scratch, &dest, ids, 1 << 30)
}

#[test]
fn only_what_is_not_here_is_fetched() {
    if !rustix::process::geteuid().is_root() {
        return; // For the capability and the whiteout.
    }
    let (manifest, contents) = sample();
    let (bytes, _) = contents.packed(&manifest, Compression::Zstd);
    let (id, bytes) = (manifest.id(), Bytes::new(bytes));
    let all = rebuilt(&bytes, &id, &[]).unwrap();
    assert_eq!((all.reused, all.fetched), (0, 5));
    assert!(all.bytes > 8 << 20 && all.bytes < bytes.size());

    let here: Vec<_> = contents.by_digest.clone().into_iter().collect();
    *bytes.read.lock().unwrap() = 0;
    assert_eq!(rebuilt(&bytes, &id, &here).unwrap(), Rebuilt { reused: 6, fetched: 0, bytes: 0 });
    assert!(*bytes.read.lock().unwrap() <= 64 << 10, "the table alone");

    let big = ContentDigest::of(&noise(9 << 20, 2));
    let without: Vec<_> = here.iter().filter(|(digest, _)| *digest != big).cloned().collect();
    let one = rebuilt(&bytes, &id, &without).unwrap();
    assert_eq!((one.reused, one.fetched), (5, 1));
    assert!(one.bytes < 9 << 20);

    // A file here that is not what it should be does not get in.
    let wrong = contents.dir.path().join("wrong");
    std::fs::write(&wrong, noise(9 << 20, 4)).unwrap();
    let error = rebuilt(&bytes, &id, &[without, vec![(big, wrong)]].concat()).unwrap_err();
    assert!(error.to_string().contains("is not what it says"), "{error}");
}

#[test]
fn another_layer_and_bytes_that_are_damaged_are_refused() {
    let mut contents = Contents::new();
    let manifest = layer([contents.file("/a", &noise(3000, 5)), contents.file("/b/c", b"hello")]);
    let (bytes, _) = contents.packed(&manifest, Compression::Zstd);
    let error = |bytes: &[u8], id: &LayerId| {
        Table::read(&Bytes::new(bytes.to_vec()), id).map(|_| ()).unwrap_err().to_string()
    };
    let id = manifest.id();
    assert!(error(&bytes, &Manifest::empty_id()).contains("another layer"));
    for none in [&b""[..], b"x", &[0; 48], &bytes[..bytes.len() - 1], &bytes[..100]] {
        assert!(error(none, &id).contains("no table of contents"));
    }
    // Whatever byte is another one: an error, or the very layer.
    for at in (0..bytes.len()).step_by(11) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        let _ = rebuilt(&Bytes::new(damaged), &id, &[]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]
    #[test]
    fn every_layer_comes_back(layer in any_layer()) {
        let mut contents = Contents::new();
        for size in 0..3 {
            contents.file("/x", &vec![0; size]);
        }
        for compression in [Compression::Gzip, Compression::Zstd] {
            let (bytes, known) = contents.packed(&layer, compression);
            let tar = contents.tar(&layer);
            prop_assert_eq!(known.diff_id, digests::sha256(&tar));
            let mut plain = Vec::new();
            super::super::decompress(std::io::Cursor::new(bytes.clone())).unwrap().read_to_end(&mut plain).unwrap();
            prop_assert!(plain == tar);
            if compression == Compression::Zstd {
                let table = Table::read(&Bytes::new(bytes), &layer.id()).unwrap();
                prop_assert_eq!(table.manifest(), &layer);
            }
        }
    }
}
