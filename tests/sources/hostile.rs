//! Archives that mean harm: each is a clear error in bounded time, and nothing is left behind.

use std::io::{Cursor, Write};
use std::time::{Duration, Instant};

use isolith::layer::Limits;

use crate::Place;
use crate::archives::unpack;

/// Small enough that a bomb is over soon.
const LIMITS: Limits = Limits { bytes: 4 << 20, entries: 1000 };

/// A raw tar member.
#[derive(Clone)]
struct Raw {
    name: Vec<u8>,
    kind: u8,
    link: Vec<u8>,
    data: Vec<u8>,
    /// What the size field says; by default the truth.
    size: Option<Vec<u8>>,
}

fn member(name: &str, kind: u8) -> Raw {
    Raw { name: name.into(), kind, link: Vec::new(), data: Vec::new(), size: None }
}

fn file(name: &str) -> Raw {
    Raw { data: b"data".to_vec(), ..member(name, b'0') }
}

fn dir(name: &str) -> Raw {
    member(name, b'5')
}

fn link(kind: u8, name: &str, to: &str) -> Raw {
    Raw { link: to.into(), ..member(name, kind) }
}

fn symlink(name: &str, to: &str) -> Raw {
    link(b'2', name, to)
}

fn hard(name: &str, to: &str) -> Raw {
    link(b'1', name, to)
}

fn with(kind: u8, data: impl Into<Vec<u8>>) -> Raw {
    Raw { data: data.into(), ..member("extended", kind) }
}

fn pax(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let mut len = rest.len() + 1;
    while len.to_string().len() + rest.len() != len {
        len = len.to_string().len() + rest.len();
    }
    [len.to_string().as_bytes(), &rest].concat()
}

fn block(raw: &Raw) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &raw.name[..raw.name.len().min(100)]);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, raw.size.as_deref().unwrap_or(format!("{:011o}\0", raw.data.len()).as_bytes()));
    put(136, b"00000000001\0");
    put(156, &[raw.kind]);
    put(157, &raw.link[..raw.link.len().min(100)]);
    put(257, b"ustar\x0000");
    put(148, b"        ");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(&raw.data);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn tar(members: &[Raw]) -> Vec<u8> {
    let mut out: Vec<u8> = members.iter().flat_map(block).collect();
    out.extend([0; 1024]);
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn flipped(mut bytes: Vec<u8>, from_end: usize) -> Vec<u8> {
    let at = bytes.len() - from_end;
    bytes[at] ^= 0xff;
    bytes
}

fn half(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() / 2);
    bytes
}

/// Honest, and hard to compress.
fn noise() -> Vec<u8> {
    let data: Vec<u8> = (0..60_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    tar(&[Raw { data, ..file("noise") }])
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut out = zstd::Encoder::new(Vec::new(), 1).unwrap();
    out.include_checksum(true).unwrap();
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// 64 MiB of zeros and a few more, cheaply.
fn zeros(before: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(before).unwrap();
    for _ in 0..64 {
        out.write_all(&vec![0; 1 << 20]).unwrap();
    }
    out.finish().unwrap()
}

fn zip_of(members: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut out = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, mode, data) in members {
        let options = zip::write::SimpleFileOptions::default()
            .unix_permissions(mode & 0o777)
            .compression_method(zip::CompressionMethod::Stored);
        match mode & 0o170_000 {
            0o120_000 => out.add_symlink(*name, String::from_utf8(data.to_vec()).unwrap(), options).unwrap(),
            _ => {
                out.start_file(*name, options).unwrap();
                out.write_all(data).unwrap();
            }
        }
    }
    out.finish().unwrap().into_inner()
}

/// Replaces bytes that are there, everywhere.
fn edited(mut bytes: Vec<u8>, old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let mut found = 0;
    for at in 0..=bytes.len() - old.len() {
        if &bytes[at..at + old.len()] == old {
            bytes[at..at + old.len()].copy_from_slice(new);
            found += 1;
        }
    }
    assert!(found > 0, "nothing to edit");
    bytes
}

/// The central directory's copy of a field of the only member.
fn central(mut bytes: Vec<u8>, at: usize, value: &[u8]) -> Vec<u8> {
    let start = bytes.windows(4).rposition(|b| b == b"PK\x01\x02").unwrap();
    bytes[start + at..start + at + value.len()].copy_from_slice(value);
    bytes
}

fn repeat(raw: impl Fn(usize) -> Raw, n: usize) -> Vec<Raw> {
    (0..n).map(raw).collect()
}

/// Each with what it is.
pub fn cases() -> Vec<(&'static str, Vec<u8>)> {
    let big = vec![b'x'; 1 << 20];
    let long = "n".repeat(300);
    let deep = "d/".repeat(3000) + "f";
    let mut cases = vec![
        ("a name with ..", tar(&[file("../evil")])),
        ("a name with .. inside", tar(&[file("a/../../evil")])),
        ("a directory ..", tar(&[dir("..")])),
        ("an absolute name", tar(&[file("/tmp/isolith-evil")])),
        ("an absolute directory", tar(&[dir("/tmp/isolith-evil")])),
        ("below an absolute symlink", tar(&[symlink("a", "/tmp"), file("a/isolith-evil")])),
        ("below a relative symlink", tar(&[symlink("a", "../.."), file("a/isolith-evil")])),
        ("below a symlink to a directory", tar(&[dir("d"), symlink("a", "d"), file("a/f")])),
        ("below a chain of symlinks", tar(&[symlink("a", "."), symlink("b", "a/.."), file("b/f")])),
        ("a directory over a symlink", tar(&[symlink("a", "/tmp"), dir("a"), file("a/isolith-evil")])),
        ("a file over a symlink", tar(&[symlink("a", "/tmp/isolith-evil"), file("a")])),
        ("a symlink over a file", tar(&[file("a"), symlink("a", "/etc/passwd")])),
        ("a symlink over a directory", tar(&[dir("a"), symlink("a", "/etc")])),
        ("a hard link to an absolute name", tar(&[hard("a", "/etc/passwd")])),
        ("a hard link to ..", tar(&[hard("a", "../../../../etc/passwd")])),
        ("a hard link through a symlink", tar(&[symlink("s", "/etc"), hard("a", "s/passwd")])),
        ("a hard link to nothing", tar(&[hard("a", "b")])),
        ("a hard link to itself", tar(&[hard("a", "a")])),
        ("a hard link to a directory", tar(&[dir("d"), hard("a", "d")])),
        ("a hard link over its file", tar(&[file("a"), hard("a", "a")])),
        ("a character device", tar(&[member("null", b'3')])),
        ("a block device", tar(&[member("sda", b'4')])),
        ("a fifo", tar(&[member("fifo", b'6')])),
        ("an unknown kind", tar(&[member("odd", b'Z')])),
        ("a sparse file", tar(&[Raw { size: Some(b"77777777777\0".to_vec()), ..member("sparse", b'S') }])),
        (
            "a huge sparse file by pax",
            tar(&[with(b'x', pax("GNU.sparse.realsize", b"99999999999999")), file("s")]),
        ),
        ("a file twice", tar(&[file("a"), file("a")])),
        ("a file twice, written otherwise", tar(&[file("a/b"), file("./a//b")])),
        ("a directory over a file", tar(&[file("a"), dir("a")])),
        ("a file over a directory", tar(&[dir("a"), file("a")])),
        ("below a file", tar(&[file("a"), file("a/b")])),
        ("an empty symlink", tar(&[symlink("a", "")])),
        ("a symlink of 5000 bytes", tar(&[with(b'K', "l".repeat(5000)), symlink("a", "l")])),
        ("a long name with ..", tar(&[with(b'L', "x/../../evil\0"), file("a")])),
        ("a pax path with ..", tar(&[with(b'x', pax("path", b"x/../../evil")), file("a")])),
        ("a pax path with a NUL", tar(&[with(b'x', pax("path", b"x\0y")), file("a")])),
        ("a name that is too long", tar(&[with(b'L', long.as_str()), file("a")])),
        ("a path that is too deep", tar(&[with(b'L', deep.as_str()), file("a")])),
        ("a file that is the root", tar(&[file(".")])),
        ("cut in a header", tar(&[file("a"), file("b")])[..1300].to_vec()),
        ("cut in data", tar(&[Raw { data: big.clone(), ..file("a") }])[..5000].to_vec()),
        ("no end", tar(&[file("a")])[..1024].to_vec()),
        ("a wrong checksum", edited(tar(&[file("abcdef")]), b"abcdef", b"abcdeg")),
        ("a negative size", tar(&[Raw { size: Some(vec![0xff; 12]), ..file("a") }])),
        ("a size that is no number", tar(&[Raw { size: Some(b"12x45678901\0".to_vec()), ..file("a") }])),
        ("a huge size", tar(&[Raw { size: Some(b"77777777777\0".to_vec()), ..file("a") }])),
        ("a huge size by pax", tar(&[with(b'x', pax("size", b"9000000000000000000")), file("a")])),
        ("a malformed pax record", tar(&[with(b'x', "99 path=x\n"), file("a")])),
        ("a huge pax header", tar(&[with(b'x', pax("comment", &vec![b'x'; 2 << 20])), file("a")])),
        ("pax headers without end", tar(&repeat(|_| with(b'x', pax("comment", &[b'x'; 500_000])), 30))),
        (
            "global headers without end",
            tar(&repeat(|n| with(b'g', pax(&format!("c{n}"), &[b'x'; 50_000])), 30)),
        ),
        ("too many names", tar(&repeat(|n| file(&n.to_string()), 1001))),
        ("too many implied directories", tar(&repeat(|n| file(&format!("{n}/f")), 600))),
        (
            "copies that add up",
            tar(&[vec![Raw { data: big.clone(), ..file("a") }], repeat(|n| hard(&n.to_string(), "a"), 9)]
                .concat()),
        ),
        ("a bomb", zeros(&block(&Raw { size: Some(b"00400000000\0".to_vec()), ..file("a") })[..512])),
        ("a bomb in what is behind the end", zeros(&tar(&[file("a")]))),
        ("gzip with a wrong sum", flipped(gzip(&noise()), 6)),
        ("gzip with a wrong length", flipped(gzip(&noise()), 2)),
        ("gzip, cut off", half(gzip(&noise()))),
        ("xz, cut off", half(xz(&noise()))),
        ("xz with a wrong sum", flipped(xz(&noise()), 200)),
        ("bzip2, cut off", half(bzip2(&noise()))),
        ("bzip2 with a wrong sum", flipped(bzip2(&noise()), 3)),
        ("zstd, cut off", half(zstd(&noise()))),
        ("zstd with a wrong sum", flipped(zstd(&noise()), 2)),
        ("xz that wants memory", {
            // The block header: its size, flags, filter LZMA2, and the size of its dictionary (4 GiB), with a new sum.
            let mut bytes = xz(&noise());
            assert_eq!(bytes[12..16], [2, 0, 0x21, 1]);
            bytes[16] = 40;
            let sum = crc32fast::hash(&bytes[12..20]).to_le_bytes();
            bytes[20..24].copy_from_slice(&sum);
            bytes
        }),
        ("zstd that wants memory", {
            // The window: 2 GiB.
            let mut bytes = zstd(&noise());
            assert_eq!(bytes[4] & 0x20, 0);
            bytes[5] = 21 << 3;
            bytes
        }),
        ("no archive", b"<html>not found</html>".to_vec()),
        ("nothing", Vec::new()),
    ];
    let zip = |name| zip_of(&[(name, 0o100_644, b"data")]);
    cases.extend([
        ("zip: a name with ..", zip("../evil")),
        ("zip: a name with .. inside", zip("a/../../evil")),
        ("zip: an absolute name", zip("/tmp/isolith-evil")),
        ("zip: below a symlink", zip_of(&[("a", 0o120_777, b"/tmp"), ("a/evil", 0o100_644, b"x")])),
        (
            "zip: a name twice",
            edited(zip_of(&[("aa", 0o100_644, b"1"), ("bb", 0o100_644, b"2")]), b"bb", b"aa"),
        ),
        (
            "zip: a name twice, written otherwise",
            zip_of(&[("a//b", 0o100_644, b"1"), ("a/b", 0o100_644, b"2")]),
        ),
        ("zip: other data than the sum", edited(zip("a"), b"data", b"dxta")),
        ("zip: cut off", half(zip_of(&[("a", 0o100_644, &big)]))),
        ("zip: a device", central(zip("a"), 38, &[0, 0, 0xa4, 0x21])),
        ("zip: a fifo", central(zip("a"), 38, &[0, 0, 0xa4, 0x11])),
        ("zip: longer than it says", central(central(zip("a"), 20, &[2, 0, 0, 0]), 24, &[2, 0, 0, 0])),
        ("zip: a huge size", central(zip("a"), 24, &[0xff, 0xff, 0xff, 0x7f])),
        ("zip: an unknown method", central(zip("a"), 10, &[77, 0])),
        ("zip: encrypted", central(zip("a"), 8, &[1, 0])),
        ("zip: more names than there are", {
            let mut bytes = zip("a");
            let end = bytes.len() - 22;
            bytes[end + 8] = 9;
            bytes[end + 10] = 9;
            bytes
        }),
        ("zip: names that share their bytes", {
            let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
            let members: Vec<_> = names.iter().map(|name| (name.as_str(), 0o100_644, &big[..])).collect();
            let mut bytes = zip_of(&members);
            for at in 0..bytes.len() - 4 {
                if bytes[at..at + 4] == *b"PK\x01\x02" {
                    bytes[at + 42..at + 46].fill(0);
                }
            }
            bytes
        }),
        ("zip: only a beginning", b"PK\x03\x04".to_vec()),
        ("zip: a bomb", {
            let mut out = zip::ZipWriter::new(Cursor::new(Vec::new()));
            out.start_file("zeros", zip::write::SimpleFileOptions::default()).unwrap();
            for _ in 0..64 {
                out.write_all(&vec![0; 1 << 20]).unwrap();
            }
            out.finish().unwrap().into_inner()
        }),
    ]);
    cases
}

#[test]
fn every_one_is_a_clear_error_and_leaves_nothing() {
    let place = Place::new();
    let cases = cases();
    let distinct: std::collections::BTreeSet<&[u8]> = cases.iter().map(|(_, bytes)| &bytes[..]).collect();
    assert!(cases.len() >= 80 && distinct.len() == cases.len(), "{} of {}", distinct.len(), cases.len());
    let mut accepted = Vec::new();
    for (name, bytes) in &cases {
        let began = Instant::now();
        match unpack(&place, bytes, 0, LIMITS) {
            Ok(id) => accepted.push((name, place.store.manifest(&id).unwrap())),
            Err(error) => {
                let shown = error.to_string();
                assert!(shown.len() > 20 && shown.len() < 7000, "{name}: {shown}");
            }
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{name}: {:?}", began.elapsed());
        place.assert_clean();
        assert!(!std::path::Path::new("/tmp/isolith-evil").exists(), "{name}");
        assert!(!place.path("evil").exists() && !place.path("store/tmp/evil").exists(), "{name}");
    }
    assert!(accepted.is_empty(), "not refused: {accepted:#?}");
    let layers = std::fs::read_dir(place.store.root().join("layers")).unwrap().count();
    assert_eq!(layers, 0, "a layer was made of a hostile archive");
}

#[test]
fn names_without_anything_left_are_an_error_and_not_forgotten() {
    let place = Place::new();
    let archive = tar(&[dir("top"), file("top/a"), file("README")]);
    let error = unpack(&place, &archive, 1, LIMITS).unwrap_err();
    assert!(error.to_string().contains("README") && error.to_string().contains("strip = 1"), "{error}");
    unpack(&place, &archive, 0, LIMITS).unwrap();
}
