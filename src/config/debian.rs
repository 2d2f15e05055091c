//! Settings about archives of Debian packages: mirrors, and whose signatures count.
//!
//! A repository may name other mirrors, since what they give is checked; whom to trust is its user's decision.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeValue;

use super::file::File;
use super::inputs::{expected, strings};
use super::{Origin, Setting};
use crate::error::Result;

/// What the files say about archives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Debian {
    /// Best first; none to use the package sources of this machine.
    pub mirrors: Option<Setting<Vec<DebianMirror>>>,
    /// Files with the keys that are trusted; none for those of this machine.
    pub keyrings: Option<Setting<Vec<PathBuf>>>,
    /// Whether an index that has expired is refused; yes unless said otherwise.
    pub check_valid_until: Option<Setting<bool>>,
}

/// One mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebianMirror {
    /// The directory above `dists` and `pool`.
    pub url: String,
    /// The suites it has; empty for any.
    pub suites: Vec<String>,
    /// The keyring for it alone.
    pub keyring: Option<PathBuf>,
}

const KEYS: &str = "the settings are `mirrors`, `keyrings` and `check-valid-until`";

impl Debian {
    /// Takes the table of one file. `dir` is where the file is.
    pub(super) fn take(
        &mut self,
        file: &File<'_>,
        dir: &Path,
        value: &Spanned<DeValue<'_>>,
        origin: &Origin,
    ) -> Result<()> {
        let Some(table) = value.get_ref().as_table() else {
            return Err(expected(file, "a table", value));
        };
        for (key, value) in table {
            let origin = origin.clone();
            match key.get_ref().as_ref() {
                "mirrors" => {
                    let Some(items) = value.get_ref().as_array() else {
                        return Err(expected(file, "a list of mirrors", value));
                    };
                    let value = items.iter().map(|item| mirror(file, dir, item)).collect::<Result<_>>()?;
                    self.mirrors = Some(Setting { value, origin });
                }
                "keyrings" => {
                    let value = strings(file, value)?.into_iter().map(|path| dir.join(path)).collect();
                    self.keyrings.get_or_insert(Setting { value, origin });
                }
                "check-valid-until" => {
                    let Some(value) = value.get_ref().as_bool() else {
                        return Err(expected(file, "true or false", value));
                    };
                    self.check_valid_until.get_or_insert(Setting { value, origin });
                }
                other => {
                    let message = format!("unknown setting `{other}`");
                    return Err(file.wrong(key.span(), &message, Some(KEYS.to_string())));
                }
            }
        }
        Ok(())
    }
}

/// `"http://…"`, or a table with `url`, and `suites` or `keyring`.
fn mirror(file: &File<'_>, dir: &Path, value: &Spanned<DeValue<'_>>) -> Result<DebianMirror> {
    let url = |value: &Spanned<DeValue<'_>>| -> Result<String> {
        let url = file.string(value)?.trim_end_matches('/');
        let good = ["http://", "https://", "file:///"].iter().any(|scheme| url.starts_with(scheme));
        match good {
            true => Ok(url.to_string()),
            false => Err(expected(file, "a http, https or file URL of the directory above `dists`", value)),
        }
    };
    let Some(table) = value.get_ref().as_table() else {
        return Ok(DebianMirror { url: url(value)?, suites: Vec::new(), keyring: None });
    };
    let mut mirror = DebianMirror { url: String::new(), suites: Vec::new(), keyring: None };
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "url" => mirror.url = url(value)?,
            "suites" => mirror.suites = strings(file, value)?,
            "keyring" => mirror.keyring = Some(dir.join(file.string(value)?)),
            other => {
                let message = format!("unknown key `{other}`");
                return Err(file.wrong(
                    key.span(),
                    &message,
                    Some("a mirror has `url`, `suites`, `keyring`".into()),
                ));
            }
        }
    }
    if mirror.url.is_empty() {
        return Err(expected(file, "a mirror with a `url`", value));
    }
    Ok(mirror)
}
