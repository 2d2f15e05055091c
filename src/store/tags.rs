//! Names that people give to builds: `tags/<digest of the name>`. A tag has the whole record of its build in it, so
//! that nothing which becomes of the history takes the build away.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Presence, RootRecord, Store, io};
use crate::digest::ContentDigest;
use crate::error::{Error, Result};

/// A build with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// The name; see [`Tag::is_name`].
    pub name: String,
    /// The build.
    pub build: RootRecord,
}

impl Tag {
    /// Whether a tag can be called so: letters, digits and `_.-`, the first one neither `.` nor `-`, at most 128, and
    /// no number, which is how builds are called anyway.
    pub fn is_name(name: &str) -> bool {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        (1..=128).contains(&name.len())
            && name.bytes().all(plain)
            && !name.starts_with(['.', '-'])
            && !name.bytes().all(|b| b.is_ascii_digit())
    }
}

impl Store {
    /// Gives a name to a build, or another build to the name. Gives the build that had it before.
    ///
    /// # Errors
    /// Class `Usage` when layers of the build are gone from the store: a tag keeps what is there.
    pub fn put_tag(&self, tag: &Tag) -> Result<Option<RootRecord>> {
        let _lock = self.lock_roots()?;
        let RootRecord { stack, outputs, .. } = &tag.build;
        if let Some(gone) =
            stack.iter().chain(outputs.values()).find(|id| self.presence(id) == Presence::Missing)
        {
            return Err(Error::usage(format!("layer {gone:#} of that build is gone from the store"))
                .hint("build it again, then tag it"));
        }
        let (path, name) = self.tag_file(&tag.name);
        io::make_dir(&self.root.join("tags"), 0o700)?; // The store may be older than tags are.
        let before: Option<Tag> = self.get_record(&path, &name)?;
        self.put_record(&path, &name, tag)?;
        Ok(before.map(|tag| tag.build))
    }

    /// The build of that name. A damaged record counts as none.
    pub fn tag(&self, name: &str) -> Result<Option<RootRecord>> {
        let (path, record) = self.tag_file(name);
        let tag: Option<Tag> = self.get_record(&path, &record)?;
        Ok(tag.map(|tag| tag.build))
    }

    /// Every tag, by name.
    pub fn tags(&self) -> Result<Vec<Tag>> {
        let mut tags = Vec::new();
        for name in io::names(&self.root.join("tags"))? {
            let name = format!("tags/{}", name.to_string_lossy());
            tags.extend(self.get_record::<Tag>(&self.root.join(&name), &name)?);
        }
        tags.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tags)
    }

    /// Takes a name away; false when no build had it.
    pub fn remove_tag(&self, name: &str) -> Result<bool> {
        let _lock = self.lock_roots()?;
        let (path, _) = self.tag_file(name);
        let was = path.exists();
        io::remove_file(&path)?;
        Ok(was)
    }

    fn tag_file(&self, tag: &str) -> (PathBuf, String) {
        let name = format!("tags/{}", ContentDigest::of(tag.as_bytes()));
        (self.root.join(&name), name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tags() {
        for good in ["v1", "1.0", "a-b_c", "2024-01-01"] {
            assert!(Tag::is_name(good), "{good}");
        }
        for bad in ["", "1", "007", ".a", "-a", "a/b", "a:b", "a@b", "é", &"a".repeat(129)] {
            assert!(!Tag::is_name(bad), "{bad}");
        }
    }
}
