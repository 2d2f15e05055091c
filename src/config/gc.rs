//! Settings about what garbage collection keeps.

use std::path::Path;

use toml::Spanned;
use toml::de::DeValue;

use super::file::File;
use super::inputs::{expected, number};
use super::{Origin, Setting, size, time};
use crate::error::{Result, did_you_mean};

/// What the files say about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gc {
    /// So many builds of each recipe.
    pub keep: Option<Setting<usize>>,
    /// Builds that are not older, in seconds.
    pub unused_for: Option<Setting<u64>>,
    /// How large the store may be.
    pub max_size: Option<Setting<MaxSize>>,
}

/// How large a store may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxSize {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the file system that it is on.
    Percent(u8),
    /// As large as it gets.
    Unlimited,
}

impl Default for MaxSize {
    fn default() -> Self {
        MaxSize::Percent(10)
    }
}

impl MaxSize {
    /// Reads a size, `10%` or `none`.
    pub fn parse(text: &str) -> Result<MaxSize, String> {
        let percent = |text: &str| text.parse().ok().filter(|percent| (1..=100).contains(percent));
        let read = match text.strip_suffix('%') {
            Some(number) => percent(number).map(MaxSize::Percent),
            None if text == "none" => Some(MaxSize::Unlimited),
            None => size(text).map(MaxSize::Bytes),
        };
        read.ok_or_else(|| {
            "expected a size such as 20GiB, a part of the disk such as 10%, or none".to_string()
        })
    }

    /// The same in bytes, for a store at `root`. None: no limit, or nobody says how large the file system is.
    pub fn bytes(self, root: &Path) -> Option<u64> {
        match self {
            MaxSize::Bytes(bytes) => Some(bytes),
            MaxSize::Percent(percent) => {
                let disk = rustix::fs::statvfs(root).ok()?;
                let bytes = disk.f_blocks.saturating_mul(disk.f_frsize);
                Some(bytes / 100 * u64::from(percent)).filter(|bytes| *bytes > 0)
            }
            MaxSize::Unlimited => None,
        }
    }
}

const KEYS: [&str; 3] = ["keep", "unused-for", "max-size"];

impl Gc {
    /// Takes the table of one file.
    pub(super) fn take(&mut self, file: &File<'_>, value: &Spanned<DeValue<'_>>) -> Result<()> {
        let Some(table) = value.get_ref().as_table() else {
            return Err(expected(file, "a table", value));
        };
        for (key, value) in table {
            let origin = file.origin(key.span().start);
            match key.get_ref().as_ref() {
                "keep" => {
                    let Setting { value, origin } = number(file, value, origin)?;
                    let value = usize::try_from(value).unwrap_or(usize::MAX);
                    self.keep = Some(Setting { value, origin });
                }
                "unused-for" => {
                    let age = time(file.string(value)?);
                    let wrong = || file.wrong(value.span(), "expected a time such as \"720h\"", None);
                    self.unused_for = Some(Setting { value: age.ok_or_else(wrong)?, origin });
                }
                "max-size" => {
                    let most = MaxSize::parse(file.string(value)?);
                    let most = most.map_err(|message| file.wrong(value.span(), &message, None))?;
                    self.max_size = Some(Setting { value: most, origin });
                }
                other => {
                    let hint = did_you_mean(other, KEYS)
                        .unwrap_or_else(|| format!("the settings are {}", KEYS.join(", ")));
                    return Err(file.wrong(key.span(), &format!("unknown setting `{other}`"), Some(hint)));
                }
            }
        }
        Ok(())
    }

    /// Drops what a repository says about a store that is not its own: it could make its user forget the builds of all
    /// the others.
    pub(super) fn only_of(&mut self, user: Option<&Path>, store: &Origin) {
        let counts = |origin: &Origin| match origin {
            Origin::File(path, _) => {
                user == Some(path) || matches!(store, Origin::File(of_store, _) if of_store == path)
            }
            _ => true,
        };
        self.keep.take_if(|setting| !counts(&setting.origin));
        self.unused_for.take_if(|setting| !counts(&setting.origin));
        self.max_size.take_if(|setting| !counts(&setting.origin));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_stores() {
        for (text, most) in [
            ("20GiB", MaxSize::Bytes(20 << 30)),
            ("1%", MaxSize::Percent(1)),
            ("100%", MaxSize::Percent(100)),
            ("none", MaxSize::Unlimited),
        ] {
            assert_eq!(MaxSize::parse(text), Ok(most), "{text}");
        }
        for wrong in ["", "%", "0%", "101%", "-1%", "1.5%", "0", "all", "20 apples"] {
            assert!(MaxSize::parse(wrong).is_err(), "{wrong}");
        }
        assert!(MaxSize::default().bytes(Path::new("/")).is_some());
        assert_eq!(MaxSize::Unlimited.bytes(Path::new("/")), None);
        assert_eq!(MaxSize::Percent(10).bytes(Path::new("/no/such/place")), None);
    }
}
