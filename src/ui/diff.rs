//! Differences between two trees, for people.

use std::fmt::Write;

use super::style::Style;
use super::text::{bytes, count, sanitise};
use crate::engine::inspect::Content;
use crate::engine::{Comparison, PathDifference};
use crate::layer::Change;

/// Every path with what differs there, or one line that says that nothing does.
pub(super) fn render(style: Style, names: [&str; 2], comparison: &Comparison) -> String {
    let [a, b] = comparison.ids.map(|id| id.short());
    if comparison.differences.is_empty() {
        return format!("{} and {} are the same ({a})\n", names[0], names[1]);
    }
    let mut out = String::new();
    let _ = writeln!(out, "{} {} {}", style.red("---"), names[0], style.dim(&a));
    let _ = writeln!(out, "{} {} {}", style.green("+++"), names[1], style.dim(&b));
    for difference in &comparison.differences {
        path(&mut out, style, difference, "");
    }
    let n = comparison.differences.len();
    let _ = writeln!(out, "{} differ{}", count(n, "path"), if n == 1 { "s" } else { "" });
    out
}

/// One path, below an indent.
pub(super) fn path(out: &mut String, style: Style, difference: &PathDifference, indent: &str) {
    let changes: Vec<String> = difference.difference.changes.iter().map(change).collect();
    let path = sanitise(&difference.difference.path.to_string());
    let _ = writeln!(out, "{indent}{}: {}", style.bold(&path), changes.join("; "));
    if let Some(found) = &difference.content {
        content(out, style, found, &format!("{indent}    "));
    }
}

/// What a change is, in one line.
pub(super) fn change(change: &Change) -> String {
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_string());
    match change {
        Change::OnlyInA { kind } => format!("{kind} only in the first"),
        Change::OnlyInB { kind } => format!("{kind} only in the second"),
        Change::Kind { a, b } => format!("a {a}, then a {b}"),
        Change::Mode { a, b } => format!("mode {a} → {b}"),
        Change::Owner { a, b } => format!("owner {a} → {b}"),
        Change::Time { a, b } => format!("time {a} → {b}"),
        Change::Xattr { name, a, b } => {
            format!("attribute {} {} → {}", sanitise(name), or_none(a), or_none(b))
        }
        Change::Target { a, b } => format!("points to `{}` → `{}`", sanitise(a), sanitise(b)),
        Change::Link { a, b } => {
            format!("hard link of {} → {}", sanitise(&or_none(a)), sanitise(&or_none(b)))
        }
        Change::Device { a, b } => format!("device {a} → {b}"),
        Change::Opaque { a, b } => format!("opaque {a} → {b}"),
        Change::Content { a, b } if a == b => format!("content differs ({})", bytes(*a)),
        Change::Content { a, b } => format!("content differs ({a} → {b} bytes)"),
    }
}

fn content(out: &mut String, style: Style, found: &Content, indent: &str) {
    if let Some(text) = &found.text {
        for line in text.lines() {
            let shown = sanitise(line);
            let shown = match line.as_bytes().first() {
                Some(b'-') => style.red(&shown),
                Some(b'+') => style.green(&shown),
                Some(b'@') => style.cyan(&shown),
                _ => shown,
            };
            let _ = writeln!(out, "{indent}{shown}");
        }
        return;
    }
    if let Some(format) = found.format {
        let _ = writeln!(out, "{indent}{}", style.dim(format));
        for member in &found.members {
            let facts: Vec<String> = member
                .facts
                .iter()
                .map(|(fact, a, b)| format!("{fact} {} → {}", sanitise(a), sanitise(b)))
                .collect();
            let _ = writeln!(out, "{indent}- {} {}", style.bold(&sanitise(&member.name)), facts.join("; "));
            if let Some(inner) = &member.content {
                content(out, style, inner, &format!("{indent}    "));
            }
        }
        for note in &found.notes {
            let _ = writeln!(out, "{indent}- {note}");
        }
        if !found.members.is_empty() || !found.notes.is_empty() {
            return;
        }
    }
    let _ =
        writeln!(out, "{indent}first difference at byte {} ({:#x})", found.bytes.offset, found.bytes.offset);
    for (rows, sign) in found.bytes.rows.iter().zip(["-", "+"]) {
        for row in rows {
            let line = format!("{sign} {row}");
            let line = if sign == "-" { style.red(&line) } else { style.green(&line) };
            let _ = writeln!(out, "{indent}{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::LayerId;
    use crate::engine::inspect;
    use crate::layer::Difference;
    use crate::path::GuestPath;

    #[test]
    fn differences() {
        let found = |path: &str, changes, content| PathDifference {
            difference: Difference { path: GuestPath::parse(path).unwrap(), changes },
            content,
        };
        let content = Change::Content { a: 4, b: 4 };
        let comparison = Comparison {
            ids: [b"a", b"b"].map(|text| LayerId::of_manifest(text)),
            differences: vec![
                found("/a", vec![Change::OnlyInA { kind: "file" }], None),
                found("/b", vec![content.clone()], inspect::compare(b"one\n", b"two\n", 1)),
                found("/c", vec![content], inspect::compare(b"\0\x01\x02\x03", b"\0\x01\xff\x03", 1)),
            ],
        };
        let shown = render(Style::PLAIN, ["x", "y"], &comparison);
        let [a, b] = comparison.ids.map(|id| id.short());
        let wanted = format!(
            "--- x {a}\n+++ y {b}\n/a: file only in the first\n/b: content differs (4 B)\n    @@ -1 +1 @@\n    -one\n    \
             +two\n/c: content differs (4 B)\n    first difference at byte 2 (0x2)\n    - 00000000  00 01 02 03{0}  \
             ....\n    + 00000000  00 01 ff 03{0}  ....\n3 paths differ\n",
            " ".repeat(36)
        );
        assert_eq!(shown, wanted);
        let same = Comparison { differences: vec![], ..comparison };
        assert_eq!(render(Style::PLAIN, ["x", "y"], &same), format!("x and y are the same ({a})\n"));
    }
}
