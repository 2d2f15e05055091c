//! Small renderings: durations, log lines made safe for a terminal, words for a shell.

use std::path::Path;

/// `7 ms`, `1.2 s`, `3 min 20 s`.
pub(super) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        // Rounding must not make "60.0 s".
        1_000..59_950 => format!("{:.1} s", ms as f64 / 1_000.0),
        _ => {
            let seconds = (ms + 500) / 1_000;
            format!("{} min {} s", seconds / 60, seconds % 60)
        }
    }
}

/// `12 B`, `1.5 KiB`, `2.0 GiB`.
pub(super) fn bytes(n: u64) -> String {
    let (mut value, mut unit) = (n as f64, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        // What would round up to 1024.0 belongs to the next unit.
        if value < 1023.95 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") }
}

/// `3 steps`, `1 step`.
pub(super) fn count(n: usize, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

/// A log line that cannot move the cursor or change the terminal: escape sequences and control
/// characters go, a tab becomes a space, and of a line that was overwritten with `\r` the last state stays.
pub(super) fn sanitise(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.trim_end_matches('\r').chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' | '\u{9b}' | '\u{9d}' => {
                let kind = if c == '\x1b' { chars.next() } else { Some(c) };
                match kind {
                    // CSI: ends with a byte from @ to ~.
                    Some('[' | '\u{9b}') => {
                        chars.by_ref().find(|c| ('@'..='~').contains(c));
                    }
                    // OSC and the other strings: end with BEL or ESC \.
                    Some(']' | 'P' | '^' | '_' | 'X' | '\u{9d}') => {
                        while let Some(c) = chars.next() {
                            if c == '\x07' || (c == '\x1b' && chars.next_if_eq(&'\\').is_some()) {
                                break;
                            }
                        }
                    }
                    // Character sets: one more byte.
                    Some('(' | ')' | '#' | '%') => {
                        chars.next();
                    }
                    _ => {}
                }
            }
            '\r' => out.clear(),
            '\t' => out.push(' '),
            c if c.is_control() => {}
            // Bidirectional overrides can make a line read as something it is not.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            c => out.push(c),
        }
    }
    out
}

/// Several lines made safe: file names in errors and in reasons are a step's to choose.
pub(super) fn sanitise_lines(text: &str) -> String {
    let harmless = |c: char| matches!(c, '\n' | '\t') || !c.is_control();
    if text.chars().all(harmless) {
        return text.to_string();
    }
    text.split('\n').map(sanitise).collect::<Vec<_>>().join("\n")
}

/// A word as a POSIX shell has to be given it.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Several words of a command line.
pub fn shell_words(words: &[String]) -> String {
    words.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
}

/// A path as a person in `cwd` would type it.
pub(super) fn relative<'a>(path: &'a Path, cwd: &Path) -> std::borrow::Cow<'a, str> {
    path.strip_prefix(cwd).unwrap_or(path).to_string_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let shown: Vec<_> =
            [0, 999, 1_000, 1_249, 59_949, 59_950, 60_000, 200_499].into_iter().map(duration).collect();
        assert_eq!(
            shown,
            ["0 ms", "999 ms", "1.0 s", "1.2 s", "59.9 s", "1 min 0 s", "1 min 0 s", "3 min 20 s"]
        );
    }

    #[test]
    fn sizes() {
        let shown: Vec<_> =
            [0, 1023, 1024, 1536, (1 << 20) - 1, 5 << 30, 1 << 50].into_iter().map(bytes).collect();
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.0 GiB", "1024.0 TiB"]);
    }

    #[test]
    fn log_lines_cannot_touch_the_terminal() {
        for (raw, safe) in [
            ("plain", "plain"),
            ("\x1b[31mred\x1b[0m \x1b[2Kgone", "red gone"),
            ("\x1b]0;title\x07text\x1b]8;;http://x\x1b\\link", "textlink"),
            ("10%\r50%\r100%\r", "100%"),
            ("a\tb\x07c\x00d", "a bcd"),
            ("\x1b(Bset\u{9b}1mx", "setx"),
            ("cut \x1b[", "cut "),
            ("cut \x1b", "cut "),
            ("abc\u{202e}def", "abcdef"),
            ("Grüße 世界", "Grüße 世界"),
        ] {
            assert_eq!(sanitise(raw), safe, "{raw:?}");
            assert!(!sanitise(raw).contains(char::is_control));
            assert_eq!(sanitise_lines(&format!("{raw}\n\tnext\x07")), format!("{safe}\n next"));
        }
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(shell_word("a/b.toml:x"), "a/b.toml:x");
        assert_eq!(shell_word("LEVEL=it's 3"), r"'LEVEL=it'\''s 3'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn paths_below_the_current_directory_are_relative() {
        assert_eq!(relative(Path::new("/a/b/c"), Path::new("/a")), "b/c");
        assert_eq!(relative(Path::new("/x/c"), Path::new("/a")), "/x/c");
    }
}
