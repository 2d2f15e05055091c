//! Sizes (`2GiB`) and times (`1h30m`).

/// A number of bytes: digits, perhaps with a fraction, and a unit (`B`, `kB` `KB` `MB` `GB` `TB` for powers
/// of 1000, `KiB` `MiB` `GiB` `TiB` for powers of 1024); none means bytes. Rounded down. `None` when it is
/// not a size, too large, or less than one byte.
pub fn size(text: &str) -> Option<u64> {
    let cut = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(cut);
    let unit: u128 = match unit.trim_start_matches(' ') {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1000u128.pow(2),
        "GB" => 1000u128.pow(3),
        "TB" => 1000u128.pow(4),
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let fits = |digits: &str| (1..=18).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if !fits(whole) || !fits(fraction) || (unit == 1 && number.contains('.')) {
        return None;
    }
    // At most 10^18 * 2^40 each: far inside 128 bits.
    let whole = whole.parse::<u128>().ok()? * unit;
    let fraction = fraction.parse::<u128>().ok()? * unit / 10u128.pow(fraction.len() as u32);
    u64::try_from(whole + fraction).ok().filter(|bytes| *bytes > 0)
}

/// A number of seconds: `h`, `m` and `s`, each at most once and in this order. `None` when it is not a time,
/// too large, or zero.
pub fn time(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    for (unit, seconds) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((digits, after)) = rest.split_once(unit) {
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            total = total.checked_add(digits.parse::<u64>().ok()?.checked_mul(seconds)?)?;
            rest = after;
        }
    }
    (rest.is_empty() && total > 0).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1000", 1000),
            ("1B", 1),
            ("512MiB", 512 << 20),
            ("2 GiB", 2 << 30),
            ("1.5GB", 1_500_000_000),
            ("0.3KiB", 307),
            ("16777215TiB", 16_777_215 << 40),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "0",
            "0GiB",
            "0.0001KiB",
            "1.5",
            "GiB",
            "1..5GB",
            ".5GB",
            "1.GB",
            "2gib",
            "2G",
            "-1",
            "1GiBs",
        ] {
            assert_eq!(size(text), None, "{text}");
        }
        assert_eq!(size("16777216TiB"), None);
        assert_eq!(size(&"9".repeat(400)), None);
    }

    #[test]
    fn times() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("1h1m1s", 3661), ("2h5s", 7205)]
        {
            assert_eq!(time(text), Some(seconds), "{text}");
        }
        for text in
            ["", "0s", "0h0m", "90", "1m1h", "1h1h", "m", "1.5h", "-1s", "1 h", "99999999999999999999s"]
        {
            assert_eq!(time(text), None, "{text}");
        }
        assert_eq!(time(&format!("{}h", u64::MAX)), None);
    }
}
