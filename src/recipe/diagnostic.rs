//! One mistake in a recipe, and how it is shown.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One mistake: where it is, what it is, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The recipe file, as it is shown.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters to underline, at least 1; never past the end of the line.
    pub len: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// The text of the line.
    pub source: String,
}

impl Diagnostic {
    /// A mistake in the bytes `span` of `text`; a span over several lines is cut at the first one's end.
    pub fn new(
        text: &str,
        file: &Path,
        span: &Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let start = floor_char(text, span.start);
        let end = floor_char(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let source = text[line_start..line_end].trim_end_matches('\r');
        // The parser may point between the halves of `\r\n`.
        let start = start.min(line_start + source.len());
        let end = end.min(line_start + source.len()).max(start);
        Self {
            file: file.to_path_buf(),
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            len: text[start..end].chars().count().max(1),
            message: message.into(),
            hint: hint.into(),
            source: source.to_string(),
        }
    }
}

/// The nearest character boundary at or before `at`.
fn floor_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Text that is safe to show: control characters (a terminal would obey them) become U+FFFD, one for one.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// ```text
/// error: unknown key `stpe`
///   --> hello.toml:12:3
///    |
/// 12 | [[stpe]]
///    |   ^^^^
/// hint: did you mean `step`?
/// ```
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        // Tabs stay tabs, so that the carets stand under the text whatever the terminal makes of them.
        let before = self.source.chars().take(self.column - 1);
        let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "error: {}", printable(&self.message))?;
        let file = self.file.display().to_string();
        writeln!(f, "{gutter}--> {}:{}:{}", printable(&file), self.line, self.column)?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{}", format!("{number} | {}", printable(&self.source)).trim_end())?;
        writeln!(f, "{gutter} | {indent}{}", "^".repeat(self.len))?;
        write!(f, "hint: {}", printable(&self.hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, span: Range<usize>) -> Diagnostic {
        Diagnostic::new(text, Path::new("a.toml"), &span, "message", "hint")
    }

    #[test]
    fn columns_count_characters() {
        let text = "a = 1\nß = \"é\" # x\n";
        let x = text.find('x').unwrap();
        let d = at(text, x..x + 1);
        assert_eq!((d.line, d.column, d.len), (2, 11, 1));
    }

    #[test]
    fn any_span_has_a_place() {
        for (text, span) in [("", 0..0), ("a\r\nb", 1..3), ("é", 1..1), ("é", 7..9), ("a\n", 2..2)] {
            let d = at(text, span.clone());
            assert!(d.line >= 1 && d.column >= 1 && d.len >= 1, "{text:?} {span:?}");
        }
        assert_eq!(at("ab\r\ncd", 1..6).len, 1);
        assert_eq!(at("ab\r\ncd", 3..3).column, 3);
    }

    #[test]
    fn tabs_are_kept_and_escapes_are_not() {
        let shown = at("\tab\u{1b}[31m = 1", 1..3).to_string();
        assert!(shown.contains("\n1 | \tab\u{fffd}[31m = 1\n  | \t^^\n"), "{shown}");
    }
}
