//! The differences between two trees, path by path, as their manifests tell them.

use serde::{Serialize, Serializer};

use super::{Entry, Kind, Manifest};
use crate::path::GuestPath;

/// What counts when two trees are compared. Not every tree knows everything: files of a plain directory
/// belong to whoever made them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aspects {
    /// User and group.
    pub owners: bool,
    /// Modification times.
    pub times: bool,
    /// Extended attributes.
    pub xattrs: bool,
    /// Which names are one file.
    pub links: bool,
    /// The mode bits that count.
    pub modes: u16,
}

impl Aspects {
    /// Everything: between two layers.
    pub const ALL: Aspects = Aspects { owners: true, times: true, xattrs: true, links: true, modes: 0o7777 };
    /// What survives in a directory of an ordinary user: an export loses owners, setuid and setgid bits.
    pub const PLAIN: Aspects =
        Aspects { owners: false, times: false, xattrs: false, links: false, modes: 0o1777 };

    /// What counts for both.
    pub fn and(self, other: Aspects) -> Aspects {
        Aspects {
            owners: self.owners && other.owners,
            times: self.times && other.times,
            xattrs: self.xattrs && other.xattrs,
            links: self.links && other.links,
            modes: self.modes & other.modes,
        }
    }
}

/// One path that is not the same in both trees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Where. As JSON a string; bytes that are not UTF-8 are replaced.
    #[serde(serialize_with = "lossy")]
    pub path: GuestPath,
    /// Everything that differs there; never empty.
    pub changes: Vec<Change>,
}

/// One thing that differs at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Change {
    /// Only the first tree has it.
    OnlyInA {
        /// What it is.
        kind: &'static str,
    },
    /// Only the second tree has it.
    OnlyInB {
        /// What it is.
        kind: &'static str,
    },
    /// It is something else.
    #[allow(missing_docs)]
    Kind { a: &'static str, b: &'static str },
    /// Permission bits, in octal.
    #[allow(missing_docs)]
    Mode { a: String, b: String },
    /// User and group, as `uid:gid`.
    #[allow(missing_docs)]
    Owner { a: String, b: String },
    /// Modification time in seconds since 1970.
    #[allow(missing_docs)]
    Time { a: i64, b: i64 },
    /// An extended attribute; values in hex, none where it is not set.
    #[allow(missing_docs)]
    Xattr { name: String, a: Option<String>, b: Option<String> },
    /// Where a symlink points to.
    #[allow(missing_docs)]
    Target { a: String, b: String },
    /// Which earlier path it is a hard link of, if any.
    #[allow(missing_docs)]
    Link { a: Option<String>, b: Option<String> },
    /// Device numbers, as `major:minor`.
    #[allow(missing_docs)]
    Device { a: String, b: String },
    /// Whether a directory hides what lower layers have in it.
    #[allow(missing_docs)]
    Opaque { a: bool, b: bool },
    /// The bytes of a file; sizes.
    #[allow(missing_docs)]
    Content { a: u64, b: u64 },
}

/// Everything that differs between two trees, in the order of paths.
pub fn compare(a: &Manifest, b: &Manifest, aspects: Aspects) -> Vec<Difference> {
    let (mut left, mut right) = (a.entries().iter().peekable(), b.entries().iter().peekable());
    let mut found = Vec::new();
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return found,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(one), Some(other)) => one.path.cmp(&other.path),
        };
        let one = if order.is_le() { left.next() } else { None };
        let other = if order.is_ge() { right.next() } else { None };
        let (path, changes) = match (one, other) {
            (Some(one), Some(other)) => (&one.path, at_path(a, one, b, other, aspects)),
            (Some(one), None) => (&one.path, vec![Change::OnlyInA { kind: one.kind.word() }]),
            (None, Some(other)) => (&other.path, vec![Change::OnlyInB { kind: other.kind.word() }]),
            (None, None) => return found,
        };
        if !changes.is_empty() {
            found.push(Difference { path: path.clone(), changes });
        }
    }
}

fn at_path(a: &Manifest, one: &Entry, b: &Manifest, other: &Entry, aspects: Aspects) -> Vec<Change> {
    let mut changes = Vec::new();
    let link = |entry: &Entry| match &entry.kind {
        Kind::HardLink { target } => Some(target.to_string()),
        _ => None,
    };
    match (link(one), link(other)) {
        // The file itself is compared at its first path.
        (Some(first), Some(second)) if first == second && aspects.links => return changes,
        _ if !aspects.links => {}
        (None, None) => {}
        (a, b) => changes.push(Change::Link { a, b }),
    }
    let (one, other) = (a.node(one), b.node(other));
    if one.kind.word() != other.kind.word() {
        changes.push(Change::Kind { a: one.kind.word(), b: other.kind.word() });
        return changes;
    }
    let octal = |mode: u16| format!("{:04o}", mode & aspects.modes);
    if octal(one.mode) != octal(other.mode) {
        changes.push(Change::Mode { a: octal(one.mode), b: octal(other.mode) });
    }
    let owner = |entry: &Entry| format!("{}:{}", entry.uid, entry.gid);
    if aspects.owners && owner(one) != owner(other) {
        changes.push(Change::Owner { a: owner(one), b: owner(other) });
    }
    if aspects.times && one.mtime != other.mtime {
        changes.push(Change::Time { a: one.mtime, b: other.mtime });
    }
    if aspects.xattrs {
        let mut names: Vec<_> = one.xattrs.keys().chain(other.xattrs.keys()).collect();
        names.sort();
        names.dedup();
        for name in names.into_iter().filter(|name| one.xattrs.get(*name) != other.xattrs.get(*name)) {
            let value = |entry: &Entry| entry.xattrs.get(name).map(|value| hex(value));
            let name = String::from_utf8_lossy(name).into_owned();
            changes.push(Change::Xattr { name, a: value(one), b: value(other) });
        }
    }
    changes.extend(of_kinds(&one.kind, &other.kind));
    changes
}

/// What differs between two entries of one kind beside their attributes.
fn of_kinds(one: &Kind, other: &Kind) -> Option<Change> {
    if one == other {
        return None;
    }
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(match (one, other) {
        (Kind::File { size: a, .. }, Kind::File { size: b, .. }) => Change::Content { a: *a, b: *b },
        (Kind::Dir { opaque: a }, Kind::Dir { opaque: b }) => Change::Opaque { a: *a, b: *b },
        (Kind::Symlink { target: a }, Kind::Symlink { target: b }) => {
            Change::Target { a: lossy(a), b: lossy(b) }
        }
        _ => {
            let numbers = |kind: &Kind| match kind {
                Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                    format!("{major}:{minor}")
                }
                _ => String::new(),
            };
            Change::Device { a: numbers(one), b: numbers(other) }
        }
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lossy<S: Serializer>(path: &GuestPath, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&path.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn shown(a: &Manifest, b: &Manifest, aspects: Aspects) -> Vec<String> {
        let line = |d: Difference| format!("{} {}", d.path, serde_json::to_string(&d.changes).unwrap());
        compare(a, b, aspects).into_iter().map(line).collect()
    }

    #[test]
    fn equal_trees_have_no_differences() {
        let tree = layer([file("/a", "1"), link("/b", "/a"), symlink("/c", "a"), gone("/d")]);
        assert_eq!(compare(&tree, &tree, Aspects::ALL), []);
    }

    #[test]
    fn every_kind_of_difference_is_told_once() {
        let a = layer([
            file("/both", "1"),
            file("/gone", ""),
            mode(0o755, file("/mode", "")),
            symlink("/s", "x"),
        ]);
        let b =
            layer([file("/both", "22"), dir("/new"), mode(0o4755, file("/mode", "")), symlink("/s", "y")]);
        let wanted = [
            r#"/both [{"what":"content","a":1,"b":2}]"#,
            r#"/gone [{"what":"only-in-a","kind":"file"}]"#,
            r#"/mode [{"what":"mode","a":"0755","b":"4755"}]"#,
            r#"/new [{"what":"only-in-b","kind":"directory"}]"#,
            r#"/s [{"what":"target","a":"x","b":"y"}]"#,
        ];
        assert_eq!(shown(&a, &b, Aspects::ALL), wanted);
        let plain = shown(&a, &b, Aspects::PLAIN);
        assert!(!plain.iter().any(|line| line.starts_with("/mode")), "{plain:?}");
    }

    #[test]
    fn a_hard_link_is_compared_where_its_file_is() {
        let a = layer([file("/a", "1"), link("/b", "/a")]);
        let b = layer([file("/a", "2"), link("/b", "/a")]);
        assert_eq!(shown(&a, &b, Aspects::ALL), [r#"/a [{"what":"content","a":1,"b":1}]"#]);
        let c = layer([file("/a", "1"), file("/b", "1")]);
        assert_eq!(shown(&a, &c, Aspects::ALL), [r#"/b [{"what":"link","a":"/a","b":null}]"#]);
        assert_eq!(compare(&a, &c, Aspects::PLAIN), []);
    }

    #[test]
    fn another_kind_says_so_and_nothing_else() {
        let (a, b) = (layer([file("/x", "1")]), layer([mode(0o700, dir("/x"))]));
        assert_eq!(shown(&a, &b, Aspects::ALL), [r#"/x [{"what":"kind","a":"file","b":"directory"}]"#]);
    }
}
