//! What `lock` changed.

use std::path::Path;

use super::style::Style;
use crate::engine::{LockChange, LockReport};

/// One line a change; one that says so where nothing changed.
pub(super) fn report(style: Style, report: &LockReport, cwd: &Path) -> String {
    let path = report.path.strip_prefix(cwd).unwrap_or(&report.path).display();
    if report.changes.is_empty() {
        return format!(
            "{path}: {}\n",
            if report.path.exists() { "nothing to change" } else { "nothing to pin" }
        );
    }
    let line = |LockChange { place, pin }: &LockChange| match pin {
        Some(pin) => format!("{path}: {} {place} to {pin}\n", style.green("pinned")),
        None => format!("{path}: {} {place}, which nothing needs\n", style.yellow("removed")),
    };
    report.changes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_and_none() {
        let change =
            |pin: Option<&str>| LockChange { place: "sources.src".into(), pin: pin.map(String::from) };
        let changes = vec![change(Some("sha256:ab")), change(None)];
        let shown = |changes| {
            report(Style::PLAIN, &LockReport { path: "/w/a.lock".into(), changes }, Path::new("/w"))
        };
        assert_eq!(
            shown(changes),
            "a.lock: pinned sources.src to sha256:ab\na.lock: removed sources.src, which nothing needs\n"
        );
        assert_eq!(shown(Vec::new()), "a.lock: nothing to pin\n");
    }
}
