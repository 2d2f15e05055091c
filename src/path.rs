//! Paths inside a sandbox. Host paths are [`std::path::Path`]; the two types never mix.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An absolute path inside a sandbox or layer: any bytes but NUL, normalised (no `.`, `..`, empty
/// components or trailing slash). Kept without the leading slash, so the root is the empty string and the
/// order of the bytes is the order of a manifest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GuestPath(Vec<u8>);

/// Why bytes are not a guest path.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GuestPathError {
    /// It has to start with `/`.
    #[error("the path is not absolute")]
    Relative,
    /// A `..` would leave the place it names.
    #[error("the path has a `..` in it")]
    Parent,
    /// A NUL byte cannot be in a path.
    #[error("the path has a NUL byte in it")]
    Nul,
}

impl GuestPath {
    /// `/`.
    pub fn root() -> Self {
        Self::default()
    }

    /// Parses an absolute path such as `/usr/lib`; `.` and doubled slashes are dropped.
    pub fn parse(path: impl AsRef<[u8]>) -> Result<Self, GuestPathError> {
        match path.as_ref().split_first() {
            Some((b'/', rest)) => Self::from_relative(rest),
            _ => Err(GuestPathError::Relative),
        }
    }

    /// Parses a path relative to the root, as archives have it (`./usr/lib`, `usr/lib`).
    pub fn from_relative(path: impl AsRef<[u8]>) -> Result<Self, GuestPathError> {
        let mut out = Vec::with_capacity(path.as_ref().len());
        for part in path.as_ref().split(|b| *b == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err(GuestPathError::Parent),
                part if part.contains(&0) => return Err(GuestPathError::Nul),
                part => {
                    if !out.is_empty() {
                        out.push(b'/');
                    }
                    out.extend_from_slice(part);
                }
            }
        }
        Ok(Self(out))
    }

    /// The bytes without the leading slash; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as a host-style path relative to some root directory (`.` for the root itself).
    pub fn as_relative(&self) -> &std::path::Path {
        use std::os::unix::ffi::OsStrExt;
        let bytes = if self.0.is_empty() { b".".as_slice() } else { &self.0 };
        std::path::Path::new(std::ffi::OsStr::from_bytes(bytes))
    }

    /// True for `/`.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of an entry of this directory. `name` must be one component.
    pub fn join(&self, name: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref();
        debug_assert!(!name.is_empty() && !name.contains(&b'/'));
        let mut out = Vec::with_capacity(self.0.len() + 1 + name.len());
        out.extend_from_slice(&self.0);
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(name);
        Self(out)
    }

    /// This path with another one, taken as relative, behind it.
    pub fn join_path(&self, other: &GuestPath) -> Self {
        match (self.is_root(), other.is_root()) {
            (true, _) => other.clone(),
            (_, true) => self.clone(),
            _ => Self([&self.0[..], b"/", &other.0].concat()),
        }
    }

    /// The directory it is in; none for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        let cut = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].to_vec()))
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or(&[])
    }

    /// What is left of this path below `prefix`; none when it is not inside (a path is inside itself).
    pub fn strip_prefix(&self, prefix: &GuestPath) -> Option<Self> {
        if prefix.is_root() {
            return Some(self.clone());
        }
        match self.0.strip_prefix(&prefix.0[..])? {
            [] => Some(Self::root()),
            [b'/', rest @ ..] => Some(Self(rest.to_vec())),
            _ => None,
        }
    }

    /// True when this path is `prefix` or below it.
    pub fn starts_with(&self, prefix: &GuestPath) -> bool {
        self.strip_prefix(prefix).is_some()
    }

    /// The proper ancestors, from the root down: `/`, `/a`, `/a/b` for `/a/b/c`.
    pub fn ancestors(&self) -> impl Iterator<Item = GuestPath> + '_ {
        let root = (!self.0.is_empty()).then(GuestPath::root);
        let cuts = self.0.iter().enumerate().filter(|(_, b)| **b == b'/');
        root.into_iter().chain(cuts.map(|(at, _)| Self(self.0[..at].to_vec())))
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.escape_ascii())
    }
}

/// Text form for JSON documents, where every path comes from a UTF-8 recipe.
impl Serialize for GuestPath {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(&self.0).map_err(serde::ser::Error::custom)?;
        s.serialize_str(&format!("/{text}"))
    }
}

impl<'de> Deserialize<'de> for GuestPath {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(s: &str) -> GuestPath {
        GuestPath::parse(s).unwrap()
    }

    #[test]
    fn normalises_and_refuses() {
        assert_eq!(p("//usr/./lib/").as_bytes(), b"usr/lib");
        assert_eq!(p("/").to_string(), "/");
        assert_eq!(GuestPath::parse("usr"), Err(GuestPathError::Relative));
        assert_eq!(GuestPath::parse("/a/../b"), Err(GuestPathError::Parent));
        assert_eq!(GuestPath::parse(b"/a\0b"), Err(GuestPathError::Nul));
        assert_eq!(GuestPath::from_relative("./a/b").unwrap(), p("/a/b"));
    }

    #[test]
    fn relations() {
        assert_eq!(p("/a/b/c").parent(), Some(p("/a/b")));
        assert_eq!(p("/a").parent(), Some(p("/")));
        assert_eq!(p("/").parent(), None);
        assert_eq!(p("/a/b").name(), b"b");
        assert_eq!(p("/a/b/c").ancestors().collect::<Vec<_>>(), [p("/"), p("/a"), p("/a/b")]);
        assert_eq!(p("/").ancestors().count(), 0);
        assert_eq!(p("/usr/lib").strip_prefix(&p("/usr")), Some(p("/lib")));
        assert_eq!(p("/usrlib").strip_prefix(&p("/usr")), None);
        assert_eq!(p("/usr").join_path(&p("/lib")), p("/usr/lib"));
    }
}
