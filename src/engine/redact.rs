//! Keeps secrets out of logs: what a step prints of them is replaced before anyone sees it.

/// Stands where a secret was.
const INSTEAD: &[u8] = b"***";

/// A line of a secret shorter than this is not looked for by itself: it would be found everywhere.
const SHORTEST_LINE: usize = 8;

/// A whole secret shorter than this is not looked for: stars in the middle of every other word would hide the log,
/// and tell what the secret is. A real one is longer.
const SHORTEST: usize = 4;

/// Replaces secrets in a stream, also where one comes in pieces.
#[derive(Default)]
pub struct Redactor {
    /// Longest first, so that a secret which begins like another is taken whole.
    secrets: Vec<Vec<u8>>,
    /// The end of what was given, which may be the beginning of a secret.
    held: Vec<u8>,
}

impl Redactor {
    /// Looks for these values, without white space around them, and for each of their longer lines.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut secrets = Vec::new();
        for value in values {
            let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            secrets.extend(lines.filter(|line| line.len() >= SHORTEST_LINE).map(<[u8]>::to_vec));
            secrets.push(value.trim_ascii().to_vec());
        }
        secrets.retain(|secret| secret.len() >= SHORTEST);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets, held: Vec::new() }
    }

    /// Takes the next bytes; gives what can be shown by now.
    pub fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.secrets.is_empty() {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        let (mut shown, mut at) = (Vec::with_capacity(self.held.len()), 0);
        while at < self.held.len() {
            let rest = &self.held[at..];
            if let Some(secret) = self.secrets.iter().find(|secret| rest.starts_with(secret)) {
                shown.extend_from_slice(INSTEAD);
                at += secret.len();
            } else if self.secrets.iter().any(|secret| secret.starts_with(rest)) {
                break;
            } else {
                shown.push(rest[0]);
                at += 1;
            }
        }
        self.held.drain(..at);
        shown
    }

    /// What was held back, when no more will come.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redact(secrets: &[&str], pieces: &[&str]) -> String {
        let mut redactor = Redactor::new(secrets.iter().map(|secret| secret.as_bytes()));
        let mut shown: Vec<u8> = pieces.iter().flat_map(|piece| redactor.pass(piece.as_bytes())).collect();
        shown.extend(redactor.rest());
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn secrets_are_replaced_wherever_they_are_split() {
        let text = "token=hunter2; hunter hunter2hunter2 hunte";
        let wanted = "token=***; hunter ****** hunte";
        assert_eq!(redact(&["hunter2\n"], &[text]), wanted);
        for at in 0..text.len() {
            assert_eq!(redact(&["hunter2\n"], &[&text[..at], &text[at..]]), wanted, "split at {at}");
        }
        assert_eq!(redact(&["hunter", "hunter2"], &["hunter2 hunter"]), "*** ***");
    }

    #[test]
    fn lines_of_a_key_are_secrets_too() {
        let key = "-----BEGIN-----\nabcdefghij\nxy\n-----END-----\n";
        assert_eq!(redact(&[key], &["> abcdefghij\nxy"]), "> ***\nxy");
    }

    #[test]
    fn nothing_is_held_back_without_need() {
        let mut redactor = Redactor::new([b"hunter2".as_slice()]);
        assert_eq!(redactor.pass(b"progress 10%\rhu"), b"progress 10%\r");
        assert_eq!(redactor.pass(b"ge\n"), b"huge\n");
        assert_eq!(redact(&[" \n"], &["text"]), "text");
        assert_eq!(redact(&["tex\n", "text\n"], &["tex text"]), "tex ***");
    }
}
