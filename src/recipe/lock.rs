//! The lock file: what a recipe leaves open, pinned. `hello.toml` has `hello.lock` beside it.
//!
//! It is TOML, and people may write in it: comments, order and all that is not ours stays as it is. An entry says
//! what it was made for (`url`, or `git` with `tag` or `branch`) and what that came to (a digest, or `rev`). An
//! entry made for something else than the recipe says now is stale and does not count.

mod debian;

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml_edit::{Document, DocumentMut, Item, Table, Value};

pub use debian::DebianPins;

use super::diagnostic::Diagnostic;
use super::model::{Git, GitRef, Remote};
use crate::error::{Error, Result};
use crate::oci::{Digest, Hasher};
use crate::source::{Algorithm, Pin};

const VERSION: i64 = 1;
const HEAD: &str =
    "# Written by `isolith lock`. Keep it beside its recipe, under version control.\nversion = 1\n";

/// The keys of entries that are written here.
const OURS: [&str; 18] = [
    "url",
    "sha256",
    "sha512",
    "blake3",
    "size",
    "git",
    "tag",
    "branch",
    "rev",
    "debian",
    "suite",
    "components",
    "wanted",
    "version",
    "from",
    "files",
    "image",
    "digest",
];

/// Where a pin stands in the lock file: `["base"]` or `["sources", NAME]`.
pub type Place<'a> = [&'a str];

/// What a lock file says of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locked<T> {
    /// It is pinned.
    To(T),
    /// The entry is for something else, which is named.
    Stale(String),
    /// There is no entry.
    Missing,
}

/// A lock file. What is not there yet is empty.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// As it is on disk.
    text: String,
    doc: DocumentMut,
}

impl Lock {
    /// The lock file of a recipe file.
    pub fn path_of(recipe: &Path) -> PathBuf {
        recipe.with_extension("lock")
    }

    /// Reads the lock file of a recipe; one that is not there is empty.
    ///
    /// # Errors
    /// Class `Recipe`, with the place of the mistake.
    pub fn load(recipe: &Path) -> Result<Lock> {
        let path = Self::path_of(recipe);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io("read", &path, e).class_as(crate::error::Class::Recipe)),
        };
        Self::parse(&text, &path)
    }

    /// Checks the text of a lock file. `path` is its own, for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Lock> {
        let wrong = |span: std::ops::Range<usize>, message: &str, hint: &str| {
            let shown = Diagnostic::new(text, path, &span, message, hint).to_string();
            Error::recipe(shown.strip_prefix("error: ").unwrap_or(&shown))
        };
        let doc = Document::parse(text.to_string()).map_err(|why| {
            let message = format!("syntax error: {}", why.message());
            wrong(
                why.span().unwrap_or(0..0),
                &message,
                "restore the lock file, or remove it and run `isolith lock`",
            )
        })?;
        if let Some(version) = doc.get("version")
            && version.as_integer() != Some(VERSION)
        {
            let hint = format!("this isolith knows version {VERSION}: use a newer one, or lock anew");
            return Err(wrong(version.span().unwrap_or(0..0), "a lock file of another version", &hint));
        }
        let lists = ["base", "sources"].into_iter().filter_map(|key| Some((key, doc.get(key)?)));
        for (key, item) in lists {
            let Some(table) = item.as_table() else {
                let message = format!("`{key}` is not a table");
                return Err(wrong(item.span().unwrap_or(0..0), &message, "write it as `isolith lock` does"));
            };
            let entries: Vec<(&str, &Item)> = match key {
                "sources" => table.iter().collect(),
                _ => vec![(key, item)],
            };
            for (name, entry) in entries {
                let Some(entry) = entry.as_table() else {
                    let message = format!("the entry `{name}` is not a table");
                    let hint = format!("write it as `isolith lock` does: `[{key}.{name}]`");
                    return Err(wrong(entry.span().unwrap_or(0..0), &message, &hint));
                };
                let inner = entry.iter().filter(|(_, item)| key == "base" && item.is_table());
                let inner = inner.filter_map(|(_, item)| debian::read(item.as_table()?).err()).next();
                let package =
                    entry.contains_key("debian").then(|| debian::source_package(entry).err()).flatten();
                if let Some((message, span)) = mistake(entry).or(inner).or(package) {
                    let hint = "take the entry out and run `isolith lock`";
                    return Err(wrong(span.unwrap_or(0..0), &message, hint));
                }
            }
        }
        Ok(Lock { path: path.to_path_buf(), text: text.to_string(), doc: doc.into_mut() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file if something in it has changed; the return value says whether.
    pub fn save(&mut self) -> Result<bool> {
        let text = self.to_string();
        if text == self.text {
            return Ok(false);
        }
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        let failed = |e: std::io::Error| {
            Error::io("write the lock file", &self.path, e)
                .hint("its directory has to be writable; with `--locked` nothing is written")
        };
        let mut file = tempfile::Builder::new().prefix(".lock-").tempfile_in(dir).map_err(failed)?;
        std::io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)?;
        let mode = std::fs::metadata(&self.path)
            .map_or(0o644, |meta| std::os::unix::fs::PermissionsExt::mode(&meta.permissions()));
        let mode: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        file.as_file().set_permissions(mode).map_err(failed)?;
        file.persist(&self.path).map_err(|e| failed(e.error))?;
        self.text = text;
        Ok(true)
    }

    /// The digest that a file to fetch is pinned to.
    pub fn remote(&self, place: &Place, remote: &Remote) -> Locked<Pin> {
        let Some(entry) = self.entry(place) else { return Locked::Missing };
        let for_url = text(entry, "url");
        if !for_url.is_some_and(|url| remote.urls.iter().any(|wanted| wanted == url)) {
            return Locked::Stale(for_url.map_or_else(|| describe(entry), |url| format!("`{url}`")));
        }
        pin(entry).map_or(Locked::Missing, Locked::To)
    }

    /// The commit that a tag or branch is pinned to.
    pub fn commit(&self, place: &Place, git: &Git) -> Locked<String> {
        let Some(entry) = self.entry(place) else { return Locked::Missing };
        let (key, name) = named(&git.at);
        if text(entry, "git") != Some(&git.written) || text(entry, key) != Some(name) {
            return Locked::Stale(describe(entry));
        }
        text(entry, "rev").map_or(Locked::Missing, |rev| Locked::To(rev.to_string()))
    }

    /// The digest that the tag of an image is pinned to.
    pub fn image(&self, place: &Place, written: &str) -> Locked<Digest> {
        let Some(entry) = self.entry(place) else { return Locked::Missing };
        if text(entry, "image") != Some(written) {
            return Locked::Stale(describe(entry));
        }
        let digest = text(entry, "digest").and_then(|digest| digest.parse().ok());
        digest.map_or(Locked::Missing, Locked::To)
    }

    /// Pins the tag of an image to a digest.
    pub fn set_image(&mut self, place: &Place, written: &str, digest: &Digest) {
        self.set(place, &[("image", written.into()), ("digest", digest.as_ref().into())]);
    }

    /// Pins a file to fetch, of this many bytes.
    pub fn set_remote(&mut self, place: &Place, remote: &Remote, pin: &Pin, size: u64) {
        let url = remote.urls.first().map(String::as_str).unwrap_or_default();
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let keys = [("url", url.into()), (pin.algorithm().name(), pin.hex().into()), ("size", size.into())];
        self.set(place, &keys);
    }

    /// Pins a tag or branch to a commit.
    pub fn set_commit(&mut self, place: &Place, git: &Git, rev: &str) {
        let (key, name) = named(&git.at);
        self.set(place, &[("git", git.written.as_str().into()), (key, name.into()), ("rev", rev.into())]);
    }

    /// Takes out what is pinned at no place for which `wanted` holds. Says what went.
    pub fn retain(&mut self, wanted: impl Fn(&Place) -> bool) -> Vec<String> {
        let mut gone = Vec::new();
        if let Some(sources) = self.doc.get_mut("sources").and_then(Item::as_table_mut) {
            let names: Vec<String> = sources.iter().map(|(name, _)| name.to_string()).collect();
            for name in names.into_iter().filter(|name| !wanted(&["sources", name])) {
                sources.remove(&name);
                gone.push(format!("sources.{name}"));
            }
            if sources.is_empty() {
                self.doc.remove("sources");
            }
        }
        if self.doc.contains_key("base") && !wanted(&["base"]) {
            self.doc.remove("base");
            gone.push("base".to_string());
        }
        gone
    }

    fn entry(&self, place: &Place) -> Option<&Table> {
        place.iter().try_fold(self.doc.as_table(), |table, key| table.get(key)?.as_table())
    }

    fn set(&mut self, place: &Place, keys: &[(&str, Value)]) {
        if self.doc.get("version").is_none() {
            self.doc.insert("version", VERSION.into());
            if let Some(mut key) = self.doc.as_table_mut().key_mut("version") {
                key.leaf_decor_mut().set_prefix(HEAD.lines().next().unwrap_or_default().to_string() + "\n");
            }
        }
        let Some((name, parents)) = place.split_last() else { return };
        let mut table = self.doc.as_table_mut();
        for parent in parents {
            let mut new = Table::new();
            new.set_implicit(true);
            let Some(inner) = table.entry(parent).or_insert(Item::Table(new)).as_table_mut() else { return };
            table = inner;
        }
        if !table.contains_key(name) {
            // Behind the last of the names that come before it, so that the order of the file is that of the names.
            let positions = |wanted: fn(&str, &str) -> bool| {
                let entries = table.iter().filter(move |(other, _)| wanted(other, name));
                entries.filter_map(|(_, item)| item.as_table()?.position())
            };
            let before = positions(|other, name| other < name).max();
            let position =
                before.or_else(|| positions(|other, name| other > name).min().map(|next| next - 1));
            let mut new = Table::new();
            new.set_position(position);
            new.decor_mut().set_prefix("\n");
            table.insert(name, Item::Table(new));
        }
        let Some(entry) = table.get_mut(name).and_then(Item::as_table_mut) else { return };
        let is_new = entry.is_empty();
        let others: Vec<String> = entry
            .iter()
            .filter(|(key, item)| {
                let is_ours = OURS.contains(key) || item.is_table();
                is_ours && !keys.iter().any(|(new, _)| new == key)
            })
            .map(|(key, _)| key.to_string())
            .collect();
        others.iter().for_each(|key| drop(entry.remove(key)));
        for (key, value) in keys {
            let mut value = value.clone();
            if let Some(old) = entry.get(key).and_then(Item::as_value) {
                if is_same(old, &value) {
                    continue;
                }
                *value.decor_mut() = old.decor().clone();
            }
            entry.insert(key, Item::Value(value));
        }
        // Read again, so that every table knows its position.
        if is_new && let Ok(doc) = self.doc.to_string().parse() {
            self.doc = doc;
        }
    }
}

impl std::fmt::Display for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.doc)
    }
}

/// Whether two values say the same, comments and spaces aside.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.value() == b.value(),
        (Value::Integer(a), Value::Integer(b)) => a.value() == b.value(),
        (Value::Datetime(a), Value::Datetime(b)) => a.value() == b.value(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| is_same(a, b))
        }
        (Value::InlineTable(a), Value::InlineTable(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.0 == b.0 && is_same(a.1, b.1))
        }
        _ => false,
    }
}

/// What is wrong with an entry, and where.
fn mistake(entry: &Table) -> Option<(String, Option<Range<usize>>)> {
    for key in ["url", "git", "tag", "branch", "image"] {
        if let Some(item) = entry.get(key).filter(|item| item.as_str().is_none()) {
            return Some((format!("`{key}` is not a string"), item.span()));
        }
    }
    for algorithm in Algorithm::ALL {
        let Some(item) = entry.get(algorithm.name()) else { continue };
        if item.as_str().and_then(|hex| Pin::new(algorithm, hex)).is_none() {
            return Some((format!("`{}` is not such a digest", algorithm.name()), item.span()));
        }
    }
    if let Some(item) = entry.get("digest")
        && item.as_str().is_none_or(|digest| Hasher::like_text(digest).is_none())
    {
        return Some(("`digest` is not the digest of an image".to_string(), item.span()));
    }
    let item = entry.get("rev")?;
    let rev = item.as_str().filter(|rev| matches!(rev.len(), 40 | 64));
    let good = rev.is_some_and(|rev| rev.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    (!good).then(|| ("`rev` is not a commit id".to_string(), item.span()))
}

fn text<'a>(entry: &'a Table, key: &str) -> Option<&'a str> {
    entry.get(key)?.as_str()
}

fn pin(entry: &Table) -> Option<Pin> {
    Algorithm::ALL.into_iter().find_map(|algorithm| Pin::new(algorithm, text(entry, algorithm.name())?))
}

fn named(at: &GitRef) -> (&'static str, &str) {
    match at {
        GitRef::Rev(name) => ("rev", name),
        GitRef::Tag(name) => ("tag", name),
        GitRef::Branch(name) => ("branch", name),
    }
}

/// What an entry was made for.
fn describe(entry: &Table) -> String {
    let part = |key| text(entry, key).map(|value| format!("{key} `{value}`"));
    let parts: Vec<String> =
        ["url", "git", "tag", "branch", "debian", "wanted", "image"].into_iter().filter_map(part).collect();
    match parts.is_empty() {
        true if entry.iter().any(|(_, item)| item.is_table()) => "Debian packages".to_string(),
        true => "nothing".to_string(),
        false => parts.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str) -> Remote {
        Remote { urls: vec![url.to_string()], pin: None }
    }

    fn sha256(digit: char) -> Pin {
        Pin::new(Algorithm::Sha256, &digit.to_string().repeat(64)).unwrap()
    }

    fn parse(text: &str) -> Lock {
        Lock::parse(text, Path::new("a.lock")).unwrap()
    }

    #[test]
    fn entries_come_in_the_order_of_their_names() {
        let mut lock = parse("");
        for name in ["m", "z", "a", "n"] {
            lock.set_remote(&["sources", name], &remote("https://x/y"), &sha256('1'), 7);
        }
        lock.set_remote(&["base"], &remote("https://x/b"), &sha256('2'), 8);
        let text = lock.to_string();
        let places: Vec<&str> = text.lines().filter(|line| line.starts_with('[')).collect();
        let again = parse(&text);
        assert_eq!(again.to_string(), text);
        assert!(text.starts_with("# Written by"), "{text}");
        assert_eq!(places.len(), 5, "{text}");
        let sources: Vec<_> = places.into_iter().filter(|line| line.starts_with("[sources")).collect();
        assert_eq!(sources, ["[sources.a]", "[sources.m]", "[sources.n]", "[sources.z]"], "{text}");
        assert_eq!(again.remote(&["sources", "z"], &remote("https://x/y")), Locked::To(sha256('1')));
    }

    #[test]
    fn only_what_changed_changes() {
        let text = format!(
            "# ours\nversion = 1 # one\n\n# why z\n[sources.z]\nurl = \"https://x/z\" # where\nsha256 = \"{}\" # seen\nsize = 1\nnote = 5\n\n\
             [sources.b] # b\nurl = \"https://x/b\"\nsha256 = \"{}\"\nsize = 2\n# the end\n",
            "1".repeat(64),
            "2".repeat(64)
        );
        let mut lock = parse(&text);
        assert_eq!(lock.to_string(), text);
        lock.set_remote(&["sources", "z"], &remote("https://x/z"), &sha256('1'), 1);
        assert_eq!(lock.to_string(), text);
        lock.set_remote(&["sources", "z"], &remote("https://x/z"), &sha256('3'), 1);
        assert_eq!(lock.to_string(), text.replace(&"1".repeat(64), &"3".repeat(64)));
        lock.set_remote(&["sources", "c"], &remote("https://x/c"), &sha256('4'), 1);
        let with_c = lock.to_string();
        for line in text.replace(&"1".repeat(64), &"3".repeat(64)).lines() {
            assert!(with_c.lines().any(|new| new == line), "{line}\n{with_c}");
        }
        lock.retain(|place| place != ["sources", "c"]);
        assert_eq!(lock.to_string(), text.replace(&"1".repeat(64), &"3".repeat(64)));
    }

    #[test]
    fn an_entry_for_something_else_is_stale() {
        let mut lock = parse("");
        let git = |branch: &str| Git {
            url: "https://x/g".into(),
            written: "https://x/g".into(),
            at: GitRef::Branch(branch.into()),
            submodules: false,
        };
        let rev = "a".repeat(40);
        lock.set_commit(&["sources", "g"], &git("main"), &rev);
        lock.set_remote(&["sources", "u"], &remote("https://x/u"), &sha256('1'), 1);
        assert_eq!(lock.commit(&["sources", "g"], &git("main")), Locked::To(rev));
        assert!(
            matches!(lock.commit(&["sources", "g"], &git("other")), Locked::Stale(was) if was.contains("main"))
        );
        assert!(matches!(lock.remote(&["sources", "g"], &remote("https://x/u")), Locked::Stale(_)));
        assert!(
            matches!(lock.remote(&["sources", "u"], &remote("https://x/v")), Locked::Stale(was) if was == "`https://x/u`")
        );
        assert_eq!(lock.remote(&["sources", "v"], &remote("https://x/v")), Locked::Missing);
        let mirrored = Remote { urls: vec!["https://m/u".into(), "https://x/u".into()], pin: None };
        assert_eq!(lock.remote(&["sources", "u"], &mirrored), Locked::To(sha256('1')));
        // A source that changes its kind leaves nothing of the old one.
        lock.set_remote(&["sources", "g"], &remote("https://x/t"), &sha256('2'), 1);
        assert!(!lock.to_string().contains("branch"), "{lock}");
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, place) in [
            ("version = 2", "a.lock:1:11"),
            ("version = 1\nsources = 3", "a.lock:2:11"),
            ("[sources.x]\nsha256 = \"12\"", "a.lock:2:10"),
            ("[sources]\nx = 1", "a.lock:2:5"),
            ("[sources.x]\nrev = \"HEAD\"", "a.lock:2:7"),
            ("[base]\nurl = 3", "a.lock:2:7"),
            ("[sources.x", "a.lock:1:"),
        ] {
            let error = Lock::parse(text, Path::new("a.lock")).unwrap_err();
            assert!(error.what().contains(place), "{text}: {error}");
            assert!(error.what().contains("\nhint: "), "{text}: {error}");
        }
    }
}
