//! A binary package that a lock file pins.

use crate::source::Pin;

/// One `.deb`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, with the epoch.
    pub version: String,
    /// Its own architecture: `all`, or that of the base.
    pub arch: String,
    /// SHA-256 of the file.
    pub sha256: Pin,
    /// Length of the file in bytes.
    pub size: u64,
    /// Where the file is below a mirror of its suite: `pool/main/…/NAME_VERSION_ARCH.deb`.
    pub path: String,
    /// The suite whose index named it.
    pub suite: String,
}

/// Everything that a base is made of, each list in the order of the names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packages {
    /// What the variant asks for, and what that needs. It does not depend on `include`.
    pub base: Vec<Package>,
    /// What `include` asks for and needs beside that.
    pub added: Vec<Package>,
}

impl Packages {
    /// All, those of the variant first.
    pub fn iter(&self) -> impl Iterator<Item = &Package> {
        self.base.iter().chain(&self.added)
    }
}

impl Package {
    /// Whether `name` can be the name of a package (Debian Policy 5.6.1).
    pub fn is_name(name: &str) -> bool {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
        name.len() >= 2
            && name.bytes().all(good)
            && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
    }

    /// Whether `version` has the characters of a version and begins as one (Debian Policy 5.6.12).
    pub fn is_version(version: &str) -> bool {
        let good = |b: u8| b.is_ascii_alphanumeric() || b".+-~:".contains(&b);
        version.bytes().next().is_some_and(|b| b.is_ascii_digit()) && version.bytes().all(good)
    }

    /// Whether `path` leads to something below a mirror, and nowhere else.
    pub fn is_path(path: &str) -> bool {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"/._+-~%:=@,".contains(&b);
        path.bytes().all(good) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_versions_and_paths() {
        assert!(Package::is_name("g++-12") && Package::is_name("libc6") && Package::is_name("0ad"));
        for bad in ["", "a", "-a", "Abc", "a_b", "a b", "a/b", "é1"] {
            assert!(!Package::is_name(bad), "{bad}");
        }
        assert!(Package::is_version("1:2.36-9+deb12u10~x"));
        for bad in ["", "a1", "1 2", "1/2", "-1"] {
            assert!(!Package::is_version(bad), "{bad}");
        }
        assert!(Package::is_path("pool/main/g/g++/g++_4%3a12_amd64.deb"));
        for bad in ["", "/x", "x//y", "../x", "x/../y", "x/.", "x?y", "x#y", "x y", "http://x"] {
            assert!(!Package::is_path(bad), "{bad}");
        }
    }
}
