//! Lines on standard error, each with the step it is about.

use std::io::{IsTerminal, Write};

use super::{amount, because, details, exported, paint, warning, word};
use crate::engine::{Event, Observer};
use crate::ui::style::Style;
use crate::ui::text;

pub(in crate::ui) struct Plain {
    style: Style,
    verbose: bool,
    /// Log lines go to a terminal, so they must not touch it; anyone else gets them as they are.
    terminal: bool,
}

impl Plain {
    pub(in crate::ui) fn new(style: Style, verbose: bool) -> Self {
        Self { style, verbose, terminal: std::io::stderr().is_terminal() }
    }

    /// The line for an event, if it has one.
    pub(super) fn line(&self, event: &Event) -> Option<String> {
        let tag = |step: &str| self.style.dim(&format!("[{step}]"));
        Some(match event {
            Event::Planned { .. } | Event::Finished { .. } => return None,
            Event::Fetching { done: false, .. }
            | Event::Packing { done: false, .. }
            | Event::Uploading { done: false, .. } => return None,
            Event::Packing { what, bytes, .. } => {
                format!("{} {what}: {}", self.style.green("packed"), text::bytes(*bytes))
            }
            Event::Uploading { what, bytes, rate, .. } => {
                format!("{} {what}: {}", self.style.green("uploaded"), amount(*bytes, *rate))
            }
            Event::Fetching { what, bytes, rate, .. } => {
                format!("{} {what}: {}", self.style.green("fetched"), amount(*bytes, *rate))
            }
            Event::Started { step, key, why } => {
                let key = if self.verbose { format!(" (key {})", key.short()) } else { String::new() };
                format!("{} started{key}{}", tag(step), because(why))
            }
            Event::Waiting { step } => format!("{} waiting for another isolith that runs it", tag(step)),
            Event::Log { step, line } if self.terminal => format!("{} {}", tag(step), text::sanitise(line)),
            Event::Log { step, line } => format!("{} {line}", tag(step)),
            Event::Step(report) => format!(
                "{} {}{}",
                tag(&report.name),
                paint(self.style, report.outcome, word(report.outcome)),
                details(report, self.verbose)
            ),
            Event::Resolved { image, digest } => format!("{image} is {digest}"),
            Event::Warning { message } => warning(self.style, message),
            Event::Exported { output, to, digest } => {
                exported(self.style, output.as_deref(), to, digest.as_deref())
            }
        })
    }
}

impl Observer for Plain {
    fn event(&self, event: Event) {
        if let Some(mut line) = self.line(&event) {
            line.push('\n');
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }
}
