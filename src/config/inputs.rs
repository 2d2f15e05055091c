//! Settings about inputs that are fetched: where from, whether at all, and how large.
//!
//! A repository must not undo what its user has decided about the network: `offline` holds when any file says
//! so, and `allowed-hosts` of the user's file is the one that counts.

use std::path::Path;

use toml::Spanned;
use toml::de::DeValue;

use super::debian::Debian;
use super::file::{File, kind};
use super::{Origin, Setting};
use crate::error::Result;

/// What the files say about inputs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inputs {
    /// No socket is opened.
    pub offline: Option<Setting<bool>>,
    /// The only hosts that may be asked.
    pub allowed_hosts: Option<Setting<Vec<String>>>,
    /// Prefixes of URLs, and what is tried before them.
    pub mirrors: Vec<(String, Vec<String>)>,
    /// Archives of Debian packages.
    pub debian: Debian,
    /// Registries that are asked over http.
    pub plain_http: Vec<String>,
    /// The largest file that is fetched, in bytes.
    pub fetch_max_size: Option<Setting<u64>>,
    /// The most that one source may unpack to, in bytes.
    pub unpack_max_size: Option<Setting<u64>>,
    /// The most names that one source may have.
    pub unpack_max_entries: Option<Setting<u64>>,
}

impl Inputs {
    /// The keys.
    pub(super) const KEYS: [&'static str; 8] = [
        "offline",
        "allowed-hosts",
        "mirrors",
        "plain-http",
        "debian",
        "fetch-max-size",
        "unpack-max-size",
        "unpack-max-entries",
    ];

    /// Takes one key of a file; false when it is not about inputs.
    pub(super) fn take(
        &mut self,
        file: &File<'_>,
        dir: &Path,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        origin: Origin,
    ) -> Result<bool> {
        match key {
            "offline" => {
                let Some(offline) = value.get_ref().as_bool() else {
                    return Err(expected(file, "true or false", value));
                };
                if offline || self.offline.is_none() {
                    self.offline = Some(Setting { value: offline, origin });
                }
            }
            "allowed-hosts" => {
                let hosts = strings(file, value)?.into_iter().map(|host| host.to_ascii_lowercase()).collect();
                self.allowed_hosts.get_or_insert(Setting { value: hosts, origin });
            }
            "mirrors" => {
                let Some(table) = value.get_ref().as_table() else {
                    return Err(expected(file, "a table of prefixes of URLs", value));
                };
                for (prefix, mirrors) in table {
                    let prefix = prefix.get_ref().to_string();
                    let mirrors = match mirrors.get_ref().as_str() {
                        Some(one) => vec![one.to_string()],
                        None => strings(file, mirrors)?,
                    };
                    self.mirrors.retain(|(known, _)| *known != prefix);
                    self.mirrors.push((prefix, mirrors));
                }
            }
            "debian" => self.debian.take(file, dir, value, &origin)?,
            "plain-http" => self.plain_http.extend(strings(file, value)?),
            "fetch-max-size" => self.fetch_max_size = Some(number(file, value, origin)?),
            "unpack-max-size" => self.unpack_max_size = Some(number(file, value, origin)?),
            "unpack-max-entries" => self.unpack_max_entries = Some(number(file, value, origin)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

pub(super) fn strings(file: &File<'_>, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>> {
    let Some(items) = value.get_ref().as_array() else {
        return Err(expected(file, "a list of strings", value));
    };
    items.iter().map(|item| file.string(item).map(str::to_string)).collect()
}

pub(super) fn number(file: &File<'_>, value: &Spanned<DeValue<'_>>, origin: Origin) -> Result<Setting<u64>> {
    let number = match value.get_ref() {
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    };
    let number = number.filter(|number| *number > 0);
    number
        .map(|value| Setting { value, origin })
        .ok_or_else(|| expected(file, "a whole number of at least 1", value))
}

pub(super) fn expected(file: &File<'_>, what: &str, value: &Spanned<DeValue<'_>>) -> crate::Error {
    file.wrong(value.span(), &format!("expected {what}, found {}", kind(value)), None)
}
