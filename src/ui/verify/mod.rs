//! What `verify` does and what it has found: on the terminal, as text, as a page.

mod html;
mod text;

use std::fs;
use std::path::Path;

use super::{Ui, to_json, to_stderr};
use crate::engine::verify::{Bisect, Choice, Progress, Variation, Verification};
use crate::error::{Error, Result};
use crate::ui::style::Style;

impl Ui {
    /// How far a verification is, on standard error.
    pub fn verify_progress(&self, progress: &Progress<'_>) {
        to_stderr(&text::progress(self.style, progress));
    }

    /// What was found, on standard output.
    pub fn verification(&self, found: &Verification, json: bool) -> Result<()> {
        if json {
            return self.json_lines(&[found]);
        }
        self.print(text::render(self.out_style, found).as_bytes())
    }

    /// Every variation, on standard output.
    pub fn variations(&self, choices: &[Choice], json: bool) -> Result<()> {
        if json {
            return self.json_lines(choices);
        }
        self.print(text::choices(self.out_style, choices).as_bytes())
    }

    /// Writes `index.html`, `report.json` and `report.txt` into a directory, which is made if need be.
    pub fn write_report(&self, dir: &Path, found: &Verification) -> Result<()> {
        fs::create_dir_all(dir).map_err(|e| Error::io("create directory", dir, e))?;
        let files = [
            ("index.html", html::page(found)),
            ("report.json", format!("{}\n", to_json(found)?)),
            ("report.txt", text::render(Style::PLAIN, found)),
        ];
        for (name, text) in files {
            let path = dir.join(name);
            fs::write(&path, text).map_err(|e| Error::io("write", &path, e))?;
        }
        Ok(())
    }
}

/// `cpus, clock`, or `nothing`.
fn names(variations: &[Variation]) -> String {
    if variations.is_empty() {
        return "nothing".to_string();
    }
    variations.iter().map(|variation| variation.name()).collect::<Vec<_>>().join(", ")
}

/// What a search came to.
fn explained(bisect: &Bisect) -> String {
    match &bisect.variations[..] {
        [] => "differs under the same conditions too: time, randomness, or a race".to_string(),
        set => format!("differs because of {}", names(set)),
    }
}

/// The claim that is proven or not, in a line.
fn statement(found: &Verification) -> String {
    use super::text::count;
    let varied = found.variations.iter().filter(|choice| choice.applied).count();
    let done = format!(
        "{}, {}, {}",
        count(found.steps.len(), "step"),
        count(found.rounds.len(), "round"),
        count(varied, "variation")
    );
    if found.identical {
        let layers: Vec<_> =
            found.steps.iter().map(|step| format!("{} {}", step.name, step.reference.short())).collect();
        let last =
            layers.last().map_or_else(|| "nothing to build".to_string(), |last| format!("layer of {last}"));
        return format!("{done}: identical; {last}");
    }
    let differ = found.steps.iter().filter(|step| !step.is_identical()).count();
    format!(
        "{done}: {} not the same",
        if differ == 1 { "1 step is".to_string() } else { format!("{differ} steps are") }
    )
}
