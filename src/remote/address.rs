//! The URL of a remote: scheme, who, where, and options.

use std::collections::BTreeMap;

use crate::error::{Error, Result, did_you_mean};

/// A URL of a remote, taken apart: `scheme://user:secret@host:port/path?option=value`.
pub(super) struct Address {
    /// In lower case.
    pub scheme: String,
    /// Host and port, or the name of a bucket.
    pub host: String,
    /// Without slashes at its ends.
    pub path: String,
    /// What the URL says before `@`.
    pub login: Option<(String, Option<String>)>,
    options: BTreeMap<String, String>,
}

impl Address {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// It is none (class `Usage`).
    pub fn parse(text: &str) -> Result<Address> {
        let wrong = |why: &str| {
            // What is wrong with it may be its password.
            Error::usage("a URL of a remote cannot be read").because(why.to_string()).hint(
                "write for example oci://registry.example/team/cache, s3://bucket/prefix, or file:///srv/cache",
            )
        };
        if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(wrong("it has spaces or characters in it that must be written as %XX"));
        }
        let (scheme, rest) = text.split_once(':').ok_or_else(|| wrong("it has no scheme"))?;
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, host) = match authority.rsplit_once('@') {
            None => (None, authority),
            Some((login, host)) => {
                let (user, secret) = match login.split_once(':') {
                    Some((user, secret)) => (user, Some(decoded(secret))),
                    None => (login, None),
                };
                (Some((decoded(user), secret)), host)
            }
        };
        let mut options = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| wrong("an option has no value"))?;
            if options.insert(decoded(name), decoded(value)).is_some() {
                return Err(wrong("an option is given twice"));
            }
        }
        let path = decoded(path.trim_matches('/'));
        Ok(Address { scheme: scheme.to_ascii_lowercase(), host: host.to_string(), path, login, options })
    }

    /// The URL without secrets and options.
    pub fn shown(&self) -> String {
        let glue = if self.path.is_empty() { "" } else { "/" };
        format!("{}://{}{glue}{}", self.scheme, self.host, self.path)
    }

    /// An option.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// An option that is `true` or `false`.
    ///
    /// # Errors
    /// It is something else.
    #[cfg_attr(not(feature = "object-store"), allow(dead_code))]
    pub fn flag(&self, name: &str) -> Result<bool> {
        match self.option(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(Error::usage(format!("`{name}={other}` in the URL of {}", self.shown()))
                .because(format!("`{name}` is `true` or `false`"))),
        }
    }

    /// Refuses what this kind of remote does not know.
    ///
    /// # Errors
    /// An option that is not one of `known`; a login where there is none.
    pub fn expect(&self, known: &[&str], login: bool) -> Result<()> {
        let odd = |what: String| Error::usage(format!("the URL of {} has {what}", self.shown()));
        if let Some(name) = self.options.keys().find(|name| !known.contains(&name.as_str())) {
            let near = did_you_mean(name, known.iter().copied());
            let all = match known {
                [] => "it takes none".to_string(),
                known => format!("it takes {}", known.join(", ")),
            };
            return Err(odd(format!("the unknown option `{name}`")).hint(near.unwrap_or(all)));
        }
        match &self.login {
            Some(_) if !login => Err(odd("a user in it".to_string())
                .hint("credentials of this kind of remote are not written into its URL: see the guide")),
            _ => Ok(()),
        }
    }
}

/// Takes %XX for the byte that it means.
pub(super) fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = Address::parse("WebDAVs://kim:s%40x@h:1/a/b/?x=1&y=a%20b").unwrap();
        assert_eq!((url.scheme.as_str(), url.host.as_str(), url.path.as_str()), ("webdavs", "h:1", "a/b"));
        assert_eq!(url.login, Some(("kim".into(), Some("s@x".into()))));
        assert_eq!((url.option("x"), url.option("y")), (Some("1"), Some("a b")));
        assert_eq!(url.shown(), "webdavs://h:1/a/b");
        assert!(url.expect(&["x", "y"], true).is_ok());
        let error = format!("{:?}", url.expect(&["x", "yy"], true).unwrap_err());
        assert!(error.contains("`y`") && !error.contains("s@x"), "{error}");
        assert!(url.expect(&["x", "y"], false).unwrap_err().to_string().contains("a user"));
        assert!(url.flag("x").is_err());
        let ghac = Address::parse("ghac:").unwrap();
        assert_eq!((ghac.scheme.as_str(), ghac.host.as_str(), ghac.path.as_str()), ("ghac", "", ""));
        for bad in ["", "x", "s3://b?x", "s3://b?x=1&x=2", "s3://b/é", "s3://b c"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
