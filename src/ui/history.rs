//! Earlier builds and tags, as text.

use std::fmt::Write;
use std::path::Path;

use super::style::Style;
use super::text;
use crate::engine::Past;
use crate::layer::time::rfc3339;
use crate::store::Tag;

/// Newest first: number, when, tags, the end of the stack, what changed.
pub(super) fn builds(style: Style, builds: &[Past]) -> String {
    let mut out = String::new();
    let first = builds.iter().map(|build| build.number).min();
    for build in builds {
        let tags: String = build.tags.iter().map(|tag| format!(" @{tag}")).collect();
        let _ = write!(out, "{} {}", style.bold(&format!("@{}", build.number)), when(build.finished));
        let _ = write!(out, "{}", style.cyan(&tags));
        if build.missing > 0 {
            let gone = format!(" ({} gone from the store)", text::count(build.missing, "layer"));
            let _ = write!(out, "{}", style.yellow(&gone));
        }
        out.push('\n');
        for (name, value) in &build.args {
            let _ = writeln!(out, "    {} = {}", text::sanitise(name), text::sanitise(value));
        }
        for (name, key) in &build.steps {
            let key = key.map_or("?".to_string(), |key| format!("{key:#}"));
            let _ = writeln!(out, "    step {} {key}", text::sanitise(name));
        }
        for (name, layer) in &build.outputs {
            let _ = writeln!(out, "    output {} {layer:#}", text::sanitise(name));
        }
        if !build.changed.is_empty() {
            let _ = writeln!(out, "    changed: {}", text::sanitise(&build.changed.join(", ")));
        } else if Some(build.number) != first {
            let _ = writeln!(out, "    changed: nothing that it gives");
        }
    }
    out
}

/// By name: the build and when it was made.
pub(super) fn tags(style: Style, tags: &[Tag], cwd: &Path) -> String {
    let mut out = String::new();
    for Tag { name, build } in tags {
        let recipe = text::sanitise(&text::relative(&build.recipe, cwd));
        let name = style.cyan(&format!("@{name}"));
        let _ = writeln!(out, "{name} {recipe}@{} {}", build.number, when(build.finished));
    }
    out
}

fn when(seconds: i64) -> String {
    rfc3339(seconds).unwrap_or_else(|| seconds.to_string())
}
