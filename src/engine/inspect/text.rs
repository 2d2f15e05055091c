//! Differences of texts.

use std::time::Duration;

use similar::TextDiff;

/// Longer texts are compared as bytes.
const LARGEST: usize = 4 << 20;
/// Lines of a difference that are kept.
const MOST_LINES: usize = 400;

/// A unified difference with three lines of context; none unless both are text.
pub fn unified(a: &[u8], b: &[u8]) -> Option<String> {
    let (a, b) = (text(a)?, text(b)?);
    let diff = TextDiff::configure().timeout(Duration::from_secs(2)).diff_lines(a, b);
    let whole = diff.unified_diff().context_radius(3).to_string();
    let lines: Vec<&str> = whole.lines().collect();
    if lines.len() <= MOST_LINES {
        return Some(whole);
    }
    let rest = lines.len() - MOST_LINES;
    Some(format!("{}\n… {rest} more lines\n", lines[..MOST_LINES].join("\n")))
}

/// UTF-8 without control characters that do not belong into a text.
fn text(bytes: &[u8]) -> Option<&str> {
    if bytes.len() > LARGEST || bytes.iter().any(|b| *b < 0x20 && !matches!(b, b'\t'..=b'\r' | 0x1b)) {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_compared_line_by_line_and_binaries_are_not() {
        let shown = unified(b"one\ntwo\nthree\n", b"one\n2\nthree\n").unwrap();
        assert_eq!(shown, "@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n");
        assert_eq!(unified(b"a\0b", b"a"), None);
        assert_eq!(unified(b"\xff\xfe", b"a"), None);
        let long: String = (0..1000).map(|n| format!("{n}\n")).collect();
        assert!(unified(b"", long.as_bytes()).unwrap().ends_with("… 601 more lines\n"));
    }
}
