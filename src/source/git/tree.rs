//! From tree objects to files. Names come from strangers: what git itself would refuse to check out is an error.

use std::collections::HashSet;

use super::object::Objects;
use crate::error::{Error, Result};
use crate::layer::{Extract, Limits};

/// A commit's tree on its way into a source.
pub(super) struct Walk<'a, 'b, 'c> {
    pub objects: &'a mut Objects,
    pub tree: &'a mut Extract<'b>,
    pub limits: Limits,
    /// Entries looked at, those that are left out included.
    pub seen: &'c mut u64,
    /// The submodules that were met.
    pub links: Vec<Link>,
}

/// A submodule: a path and the commit that belongs there.
pub(super) struct Link {
    /// From the top of the repository.
    pub path: Vec<u8>,
    pub commit: String,
}

impl Walk<'_, '_, '_> {
    /// Lays in the tree of a commit.
    pub fn commit(&mut self, commit: &str, below: &[u8], submodules: bool) -> Result<()> {
        let root = root_of(self.objects, commit)?;
        // Without recursion: how deep it goes is up to a stranger.
        let mut open = vec![(root, Vec::new())];
        while let Some((id, path)) = open.pop() {
            let bytes = self.objects.whole(&id, "tree")?;
            let mut names = HashSet::new();
            let mut dirs = Vec::new();
            for entry in entries(&bytes, id.len() / 2) {
                let entry = entry.ok_or_else(|| Error::machine(format!("the tree {id} is malformed")))?;
                let inner = join(&path, entry.name);
                check_name(entry.name, &inner)?;
                if !names.insert(entry.name) {
                    return Err(refused(&inner, "the name is there twice"));
                }
                *self.seen += 1;
                if *self.seen > self.limits.entries {
                    return Err(refused(
                        &inner,
                        &format!("there are more than {} names", self.limits.entries),
                    )
                    .hint("if that is meant, raise `unpack-max-entries` in the configuration"));
                }
                let whole = join(below, &inner);
                match entry.mode {
                    0o040_000 => {
                        self.tree.directory(&whole)?;
                        dirs.push((entry.id, inner));
                    }
                    0o100_644 | 0o100_664 | 0o100_755 => {
                        let mut object = self.objects.get(&entry.id, "blob")?;
                        let size = object.size;
                        self.tree.file(&whole, entry.mode == 0o100_755, size, &mut object)?;
                        object.finish()?;
                    }
                    0o120_000 => {
                        let target = self.objects.whole(&entry.id, "blob")?;
                        self.tree.symlink(&whole, &target)?;
                    }
                    0o160_000 => {
                        self.tree.directory(&whole)?;
                        if submodules {
                            self.links.push(Link { path: inner, commit: entry.id });
                        }
                    }
                    mode => return Err(refused(&inner, &format!("its mode is {mode:o}"))),
                }
            }
            open.extend(dirs.into_iter().rev());
        }
        Ok(())
    }
}

/// The tree of a commit.
pub(super) fn root_of(objects: &mut Objects, commit: &str) -> Result<String> {
    let bytes = objects.whole(commit, "commit")?;
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let id = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix("tree "));
    let id = id.filter(|id| super::object::is_id(id) && id.len() == commit.len());
    id.map(str::to_string).ok_or_else(|| Error::machine(format!("the commit {commit} is malformed")))
}

/// One entry of a tree.
pub struct TreeEntry<'a> {
    /// Kind and mode, as git has them: `0o100644` for a file.
    pub mode: u32,
    /// Its name, which may be an impossible one.
    pub name: &'a [u8],
    /// The object, in hexadecimal digits.
    pub id: String,
}

/// The entries of a tree: `<mode in octal> <name>\0<id>` one after the other. None ends those that are not.
pub fn entries(mut bytes: &[u8], id_len: usize) -> impl Iterator<Item = Option<TreeEntry<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let entry = (|| {
            let space = bytes.iter().position(|b| *b == b' ').filter(|at| *at <= 7)?;
            let mode = u32::from_str_radix(std::str::from_utf8(&bytes[..space]).ok()?, 8).ok()?;
            let rest = &bytes[space + 1..];
            let nul = rest.iter().position(|b| *b == 0)?;
            let id = rest.get(nul + 1..nul + 1 + id_len)?;
            let id = id.iter().map(|byte| format!("{byte:02x}")).collect();
            let entry = TreeEntry { mode, name: &rest[..nul], id };
            bytes = &rest[nul + 1 + id_len..];
            Some(entry)
        })();
        if entry.is_none() {
            bytes = &[];
        }
        Some(entry)
    })
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// Refuses names that lead elsewhere, or that some system would take for git's own directory.
fn check_name(name: &[u8], path: &[u8]) -> Result<()> {
    let lower = name.to_ascii_lowercase();
    match &lower[..] {
        b"" | b"." | b".." => Err(refused(path, "it is no possible name")),
        _ if name.contains(&b'/') => Err(refused(path, "it has a slash in it")),
        b".git" | b"git~1" => Err(refused(path, "it would be git's own directory")),
        _ => Ok(()),
    }
}

fn refused(path: &[u8], why: &str) -> Error {
    Error::machine(format!("cannot lay in `{}`: {why}", String::from_utf8_lossy(path)))
        .hint("the repository is not an honest one; do not use it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_read_and_malformed_ones_end() {
        let good = [b"100644 a\0".as_slice(), &[1; 20], b"40000 b c\0", &[2; 20]].concat();
        let found: Vec<_> = entries(&good, 20).map(Option::unwrap).collect();
        assert_eq!((found[0].mode, found[0].name), (0o100_644, b"a".as_slice()));
        assert_eq!((found[1].mode, found[1].name), (0o040_000, b"b c".as_slice()));
        assert_eq!(found[1].id, "02".repeat(20));
        for cut in 1..good.len() {
            if cut != 29 {
                assert!(entries(&good[..cut], 20).any(|entry| entry.is_none()), "cut at {cut}");
            }
        }
        assert!(entries(b"1006440000 a\0", 20).any(|entry| entry.is_none()));
    }

    #[test]
    fn names_that_lead_elsewhere() {
        for name in ["", ".", "..", "a/b", "/", ".git", ".GIT", ".gIt", "git~1"] {
            assert!(check_name(name.as_bytes(), b"x").is_err(), "{name}");
        }
        for name in ["...", ".gitignore", ".github", "a\\b", "git"] {
            assert!(check_name(name.as_bytes(), b"x").is_ok(), "{name}");
        }
    }
}
