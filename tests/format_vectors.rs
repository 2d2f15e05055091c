//! `docs/format.md` and the program say the same. Each vector is checked in two ways: against the program,
//! and against an encoder that was written from the page and shares no code with the program.

use std::collections::BTreeMap;

use isolith::digest::{ActionKey, ContentDigest, DefinitionKey};
use isolith::key::{ActionDocument, Definition, canonical_json};
use isolith::layer::{Entry, Kind, Manifest};
use isolith::path::GuestPath;

const PAGE: &str = include_str!("../docs/format.md");

/// The fenced blocks whose info string is `vector {kind} {name}`: name and lines.
fn vectors(kind: &str) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut found = Vec::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```vector ") else { continue };
        let (this, name) = info.split_once(' ').expect(line);
        let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        if this == kind {
            found.push((name, block));
        }
    }
    found
}

/// The rest of the one line that starts with `key: `, or of several, put together.
fn value(lines: &[&str], key: &str) -> String {
    lines.iter().filter_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0, "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect(text)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `%2f` and the like undone.
fn unescape(text: &str) -> Vec<u8> {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        out.extend(unhex(&part[..2]));
        out.extend(&part.as_bytes()[2..]);
    }
    out
}

/// An entry as the page lists it: kind, path, and fields by name.
struct Line {
    kind: &'static str,
    path: Vec<u8>,
    fields: BTreeMap<&'static str, &'static str>,
    xattrs: BTreeMap<&'static str, Vec<u8>>,
}

impl Line {
    fn parse(line: &'static str) -> Line {
        let mut words = line.split_whitespace();
        let kind = words.next().expect(line);
        let path = unescape(words.next().and_then(|path| path.strip_prefix('/')).expect(line));
        let (mut fields, mut xattrs) = (BTreeMap::new(), BTreeMap::new());
        for word in words {
            let (name, value) = word.split_once('=').expect(line);
            match name.strip_prefix("x:") {
                Some(name) => drop(xattrs.insert(name, unhex(value))),
                None => drop(fields.insert(name, value)),
            }
        }
        Line { kind, path, fields, xattrs }
    }

    fn number<T: TryFrom<i128>>(&self, name: &str) -> T {
        let text = self.fields.get(name).unwrap_or(&"0");
        let number = match name {
            "mode" => i128::from_str_radix(text, 8).unwrap(),
            _ => text.parse().unwrap(),
        };
        T::try_from(number).ok().expect(text)
    }

    fn target(&self) -> Vec<u8> {
        unescape(self.fields["target"])
    }

    /// The bytes of the entry, from the page's "Layout".
    fn encode(&self) -> Vec<u8> {
        let number = match self.kind {
            "file" => 1,
            "directory" => 2,
            "symlink" => 3,
            "fifo" => 4,
            "hard-link" => 5,
            "whiteout" => 6,
            "character-device" => 7,
            "block-device" => 8,
            other => panic!("{other}"),
        };
        let prefixed = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
        let mut out = prefixed(&self.path);
        out.push(number);
        if number != 5 && number != 6 {
            out.extend(self.number::<u16>("mode").to_le_bytes());
            out.extend(self.number::<u32>("uid").to_le_bytes());
            out.extend(self.number::<u32>("gid").to_le_bytes());
            out.extend(self.number::<i64>("mtime").to_le_bytes());
            out.extend((self.xattrs.len() as u32).to_le_bytes());
            for (name, value) in &self.xattrs {
                out.extend(prefixed(name.as_bytes()));
                out.extend(prefixed(value));
            }
        }
        match number {
            1 => {
                out.extend(self.number::<u64>("size").to_le_bytes());
                out.extend(unhex(self.fields["digest"]));
            }
            2 => out.push(self.number("opaque")),
            3 => out.extend(prefixed(&self.target())),
            5 => out.extend(prefixed(&self.target()[1..])),
            7 | 8 => {
                out.extend(self.number::<u32>("major").to_le_bytes());
                out.extend(self.number::<u32>("minor").to_le_bytes());
            }
            _ => {}
        }
        out
    }

    /// The entry as the program has it.
    fn entry(&self) -> Entry {
        let (major, minor) = (self.number("major"), self.number("minor"));
        let kind = match self.kind {
            "file" => {
                Kind::File { size: self.number("size"), digest: self.fields["digest"].parse().unwrap() }
            }
            "directory" => Kind::Dir { opaque: self.number::<u8>("opaque") == 1 },
            "symlink" => Kind::Symlink { target: self.target() },
            "fifo" => Kind::Fifo,
            "hard-link" => Kind::HardLink { target: GuestPath::parse(self.target()).unwrap() },
            "whiteout" => Kind::Whiteout,
            "character-device" => Kind::CharDevice { major, minor },
            "block-device" => Kind::BlockDevice { major, minor },
            other => panic!("{other}"),
        };
        let xattrs = self.xattrs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.clone()));
        Entry {
            path: GuestPath::from_relative(&self.path).unwrap(),
            mode: self.number("mode"),
            uid: self.number("uid"),
            gid: self.number("gid"),
            mtime: self.number("mtime"),
            xattrs: xattrs.collect(),
            kind,
        }
    }
}

fn entries(block: &[&'static str]) -> Vec<Line> {
    block.iter().filter(|line| !line.contains(": ")).map(|line| Line::parse(line)).collect()
}

/// The whole encoding, from the page alone.
fn encode(lines: &[Line]) -> Vec<u8> {
    let mut out = b"isolith layer 1\n".to_vec();
    out.extend((lines.len() as u32).to_le_bytes());
    lines.iter().for_each(|line| out.extend(line.encode()));
    out
}

#[test]
fn layers() {
    let vectors = vectors("layer");
    assert!(vectors.len() >= 4, "the page has lost its vectors");
    for (name, block) in vectors {
        let lines = entries(&block);
        let manifest = Manifest::new(lines.iter().map(Line::entry).collect()).expect(name);
        let (encoding, id) = (value(&block, "encoding"), value(&block, "id"));

        assert_eq!(hex(&encode(&lines)), encoding, "{name}, from the page");
        let derived = blake3::derive_key("isolith layer v1", &unhex(&encoding));
        assert_eq!(hex(&derived), id, "{name}, from the page");

        assert_eq!(hex(&manifest.encode()), encoding, "{name}");
        assert_eq!(manifest.id().to_hex(), id, "{name}");
        assert_eq!(Manifest::decode(&unhex(&encoding)), Ok(manifest), "{name}");
    }
}

/// The vectors leave out no kind and no field.
#[test]
fn layers_are_of_every_kind() {
    let blocks = vectors("layer");
    let lines: Vec<Line> = blocks.iter().flat_map(|(_, block)| entries(block)).collect();
    let kinds: std::collections::BTreeSet<_> = lines.iter().map(|line| line.kind).collect();
    assert_eq!(kinds.len(), 8, "{kinds:?}");
    assert!(lines.iter().any(|line| line.xattrs.len() > 1));
    assert!(lines.iter().any(|line| line.number::<u8>("opaque") == 1));
    assert!(lines.iter().any(|line| line.number::<i64>("mtime") < 0));
}

#[test]
fn broken_encodings_are_refused() {
    let vectors = vectors("broken-layer");
    assert!(vectors.len() >= 6, "the page has lost its vectors");
    for (name, block) in vectors {
        let bytes = unhex(&value(&block, "encoding"));
        let error = Manifest::decode(&bytes).expect_err(name);
        assert_eq!(error.to_string(), value(&block, "error"), "{name}");
    }
}

#[test]
fn actions() {
    let vectors = vectors("action");
    assert!(vectors.len() >= 2, "the page has lost its vectors");
    for (name, block) in vectors {
        let (text, canonical, key) =
            (value(&block, "document"), value(&block, "canonical"), value(&block, "key"));
        assert_eq!(canonical_form(&text), canonical, "{name}, from the page");
        assert_eq!(hex(&blake3::derive_key("isolith action v1", canonical.as_bytes())), key, "{name}");

        let document: ActionDocument = serde_json::from_str(&text).expect(name);
        assert_eq!(String::from_utf8(canonical_json(&document)).unwrap(), canonical, "{name}");
        assert_eq!(ActionKey::of_document(canonical.as_bytes()).to_hex(), key, "{name}");
        assert_eq!(document.key().to_hex(), key, "{name}");
    }
}

#[test]
fn definitions() {
    let vectors = vectors("definition");
    assert!(vectors.len() >= 4, "the page has lost its vectors");
    for (name, block) in vectors {
        let (text, canonical, key) =
            (value(&block, "document"), value(&block, "canonical"), value(&block, "key"));
        assert_eq!(canonical_form(&text), canonical, "{name}, from the page");
        assert_eq!(hex(&blake3::derive_key("isolith definition v1", canonical.as_bytes())), key, "{name}");

        let definition: Definition = serde_json::from_str(&text).expect(name);
        assert_eq!(String::from_utf8(canonical_json(&definition)).unwrap(), canonical, "{name}");
        assert_eq!(DefinitionKey::of_document(canonical.as_bytes()).to_hex(), key, "{name}");
        assert_eq!(definition.key().to_hex(), key, "{name}");
    }
}

/// Canonical JSON written from the page; only the parser is a library's.
fn canonical_form(text: &str) -> String {
    use serde_json::Value;
    fn string(text: &str) -> String {
        let escaped: String = text
            .chars()
            .map(|c| -> String {
                match c {
                    '"' => "\\\"".into(),
                    '\\' => "\\\\".into(),
                    '\u{8}' => "\\b".into(),
                    '\t' => "\\t".into(),
                    '\n' => "\\n".into(),
                    '\u{c}' => "\\f".into(),
                    '\r' => "\\r".into(),
                    c if c < ' ' => format!("\\u{:04x}", u32::from(c)),
                    c => c.to_string(),
                }
            })
            .collect();
        format!("\"{escaped}\"")
    }
    fn form(value: &Value) -> String {
        match value {
            Value::Null => "null".into(),
            Value::Number(number) => number.as_i64().expect("an integer").to_string(),
            Value::String(text) => string(text),
            Value::Array(items) => format!("[{}]", items.iter().map(form).collect::<Vec<_>>().join(",")),
            Value::Object(members) => {
                let sorted: BTreeMap<&[u8], _> =
                    members.iter().map(|(name, value)| (name.as_bytes(), (name, value))).collect();
                let members =
                    sorted.values().map(|(name, value)| format!("{}:{}", string(name), form(value)));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }
            Value::Bool(_) => panic!("no document has a boolean"),
        }
    }
    form(&serde_json::from_str(text).expect(text))
}

/// The digest of nothing, which every BLAKE3 has in its own vectors: names are plain BLAKE3.
#[test]
fn content_digests_are_plain_blake3() {
    let page = value(&vectors("content")[0].1, "empty");
    assert_eq!(ContentDigest::of(b"").to_hex(), page);
    assert_eq!(hex(blake3::hash(b"").as_bytes()), page);
}

/// A record is what the page says: its key's names, its envelope, and what is read out of it.
#[test]
fn records() {
    use isolith::remote::{RecordKey, Subject};
    use isolith::trust::{Envelope, SecretKey, read};
    let seed = |lines: &[&str]| SecretKey::from_seed(&unhex(&value(lines, "seed")).try_into().unwrap());
    for (name, lines) in vectors("key") {
        let key = seed(&lines).public();
        assert_eq!(key.to_string(), value(&lines, "public"), "{name}");
        assert_eq!(key.writer().to_string(), value(&lines, "writer"), "{name}");
    }
    let found = vectors("plan");
    assert_eq!(found.len(), 1);
    for (name, lines) in found {
        let keys = lines.iter().filter_map(|line| line.strip_prefix("definition: ")?.parse().ok());
        assert_eq!(Subject::plan(keys).to_string(), value(&lines, "name"), "{name}");
    }
    let found = vectors("record");
    assert_eq!(found.len(), 2);
    for (name, lines) in found {
        let key = seed(&lines);
        let statement = value(&lines, "statement");
        let envelope = Envelope::sign(statement.as_bytes(), &key);
        assert_eq!(String::from_utf8(envelope.clone()).unwrap(), value(&lines, "envelope"), "{name}");
        let record: RecordKey = value(&lines, "name").parse().unwrap();
        let claims = read(&envelope, &record, &key.public()).unwrap();
        let said = claims.iter().map(|(subject, claim)| {
            let blob = claim
                .blob
                .as_ref()
                .map_or("no blob".to_string(), |blob| format!("{} {}", blob.digest, blob.size));
            format!("{subject} {} {blob} {} ms", claim.layer, claim.wall_ms)
        });
        let expected: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("says: ")).collect();
        assert_eq!(said.collect::<Vec<_>>(), expected, "{name}");
    }
}
