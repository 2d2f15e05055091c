//! Control files (deb822(5)): paragraphs of fields.

/// The paragraphs of a text. Lines that begin with `#` are no part of them.
pub fn paragraphs(text: &str) -> impl Iterator<Item = Paragraph<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        // Empty lines, also such as have only spaces, stand between.
        loop {
            let line = rest.split_inclusive('\n').next()?;
            if !is_blank(line) {
                break;
            }
            rest = &rest[line.len()..];
        }
        let mut end = 0;
        for line in rest.split_inclusive('\n') {
            if is_blank(line) {
                break;
            }
            end += line.len();
        }
        let (paragraph, after) = rest.split_at(end);
        rest = after;
        Some(Paragraph { text: paragraph })
    })
}

fn is_blank(line: &str) -> bool {
    line.bytes().all(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
}

/// One paragraph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paragraph<'a> {
    text: &'a str,
}

impl<'a> Paragraph<'a> {
    /// What is written there.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The fields in their order: name, and value with its further lines as they are. What is no field is
    /// left out.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut rest = self.text;
        std::iter::from_fn(move || {
            while !rest.is_empty() {
                let mut end = 0;
                for (at, line) in rest.split_inclusive('\n').enumerate() {
                    // Further lines begin with a space; comments may stand between them.
                    if at > 0 && !line.starts_with([' ', '\t', '#']) {
                        break;
                    }
                    end += line.len();
                    if at == 0 && line.starts_with('#') {
                        break;
                    }
                }
                let (field, after) = rest.split_at(end);
                rest = after;
                if let Some((name, value)) = field.split_once(':')
                    && !name.starts_with(['#', ' ', '\t'])
                    && !name.contains('\n')
                {
                    return Some((name, value.trim()));
                }
            }
            None
        })
    }

    /// The value of a field; its name may be in any case.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.fields().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// The lines of a value, each without the space around it; comments and empty ones are left out.
pub fn lines(value: &str) -> impl Iterator<Item = &str> {
    value.lines().filter(|line| !line.starts_with('#')).map(str::trim).filter(|line| !line.is_empty())
}

/// The words of a value, over all its lines.
pub fn words(value: &str) -> impl Iterator<Item = &str> {
    lines(value).flat_map(str::split_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_and_fields() {
        let text =
            "\n \n# a note\nA: 1\nb:two\n three\n# note\n .\n four \n\nC:\n x\n \t\nnonsense\n stray\nD : 4";
        let all: Vec<Paragraph> = paragraphs(text).collect();
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].get("a"), Some("1"));
        assert_eq!(lines(all[0].get("B").unwrap()).collect::<Vec<_>>(), ["two", "three", ".", "four"]);
        assert_eq!(all[1].get("c"), Some("x"));
        assert_eq!(all[2].fields().collect::<Vec<_>>(), [("D ", "4")]);
        assert_eq!(words(" a b\n# c\n d").collect::<Vec<_>>(), ["a", "b", "d"]);
        assert_eq!(paragraphs("").count() + paragraphs("\n\n").count(), 0);
    }
}
