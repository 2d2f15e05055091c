//! The packages of a Debian base in a lock file: one table an architecture, one line a package.
//!
//! ```toml
//! [base.amd64]
//! suite = ["bookworm"]
//! components = ["main"]
//! variant = "minbase"
//! include = ["make"]
//! released = { bookworm = 2026-07-11T10:16:37Z }
//! packages = [
//!   { name = "…", version = "…", arch = "amd64", sha256 = "…", size = 1, path = "pool/…" },
//! ]
//! added = [
//! ]
//! ```
//! `packages` is what the variant asks for, `added` what `include` does. A package that is not from the first
//! suite has `suite = "…"` behind its path.

use std::collections::BTreeMap;
use std::ops::Range;

use toml_edit::{Array, InlineTable, Item, Table, Value};

use super::{Lock, Locked};
use crate::base::debian::{Debian, Package, Packages, SourceFile, SourcePackage, SourceRequest, Variant};
use crate::source::{Algorithm, Pin};

const LISTS: [&str; 2] = ["packages", "added"];

/// What a lock file says of a Debian base for one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebianPins {
    /// What it was made for.
    pub request: Debian,
    /// When the indexes were made that it was made from, by suite: `2026-07-11T10:16:37Z`.
    pub released: BTreeMap<String, String>,
    /// The packages.
    pub packages: Packages,
}

impl Lock {
    /// The packages that a Debian base is pinned to.
    pub fn debian(&self, request: &Debian, arch: &str) -> Locked<Packages> {
        match self.debian_pins(arch) {
            None => Locked::Missing,
            Some(pins) if pins.request == *request => Locked::To(pins.packages),
            Some(pins) => Locked::Stale(difference(&pins.request, request)),
        }
    }

    /// All that the file says of a Debian base, whatever it was made for.
    pub fn debian_pins(&self, arch: &str) -> Option<DebianPins> {
        self.entry(&["base", arch]).and_then(|entry| read(entry).ok())
    }

    /// Pins the packages of a Debian base.
    pub fn set_debian(&mut self, arch: &str, pins: &DebianPins) {
        let DebianPins { request, released, packages } = pins;
        // What another kind of base had here.
        if let Some(base) = self.doc.get_mut("base").and_then(Item::as_table_mut) {
            super::OURS.into_iter().for_each(|key| drop(base.remove(key)));
        }
        let strings = |list: &[String]| Value::from(list.iter().map(String::as_str).collect::<Array>());
        let mut keys = vec![
            ("suite", strings(&request.suites)),
            ("components", strings(&request.components)),
            ("variant", request.variant.name().into()),
            ("include", strings(&request.include)),
        ];
        if !request.exclude.is_empty() {
            keys.push(("exclude", strings(&request.exclude)));
        }
        let dates = released.iter().filter_map(|(suite, date)| {
            date.parse::<toml_edit::Datetime>().ok().map(|date| (suite.as_str(), Value::from(date)))
        });
        keys.push(("released", dates.collect::<InlineTable>().into()));
        let place = ["base", arch];
        let old: Vec<Option<Array>> =
            LISTS.iter().map(|list| self.entry(&place)?.get(list)?.as_array().cloned()).collect();
        let first = request.suites.first().map(String::as_str).unwrap_or_default();
        for ((list, packages), old) in LISTS.into_iter().zip([&packages.base, &packages.added]).zip(old) {
            keys.push((list, array(packages, first, old.as_ref()).into()));
        }
        self.set(&place, &keys);
    }
}

/// A source package: what was asked for (`debian`, `suite`, `components`, perhaps `wanted`), and what that came to.
impl Lock {
    /// The files that a source package is pinned to.
    pub fn source_package(&self, place: &super::Place, request: &SourceRequest) -> Locked<SourcePackage> {
        let Some(entry) = self.entry(place) else { return Locked::Missing };
        let text = |key: &str| entry.get(key).and_then(Item::as_str);
        let strings = |key: &str| -> Vec<String> {
            let list = entry.get(key).and_then(Item::as_array).into_iter().flatten();
            list.filter_map(|text| text.as_str().map(String::from)).collect()
        };
        let same = text("debian") == Some(&request.name)
            && text("wanted") == request.version.as_deref()
            && strings("suite") == request.suites
            && strings("components") == request.components;
        match (same, source_package(entry)) {
            (true, Ok(package)) => Locked::To(package),
            (true, Err(_)) => Locked::Missing,
            (false, _) => Locked::Stale(super::describe(entry)),
        }
    }

    /// Pins a source package.
    pub fn set_source_package(
        &mut self,
        place: &super::Place,
        request: &SourceRequest,
        package: &SourcePackage,
    ) {
        let strings = |list: &[String]| Value::from(list.iter().map(String::as_str).collect::<Array>());
        let mut files = Array::new();
        for file in &package.files {
            let mut table = InlineTable::new();
            table.insert("sha256", file.sha256.hex().into());
            table.insert("size", i64::try_from(file.size).unwrap_or(i64::MAX).into());
            table.insert("path", file.path.as_str().into());
            let mut value = Value::from(table);
            value.decor_mut().set_prefix("\n  ");
            files.push_formatted(value);
        }
        files.set_trailing("\n");
        files.set_trailing_comma(true);
        let mut keys = vec![
            ("debian", request.name.as_str().into()),
            ("suite", strings(&request.suites)),
            ("components", strings(&request.components)),
        ];
        keys.extend(request.version.as_ref().map(|version| ("wanted", version.as_str().into())));
        keys.push(("version", package.version.as_str().into()));
        keys.push(("from", package.suite.as_str().into()));
        keys.push(("files", files.into()));
        self.set(place, &keys);
    }
}

/// Reads the entry of a source package; else what is wrong, and where.
pub(super) fn source_package(entry: &Table) -> Result<SourcePackage, (String, Option<Range<usize>>)> {
    let text = |key: &str, good: fn(&str) -> bool| match entry.get(key).and_then(Item::as_str) {
        Some(text) if good(text) => Ok(text.to_string()),
        _ => Err((format!("`{key}` is missing or wrong"), entry.get(key).map_or(entry.span(), Item::span))),
    };
    let list = entry.get("files").and_then(Item::as_array);
    let list = list.ok_or_else(|| ("`files` is not a list".to_string(), entry.span()))?;
    let file = |value: &Value| {
        let table = value.as_inline_table()?;
        Some(SourceFile {
            sha256: Pin::new(Algorithm::Sha256, table.get("sha256")?.as_str()?)?,
            size: u64::try_from(table.get("size")?.as_integer()?).ok()?,
            path: Some(table.get("path")?.as_str()?).filter(|path| Package::is_path(path))?.to_string(),
        })
    };
    let files = list.iter().map(|value| {
        file(value)
            .ok_or_else(|| ("this is not a file with `sha256`, `size` and `path`".to_string(), value.span()))
    });
    Ok(SourcePackage {
        files: files.collect::<Result<_, _>>()?,
        version: text("version", Package::is_version)?,
        suite: text("from", Debian::is_suite)?,
    })
}

/// Reads a table; else what is wrong, and where, if the document knows.
pub(super) fn read(entry: &Table) -> Result<DebianPins, (String, Option<Range<usize>>)> {
    let wrong = |key: &str, what: &str| (format!("`{key}` {what}"), entry.get(key).and_then(Item::span));
    let strings = |key: &str, needed: bool| -> Result<Vec<String>, _> {
        let Some(item) = entry.get(key) else {
            return if needed { Err((format!("`{key}` is missing"), entry.span())) } else { Ok(Vec::new()) };
        };
        let list = item.as_array().map(|list| list.iter().map(|text| text.as_str().map(String::from)));
        list.and_then(Iterator::collect).ok_or_else(|| wrong(key, "is not a list of strings"))
    };
    let variant = entry.get("variant").and_then(Item::as_str).and_then(Variant::named);
    let request = Debian {
        suites: strings("suite", true)?,
        components: strings("components", true)?,
        variant: variant.ok_or_else(|| wrong("variant", "is not a variant"))?,
        include: strings("include", false)?,
        exclude: strings("exclude", false)?,
    };
    let mut released = BTreeMap::new();
    if let Some(item) = entry.get("released") {
        let table = item.as_inline_table().ok_or_else(|| wrong("released", "is not a table of dates"))?;
        for (suite, date) in table {
            let date = date.as_datetime().ok_or_else(|| wrong("released", "is not a table of dates"))?;
            released.insert(suite.to_string(), date.to_string());
        }
    }
    let first = request.suites.first().map(String::as_str).unwrap_or_default();
    let list = |key: &str| -> Result<Vec<Package>, (String, Option<Range<usize>>)> {
        let list = entry.get(key).and_then(Item::as_array).ok_or_else(|| wrong(key, "is not a list"))?;
        list.iter().map(|value| package(value, first).map_err(|what| (what, value.span()))).collect()
    };
    let packages = Packages { base: list("packages")?, added: list("added")? };
    let mut names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err((format!("the package `{}` is there twice", twice[0]), entry.span()));
    }
    Ok(DebianPins { request, released, packages })
}

fn package(value: &Value, suite: &str) -> Result<Package, String> {
    let table = value.as_inline_table().ok_or("a package is not a table")?;
    let text = |key: &str, good: fn(&str) -> bool| match table.get(key).and_then(Value::as_str) {
        Some(text) if good(text) => Ok(text.to_string()),
        Some(text) => Err(format!("`{text}` cannot be the {key} of a package")),
        None => Err(format!("a package without `{key}`")),
    };
    let is_word =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let sha256 = table.get("sha256").and_then(Value::as_str);
    Ok(Package {
        name: text("name", Package::is_name)?,
        version: text("version", Package::is_version)?,
        arch: text("arch", is_word)?,
        sha256: sha256
            .and_then(|hex| Pin::new(Algorithm::Sha256, hex))
            .ok_or("`sha256` is not such a digest")?,
        size: table
            .get("size")
            .and_then(Value::as_integer)
            .and_then(|size| u64::try_from(size).ok())
            .ok_or("`size` is not a number of bytes")?,
        path: text("path", Package::is_path)?,
        suite: if table.contains_key("suite") { text("suite", Debian::is_suite)? } else { suite.to_string() },
    })
}

/// One line a package. What people have written beside and above the lines stays with them.
fn array(packages: &[Package], first: &str, old: Option<&Array>) -> Array {
    let mut notes = old.map(notes).unwrap_or_default();
    let mut behind = String::new();
    let mut array = Array::new();
    for package in packages {
        let Note { above, beside } = notes.remove(&package.name).unwrap_or_default();
        let mut value = Value::from(line(package, first));
        value.decor_mut().set_prefix(format!("{behind}\n{above}  "));
        behind = beside;
        array.push_formatted(value);
    }
    let end = old.and_then(|old| old.trailing().as_str()).and_then(|text| text.split_once('\n'));
    array.set_trailing(format!("{behind}\n{}", end.map(|(_, own)| own).unwrap_or_default()));
    array.set_trailing_comma(!packages.is_empty());
    array
}

fn line(package: &Package, first: &str) -> InlineTable {
    let mut table = InlineTable::new();
    let size = i64::try_from(package.size).unwrap_or(i64::MAX);
    table.insert("name", package.name.as_str().into());
    table.insert("version", package.version.as_str().into());
    table.insert("arch", package.arch.as_str().into());
    table.insert("sha256", package.sha256.hex().into());
    table.insert("size", size.into());
    table.insert("path", package.path.as_str().into());
    if package.suite != first {
        table.insert("suite", package.suite.as_str().into());
    }
    table
}

/// Comments of one line.
#[derive(Default)]
struct Note {
    /// Lines above it.
    above: String,
    /// Behind it, with the space before.
    beside: String,
}

/// The comments of a list, by the name of the package they are at.
fn notes(list: &Array) -> BTreeMap<String, Note> {
    let prefix = |value: &Value| {
        value.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().to_string()
    };
    let mut notes = BTreeMap::new();
    for (at, value) in list.iter().enumerate() {
        let Some(name) = value.as_inline_table().and_then(|table| table.get("name")?.as_str()) else {
            continue;
        };
        let next = match list.get(at + 1) {
            Some(next) => prefix(next),
            None => list.trailing().as_str().unwrap_or_default().to_string(),
        };
        let own = prefix(value);
        let lines = own.split_once('\n').map(|(_, lines)| lines).unwrap_or_default();
        let above = lines.rfind('\n').map(|end| &lines[..=end]).unwrap_or_default();
        let beside = next.split_once('\n').map(|(beside, _)| beside).unwrap_or_default();
        notes.insert(name.to_string(), Note { above: above.to_string(), beside: beside.to_string() });
    }
    notes
}

/// In what the recipe differs from what was locked.
fn difference(was: &Debian, is: &Debian) -> String {
    let list = |words: &[String]| words.join(", ");
    let parts = [
        ("suite", list(&was.suites), list(&is.suites)),
        ("components", list(&was.components), list(&is.components)),
        ("variant", was.variant.name().to_string(), is.variant.name().to_string()),
        ("include", list(&was.include), list(&is.include)),
        ("exclude", list(&was.exclude), list(&is.exclude)),
    ];
    let differ = parts.into_iter().filter(|(_, was, is)| was != is);
    differ.map(|(key, was, _)| format!("{key} `{was}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn package(name: &str, version: &str, suite: &str) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            arch: "amd64".into(),
            sha256: Pin::new(Algorithm::Sha256, &"a1".repeat(32)).unwrap(),
            size: 12,
            path: format!("pool/main/{name}_{version}_amd64.deb"),
            suite: suite.into(),
        }
    }

    fn pins() -> DebianPins {
        DebianPins {
            request: Debian {
                suites: vec!["bookworm".into(), "bookworm-security".into()],
                components: vec!["main".into()],
                variant: Variant::Minbase,
                include: vec!["make".into()],
                exclude: Vec::new(),
            },
            released: [("bookworm".to_string(), "2026-07-11T10:16:37Z".to_string())].into(),
            packages: Packages {
                base: vec![package("dash", "0.5", "bookworm"), package("dpkg", "1:2", "bookworm-security")],
                added: vec![package("make", "4.3-4.1", "bookworm")],
            },
        }
    }

    fn parse(text: &str) -> Lock {
        Lock::parse(text, Path::new("a.lock")).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn written_and_read() {
        let mut lock = parse("");
        lock.set_debian("amd64", &pins());
        let text = lock.to_string();
        let wanted = format!(
            "# Written by `isolith lock`. Keep it beside its recipe, under version control.\nversion = 1\n\n[base.amd64]\n\
             suite = [\"bookworm\", \"bookworm-security\"]\ncomponents = [\"main\"]\nvariant = \"minbase\"\n\
             include = [\"make\"]\nreleased = {{ bookworm = 2026-07-11T10:16:37Z }}\npackages = [\n  \
             {{ name = \"dash\", version = \"0.5\", arch = \"amd64\", sha256 = \"{sha256}\", size = 12, \
             path = \"pool/main/dash_0.5_amd64.deb\" }},\n  \
             {{ name = \"dpkg\", version = \"1:2\", arch = \"amd64\", sha256 = \"{sha256}\", size = 12, \
             path = \"pool/main/dpkg_1:2_amd64.deb\", suite = \"bookworm-security\" }},\n]\nadded = [\n  \
             {{ name = \"make\", version = \"4.3-4.1\", arch = \"amd64\", sha256 = \"{sha256}\", size = 12, \
             path = \"pool/main/make_4.3-4.1_amd64.deb\" }},\n]\n",
            sha256 = "a1".repeat(32)
        );
        assert_eq!(text, wanted);
        let again = parse(&text);
        assert_eq!(again.debian_pins("amd64"), Some(pins()));
        assert_eq!(again.debian(&pins().request, "amd64"), Locked::To(pins().packages));
        assert_eq!(again.debian(&pins().request, "arm64"), Locked::Missing);
        let other = Debian { include: vec!["gcc".into()], ..pins().request };
        assert_eq!(again.debian(&other, "amd64"), Locked::Stale("include `make`".into()));
        // The same again changes nothing.
        let mut lock = parse(&text);
        lock.set_debian("amd64", &pins());
        assert_eq!(lock.to_string(), text);
    }

    #[test]
    fn only_what_changed_changes() {
        let mut lock = parse("");
        lock.set_debian("amd64", &pins());
        let text = lock.to_string();
        let with_notes = text
            .replace("  { name = \"dpkg\"", "  # why\n  # dpkg\n  { name = \"dpkg\"")
            .replace("dash_0.5_amd64.deb\" },", "dash_0.5_amd64.deb\" }, # a shell")
            .replace("variant = \"minbase\"", "variant = \"minbase\" # small");
        let mut lock = parse(&with_notes);
        lock.set_debian("amd64", &pins());
        assert_eq!(lock.to_string(), with_notes);
        let mut changed = pins();
        changed.packages.base.insert(0, package("base-files", "12", "bookworm"));
        changed.packages.base[2].version = "1:3".into();
        lock.set_debian("amd64", &changed);
        let after = lock.to_string();
        for line in with_notes.lines().filter(|line| !line.contains("1:2")) {
            assert!(after.lines().any(|new| new == line), "{line}\n{after}");
        }
        assert_eq!(parse(&after).debian_pins("amd64"), Some(changed));
    }

    #[test]
    fn another_kind_of_base_leaves_nothing() {
        let remote = crate::recipe::Remote { urls: vec!["https://x/y".into()], pin: None };
        let pin = Pin::new(Algorithm::Sha256, &"b2".repeat(32)).unwrap();
        let mut lock = parse("");
        lock.set_remote(&["base"], &remote, &pin, 3);
        let tar = lock.to_string();
        lock.set_debian("amd64", &pins());
        assert!(!lock.to_string().contains("url"), "{lock}");
        assert!(matches!(lock.remote(&["base"], &remote), Locked::Stale(was) if was.contains("Debian")));
        lock.set_remote(&["base"], &remote, &pin, 3);
        assert_eq!(lock.to_string(), tar);
    }

    #[test]
    fn mistakes_have_a_place() {
        let mut lock = parse("");
        lock.set_debian("amd64", &pins());
        let text = lock.to_string();
        for (good, bad, place) in [
            (
                "path = \"pool/main/dpkg",
                "path = \"../main/dpkg",
                "`../main/dpkg_1:2_amd64.deb` cannot be the path",
            ),
            ("name = \"make\"", "name = \"Make\"", "`Make` cannot be the name"),
            ("name = \"make\"", "name = \"dash\"", "`dash` is there twice"),
            ("size = 12", "size = -1", "`size` is not"),
            ("variant = \"minbase\"", "variant = \"all\"", "`variant` is not a variant"),
            ("suite = [\"bookworm\", ", "suite = [7, ", "`suite` is not a list of strings"),
            ("T10:16:37Z", "", ""),
        ] {
            let text = text.replacen(good, bad, 1);
            match Lock::parse(&text, Path::new("a.lock")) {
                Ok(_) => assert_eq!(place, "", "{text}"),
                Err(error) => {
                    let what = error.what();
                    assert!(!place.is_empty() && what.contains(place), "{what}");
                    assert!(what.contains("a.lock:") && what.contains("hint: "), "{what}");
                }
            }
        }
    }
}
