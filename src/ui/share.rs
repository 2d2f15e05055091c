//! What was shared: a build's report in Markdown, and who says what about a recipe.

use std::fmt::Write;

use super::progress::saved;
use super::style::Style;
use super::text::{bytes, count, duration, sanitise};
use crate::engine::{BuildReport, Opinion, OutcomeKind};
use crate::trust::Collected;

/// A build, as GitHub and GitLab show it.
pub(super) fn markdown(report: &BuildReport) -> String {
    let name = cell(&report.recipe);
    let mut out = match &report.failed {
        None => format!("### isolith: `{name}` built in {}\n\n", duration(report.wall_ms)),
        Some(step) => format!("### isolith: `{name}` failed at step `{}`\n\n", cell(step)),
    };
    out += "| step | outcome | time | saved |\n|---|---|--:|--:|\n";
    for step in &report.steps {
        let outcome = match step.outcome {
            OutcomeKind::Executed => "executed".to_string(),
            OutcomeKind::Failed => "**failed**".to_string(),
            OutcomeKind::Hit => "hit".to_string(),
            OutcomeKind::CutoffHit => "cutoff hit".to_string(),
            OutcomeKind::RemoteHit => {
                format!("remote hit ({})", cell(step.remote.as_deref().unwrap_or_default()))
            }
        };
        let time = |ms| if ms == 0 { String::new() } else { duration(ms) };
        let (took, saved) = (time(step.wall_ms), time(step.saved_ms));
        let _ = writeln!(out, "| {} | {outcome} | {took} | {saved} |", cell(&step.name));
    }
    let ran = report.steps.iter().filter(|step| step.outcome == OutcomeKind::Executed).count();
    let hits = report.steps.len() - ran - usize::from(report.failed.is_some());
    let (hits, saved) = (count(hits, "hit"), duration(saved(&report.steps)));
    let _ = writeln!(out, "\n{ran} executed, {hits}, {saved} saved.");
    if !report.remotes.is_empty() {
        out += "\n| remote | layers known | down | up | refused |\n|---|--:|--:|--:|--:|\n";
        for remote in &report.remotes {
            let off = if remote.off { " (given up)" } else { "" };
            let (name, down, up) = (cell(&remote.name), bytes(remote.bytes_down), bytes(remote.bytes_up));
            let _ = writeln!(out, "| {name}{off} | {} | {down} | {up} | {} |", remote.hits, remote.refused);
        }
    }
    out
}

/// What `remote gc` did.
pub(super) fn collected(remote: &str, collected: &Collected) -> String {
    let layers = match collected.swept {
        Some(swept) => format!("{} with {}", count(swept.blobs, "layer"), bytes(swept.bytes)),
        None => "no layers, which it does not list".to_string(),
    };
    let (records, kept) = (count(collected.records, "record"), count(collected.kept, "record"));
    format!("removed from {remote}: {records}, {layers}; {kept} left\n")
}

/// Text that stays in its cell.
fn cell(text: &str) -> String {
    sanitise(text).replace('|', "\\|").replace('<', "&lt;").replace('`', "'")
}

/// Who says what.
pub(super) fn opinions(style: Style, opinions: &[Opinion]) -> String {
    let mut out = String::new();
    for opinion in opinions {
        let verdict = match opinion.layers.len() {
            0 => style.dim("nobody says anything"),
            1 => style.green("agreed"),
            _ => style.red("builders disagree"),
        };
        let _ = writeln!(out, "{}: {verdict}", style.bold(&sanitise(&opinion.name)));
        for said in &opinion.layers {
            let _ = writeln!(out, "  layer {}", said.layer);
            for voice in &said.by {
                let _ = match (&voice.remote, &voice.key) {
                    (Some(remote), Some(key)) => writeln!(out, "    {key} in {}", sanitise(remote)),
                    _ => writeln!(out, "    this machine"),
                };
            }
        }
        for (remote, taken) in opinion.taken.iter().filter(|(_, taken)| taken.is_none()) {
            debug_assert!(taken.is_none());
            let _ = writeln!(out, "  not taken from {}: too few agree", sanitise(remote));
        }
        for refused in &opinion.refused {
            let _ = writeln!(out, "  {} {}", style.yellow("refused:"), sanitise(refused));
        }
    }
    out
}
