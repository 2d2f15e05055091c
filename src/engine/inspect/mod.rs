//! What differs between the bytes of two files: lines of text, the first byte of a binary, the members of an
//! archive, the sections of an ELF file. Archives in archives are looked into a few levels deep.

mod bytes;
mod parts;
mod text;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};

pub use bytes::Bytes;
use parts::Part;

/// Files above this are not looked into; only their first difference is found.
const LARGEST: u64 = 128 << 20;
/// How deep archives in archives are opened.
const DEPTH: usize = 4;
/// Members of one archive that are described; the rest is counted.
const MOST_MEMBERS: usize = 50;

/// What differs between two byte strings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Content {
    /// Length of each.
    pub sizes: [u64; 2],
    /// The first difference in the raw bytes.
    pub bytes: Bytes,
    /// Both are text: a unified difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Both have this structure (`tar archive`, `ELF file`, …).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<&'static str>,
    /// The members, sections or headers that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// What there is to say of the whole: members in another order, more members than are shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A member or section that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// What the container says about it, where that differs: name of the fact, and both values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<(&'static str, String, String)>,
    /// What differs in its bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Box<Content>>,
}

impl Content {
    /// This one and everything below it, outermost first, each with the name of the member it is.
    pub fn all(&self) -> Vec<(String, &Content)> {
        let mut found = vec![(String::new(), self)];
        for member in &self.members {
            let Some(content) = &member.content else { continue };
            found.extend(content.all().into_iter().map(|(name, content)| {
                let name =
                    if name.is_empty() { member.name.clone() } else { format!("{}/{name}", member.name) };
                (name, content)
            }));
        }
        found
    }
}

/// Compares two files; none when their bytes are the same.
pub fn files(a: &Path, b: &Path) -> Result<Option<Content>> {
    let open = |path: &Path| File::open(path).map_err(|e| Error::io("read", path, e));
    let (mut one, mut other) = (open(a)?, open(b)?);
    let size =
        |file: &File, path: &Path| file.metadata().map(|m| m.len()).map_err(|e| Error::io("stat", path, e));
    let sizes = [size(&one, a)?, size(&other, b)?];
    if sizes.iter().any(|size| *size > LARGEST) {
        let found = bytes::stream(&mut one, &mut other).map_err(|e| Error::io("read", a, e))?;
        let plain =
            |bytes| Content { sizes, bytes, text: None, format: None, members: vec![], notes: vec![] };
        return Ok(found.map(plain));
    }
    let read = |file: &mut File, path: &Path| {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e)).map(|_| bytes)
    };
    Ok(compare(&read(&mut one, a)?, &read(&mut other, b)?, DEPTH))
}

/// Compares two byte strings; none when they are the same.
pub fn compare(a: &[u8], b: &[u8], depth: usize) -> Option<Content> {
    let bytes = bytes::first(a, b)?;
    let sizes = [a.len() as u64, b.len() as u64];
    let mut content = Content { sizes, bytes, text: None, format: None, members: vec![], notes: vec![] };
    if let Some(text) = text::unified(a, b) {
        content.text = Some(text);
    } else if depth > 0
        && let (Some((format, one)), Some((other_format, other))) = (parts::split(a), parts::split(b))
        && format == other_format
    {
        content.format = Some(format);
        (content.members, content.notes) = members(one, other, depth - 1);
    }
    Some(content)
}

fn members(a: Vec<Part>, b: Vec<Part>, depth: usize) -> (Vec<Member>, Vec<String>) {
    let mut notes = Vec::new();
    let (a, b) = (distinct(a), distinct(b));
    let names = |parts: &[Part]| parts.iter().map(|part| part.name.clone()).collect::<Vec<_>>();
    let (mut sorted_a, mut sorted_b) = (names(&a), names(&b));
    if sorted_a != sorted_b {
        sorted_a.sort();
        sorted_b.sort();
        if sorted_a == sorted_b {
            notes.push("the same members stand in another order".to_string());
        }
    }
    let mut right: BTreeMap<&str, &Part> = b.iter().map(|part| (part.name.as_str(), part)).collect();
    let mut found = Vec::new();
    let presence = |name: &str, a: &str, b: &str| Member {
        name: name.to_string(),
        facts: vec![("there", a.to_string(), b.to_string())],
        content: None,
    };
    for one in &a {
        let Some(other) = right.remove(one.name.as_str()) else {
            found.push(presence(&one.name, "yes", "no"));
            continue;
        };
        let pairs = one.facts.iter().filter_map(|(fact, value)| {
            let (_, there) = other.facts.iter().find(|(name, _)| name == fact)?;
            (there != value).then(|| (*fact, value.clone(), there.clone()))
        });
        let facts: Vec<_> = pairs.collect();
        let content = compare(&one.data, &other.data, depth).map(Box::new);
        if !facts.is_empty() || content.is_some() {
            found.push(Member { name: one.name.clone(), facts, content });
        }
    }
    found.extend(right.keys().map(|name| presence(name, "no", "yes")));
    if found.len() > MOST_MEMBERS {
        notes.push(format!("{} more members differ", found.len() - MOST_MEMBERS));
        found.truncate(MOST_MEMBERS);
    }
    (found, notes)
}

/// Archives may have several members of one name.
fn distinct(mut parts: Vec<Part>) -> Vec<Part> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for part in &mut parts {
        let count = seen.entry(part.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            part.name = format!("{} ({count})", part.name);
        }
    }
    parts
}

#[cfg(test)]
mod tests;
