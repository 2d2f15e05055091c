//! Relations between packages (Debian Policy 7.1): `a (>= 1) | b:any, c [amd64]`.

use std::cmp::Ordering;

use super::package::Package;
use super::version;

/// One of several that would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation<'a> {
    /// The package, real or virtual.
    pub name: &'a str,
    /// Behind a colon: `any`, or an architecture.
    pub qualifier: Option<&'a str>,
    /// Which versions would do; none when all.
    pub version: Option<(Op, &'a str)>,
}

/// How versions compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `<<`
    Before,
    /// `<=`
    AtMost,
    /// `=`
    Same,
    /// `>=`
    AtLeast,
    /// `>>`
    After,
}

impl Op {
    const fn text(self) -> &'static str {
        match self {
            Op::Before => "<<",
            Op::AtMost => "<=",
            Op::Same => "=",
            Op::AtLeast => ">=",
            Op::After => ">>",
        }
    }

    /// Whether `version` is in this relation to `other`.
    pub fn holds(self, version: &str, other: &str) -> bool {
        let order = version::compare(version, other);
        match self {
            Op::Before => order == Ordering::Less,
            Op::AtMost => order != Ordering::Greater,
            Op::Same => order == Ordering::Equal,
            Op::AtLeast => order != Ordering::Less,
            Op::After => order == Ordering::Greater,
        }
    }
}

/// A text is not a list of relations; says where it stops being one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a relation between packages")]
pub struct Malformed(String);

impl Relation<'_> {
    /// Whether that version of the package would do.
    pub fn allows(&self, version: &str) -> bool {
        self.version.is_none_or(|(op, wanted)| op.holds(version, wanted))
    }
}

impl std::fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)?;
        if let Some(qualifier) = self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        match self.version {
            Some((op, version)) => write!(f, " ({} {version})", op.text()),
            None => Ok(()),
        }
    }
}

/// All must hold; of each inner list one. Alternatives for other architectures than `arch`, and those of build
/// profiles (none is active), are left out, and so is what has no alternative left.
pub fn parse<'a>(field: &'a str, arch: &str) -> Result<Vec<Vec<Relation<'a>>>, Malformed> {
    let mut all = Vec::new();
    for group in field.split(',').map(str::trim).filter(|group| !group.is_empty()) {
        let mut alternatives = Vec::new();
        for text in group.split('|') {
            let (relation, applies) = one(text.trim(), arch).ok_or_else(|| Malformed(shortened(text)))?;
            if applies {
                alternatives.push(relation);
            }
        }
        if !alternatives.is_empty() {
            all.push(alternatives);
        }
    }
    Ok(all)
}

fn shortened(text: &str) -> String {
    text.trim().chars().take(80).collect()
}

/// A relation, and whether it is one for this architecture.
fn one<'a>(text: &'a str, arch: &str) -> Option<(Relation<'a>, bool)> {
    let end = text.find(|c: char| c.is_whitespace() || "([<".contains(c)).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let (name, qualifier) = match name.split_once(':') {
        Some((name, qualifier)) => (name, Some(qualifier)),
        None => (name, None),
    };
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !is_target(name) || !qualifier.is_none_or(is_word) {
        return None;
    }
    let (mut version, mut applies) = (None, true);
    loop {
        rest = rest.trim_start();
        let (close, open) = match rest.chars().next() {
            None => break,
            Some('(') => (')', '('),
            Some('[') => (']', '['),
            Some('<') => ('>', '<'),
            Some(_) => return None,
        };
        let (inner, after) = rest[1..].split_once(close)?;
        rest = after;
        let inner = inner.trim();
        match open {
            '(' if version.is_some() => return None,
            '(' => version = Some(constraint(inner)?),
            '[' => applies &= is_for(inner, arch)?,
            // A restriction list applies when one of its terms is `!profile`: no profile is active.
            _ => {
                let mut terms = inner.split_ascii_whitespace().peekable();
                terms.peek()?;
                applies &= terms.all(|term| term.starts_with('!'));
            }
        }
    }
    Some((Relation { name, qualifier, version }, applies))
}

/// Older archives have names with `_` and capital letters as targets.
fn is_target(name: &str) -> bool {
    Package::is_name(name)
        || (!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b)))
}

fn constraint(text: &str) -> Option<(Op, &str)> {
    let end = text.find(|c| !"<>=".contains(c))?;
    let op = match &text[..end] {
        "<<" => Op::Before,
        // The old `<` means `<=`.
        "<=" | "<" => Op::AtMost,
        "=" => Op::Same,
        ">=" | ">" => Op::AtLeast,
        ">>" => Op::After,
        _ => return None,
    };
    let version = text[end..].trim();
    // Targets may be compared with what could not be a version of theirs.
    let good = |b: u8| b.is_ascii_alphanumeric() || b".+-~:_".contains(&b);
    (!version.is_empty() && version.bytes().all(good)).then_some((op, version))
}

/// Whether a list such as `amd64 arm64` or `!i386` takes an architecture in.
fn is_for(list: &str, arch: &str) -> Option<bool> {
    let matches = |pattern: &str| {
        matches!(pattern, "any" | "linux-any")
            || pattern == arch
            || pattern.strip_prefix("any-") == Some(arch)
    };
    let words: Vec<&str> = list.split_ascii_whitespace().collect();
    let negated = words.first()?.starts_with('!');
    let any = words.iter().any(|word| matches(word.trim_start_matches('!')));
    Some(any != negated)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(field: &str) -> Vec<String> {
        let groups = parse(field, "amd64").unwrap_or_else(|error| panic!("{field}: {error}"));
        let shown =
            |group: Vec<Relation>| group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
        groups.into_iter().map(shown).collect()
    }

    #[test]
    fn relations() {
        assert_eq!(
            shown(
                "libc6 (>= 2.34), perl:any, a(<<1)|b ( = 1:2~x ) , ,c [amd64 arm64], d [!amd64], e [arm64] | f"
            ),
            ["libc6 (>= 2.34)", "perl:any", "a (<< 1) | b (= 1:2~x)", "c", "f"]
        );
        assert_eq!(shown("a,\n b <!nocheck>,\n\tc <nocheck>, d <!nocheck> [any]"), ["a", "b", "d"]);
        assert_eq!(shown(""), [""; 0]);
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "a b",
            "a (1)",
            "a (>= )",
            "a (>= 1",
            "a (=> 1)",
            "a (>= 1) (<< 2)",
            "a:",
            "ä",
            "| a",
            "a [",
            "a <>",
        ] {
            assert!(parse(bad, "amd64").is_err(), "{bad}");
        }
    }

    #[test]
    fn which_versions_would_do() {
        for (relation, version, would) in [
            ("a", "1", true),
            ("a (>= 1)", "1~", false),
            ("a (>= 1)", "1-0", true),
            ("a (<< 1)", "1~", true),
            ("a (<< 1)", "1", false),
            ("a (= 1:1)", "1", false),
            ("a (>> 1)", "1+b1", true),
            ("a (<= 1)", "1+b1", false),
        ] {
            let groups = parse(relation, "amd64").unwrap();
            assert_eq!(groups[0][0].allows(version), would, "{relation} {version}");
        }
    }
}
