//! One configuration file, laid over the settings below it.

use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Inputs, Origin, Progress, Remotes, Setting, Settings};
use crate::error::{Error, Result, did_you_mean};

const OWN: [&str; 5] = ["store", "jobs", "progress", "output-dir", "gc"];
const PROGRESS: [&str; 4] = ["auto", "plain", "json", "quiet"];

/// Lays the file at `path` over `settings`; a file that does not exist changes nothing. Relative paths in
/// it are relative to the directory it is in. `of_repository` is whether it came with what is built.
pub(super) fn apply(path: &Path, of_repository: bool, settings: &mut Settings) -> Result<()> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => {
            let hint = "HOME or XDG_CONFIG_HOME may be those of another user (`sudo -H` sets HOME)";
            return Err(Error::io("read the configuration file", path, error).hint(hint));
        }
    };
    File { path, text: &text, of_repository }.apply(settings)
}

pub(super) struct File<'a> {
    path: &'a Path,
    text: &'a str,
    /// It came with what is built, so it is not its user who speaks.
    pub(super) of_repository: bool,
}

impl File<'_> {
    fn apply(&self, settings: &mut Settings) -> Result<()> {
        let table = DeTable::parse(self.text)
            .map_err(|error| self.wrong(error.span().unwrap_or(0..0), error.message(), None))?;
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let wrong = entries.into_iter().filter_map(|(key, value)| self.set(key, value, settings).err());
        joined(wrong.collect())
    }

    /// Takes over one setting.
    fn set(
        &self,
        key: &Spanned<Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        settings: &mut Settings,
    ) -> Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        let origin = self.origin(key.span().start);
        match key.get_ref().as_ref() {
            "store" => settings.store = Setting { value: dir.join(self.path_in(value)?), origin },
            "jobs" => settings.jobs = Setting { value: self.jobs(value)?, origin },
            "progress" => settings.progress = Setting { value: self.progress(value)?, origin },
            "output-dir" => {
                settings.output_dir = Setting { value: Some(dir.join(self.path_in(value)?)), origin };
            }
            "gc" => settings.gc.take(self, value)?,
            other if settings.inputs.take(self, dir, other, value, origin.clone())? => {}
            other if settings.remotes.take(self, dir, (other, key.span()), value, origin.clone())? => {}
            other => {
                let keys = [&OWN[..], &Inputs::KEYS, &Remotes::KEYS].concat();
                let message = format!("unknown setting `{other}`");
                let hint = did_you_mean(other, keys.iter().copied())
                    .unwrap_or_else(|| format!("the settings are {}", keys.join(", ")));
                return Err(self.wrong(key.span(), &message, Some(hint)));
            }
        }
        Ok(())
    }

    pub(super) fn string<'v>(&self, value: &'v Spanned<DeValue<'_>>) -> Result<&'v str> {
        value.get_ref().as_str().ok_or_else(|| {
            self.wrong(value.span(), &format!("expected a string, found {}", kind(value)), None)
        })
    }

    fn path_in<'v>(&self, value: &'v Spanned<DeValue<'_>>) -> Result<&'v str> {
        match self.string(value)? {
            "" => Err(self.wrong(value.span(), "the path is empty", None)),
            path => Ok(path),
        }
    }

    fn jobs(&self, value: &Spanned<DeValue<'_>>) -> Result<usize> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => usize::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        number.filter(|jobs| *jobs >= 1).ok_or_else(|| {
            self.wrong(
                value.span(),
                "expected a whole number of at least 1",
                Some("for example jobs = 4".into()),
            )
        })
    }

    fn progress(&self, value: &Spanned<DeValue<'_>>) -> Result<Progress> {
        let word = self.string(value)?;
        <Progress as clap::ValueEnum>::from_str(word, false).map_err(|_| {
            let hint = did_you_mean(word, PROGRESS)
                .unwrap_or_else(|| format!("it is one of {}", PROGRESS.join(", ")));
            self.wrong(value.span(), &format!("`{word}` is not a way to show progress"), Some(hint))
        })
    }

    /// What lies at a byte offset was said there.
    pub(super) fn origin(&self, offset: usize) -> Origin {
        Origin::File(self.path.to_path_buf(), self.position(offset).0)
    }

    /// Line and column, both from 1, of a byte offset.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..offset.min(self.text.len())];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The mistake, its place, the line it is in, and a caret under it.
    pub(super) fn wrong(&self, span: Range<usize>, message: &str, hint: Option<String>) -> Error {
        let (line, column) = self.position(span.start);
        let source = self.text.lines().nth(line - 1).unwrap_or("");
        let room = source.chars().count().saturating_sub(column - 1).max(1);
        let carets = self.text.get(span).map_or(1, |text| text.chars().count()).clamp(1, room);
        let margin = " ".repeat(line.to_string().len());
        let error = Error::usage(format!(
            "{message}\n{margin}--> {}:{line}:{column}\n{margin} |\n{line} | {source}\n{margin} | {}{}",
            self.path.display(),
            " ".repeat(column - 1),
            "^".repeat(carets),
        ));
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// All mistakes as one error: each but the last has its hint in the text.
fn joined(mut wrong: Vec<Error>) -> Result<()> {
    let Some(last) = wrong.pop() else { return Ok(()) };
    let mut text = String::new();
    for error in wrong {
        text += error.what();
        text += &error.hint_text().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        text += "\n\nerror: ";
    }
    let all = Error::usage(text + last.what());
    Err(match last.hint_text() {
        Some(hint) => all.hint(hint),
        None => all,
    })
}

pub(super) fn kind(value: &Spanned<DeValue<'_>>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
