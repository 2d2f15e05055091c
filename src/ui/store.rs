//! What a store holds and what was wrong with it, as tables or JSON.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::json;

use super::style::Style;
use super::text;
use crate::config::Setting;
use crate::store::{Info, Problem, Swept};

pub(super) fn table(root: &Setting<PathBuf>, info: &Info) -> String {
    let mut out = String::new();
    let size = match info.unreadable {
        0 => text::bytes(info.bytes),
        n => format!("{} and more: {n} directories cannot be read", text::bytes(info.bytes)),
    };
    for (name, value) in [
        ("path", root.value.display().to_string()),
        ("set by", root.origin.to_string()),
        ("size", size),
        ("layers", info.layers.to_string()),
        ("results", info.actions.to_string()),
        ("definitions", info.definitions.to_string()),
        ("logs", info.logs.to_string()),
        ("fetched files", info.blobs.to_string()),
        ("failed steps", info.failed.to_string()),
        ("cache mounts", info.mounts.to_string()),
        ("recipes", info.recipes.to_string()),
    ] {
        let _ = writeln!(out, "{name:<13}  {value}");
    }
    out
}

pub(super) fn json(root: &Setting<PathBuf>, info: &Info) -> serde_json::Value {
    json!({ "path": root.value.to_string_lossy(), "origin": root.origin.to_string(), "holds": info })
}

pub(super) fn swept(swept: &Swept, dry: bool) -> String {
    let Swept { builds, layers, results, fetched, failed, bytes, left } = *swept;
    let (done, then) = if dry { ("would remove", "would be") } else { ("removed", "is") };
    let mut parts = Vec::new();
    for (n, word) in [
        (builds as u64, "build"),
        (layers, "layer"),
        (results, "result"),
        (failed, "failed step"),
        (fetched, "fetched file"),
    ] {
        if n > 0 {
            parts.push(text::count(n as usize, word));
        }
    }
    match parts.is_empty() {
        true => "nothing to remove\n".to_string(),
        false => format!(
            "{done} {}: {}; the store {then} {}\n",
            parts.join(", "),
            text::bytes(bytes),
            text::bytes(left)
        ),
    }
}

/// What is said of a store that stays larger than it should be.
pub(super) fn over(swept: &Swept, most: u64) -> String {
    let what = "tagged builds, downloads, cache mounts, states of failed steps and records";
    let (left, most) = (text::bytes(swept.left), text::bytes(most));
    format!(
        "the store has {left}, and {most} is its limit: {what} stay (`isolith untag`, `store gc --fetched`)"
    )
}

pub(super) fn problems(style: Style, problems: &[Problem]) -> String {
    let mut out = String::new();
    for Problem { path, found, done } in problems {
        let _ = writeln!(out, "{} {found}; {done}", style.yellow(&format!("{path}:")));
    }
    let _ = match problems.iter().filter(|problem| !problem.is_left_alone()).count() {
        0 => writeln!(out, "{}", style.green("the store is whole")),
        n => writeln!(out, "{} found and dealt with", text::count(n, "problem")),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    #[test]
    fn what_a_store_holds() {
        let root =
            Setting { value: "/work/cache".into(), origin: Origin::File("/work/isolith.toml".into(), 3) };
        let mut info = Info { layers: 7, actions: 5, bytes: 5 << 20, ..Info::default() };
        let mut shown = table(&root, &info) + &json(&root, &info).to_string() + "\n";
        info.unreadable = 2;
        shown += table(&root, &info).lines().nth(2).unwrap();
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn problems_say_what_was_done() {
        let problem = Problem {
            path: "layers/ab/abcd".into(),
            found: "its content is another".into(),
            done: "removed".into(),
        };
        let guest = Problem {
            path: "notes.txt".into(),
            found: "it is not part of a store".into(),
            done: "left alone".into(),
        };
        let shown =
            [&[problem, guest.clone()][..], &[guest], &[]].map(|all| super::problems(Style::PLAIN, all));
        insta::assert_snapshot!(shown.concat());
    }
}
