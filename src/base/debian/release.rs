//! The `Release` file of a suite: what its indexes must hash to, and how long it holds.
//!
//! Format: the Debian repository format, wiki.debian.org/DebianRepository/Format.

use std::collections::BTreeMap;

use super::control::{self, Paragraph};
use crate::error::{Error, Result};
use crate::layer::time::rfc3339;
use crate::source::{Algorithm, Pin};

/// A clock that is late by less than this does no harm, in seconds.
const SKEW: i64 = 3600;

/// What a `Release` file says, once its signature has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// `stable`, `oldstable-security`; may be empty.
    pub suite: String,
    /// `bookworm`; may be empty.
    pub codename: String,
    /// When it was made, in seconds since 1970.
    pub date: i64,
    /// Until when it holds, if it says so.
    pub valid_until: Option<i64>,
    /// Whether indexes can be had by their hash, which does not change under the reader.
    pub by_hash: bool,
    /// Packages of all architectures are in an index of their own, too.
    pub has_all: bool,
    /// The names of its components.
    pub components: Vec<String>,
    /// How much its packages are wanted; see [`super::universe::Index::rank`].
    pub rank: u16,
    /// SHA-256 and size of each index, by its path below the directory of the suite.
    pub files: BTreeMap<String, (Pin, u64)>,
}

impl Release {
    /// Reads a `Release` file.
    ///
    /// # Errors
    /// What it lacks.
    pub fn parse(text: &str) -> Result<Release, String> {
        let paragraph = control::paragraphs(text).next().ok_or("it is empty")?;
        if control::paragraphs(text).count() > 1 {
            return Err("it has more than one paragraph".to_string());
        }
        let text_of = |key: &str| paragraph.get(key).unwrap_or_default().to_string();
        let date_of =
            |key: &str| paragraph.get(key).map(|date| date_of(date).ok_or(format!("its `{key}` is no date")));
        let is = |key: &str| paragraph.get(key).is_some_and(|value| value.eq_ignore_ascii_case("yes"));
        let date = date_of("Date").ok_or("it has no `Date`")??;
        let valid_until = date_of("Valid-Until").transpose()?;
        let no_all = paragraph.get("No-Support-for-Architecture-all");
        let has_all = control::words(paragraph.get("Architectures").unwrap_or_default())
            .any(|arch| arch == "all")
            && !no_all.is_some_and(|what| what.split_ascii_whitespace().any(|what| what == "Packages"));
        Ok(Release {
            suite: text_of("Suite"),
            codename: text_of("Codename"),
            date,
            valid_until,
            by_hash: is("Acquire-By-Hash"),
            has_all,
            components: control::words(paragraph.get("Components").unwrap_or_default())
                .map(String::from)
                .collect(),
            rank: match (is("NotAutomatic"), is("ButAutomaticUpgrades")) {
                (true, true) => 100,
                (true, false) => 1,
                _ => 500,
            },
            files: files(paragraph)?,
        })
    }

    /// Whether it is the one for a suite, and holds at `now` (seconds since 1970). `not_before` is when an earlier
    /// one was made: the archive does not go back.
    ///
    /// # Errors
    /// What is wrong, and what to do; of class `Machine`.
    pub fn check(
        &self,
        suite: &str,
        now: i64,
        not_before: Option<&str>,
        expired_is_good: bool,
    ) -> Result<()> {
        if suite != self.suite && suite != self.codename {
            let has = [&self.suite, &self.codename].map(|name| format!("`{name}`")).join(" or ");
            return Err(Error::machine(format!("this is the index of {has}, not of `{suite}`"))
                .hint("name the suite as the archive does; if it should be this one, the mirror is broken"));
        }
        let made = shown(self.date);
        if self.date > now + SKEW {
            return Err(Error::machine(format!(
                "the index of `{suite}` was made at {made}, which is yet to come"
            ))
            .hint("set the clock of this machine"));
        }
        if let Some(until) = self.valid_until.filter(|until| *until < now && !expired_is_good) {
            return Err(Error::machine(format!("the index of `{suite}` was valid until {}", shown(until)))
                .because("somebody may be holding newer packages back, or the mirror is no longer kept")
                .hint(
                    "name another mirror under `[debian]` in the configuration; for a snapshot of the archive set \
                     `check-valid-until = false` there",
                ));
        }
        if let Some(earlier) = not_before.filter(|earlier| made.as_str() < *earlier) {
            return Err(Error::machine(format!(
                "the index of `{suite}` was made at {made}, before the one that is locked ({earlier})"
            ))
            .because("the archive does not go back: somebody may be holding newer packages back")
            .hint(
                "wait until the mirror is up to date, or name another one; if going back is meant, take `released` \
                 out of the lock file",
            ));
        }
        Ok(())
    }

    /// When it was made: `2026-07-11T10:16:37Z`.
    pub fn made(&self) -> String {
        shown(self.date)
    }
}

fn files(paragraph: Paragraph<'_>) -> Result<BTreeMap<String, (Pin, u64)>, String> {
    let list = paragraph.get("SHA256").ok_or("it has no SHA-256 digests")?;
    let mut files = BTreeMap::new();
    for line in control::lines(list) {
        let entry = file_line(line).ok_or_else(|| format!("`{line}` is not a digest, a size and a path"))?;
        files.insert(entry.0, (entry.1, entry.2));
    }
    Ok(files)
}

/// `DIGEST SIZE NAME`, as in `Release`, `Sources` and `.dsc` files.
pub fn file_line(line: &str) -> Option<(String, Pin, u64)> {
    let mut words = line.split_ascii_whitespace();
    let pin = Pin::new(Algorithm::Sha256, words.next()?)?;
    let size = words.next()?.parse().ok()?;
    let name = words.next()?.to_string();
    words.next().is_none().then_some((name, pin, size))
}

/// `Sat, 11 Jul 2026 10:16:37 UTC` as seconds since 1970 (RFC 5322, in UTC only, as the format demands).
fn date_of(text: &str) -> Option<i64> {
    let text = text.split_once(',').map_or(text, |(_, rest)| rest);
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [day, month, year, time, zone] = words[..] else { return None };
    if !matches!(zone, "UTC" | "GMT" | "Z" | "+0000" | "-0000") {
        return None;
    }
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|known| *known == month)? as i64 + 1;
    let number = |text: &str, digits: std::ops::RangeInclusive<usize>, most: i64| {
        let good = digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<i64>().ok().filter(|number| good && *number <= most)
    };
    let (day, year) = (number(day, 1..=2, 31)?, number(year, 4..=4, 9999)?);
    let parts: Vec<&str> = time.split(':').collect();
    let [hour, minute, second] = parts[..] else { return None };
    let (hour, minute, second) =
        (number(hour, 1..=2, 23)?, number(minute, 2..=2, 59)?, number(second, 2..=2, 60)?);
    Some(days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second)
}

/// Days since 1970-01-01 in the Gregorian calendar (years begin in March here, so that leap days come last).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Seconds since 1970 as `2026-07-11T10:16:37Z`.
pub fn shown(seconds: i64) -> String {
    rfc3339(seconds).unwrap_or_else(|| format!("second {seconds} since 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Origin: Debian\nSuite: oldstable\nCodename: bookworm\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n\
        Valid-Until: Sat, 18 Jul 2026 10:16:37 UTC\nAcquire-By-Hash: yes\nArchitectures: all amd64\n\
        No-Support-for-Architecture-all: Packages\nComponents: main contrib\nSHA256:\n \
        0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef 12 main/binary-amd64/Packages.xz\n";

    #[test]
    fn a_release_is_read() {
        let release = Release::parse(TEXT).unwrap();
        assert_eq!((release.suite.as_str(), release.codename.as_str()), ("oldstable", "bookworm"));
        assert_eq!(release.made(), "2026-07-11T10:16:37Z");
        assert!(release.by_hash && !release.has_all && release.rank == 500);
        assert_eq!(release.files["main/binary-amd64/Packages.xz"].1, 12);
        let backports = format!("{TEXT}NotAutomatic: yes\nButAutomaticUpgrades: yes\n");
        assert_eq!(Release::parse(&backports).unwrap().rank, 100);
        for (good, bad) in [
            ("Date:", "Dote:"),
            ("UTC\nV", "CET\nV"),
            ("SHA256:", "MD5Sum:"),
            (" 12 ", " x "),
            ("\nSuite", "\n\nSuite"),
        ] {
            assert!(Release::parse(&TEXT.replacen(good, bad, 1)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_release_holds_for_a_time() {
        let release = Release::parse(TEXT).unwrap();
        let day = 86400;
        let why = |suite: &str, at: i64, before: Option<&str>, expired: bool| {
            release.check(suite, release.date + at, before, expired).err().map(|e| e.to_string())
        };
        for name in ["bookworm", "oldstable"] {
            assert_eq!(why(name, day, Some("2026-07-11T10:16:37Z"), false), None);
        }
        assert!(why("trixie", day, None, false).unwrap().contains("not of `trixie`"));
        assert!(why("bookworm", -2 * 3600, None, true).unwrap().contains("yet to come"));
        assert!(why("bookworm", 8 * day, None, false).unwrap().contains("valid until 2026-07-18"));
        assert_eq!(why("bookworm", 8 * day, None, true), None);
        assert!(why("bookworm", day, Some("2026-07-12T00:00:00Z"), true).unwrap().contains("go back"));
    }

    #[test]
    fn dates() {
        for (text, seconds, again) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", 0, "1970-01-01T00:00:00Z"),
            ("Tue, 29 Feb 2000 23:59:59 +0000", 951_868_799, "2000-02-29T23:59:59Z"),
            ("1 Mar 2100 0:00:00 GMT", 4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date_of(text), Some(seconds), "{text}");
            assert_eq!(shown(seconds), again);
        }
        for bad in [
            "",
            "yesterday",
            "32 Jan 2000 00:00:00 UTC",
            "1 Jan 2000 24:00:00 UTC",
            "1 Jan 2000 00:00:00 CET",
        ] {
            assert_eq!(date_of(bad), None, "{bad}");
        }
    }
}
