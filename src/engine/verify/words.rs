//! What two words that stand in one place look like.

/// What a pair of words is likely to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// Dates, times, seconds since 1970.
    Time,
    /// Places in memory.
    Address,
    /// Names from `mktemp` and the like.
    Temporary,
    /// Paths of files.
    Path,
    /// Uuids, long runs of hex.
    Random,
    /// Versions of kernels.
    Kernel,
    /// Two numbers.
    Numbers(u64, u64),
    /// Nothing known.
    Plain,
}

/// The words of two lines that differ: what is left without the common beginning and end, out to where
/// words end.
pub fn pair(a: &str, b: &str) -> (String, String) {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let common = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let rest = a.len().min(b.len()) - common;
    let tail = a.iter().rev().zip(b.iter().rev()).take(rest).take_while(|(x, y)| x == y).count();
    let is_word = |c: &char| c.is_alphanumeric() || "._-/+:~%@".contains(*c);
    let before = a[..common].iter().rev().take_while(|c| is_word(c)).count();
    let after = a[a.len() - tail..].iter().take_while(|c| is_word(c)).count();
    let cut = |text: &[char]| text[common - before..text.len() - tail + after].iter().collect::<String>();
    (cut(&a), cut(&b))
}

/// Looks at two words; `a` and `b` are the lines they are in.
pub fn look(one: &str, other: &str, a: &str, b: &str) -> Look {
    let both = |test: &dyn Fn(&str) -> bool| test(one) && test(other);
    if both(&is_address) {
        return Look::Address;
    }
    if both(&is_temporary) {
        return Look::Temporary;
    }
    if both(&is_time)
        || ([a, b].into_iter().all(has_month) && both(&|word| word.chars().any(|c| c.is_ascii_digit())))
    {
        return Look::Time;
    }
    if both(&|word| {
        word.split('.').filter(|part| part.parse::<u32>().is_ok()).count() >= 2 && word.contains('-')
    }) {
        return Look::Kernel;
    }
    if let (Ok(one), Ok(other)) = (digits(one).parse(), digits(other).parse()) {
        return Look::Numbers(one, other);
    }
    if both(&is_random) {
        return Look::Random;
    }
    if both(&|word| word.contains('/')) {
        return Look::Path;
    }
    Look::Plain
}

/// A number and what may stand around it in a word (`x=12`, `12:`).
fn digits(word: &str) -> &str {
    let start =
        word.rfind([':', '-', '/', '+', '@', '.']).filter(|at| at + 1 < word.len()).map_or(0, |at| at + 1);
    word[start..].trim_matches(|c: char| !c.is_ascii_digit())
}

/// `0x` and hex, or twelve digits of hex as user space has them on 64 bits (stack and libraries, programs).
fn is_address(word: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|b| b.is_ascii_hexdigit());
    word.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| match part.strip_prefix("0x") {
        Some(digits) => digits.len() >= 6 && hex(digits),
        None => {
            part.len() == 12 && hex(part) && ["7f", "55", "56"].iter().any(|start| part.starts_with(start))
        }
    })
}

/// `tmp.XXXXXXXXXX`, `tmpabcd1234`, gcc's `ccAbCdEf.o`, anything in a directory for temporary files.
fn is_temporary(word: &str) -> bool {
    if word.contains("/tmp/") {
        return true;
    }
    word.split('/').any(|part| {
        let rest = part.strip_prefix("tmp").map(|rest| rest.trim_start_matches(['.', '_', '-']));
        let gcc = part
            .strip_prefix("cc")
            .filter(|rest| rest.len() == 8 && (rest.ends_with(".o") || rest.ends_with(".s")));
        rest.is_some_and(|rest| rest.len() >= 6) || gcc.is_some()
    })
}

fn is_time(word: &str) -> bool {
    let numbers: Vec<&str> = word.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty()).collect();
    // 2001 to 2065.
    let seconds = |n: &&str| {
        n.len() == 10 && n.parse::<u64>().is_ok_and(|n| (1_000_000_000..3_000_000_000).contains(&n))
    };
    let year = |n: &&str| n.len() == 4 && n.parse::<u32>().is_ok_and(|n| (1990..2100).contains(&n));
    let clock =
        word.contains(':') && numbers.len() >= 2 && numbers.iter().all(|n| n.len() == 2 || n.len() == 4);
    numbers.iter().any(seconds) || (numbers.len() >= 3 && numbers.iter().any(year)) || clock
}

fn has_month(line: &str) -> bool {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    line.split(|c: char| !c.is_alphabetic()).any(|word| MONTHS.contains(&word))
}

fn is_random(word: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|b| b.is_ascii_hexdigit());
    let uuid: Vec<usize> = word.split('-').filter(|part| hex(part)).map(str::len).collect();
    uuid == [8, 4, 4, 4, 12]
        || word.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part.len() >= 16 && hex(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_out_to_where_they_end() {
        assert_eq!(pair("built 12:34:56 x", "built 12:39:01 x"), ("12:34:56".into(), "12:39:01".into()));
        assert_eq!(pair("a", "a"), ("a".into(), "a".into()));
        assert_eq!(pair("n=5", "n=15"), ("5".into(), "15".into()));
        assert_eq!(pair("", "x"), ("".into(), "x".into()));
        assert_eq!(pair("grün", "grau"), ("grün".into(), "grau".into()));
    }

    #[test]
    fn looks() {
        let of = |a: &str, b: &str| {
            let (one, other) = pair(a, b);
            look(&one, &other, a, b)
        };
        assert_eq!(of("2026-11-24", "2027-12-29"), Look::Time);
        assert_eq!(of("Nov 24 2026", "Dec 29 2027"), Look::Time);
        assert_eq!(
            of("id d41d8cd9-8f00-3204-a980-0998ecf8427e", "id 00000000-1111-2222-3333-444444444444"),
            Look::Random
        );
        assert_eq!(of("x=4", "x=1"), Look::Numbers(4, 1));
        assert_eq!(of("Linux 6.1.0-18-amd64", "Linux 6.12.9-1-amd64"), Look::Kernel);
        assert_eq!(of("cat", "dog"), Look::Plain);
        assert_eq!(of("ccAbCdEf.o", "ccXyZwVu.o"), Look::Temporary);
    }
}
