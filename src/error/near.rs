//! The nearest valid word, for hints.

/// "did you mean `x`?" for the nearest of `valid`, if one is near enough to be a slip of the pen.
pub fn did_you_mean<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, valid).map(|near| format!("did you mean `{near}`?"))
}

/// The valid word with the fewest edits to `word`: at most a third of its letters, and at least one allowed.
pub fn nearest<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // What is this long was never meant to be a word, and the distance takes its square.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    let near = valid.into_iter().map(|valid| (distance(&lower, &valid.to_lowercase()), valid));
    near.filter(|(edits, _)| *edits <= allowed).min_by_key(|(edits, _)| *edits).map(|(_, valid)| valid)
}

/// Edits (insert, delete, replace, swap of neighbours) from one word to the other: optimal string alignment.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, edits) in [
            ("step", "step", 0),
            ("stpe", "step", 1),
            ("sources", "source", 1),
            ("", "ab", 2),
            ("abc", "xyz", 3),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn near_means_near() {
        assert_eq!(nearest("stpe", ["source", "step"]), Some("step"));
        assert_eq!(nearest("NETWORK", ["network"]), Some("network"));
        assert_eq!(nearest("url", ["run", "path"]), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), ["step"]), None);
    }
}
