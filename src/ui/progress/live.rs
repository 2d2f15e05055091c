//! Live bars on a terminal: one line a running step (name, elapsed, last log line) and one for the whole.
//!
//! Nothing is drawn and no thread is started before a step runs: a build that is answered from the cache
//! prints its lines and is done.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{amount, because, details, exported, paint, warning, word};
use crate::engine::{Event, Observer, OutcomeKind, StepReport};
use crate::ui::style::Style;
use crate::ui::text;

/// Redraws a second.
const RATE: u8 = 10;

pub(in crate::ui) struct Live {
    style: Style,
    verbose: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    total: usize,
    done: usize,
    hits: usize,
    bars: Option<Bars>,
}

/// What is on the screen while steps run.
struct Bars {
    multi: MultiProgress,
    whole: ProgressBar,
    running: HashMap<String, ProgressBar>,
}

impl Bars {
    fn new(total: usize) -> Bars {
        let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(RATE));
        // A shell does not say beforehand what it will have to build.
        let counts = if total == 0 { "{pos} steps done{msg}" } else { "{pos}/{len} steps{msg}" };
        let whole = multi.add(ProgressBar::new(total as u64).with_style(style(counts)));
        Bars { multi, whole, running: HashMap::new() }
    }

    fn show(&self, done: usize, hits: usize) {
        self.whole.set_position(done as u64);
        self.whole.set_message(if hits == 0 {
            String::new()
        } else {
            format!(", {}", text::count(hits, "hit"))
        });
    }

    fn start(&mut self, step: &str) {
        let bar = ProgressBar::new_spinner().with_style(style("{spinner} {prefix} {elapsed} {wide_msg}"));
        let bar = self.multi.insert_before(&self.whole, bar);
        bar.set_prefix(text::sanitise(step));
        bar.enable_steady_tick(Duration::from_millis(1000 / u64::from(RATE)));
        self.running.insert(step.to_string(), bar);
    }
}

impl Bars {
    fn stop(&mut self, name: &str) {
        if let Some(bar) = self.running.remove(name) {
            bar.finish_and_clear();
            self.multi.remove(&bar);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

impl Live {
    pub(in crate::ui) fn new(style: Style, verbose: bool) -> Self {
        Self { style, verbose, state: Mutex::default() }
    }

    /// A line that stays, above the bars if there are any.
    fn say(state: &State, line: &str) {
        match &state.bars {
            Some(bars) => {
                let _ = bars.multi.println(line);
            }
            None => {
                let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
            }
        }
    }

    /// Something that takes a while: a bar while it goes on, a line when it is done.
    fn moves(state: &mut State, verb: &str, what: &str, amount: &str, done: bool) {
        if done {
            if let Some(bars) = &mut state.bars {
                bars.stop(what);
            }
            Self::say(state, &format!("{verb:>10} {what}: {amount}"));
            if state.bars.as_ref().is_some_and(|bars| bars.running.is_empty()) {
                clear(state);
            }
            return;
        }
        let bars = state.bars.get_or_insert_with(|| Bars::new(state.total));
        if !bars.running.contains_key(what) {
            bars.start(what);
        }
        if let Some(bar) = bars.running.get(what) {
            bar.set_message(amount.to_string());
        }
    }

    fn done(&self, state: &mut State, report: &StepReport) {
        state.done += 1;
        state.hits += usize::from(!matches!(report.outcome, OutcomeKind::Executed | OutcomeKind::Failed));
        let outcome = paint(self.style, report.outcome, &format!("{:>10}", word(report.outcome)));
        if let Some(bars) = &mut state.bars {
            bars.stop(&report.name);
        }
        Self::say(state, &format!("{outcome} {}{}", report.name, details(report, self.verbose)));
        match &state.bars {
            // Whatever comes next may not be ours to draw over.
            Some(bars) if bars.running.is_empty() => clear(state),
            Some(bars) => bars.show(state.done, state.hits),
            None => {}
        }
    }
}

impl Observer for Live {
    fn event(&self, event: Event) {
        let Ok(mut state) = self.state.lock() else { return };
        let state = &mut *state;
        match event {
            Event::Planned { steps } => state.total = steps.len(),
            Event::Started { step, why, .. } => {
                if !why.is_empty() {
                    Self::say(state, &format!("{:>10} {step}{}", "running", because(&why)));
                }
                let bars = state.bars.get_or_insert_with(|| Bars::new(state.total));
                bars.show(state.done, state.hits);
                bars.start(&step);
            }
            Event::Waiting { step } => {
                Self::say(state, &format!("{:>10} {step} (another isolith runs it)", "waiting"));
            }
            Event::Fetching { what, bytes, total, rate, done, .. } => {
                Self::moves(state, "fetched", &what, &how_far(bytes, total, rate, done), done);
            }
            Event::Uploading { what, bytes, total, rate, done, .. } => {
                Self::moves(state, "uploaded", &what, &how_far(bytes, Some(total), rate, done), done);
            }
            Event::Packing { what, bytes, done } => {
                Self::moves(state, "packed", &what, &text::bytes(bytes), done);
            }
            Event::Log { step, line } => {
                if let Some(bar) = state.bars.as_ref().and_then(|bars| bars.running.get(&step)) {
                    bar.set_message(text::sanitise(&line));
                }
            }
            Event::Step(report) => self.done(state, &report),
            Event::Resolved { image, digest } => Self::say(state, &format!("{image} is {digest}")),
            Event::Warning { message } => Self::say(state, &warning(self.style, &message)),
            Event::Exported { output, to, digest } => {
                Self::say(state, &exported(self.style, output.as_deref(), &to, digest.as_deref()));
            }
            Event::Finished { .. } => {}
        }
    }
}

/// How much of how much, and how fast.
fn how_far(bytes: u64, total: Option<u64>, rate: u64, done: bool) -> String {
    let of = match total {
        Some(total) if !done => format!("of {}, ", text::bytes(total)),
        _ => String::new(),
    };
    format!("{of}{}", amount(bytes, rate))
}

fn clear(state: &mut State) {
    if let Some(bars) = state.bars.take() {
        for bar in bars.running.values() {
            bar.finish_and_clear();
        }
        bars.whole.finish_and_clear();
        let _ = bars.multi.clear();
    }
}

impl Drop for Live {
    /// An error ends a build without `Finished`; the bars must not stay.
    fn drop(&mut self) {
        if let Ok(state) = self.state.get_mut() {
            clear(state);
        }
    }
}
