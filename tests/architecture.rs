//! The shape of the code (ARCHITECTURE.md) holds: dependencies point down, `unsafe` is
//! in one place, the library does not print or read its surroundings, files stay small.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Dependencies point down this list only.
const ORDER: [&str; 21] = [
    "main", "cli", "ui", "engine", "recipe", "key", "base", "source", "trust", "remote", "oci", "sandbox",
    "layer", "store", "config", "net", "sys", "digest", "error", "path", "lib",
];

/// What may be used against the order: data that several modules share, and where it is used from.
const EXCEPTIONS: [(&str, &str, &str); 8] = [
    ("base", "key::HostView", "what the fingerprint of the machine becomes in the document"),
    ("sandbox", "key::ActionDocument", "a sandbox is made from the document and from nothing else"),
    ("sandbox", "key::MountDoc", "a part of the document"),
    ("sandbox", "key::Network", "a part of the document"),
    ("store", "key::ActionDocument", "the document is kept beside the result"),
    ("store", "sandbox::Usage", "what a step used is kept in its result"),
    ("store", "layer::IdShift", "whose files the layers on disk are"),
    ("store", "layer::Manifest", "manifests are kept beside layers, and checked"),
];

/// Functions of a higher module that are used all the same, each with its reason.
const EXCEPTIONAL_CALLS: [(&str, &str, &str); 1] =
    [("store", "layer::verify", "fsck and the boot-id rule hash a layer against its manifest")];

/// Library modules that may print and read the environment.
const OUTER: [&str; 3] = ["main", "cli", "ui"];

/// Lines of a file, unit tests aside.
const LONGEST: usize = 450;

struct SourceFile {
    /// Relative to `src/`.
    path: PathBuf,
    /// The top-level module it belongs to.
    module: String,
    /// Its text up to its unit tests, comments taken out.
    code: String,
    text: String,
}

fn sources() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(&root).unwrap().to_owned();
                let first = Path::new(path.components().next().unwrap().as_os_str());
                let module = first.file_stem().unwrap().to_str().unwrap().to_owned();
                // Files that hold only unit tests are not part of the library.
                let code = match path.file_stem().unwrap().to_str().unwrap() {
                    "tests" | "testing" => String::new(),
                    _ => strip_comments(text.split("#[cfg(test)]\nmod tests").next().unwrap()),
                };
                files.push(SourceFile { path, module, code, text });
            }
        }
    }
    assert!(files.len() > 50, "only {} source files found", files.len());
    files
}

/// Good enough for this code: `//` begins a comment unless it is in a URL or a string before it is open.
fn strip_comments(text: &str) -> String {
    let strip = |line: &str| match line.find("//") {
        Some(at) if line[..at].matches('"').count().is_multiple_of(2) => line[..at].to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(strip).collect::<Vec<_>>().join("\n")
}

/// Every `crate::…` path in a text, groups written out: `crate::a::{b, c::d}` gives `a::b` and `a::c::d`.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` and names that end in `crate` are something else.
        if code[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '_') {
            tree(&code[at + "crate::".len()..], "", &mut found);
        }
    }
    found
}

/// Reads one use tree; what is left of the text behind it.
fn tree<'a>(text: &'a str, prefix: &str, found: &mut BTreeSet<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            if rest.is_empty() {
                return rest;
            }
            let before = rest.len();
            rest = tree(rest, prefix, found);
            assert!(rest.len() < before, "cannot read the use tree at: {}", &rest[..rest.len().min(60)]);
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(text.len());
    let path = if prefix.is_empty() { text[..end].to_owned() } else { format!("{prefix}::{}", &text[..end]) };
    match text[end..].strip_prefix("::") {
        Some(rest) => tree(rest, &path, found),
        None => {
            found.insert(path.trim_end_matches("::self").to_owned());
            let rest = text[end..].trim_start();
            match rest.strip_prefix("as ") {
                Some(rest) => rest.trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'),
                None => rest,
            }
        }
    }
}

#[test]
fn use_trees_are_read() {
    let code = "use crate::a::{self, B, c::{D, E as F}}; let x = crate::g::h(1); use crate::{Error, Result};";
    let wanted = ["Error", "Result", "a", "a::B", "a::c::D", "a::c::E", "g::h"];
    assert_eq!(crate_paths(code), wanted.map(String::from).into());
}

#[test]
fn dependencies_point_down() {
    let place: BTreeMap<&str, usize> = ORDER.iter().enumerate().map(|(at, name)| (*name, at)).collect();
    let allowed: BTreeMap<(&str, &str), &str> =
        EXCEPTIONS.iter().chain(&EXCEPTIONAL_CALLS).map(|(from, to, why)| ((*from, *to), *why)).collect();
    let mut unused: BTreeSet<(&str, &str)> = allowed.keys().copied().collect();
    let mut wrong = Vec::new();
    for file in sources() {
        let from =
            *place.get(file.module.as_str()).unwrap_or_else(|| panic!("module {} has no place", file.module));
        if file.module == "lib" {
            continue;
        }
        for path in crate_paths(&file.code) {
            let to = match path.split("::").next().unwrap() {
                "Error" | "Result" => "error",
                module => module,
            };
            let Some(&at) = place.get(to) else {
                panic!("{}: no module `{to}` in `crate::{path}`", file.path.display());
            };
            if at >= from {
                continue;
            }
            let item: String = path.split("::").take(2).collect::<Vec<_>>().join("::");
            let key = allowed.keys().find(|(module, used)| *module == file.module && *used == item).copied();
            match key {
                Some(key) => drop(unused.remove(&key)),
                None => wrong.push(format!("{} uses crate::{path}", file.path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "against the order {ORDER:?}:\n{}", wrong.join("\n"));
    assert!(unused.is_empty(), "exceptions that nothing needs any more: {unused:?}");
}

#[test]
fn unsafe_is_in_sys_and_says_why_it_is_sound() {
    for file in sources() {
        let lines: Vec<&str> = file.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap();
            let is_unsafe =
                code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
            if !is_unsafe || code.matches('"').count() >= 2 {
                continue;
            }
            let place = format!("{}:{}: {line}", file.path.display(), at + 1);
            assert_eq!(file.module, "sys", "unsafe outside of src/sys: {place}");
            let above = &lines[at.saturating_sub(4)..=at];
            assert!(
                above.iter().any(|line| line.contains("SAFETY:")),
                "unsafe without a SAFETY line: {place}"
            );
        }
    }
}

#[test]
fn the_library_does_not_print_or_read_its_surroundings() {
    let forbidden = [
        "println!(",
        "print!(",
        "eprintln!(",
        "eprint!(",
        "dbg!(",
        "env::var",
        "env::args",
        "env::current_dir",
        "env::set_",
        "env::temp_dir",
        "env::home_dir",
        "io::stdout()",
        "io::stderr()",
        "io::stdin()",
    ];
    for file in sources().into_iter().filter(|file| !OUTER.contains(&file.module.as_str())) {
        for word in forbidden {
            assert!(!file.code.contains(word), "{} has `{word}`", file.path.display());
        }
    }
}

#[test]
fn files_are_short() {
    for file in sources() {
        let lines = file.code.lines().count();
        assert!(lines <= LONGEST, "{} has {lines} lines: two ideas in one file?", file.path.display());
    }
}

#[test]
fn the_map_has_every_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let rows: Vec<&str> = map.lines().filter(|line| line.starts_with("| `")).collect();
    for entry in fs::read_dir(root.join("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let named = [format!("`{name}`"), format!("`{name}/`")];
        let found = rows.iter().any(|row| named.iter().any(|name| row.contains(name.as_str())));
        assert!(found, "ARCHITECTURE.md has no row for src/{name}");
    }
}
