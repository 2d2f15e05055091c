//! A build, as it goes: live bars, plain lines, JSON, or nothing.

mod json;
mod live;
mod plain;

pub(super) use json::Json;
pub(super) use live::Live;
pub(super) use plain::Plain;

use super::style::Style;
use super::text;
use crate::engine::{Event, Observer, OutcomeKind, RemoteReport, StepReport};

/// Shows nothing.
pub(super) struct Quiet;

impl Observer for Quiet {
    fn event(&self, _event: Event) {}
}

/// `built hello in 1.2 s: 3 executed, 1 hit, 0 cutoff hits`, and what remotes did:
/// `; team: 2 hits, 1.0 MiB down, 5 KiB up; 3 min 20 s saved`.
pub(super) fn summary(
    style: Style,
    recipe: &str,
    steps: &[StepReport],
    remotes: &[RemoteReport],
    wall_ms: u64,
) -> String {
    let n = |kind| steps.iter().filter(|step| step.outcome == kind).count();
    let mut parts = vec![
        format!("{} executed", n(OutcomeKind::Executed)),
        text::count(n(OutcomeKind::Hit), "hit"),
        text::count(n(OutcomeKind::CutoffHit), "cutoff hit"),
    ];
    if n(OutcomeKind::RemoteHit) > 0 {
        parts.push(text::count(n(OutcomeKind::RemoteHit), "remote hit"));
    }
    let mut line =
        format!("{} {recipe} in {}: {}", style.green("built"), text::duration(wall_ms), parts.join(", "));
    for remote in remotes {
        let (down, up) = (text::bytes(remote.bytes_down), text::bytes(remote.bytes_up));
        let refused =
            if remote.refused > 0 { format!(", {} refused", remote.refused) } else { String::new() };
        let hits = text::count(remote.hits as usize, "hit");
        let off = if remote.off { ", then off" } else { "" };
        line += &format!("; {}: {hits}, {down} down, {up} up{refused}{off}", remote.name);
    }
    if !remotes.is_empty() {
        line += &format!("; {} saved", text::duration(saved(steps)));
    }
    line + "\n"
}

/// What the steps that did not have to run took when they did, in milliseconds.
pub(in crate::ui) fn saved(steps: &[StepReport]) -> u64 {
    steps.iter().map(|step| step.saved_ms).sum()
}

/// The word of an outcome, as JSON has it too.
fn word(outcome: OutcomeKind) -> &'static str {
    match outcome {
        OutcomeKind::Executed => "executed",
        OutcomeKind::Hit => "hit",
        OutcomeKind::CutoffHit => "cutoff-hit",
        OutcomeKind::RemoteHit => "remote-hit",
        OutcomeKind::Failed => "failed",
    }
}

fn paint(style: Style, outcome: OutcomeKind, text: &str) -> String {
    match outcome {
        OutcomeKind::Failed => style.red(text),
        OutcomeKind::Executed => style.bold(text),
        _ => style.green(text),
    }
}

/// What to add about a step: its time when it took some, its ids when asked for.
fn details(report: &StepReport, verbose: bool) -> String {
    let mut out = match report.outcome {
        OutcomeKind::Executed | OutcomeKind::Failed => format!(" in {}", text::duration(report.wall_ms)),
        _ => String::new(),
    };
    if verbose {
        let layer = report.layer.map_or_else(|| "-".to_string(), |layer| layer.short());
        out += &format!(" (key {}, layer {layer})", report.key.short());
    }
    out
}

/// How much came, and how fast.
fn amount(bytes: u64, rate: u64) -> String {
    format!("{} at {}/s", text::bytes(bytes), text::bytes(rate))
}

/// Why a step had to run, on one line.
fn because(why: &[String]) -> String {
    if why.is_empty() {
        String::new()
    } else {
        format!(": {}", text::sanitise(&why.join("; ").replace('\n', " ")))
    }
}

/// The line for an output that was written.
fn exported(style: Style, output: Option<&str>, to: &str, digest: Option<&str>) -> String {
    let digest = digest.map(|digest| format!(" ({digest})")).unwrap_or_default();
    format!("{} {} to {to}{digest}", style.green("exported"), output.unwrap_or("the whole stack"))
}

/// The line for a warning.
fn warning(style: Style, message: &str) -> String {
    format!("{} {message}", style.yellow("warning:"))
}

#[cfg(test)]
mod tests;
