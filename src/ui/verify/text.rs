//! A verification, for people at a terminal.

use std::fmt::Write;

use super::{explained, names, statement};
use crate::engine::verify::{Choice, Progress, Step, Verification};
use crate::ui::diff;
use crate::ui::style::Style;
use crate::ui::text::{count, duration, sanitise};

/// Paths of one step that are shown here; the report has all.
const MOST_PATHS: usize = 20;

pub(super) fn progress(style: Style, progress: &Progress<'_>) -> String {
    match progress {
        Progress::Stored(steps) => format!("reference: {} in the store\n", count(*steps, "step")),
        Progress::Round(number, of, []) => {
            format!("{} normal conditions, the reference\n", style.bold(&format!("round {number} of {of}:")))
        }
        Progress::Round(number, of, on) => {
            format!("{} {}\n", style.bold(&format!("round {number} of {of}:")), names(on))
        }
        Progress::Built(round) => {
            let took = duration(round.wall_ms);
            match (&round.failed, &round.differing[..], &round.variations[..]) {
                (Some(step), ..) => format!("  {} in {took}: step {step} failed\n", style.red("built")),
                (None, [], []) => format!("  built in {took}\n"),
                (None, [], _) => format!("  built in {took}: {}\n", style.green("identical")),
                (None, differing, _) => {
                    format!("  built in {took}: {} {}\n", style.red("differs:"), differing.join(", "))
                }
            }
        }
        Progress::Bisect(step) => {
            format!("{} which variations make step {step} differ\n", style.bold("bisect:"))
        }
        Progress::Tried(set, differs) => {
            let word = if *differs { style.red("differs") } else { style.green("identical") };
            format!("  {word} with {}\n", names(set))
        }
    }
}

pub(super) fn choices(style: Style, choices: &[Choice]) -> String {
    let mut out = String::new();
    for choice in choices {
        let name = style.bold(&format!("{:<12}", choice.name.name()));
        let _ = writeln!(out, "{name} {}", choice.what);
        if let Some(why) = &choice.why_not {
            let _ = writeln!(out, "{:<12} {}", "", style.yellow(&format!("not here: {why}")));
        }
    }
    out
}

pub(super) fn render(style: Style, found: &Verification) -> String {
    let mut out = String::new();
    for step in found.steps.iter().filter(|step| !step.is_identical()) {
        one(&mut out, style, step);
    }
    for bisect in &found.bisect {
        let _ = writeln!(
            out,
            "{} step {}, {}: {} ({})",
            style.bold("bisect:"),
            bisect.step,
            count(bisect.paths.len(), "path"),
            explained(bisect),
            count(bisect.builds, "more build")
        );
        for path in bisect.paths.iter().take(5) {
            let _ = writeln!(out, "  {}", sanitise(path));
        }
    }
    let not: Vec<&Choice> = found
        .variations
        .iter()
        .filter(|c| !c.applied && c.why_not.as_deref() != Some("not asked for"))
        .collect();
    for choice in not {
        let why = choice.why_not.as_deref().unwrap_or_default();
        let _ = writeln!(out, "{}", style.dim(&format!("not varied: {}: {why}", choice.name.name())));
    }
    if found.variations.iter().any(|choice| choice.applied && choice.name.name() == "clock") {
        let said =
            "clock: static programs, raw system calls and times of files are not shifted; LD_PRELOAD is set";
        let _ = writeln!(out, "{}", style.dim(said));
    }
    let line = statement(found);
    let _ = writeln!(
        out,
        "{}: {}",
        found.recipe,
        if found.identical { style.green(&line) } else { style.red(&line) }
    );
    out
}

fn one(out: &mut String, style: Style, step: &Step) {
    let (round, layer) = step.other.unwrap_or((0, None));
    let other = layer.map_or_else(|| "no layer".to_string(), |layer| layer.short());
    let _ = writeln!(
        out,
        "{} {} in round {round}: {} → {other}",
        style.red("differs:"),
        style.bold(&format!("step {}", step.name)),
        step.reference.short()
    );
    if let Some(below) = &step.below {
        let _ = writeln!(out, "  it is built on step {below}, which differs");
    }
    if layer.is_none() {
        let _ = writeln!(out, "  it failed there, or was not reached");
        for line in &step.log {
            let _ = writeln!(out, "  | {}", sanitise(line));
        }
    }
    for path in step.paths.iter().take(MOST_PATHS) {
        diff::path(out, style, &path.difference, "  ");
        for cause in &path.causes {
            let _ = writeln!(
                out,
                "    {} {} ({})",
                style.yellow("likely:"),
                cause.cause,
                sanitise(&cause.evidence)
            );
            let _ = writeln!(out, "    {} {}", style.cyan("fix:"), cause.fix);
        }
    }
    let more = step.paths.len().saturating_sub(MOST_PATHS);
    if more + step.more_paths > 0 {
        let hint = if more > 0 { "; --report DIR shows more" } else { "" };
        let _ = writeln!(out, "  … {}{hint}", count(more + step.more_paths, "more path"));
    }
}
