//! What `doctor` found, as a table or as JSON.

use std::fmt::Write;

use serde_json::json;

use super::style::Style;
use super::text;
use crate::sandbox::doctor::{Check, State};

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Warn => "warn",
        State::Fail => "fail",
    }
}

/// One line a requirement; below those that are not met, what they are for and what mends them.
pub(super) fn table(style: Style, checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for check in checks {
        let state = format!("{:<4}", word(check.state));
        let state = match check.state {
            State::Ok => style.green(&state),
            State::Warn => style.yellow(&state),
            State::Fail => style.red(&state),
        };
        let _ = writeln!(out, "{state}  {}  {}", style.bold(&format!("{:width$}", check.name)), check.found);
        if check.state == State::Ok {
            continue;
        }
        let indent = " ".repeat(width + 8);
        let _ = writeln!(out, "{indent}{}", style.dim(&format!("needed for: {}", check.why)));
        for line in check.fix.iter().flat_map(|fix| fix.lines()) {
            let _ = writeln!(out, "{indent}{} {line}", style.cyan("fix:"));
        }
    }
    let n = |state| checks.iter().filter(|check| check.state == state).count();
    let verdict = match (n(State::Fail), n(State::Warn)) {
        (0, 0) => style.green("this machine has all that isolith needs"),
        (0, missing) => format!("steps can run; missing: {}", text::count(missing, "optional thing")),
        (failures, _) => {
            style.red(&format!("no step can run here: {} not met", text::count(failures, "requirement")))
        }
    };
    let _ = writeln!(out, "{verdict}");
    out
}

/// One JSON object a requirement.
pub(super) fn json(checks: &[Check]) -> Vec<serde_json::Value> {
    let one = |check: &Check| {
        json!({
            "name": check.name, "state": word(check.state), "found": check.found, "why": check.why,
            "fix": check.fix,
        })
    };
    checks.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &'static str, state: State, fix: Option<&str>) -> Check {
        let found = format!("the state of {name}");
        Check { name, state, found, fix: fix.map(str::to_string), why: "every step" }
    }

    #[test]
    fn what_is_missing_comes_with_its_cure() {
        let ok = check("overlay", State::Ok, Some("never shown"));
        let warn = check("cgroups", State::Warn, None);
        let fail = check("user namespaces", State::Fail, Some("sudo first\nsudo second"));
        let mut shown = table(Style::PLAIN, &[ok.clone(), warn.clone(), fail.clone()]);
        shown += &table(Style::PLAIN, &[ok.clone(), warn]);
        shown += &table(Style::PLAIN, &[ok]);
        shown += &json(&[fail])[0].to_string();
        insta::assert_snapshot!(shown);
    }
}
