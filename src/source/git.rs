//! Git repositories.

use super::fetch::Access;
use crate::error::{Error, Result};

/// The commit that a tag or branch names now.
pub fn resolve(_access: &Access, what: &str, url: &str, _kind: &str, name: &str) -> Result<String> {
    Err(Error::machine(format!("cannot resolve `{name}` of {what} at {url}")))
}
