//! The parts of files that have some: members of archives, sections of ELF files, headers.

use std::io::{Cursor, Read};

use object::read::archive::ArchiveFile;
use object::{Object, ObjectSection};

/// Decompressed data beyond this is not looked at.
const LARGEST: u64 = 256 << 20;

/// One part of a file.
pub struct Part {
    /// What it is called.
    pub name: String,
    /// What the container says about it, by name.
    pub facts: Vec<(&'static str, String)>,
    /// Its bytes.
    pub data: Vec<u8>,
}

impl Part {
    fn new(name: impl Into<String>, facts: Vec<(&'static str, String)>, data: Vec<u8>) -> Part {
        Part { name: name.into(), facts, data }
    }
}

/// The format of a file and its parts; none for files that have none or are damaged.
pub fn split(bytes: &[u8]) -> Option<(&'static str, Vec<Part>)> {
    if bytes.starts_with(b"\x7fELF") {
        return Some(("ELF file", elf(bytes)?));
    }
    if bytes.starts_with(b"!<arch>\n") || bytes.starts_with(b"!<thin>\n") {
        return Some(("ar archive", ar(bytes)?));
    }
    if bytes.starts_with(b"\x1f\x8b") {
        return Some(("gzip file", gzip(bytes)?));
    }
    if bytes.starts_with(b"\xfd7zXZ\0") {
        return Some(("xz file", vec![contents(liblzma::read::XzDecoder::new(bytes))?]));
    }
    if bytes.starts_with(b"\x28\xb5\x2f\xfd") {
        return Some(("zstd file", vec![contents(zstd::Decoder::new(bytes).ok()?)?]));
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return Some(("zip archive", zip(bytes)?));
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return Some(("tar archive", tar(bytes)?));
    }
    // CPython since 3.3: two bytes of version, then `\r\n`; flags, time and size or a hash (PEP 552).
    if bytes.len() > 16 && bytes[2..4] == *b"\r\n" {
        return Some(("Python bytecode", pyc(bytes)));
    }
    None
}

fn elf(bytes: &[u8]) -> Option<Vec<Part>> {
    let file = object::File::parse(bytes).ok()?;
    let header = vec![("entry", format!("{:#x}", file.entry())), ("kind", format!("{:?}", file.kind()))];
    let mut parts = vec![Part::new("ELF header", header, Vec::new())];
    for section in file.sections() {
        let facts =
            vec![("address", format!("{:#x}", section.address())), ("size", section.size().to_string())];
        let name = section.name().unwrap_or("?");
        // Debug sections may be compressed; what they say matters more than how.
        let data = match section.uncompressed_data() {
            Ok(data) => data.into_owned(),
            Err(_) => section.data().unwrap_or_default().to_vec(),
        };
        parts.push(Part::new(format!("section {name}"), facts, data));
    }
    Some(parts)
}

fn ar(bytes: &[u8]) -> Option<Vec<Part>> {
    let archive = ArchiveFile::parse(bytes).ok()?;
    let mut parts = Vec::new();
    for member in archive.members() {
        let member = member.ok()?;
        let number = |value: Option<u64>| value.map_or_else(|| "none".to_string(), |n| n.to_string());
        let facts = vec![
            ("time", number(member.date())),
            ("owner", format!("{}:{}", number(member.uid()), number(member.gid()))),
            ("mode", member.mode().map_or_else(|| "none".to_string(), |mode| format!("{mode:o}"))),
        ];
        let name = String::from_utf8_lossy(member.name()).into_owned();
        parts.push(Part::new(name, facts, member.data(bytes).unwrap_or_default().to_vec()));
    }
    Some(parts)
}

fn gzip(bytes: &[u8]) -> Option<Vec<Part>> {
    let decoder = flate2::read::MultiGzDecoder::new(bytes);
    let header = decoder.header()?;
    let name = header.filename().map_or_else(|| "none".into(), String::from_utf8_lossy).into_owned();
    let facts = vec![
        ("time", header.mtime().to_string()),
        ("name", name),
        ("system", header.operating_system().to_string()),
    ];
    Some(vec![Part::new("gzip header", facts, Vec::new()), contents(decoder)?])
}

fn contents(reader: impl Read) -> Option<Part> {
    let mut data = Vec::new();
    reader.take(LARGEST).read_to_end(&mut data).ok()?;
    Some(Part::new("decompressed content", Vec::new(), data))
}

fn zip(bytes: &[u8]) -> Option<Vec<Part>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).ok()?;
    let mut parts = Vec::new();
    let mut room = LARGEST;
    for at in 0..archive.len() {
        let mut member = archive.by_index(at).ok()?;
        let facts = vec![
            ("time", member.last_modified().map_or_else(|| "none".to_string(), |time| time.to_string())),
            ("mode", member.unix_mode().map_or_else(|| "none".to_string(), |mode| format!("{mode:o}"))),
            ("extra", member.extra_data().map(|bytes| hex(&bytes)).unwrap_or_default()),
        ];
        let name = String::from_utf8_lossy(member.name_raw()).into_owned();
        let mut data = Vec::new();
        room -= (&mut member).take(room).read_to_end(&mut data).ok()? as u64;
        parts.push(Part::new(name, facts, data));
    }
    Some(parts)
}

fn tar(bytes: &[u8]) -> Option<Vec<Part>> {
    let mut archive = tar::Archive::new(bytes);
    let mut parts = Vec::new();
    for member in archive.entries().ok()? {
        let mut member = member.ok()?;
        let header = member.header();
        let number = |n: std::io::Result<u64>| n.map_or_else(|_| "?".to_string(), |n| n.to_string());
        let lossy = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let facts = vec![
            ("time", number(header.mtime())),
            ("mode", header.mode().map_or_else(|_| "?".to_string(), |mode| format!("{mode:04o}"))),
            ("owner", format!("{}:{}", number(header.uid()), number(header.gid()))),
            ("owner name", format!("{}:{}", lossy(header.username_bytes()), lossy(header.groupname_bytes()))),
            ("link", member.link_name_bytes().map_or_else(String::new, |name| lossy(Some(&name)))),
        ];
        let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        let mut data = Vec::new();
        member.read_to_end(&mut data).ok()?;
        parts.push(Part::new(name, facts, data));
    }
    Some(parts)
}

fn pyc(bytes: &[u8]) -> Vec<Part> {
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let mut facts = vec![("version", u16::from_le_bytes([bytes[0], bytes[1]]).to_string())];
    match word(4) {
        0 => facts.extend([("time", word(8).to_string()), ("source size", word(12).to_string())]),
        flags => facts.extend([("flags", flags.to_string()), ("source hash", hex(&bytes[8..16]))]),
    }
    vec![Part::new("bytecode header", facts, Vec::new()), Part::new("code", Vec::new(), bytes[16..].to_vec())]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
