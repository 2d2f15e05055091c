//! The little that has to be known of a URL: scheme, host, path, and where a redirect leads (RFC 3986).

use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

/// All but the characters that may stand anywhere in a URL (RFC 3986, section 2.3, "unreserved").
pub const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A `http:`, `https:` or `file:` URL without user and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    text: String,
    /// Length of the scheme.
    scheme: usize,
    /// Where the path begins.
    path: usize,
}

/// Why a text is not such a URL; says what is wrong with it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UrlError {
    /// Of another kind.
    #[error("it is not a http, https or file URL")]
    Scheme,
    /// No machine in it.
    #[error("it names no host")]
    Host,
    /// `file:` URLs are of this machine.
    #[error("a file URL has the form file:///absolute/path")]
    File,
    /// A password has no place in a recipe or a log.
    #[error("it has a user or password in it")]
    User,
    /// Spaces, control characters, or bytes that are not ASCII.
    #[error("it has characters in it that must be written as %XX")]
    Characters,
}

impl Url {
    /// Checks a URL. A fragment is cut off.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let text = text.split('#').next().unwrap_or_default();
        if text.bytes().any(|byte| !byte.is_ascii_graphic() || b"\"<>\\^`{|}".contains(&byte)) {
            return Err(UrlError::Characters);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" if authority.contains('@') => return Err(UrlError::User),
            "http" | "https" if host_of(authority).is_empty() => return Err(UrlError::Host),
            "http" | "https" => {}
            "file" if authority.is_empty() && rest.starts_with('/') => {}
            "file" => return Err(UrlError::File),
            _ => return Err(UrlError::Scheme),
        }
        let path = scheme.len() + 3 + authority.len();
        Ok(Url { text: text.to_string(), scheme: scheme.len(), path })
    }

    /// The whole.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `http`, `https` or `file`.
    pub fn scheme(&self) -> String {
        self.text[..self.scheme].to_ascii_lowercase()
    }

    /// The host in lower case, without port; empty for `file:`.
    pub fn host(&self) -> String {
        host_of(self.authority()).to_ascii_lowercase()
    }

    /// Scheme, host and port: what one connection serves.
    pub fn origin(&self) -> &str {
        &self.text[..self.path]
    }

    fn authority(&self) -> &str {
        &self.text[self.scheme + 3..self.path]
    }

    /// The file that a `file:` URL names; none for the others.
    pub fn file(&self) -> Option<PathBuf> {
        if self.scheme() != "file" {
            return None;
        }
        let bytes: Vec<u8> = percent_encoding::percent_decode_str(&self.text[self.path..]).collect();
        Some(std::ffi::OsString::from_vec(bytes).into())
    }

    /// The URL that `location`, in an answer to a request for this one, refers to.
    pub fn join(&self, location: &str) -> Result<Url, UrlError> {
        let root = &self.text[..self.path];
        let path = self.text[self.path..].split('?').next().unwrap_or_default();
        let absolute = match location {
            _ if location.split(['/', '?', '#']).next().is_some_and(|start| start.contains(':')) => {
                location.to_string()
            }
            _ if location.starts_with("//") => format!("{}:{location}", self.scheme()),
            _ if location.starts_with('/') => format!("{root}{location}"),
            _ if location.starts_with('?') => format!("{root}{path}{location}"),
            _ => {
                let dir = &path[..path.rfind('/').map_or(0, |slash| slash + 1)];
                format!("{root}/{}{location}", dir.trim_start_matches('/'))
            }
        };
        Url::parse(&absolute)
    }
}

fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let url = Url::parse("HTTPS://Example.org:8443/a/b?c#d").unwrap();
        assert_eq!((url.scheme().as_str(), url.host().as_str()), ("https", "example.org"));
        assert_eq!(url.as_str(), "HTTPS://Example.org:8443/a/b?c");
        assert_eq!(Url::parse("http://[::1]:80/x").unwrap().host(), "::1");
        assert_eq!(Url::parse("file:///a%20b/c%zz").unwrap().file(), Some("/a b/c%zz".into()));
        for (text, why) in [
            ("ftp://x/y", UrlError::Scheme),
            ("x/y", UrlError::Scheme),
            ("http:///x", UrlError::Host),
            ("http://:80/x", UrlError::Host),
            ("file://host/x", UrlError::File),
            ("https://me:secret@x/", UrlError::User),
            ("https://x/a b", UrlError::Characters),
            ("https://x/\r\nHost: y", UrlError::Characters),
            ("https://x/é", UrlError::Characters),
        ] {
            assert_eq!(Url::parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn redirects() {
        let from = Url::parse("http://x:1/a/b?q").unwrap();
        for (location, to) in [
            ("https://y/z", "https://y/z"),
            ("//y/z", "http://y/z"),
            ("/z?r", "http://x:1/z?r"),
            ("z", "http://x:1/a/z"),
            ("../z", "http://x:1/a/../z"),
            ("?r", "http://x:1/a/b?r"),
        ] {
            assert_eq!(from.join(location).unwrap().as_str(), to, "{location}");
        }
        assert_eq!(Url::parse("http://x").unwrap().join("y").unwrap().as_str(), "http://x/y");
        assert!(from.join("gopher://y").is_err());
    }
}
