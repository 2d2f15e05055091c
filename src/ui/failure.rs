//! Errors and failed steps, as text.

use std::fmt::Write;
use std::path::Path;

use super::style::Style;
use super::text;
use crate::engine::Failure;
use crate::error::Error;
use crate::sandbox::Status;

/// `error: what`, then each cause, then the hint. What failed may be several lines (a place in a file with
/// the line and a caret); it is printed as it is.
pub(super) fn render_error(style: Style, error: &Error) -> String {
    let mut out = format!("{} {}\n", style.red("error:"), text::sanitise_lines(error.what()));
    for cause in error.causes() {
        line(&mut out, &style.bold("  cause:"), &cause);
    }
    if let Some(hint) = error.hint_text() {
        line(&mut out, &style.cyan("hint:"), hint);
    }
    out
}

/// A labelled text; further lines of it are indented as far as the label is wide.
fn line(out: &mut String, label: &str, text: &str) {
    let text = text::sanitise_lines(text.trim_end());
    let _ = writeln!(out, "{label} {}", text.replace('\n', "\n      "));
}

/// How a command ended, in words.
pub(super) fn status(status: Status, limit: Option<&str>) -> String {
    let ended = match status {
        Status::Exited(code) => format!("exited with status {code}"),
        Status::Signaled(number) => match nix::sys::signal::Signal::try_from(number) {
            Ok(signal) => format!("was killed by signal {number} ({})", signal.as_str()),
            Err(_) => format!("was killed by signal {number}"),
        },
    };
    match limit {
        Some(limit) => format!("went over its {limit} limit and {ended}"),
        None => ended,
    }
}

/// A step that failed: how, the end of its log, where the rest is, and the command that opens a shell in
/// the state it left. `flags` are the words that belong on that command line.
pub(super) fn render_failure(style: Style, failure: &Failure, cwd: &Path, flags: &[String]) -> String {
    let target = format!("{}:{}", text::relative(&failure.recipe, cwd), failure.name);
    let words = text::shell_words(&[&[target], flags].concat());
    let ended = status(failure.status, failure.limit);
    let mut out = String::new();
    if failure.tail.is_empty() {
        let _ = writeln!(out, "{}", style.dim(&format!("step `{}` printed nothing", failure.step)));
    } else {
        let heading = format!("last {} of step `{}`:", text::count(failure.tail.len(), "line"), failure.step);
        let _ = writeln!(out, "{}", style.dim(&heading));
        for line in &failure.tail {
            let _ = writeln!(out, "  {}", text::sanitise(line));
        }
    }
    let _ = writeln!(out, "{} step `{}` {ended}", style.red("error:"), failure.step);
    if !failure.tail.is_empty() {
        let log = text::relative(&failure.log, cwd);
        let _ = writeln!(out, "  whole log: {log} (isolith log {words})");
    }
    line(
        &mut out,
        &style.cyan("hint:"),
        &format!("look around in the state it left: isolith shell {words} --after"),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::ActionKey;

    #[test]
    fn errors_have_three_parts() {
        let error = Error::io("read", Path::new("/x/y"), std::io::Error::from_raw_os_error(2))
            .hint("first line\nsecond line");
        let two = Error::recipe("unknown key `stpe`\n --> a.toml:1:3");
        let shown = render_error(Style::PLAIN, &error) + "\n" + &render_error(Style::PLAIN, &two);
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn failed_steps_say_where_to_look() {
        let mut failure = Failure {
            step: "test".into(),
            name: "test".into(),
            recipe: "/work/recipes/hello.toml".into(),
            key: ActionKey::of_document(b"x"),
            status: Status::Exited(2),
            limit: None,
            log: "/work/cache/logs/ab/abcd.zst".into(),
            tail: vec!["cc -o hello".into(), "\x1b[31mFAIL\x1b[0m greet".into()],
        };
        let flags = ["--set".to_string(), "LEVEL=a b".to_string()];
        let first = render_failure(Style::PLAIN, &failure, Path::new("/work"), &flags);
        failure.tail.clear();
        failure.status = Status::Signaled(9);
        failure.limit = Some("memory");
        let second = render_failure(Style::PLAIN, &failure, Path::new("/elsewhere"), &[]);
        insta::assert_snapshot!(first + "\n" + &second);
    }
}
