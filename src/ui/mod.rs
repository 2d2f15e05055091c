//! The only code that writes to a terminal: progress, tables, errors, JSON.
//!
//! Machine output goes to standard output, everything else to standard error.

mod diff;
mod doctor;
mod explain;
mod failure;
mod history;
mod lock;
mod progress;
mod share;
mod store;
mod style;
mod terminal;
mod text;
mod verify;

use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use crate::config::{Progress, Setting};
use crate::engine::{
    BuildReport, Built, Comparison, Explanation, Failure, LockReport, Observer, Opinion, Past,
};
use crate::error::{Error, Result};
use crate::sandbox::doctor::Check;
use crate::store::{Info, Problem, Swept, Tag};
use crate::trust::Collected;

pub use style::{ColorChoice, Style};
pub use terminal::Terminal;
pub use text::shell_words;

/// Bytes of a log line that are shown at once.
const LONG_LINE: u64 = 1 << 20;

/// Where output goes and how it looks.
pub struct Ui {
    /// For standard error.
    style: Style,
    /// For standard output.
    out_style: Style,
    /// Live bars make sense.
    live: bool,
    verbose: bool,
}

impl Ui {
    /// `term` is `TERM`; `dumb` and none get neither colour nor live bars.
    pub fn new(color: ColorChoice, no_color: bool, term: Option<&str>, verbose: bool) -> Self {
        let capable = term.is_some_and(|term| term != "dumb");
        let terminal = io::stderr().is_terminal();
        Self {
            style: Style::choose(color, no_color || !capable, terminal),
            out_style: Style::choose(color, no_color || !capable, io::stdout().is_terminal()),
            live: terminal && capable,
            verbose,
        }
    }

    /// What draws a build. `cancel` is set when nobody reads standard output any more.
    pub fn progress(&self, mode: Progress, cancel: Arc<AtomicBool>) -> Box<dyn Observer> {
        match mode {
            Progress::Quiet => Box::new(progress::Quiet),
            Progress::Json => Box::new(progress::Json::new(cancel)),
            Progress::Auto if self.live => Box::new(progress::Live::new(self.style, self.verbose)),
            Progress::Auto | Progress::Plain => Box::new(progress::Plain::new(self.style, self.verbose)),
        }
    }

    /// `error: what`, its causes and its hint.
    pub fn error(&self, error: &Error) {
        to_stderr(&failure::render_error(self.style, error));
    }

    /// A step that failed: the end of its log, where the rest is, and how to look around.
    pub fn failure(&self, failure: &Failure, cwd: &Path, flags: &[String]) {
        to_stderr(&failure::render_failure(self.style, failure, cwd, flags));
    }

    /// One line that says what a build did.
    pub fn summary(&self, built: &Built) {
        to_stderr(&progress::summary(
            self.style,
            &built.recipe.name,
            &built.steps,
            &built.remotes,
            built.wall_ms,
        ));
    }

    /// What `lock` changed.
    pub fn locked(&self, reports: &[LockReport], cwd: &Path) {
        for report in reports {
            to_stderr(&lock::report(self.style, report, cwd));
        }
    }

    /// A line for people.
    pub fn note(&self, message: &str) {
        to_stderr(&format!("{message}\n"));
    }

    /// Bytes for standard output.
    pub fn print(&self, bytes: &[u8]) -> Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(|why| Error::machine("cannot write to standard output").because(why))
    }

    /// Each value as one line of JSON on standard output.
    pub fn json_lines<T: Serialize>(&self, values: &[T]) -> Result<()> {
        let mut lines = String::new();
        for value in values {
            lines += &to_json(value)?;
            lines.push('\n');
        }
        self.print(lines.as_bytes())
    }

    /// Why steps would hit or miss, on standard output.
    pub fn explanations(&self, explanations: &[Explanation]) -> Result<()> {
        self.print(explain::render(self.out_style, explanations).as_bytes())
    }

    /// What differs between two trees, called `names`, on standard output.
    pub fn comparison(&self, names: [&str; 2], comparison: &Comparison, json: bool) -> Result<()> {
        if json {
            return self.json_lines(&[comparison]);
        }
        self.print(diff::render(self.out_style, names, comparison).as_bytes())
    }

    /// Who says what about the steps of a recipe, on standard output.
    pub fn opinions(&self, opinions: &[Opinion]) -> Result<()> {
        self.print(share::opinions(self.out_style, opinions).as_bytes())
    }

    /// What was taken out of a remote.
    pub fn collected(&self, remote: &str, collected: &Collected) {
        to_stderr(&share::collected(remote, collected));
    }

    /// What a build did, in Markdown on standard output.
    pub fn report(&self, report: &BuildReport) -> Result<()> {
        self.print(share::markdown(report).as_bytes())
    }

    /// What `doctor` found, on standard output.
    pub fn doctor(&self, checks: &[Check], json: bool) -> Result<()> {
        if json {
            return self.json_lines(&doctor::json(checks));
        }
        self.print(doctor::table(self.out_style, checks).as_bytes())
    }

    /// Where the store is and what it holds, on standard output.
    pub fn store_info(&self, root: &Setting<PathBuf>, info: &Info, json: bool) -> Result<()> {
        if json {
            return self.json_lines(&[store::json(root, info)]);
        }
        self.print(store::table(root, info).as_bytes())
    }

    /// Earlier builds, on standard output.
    pub fn history(&self, builds: &[Past]) -> Result<()> {
        self.print(history::builds(self.out_style, builds).as_bytes())
    }

    /// Names of builds, on standard output.
    pub fn tags(&self, tags: &[Tag], cwd: &Path) -> Result<()> {
        self.print(history::tags(self.out_style, tags, cwd).as_bytes())
    }

    /// What `store gc` removed (or, `dry`, would), on standard output; and a word about a store that stays larger
    /// than `most`.
    pub fn swept(&self, swept: &Swept, most: Option<u64>, (dry, json): (bool, bool)) -> Result<()> {
        match json {
            true => self.json_lines(&[swept])?,
            false => self.print(store::swept(swept, dry).as_bytes())?,
        }
        if let Some(most) = most.filter(|most| swept.left > *most) {
            self.note(&store::over(swept, most));
        }
        Ok(())
    }

    /// What `store fsck` found, on standard output.
    pub fn problems(&self, problems: &[Problem], json: bool) -> Result<()> {
        if json {
            return self.json_lines(problems);
        }
        self.print(store::problems(self.out_style, problems).as_bytes())
    }

    /// The log of a step on standard output, under the step's name if that is given. A terminal gets it without what
    /// it would act on. `damaged` makes the error when it cannot be read to its end.
    pub fn log(
        &self,
        step: Option<&str>,
        log: Option<impl Read>,
        damaged: impl Fn(io::Error) -> Error,
    ) -> Result<()> {
        let unwritten = |why| Error::machine("cannot write to standard output").because(why);
        let terminal = io::stdout().is_terminal();
        let mut out = BufWriter::new(io::stdout().lock());
        if let Some(step) = step {
            writeln!(out, "{}", self.out_style.bold(&format!("==> {step} <=="))).map_err(unwritten)?;
        }
        let mut log = log.map(BufReader::new);
        let mut line = Vec::new();
        // A line that never ends comes in pieces.
        while let Some(log) = &mut log
            && log.by_ref().take(LONG_LINE).read_until(b'\n', &mut line).map_err(&damaged)? > 0
        {
            if terminal {
                line = text::sanitise_lines(&String::from_utf8_lossy(&line)).into_bytes();
            }
            if line.len() < LONG_LINE as usize && !line.ends_with(b"\n") {
                line.push(b'\n');
            }
            out.write_all(&line).map_err(unwritten)?;
            line.clear();
        }
        out.flush().map_err(unwritten)
    }
}

fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|why| Error::machine("cannot write JSON").because(why))
}

/// There is nobody to tell when standard error is gone.
fn to_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
