//! The order of versions (Debian Policy 5.6.12), as `dpkg --compare-versions` has it.

use std::cmp::Ordering;

/// Which of two versions is later.
pub fn compare(a: &str, b: &str) -> Ordering {
    let ((epoch_a, a), (epoch_b, b)) = (epoch(a), epoch(b));
    let ((upstream_a, revision_a), (upstream_b, revision_b)) = (revision(a), revision(b));
    digits(epoch_a, epoch_b)
        .then_with(|| part(upstream_a.as_bytes(), upstream_b.as_bytes()))
        .then_with(|| part(revision_a.as_bytes(), revision_b.as_bytes()))
}

/// `EPOCH:REST`; none is 0.
fn epoch(version: &str) -> (&[u8], &str) {
    match version.split_once(':') {
        Some((epoch, rest)) => (epoch.as_bytes(), rest),
        None => (b"0", version),
    }
}

/// `UPSTREAM-REVISION`; none is the same as 0.
fn revision(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, ""))
}

/// Parts without digits and numbers in turn.
fn part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let cut = |text: &[u8], number: bool| {
            text.iter().position(|byte| byte.is_ascii_digit() != number).unwrap_or(text.len())
        };
        let (words_a, words_b) = (&a[..cut(a, false)], &b[..cut(b, false)]);
        for at in 0..words_a.len().max(words_b.len()) {
            let order = weight(words_a.get(at)).cmp(&weight(words_b.get(at)));
            if order != Ordering::Equal {
                return order;
            }
        }
        (a, b) = (&a[words_a.len()..], &b[words_b.len()..]);
        let (number_a, number_b) = (&a[..cut(a, true)], &b[..cut(b, true)]);
        let order = digits(number_a, number_b);
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (&a[number_a.len()..], &b[number_b.len()..]);
    }
    Ordering::Equal
}

/// `~` comes before the end, the end before letters, letters before all else.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(b'~') => -1,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}

/// Numbers of any length; none is 0.
fn digits(a: &[u8], b: &[u8]) -> Ordering {
    let bare = |number: &[u8]| {
        let zeros = number.iter().take_while(|digit| **digit == b'0').count();
        number[zeros..].to_vec()
    };
    let (a, b) = (bare(a), bare(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors() {
        // Each list in order; what is joined by a space is equal.
        for list in [
            &["1~~", "1~~a", "1~", "1 1-0 01 0:1 1-", "1a", "1.0 1.00", "1.1", "1.9", "1.10", "1:0"][..],
            &["1-1~bpo1", "1-1", "1-1+b1", "1-1.1", "1-2", "1-10", "1+dfsg-1"],
            &["2.36-9+deb12u9", "2.36-9+deb12u10"],
            &["1-1-1", "1-1-2"],
            &["99999999999999999999998", "99999999999999999999999", "1:1"],
            &["1a", "1aa", "1ab", "1b", "1+", "1-"].as_slice()[..5],
        ] {
            for (at, low) in list.iter().enumerate() {
                for (later, high) in list.iter().enumerate().skip(at) {
                    for (low, high) in low.split(' ').flat_map(|a| high.split(' ').map(move |b| (a, b))) {
                        let wanted = if at == later { Ordering::Equal } else { Ordering::Less };
                        assert_eq!(compare(low, high), wanted, "{low} {high}");
                        assert_eq!(compare(high, low), wanted.reverse(), "{high} {low}");
                    }
                }
            }
        }
    }
}
