//! Settings about remotes: where results are shared, whose count, and whose key signs.
//!
//! A repository may name remotes to read from, since what they give is checked. Whom to trust, what signs, and
//! whether anything is sent anywhere are its user's decisions: else whoever one clones from could hand over any layer
//! as the result of any step, or have files of this machine sent away as a "source".

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::file::File;
use super::inputs::{expected, number, strings};
use super::{Origin, Setting};
use crate::error::{Result, did_you_mean};

/// How long a build waits for a remote, all in all, when nothing is said.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What the files say about remotes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remotes {
    /// In the order in which they are asked.
    pub list: Vec<RemoteSettings>,
    /// Whose records count, as text.
    pub trusted_keys: Option<Setting<Vec<String>>>,
    /// How many of them have to agree.
    pub threshold: Option<Setting<u64>>,
    /// The file of the key that signs.
    pub key: Option<Setting<PathBuf>>,
}

/// One remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteSettings {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Results are taken from it.
    pub read: bool,
    /// Results are put there.
    pub write: Write,
    /// Whose records of it count, in place of the keys that are trusted otherwise.
    pub trusted_keys: Option<Vec<String>>,
    /// How many of them have to agree, in place of the number for all.
    pub threshold: Option<u64>,
    /// How long a build waits for it, all in all.
    pub patience: Duration,
    /// Headers that it wants, each with the environment variable that holds its value.
    pub headers: Vec<(String, String)>,
    /// Where it was said.
    pub origin: Origin,
    /// It is the repository that names it, not its user.
    pub of_repository: bool,
}

/// When results are put into a remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Write {
    /// In every build.
    #[default]
    Yes,
    /// Where `CI` is set.
    InCi,
    /// Never.
    No,
}

const KEYS: [&str; 7] = ["url", "read", "write", "trusted-keys", "threshold", "patience", "headers"];
const SETTINGS: &str =
    "a remote has `url`, `read`, `write`, `trusted-keys`, `threshold`, `patience` (seconds), `headers`";

impl Remotes {
    /// The keys.
    pub(super) const KEYS: [&'static str; 4] = ["remotes", "trusted-keys", "threshold", "key"];

    /// Takes one key of a file; false when it is not about remotes.
    pub(super) fn take(
        &mut self,
        file: &File<'_>,
        dir: &Path,
        key: (&str, std::ops::Range<usize>),
        value: &Spanned<DeValue<'_>>,
        origin: Origin,
    ) -> Result<bool> {
        let (key, span) = key;
        match key {
            "trusted-keys" | "threshold" | "key" if file.of_repository => return Err(users(file, key, span)),
            "trusted-keys" => self.trusted_keys = Some(Setting { value: strings(file, value)?, origin }),
            "threshold" => self.threshold = Some(number(file, value, origin)?),
            "key" => self.key = Some(Setting { value: dir.join(file.string(value)?), origin }),
            "remotes" => {
                let Some(table) = value.get_ref().as_table() else {
                    return Err(expected(file, "a table of remotes", value));
                };
                let mut entries: Vec<_> = table.iter().collect();
                entries.sort_by_key(|(name, _)| name.span().start);
                for (name, value) in entries {
                    let remote = remote(file, name.get_ref(), value)?;
                    // What the user calls so is not to become something else.
                    if self.list.iter().all(|known| known.name != remote.name) {
                        self.list.push(remote);
                    }
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn users(file: &File<'_>, key: &str, span: std::ops::Range<usize>) -> crate::Error {
    let hint = "put it into ~/.config/isolith/config.toml, or give keys in ISOLITH_TRUSTED_KEYS";
    file.wrong(span, &format!("`{key}` is for its user to say, not for a repository"), Some(hint.to_string()))
}

fn remote(file: &File<'_>, name: &str, value: &Spanned<DeValue<'_>>) -> Result<RemoteSettings> {
    let mut remote = RemoteSettings {
        name: name.to_string(),
        url: String::new(),
        read: true,
        write: Write::Yes,
        trusted_keys: None,
        threshold: None,
        patience: PATIENCE,
        headers: Vec::new(),
        origin: file.origin(value.span().start),
        of_repository: file.of_repository,
    };
    if name.is_empty() || name.contains(':') || name.chars().any(char::is_control) {
        return Err(file.wrong(value.span(), "a remote needs a name without a colon", None));
    }
    let Some(table) = value.get_ref().as_table() else {
        // Short for a table with nothing else.
        remote.url = file.string(value)?.to_string();
        return Ok(remote);
    };
    for (key, value) in table {
        let truth = || value.get_ref().as_bool().ok_or_else(|| expected(file, "true or false", value));
        match key.get_ref().as_ref() {
            "url" => remote.url = file.string(value)?.to_string(),
            "read" => remote.read = truth()?,
            "write" => {
                remote.write = match (value.get_ref().as_bool(), value.get_ref().as_str()) {
                    (Some(true), _) => Write::Yes,
                    (Some(false), _) => Write::No,
                    (_, Some("ci")) => Write::InCi,
                    _ => return Err(expected(file, "true, false or \"ci\"", value)),
                }
            }
            key @ ("trusted-keys" | "threshold" | "headers") if file.of_repository => {
                return Err(users(file, key, value.span()));
            }
            "trusted-keys" => remote.trusted_keys = Some(strings(file, value)?),
            "threshold" => remote.threshold = Some(number(file, value, Origin::Default)?.value),
            "patience" => remote.patience = Duration::from_secs(number(file, value, Origin::Default)?.value),
            "headers" => remote.headers = headers(file, value)?,
            other => {
                let hint = did_you_mean(other, KEYS).unwrap_or_else(|| SETTINGS.to_string());
                return Err(file.wrong(key.span(), &format!("unknown key `{other}`"), Some(hint)));
            }
        }
    }
    match remote.url.is_empty() {
        true => Err(expected(file, "a remote with a `url`", value)),
        false => Ok(remote),
    }
}

/// Headers and the variables that hold their values. Values themselves are no settings: files are copied and shown.
fn headers(file: &File<'_>, value: &Spanned<DeValue<'_>>) -> Result<Vec<(String, String)>> {
    let Some(table) = value.get_ref().as_table() else {
        return Err(expected(file, "a table of headers", value));
    };
    let mut headers = Vec::new();
    for (name, value) in table {
        let variable = file.string(value)?;
        let named = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if variable.is_empty()
            || variable.starts_with(|c: char| c.is_ascii_digit())
            || !variable.chars().all(named)
        {
            let hint = "it names an environment variable, which holds the value: `x-api-key = \"CACHE_KEY\"`";
            // What is wrong may be a secret, so it is not said.
            return Err(file.wrong(
                name.span(),
                "a header has no value but a variable",
                Some(hint.to_string()),
            ));
        }
        headers.push((name.get_ref().to_string(), variable.to_string()));
    }
    Ok(headers)
}
