//! From a URL to a remote.

use std::path::PathBuf;

use super::address::Address;
use super::{Directory, ReadOnly, Remote, Settings};
use crate::error::{Error, Result, did_you_mean};
use crate::net::Url;

/// The schemes that are known.
const SCHEMES: [&str; 11] =
    ["file", "oci", "s3", "gs", "azblob", "webdav", "webdavs", "redis", "ghac", "grpc", "grpcs"];

/// Looks whether a URL is one of a remote that this isolith can use, without opening it.
///
/// # Errors
/// It is none (class `Usage`).
pub fn check(url: &str) -> Result<()> {
    let address = Address::parse(url)?;
    match address.scheme.as_str() {
        "file" => path(url, &address).map(drop),
        "oci" if cfg!(feature = "net") => Ok(()),
        "s3" | "gs" | "azblob" | "webdav" | "webdavs" | "ghac" | "redis"
            if cfg!(feature = "object-store") =>
        {
            Ok(())
        }
        "grpc" | "grpcs" if cfg!(feature = "reapi") => Ok(()),
        scheme => Err(unusable(scheme)),
    }
}

/// Opens the remote at a URL. Nothing is sent yet, and no thread is made: that is left to the first call.
///
/// # Errors
/// The URL is none of a remote, or has an option in it that this kind does not know; credentials are missing; isolith
/// was built without this kind (class `Usage`).
pub fn open(url: &str, settings: &Settings) -> Result<Box<dyn Remote>> {
    let address = Address::parse(url)?;
    if !settings.headers.is_empty() && !address.scheme.starts_with("grpc") {
        return Err(Error::usage(format!("{} takes no headers", address.shown()))
            .because("`headers` are for remotes that speak the Remote Execution API: grpc:// and grpcs://"));
    }
    let remote: Box<dyn Remote> = match address.scheme.as_str() {
        "file" => Box::new(directory(url, &address, settings)?),
        #[cfg(feature = "net")]
        "oci" => Box::new(super::registry::Artifacts::open(&address, settings)?),
        #[cfg(feature = "object-store")]
        "s3" | "gs" | "azblob" | "webdav" | "webdavs" | "ghac" => {
            Box::new(super::objects::Objects::open(&address, settings)?)
        }
        #[cfg(feature = "object-store")]
        "redis" => Box::new(super::redis::Redis::open(&address, settings)?),
        #[cfg(feature = "reapi")]
        "grpc" | "grpcs" => Box::new(super::reapi::Reapi::open(&address, settings)?),
        scheme => return Err(unusable(scheme)),
    };
    Ok(if settings.read_only { Box::new(ReadOnly::new(remote)) } else { remote })
}

fn unusable(scheme: &str) -> Error {
    if SCHEMES.contains(&scheme) {
        let feature = match scheme {
            "oci" => "net",
            "grpc" | "grpcs" => "reapi",
            _ => "object-store",
        };
        return Error::usage(format!("this isolith cannot use {scheme} remotes"))
            .because("it was built without them")
            .hint(format!("build it with the cargo feature `{feature}`, as by default"));
    }
    let all = format!("known are {}", SCHEMES.join(", "));
    Error::usage(format!("there is no kind of remote called `{scheme}`"))
        .hint(did_you_mean(scheme, SCHEMES).unwrap_or(all))
}

fn directory(url: &str, address: &Address, settings: &Settings) -> Result<Directory> {
    let path = path(url, address)?;
    if settings.read_only { Directory::open(&path) } else { Directory::create(&path) }
}

fn path(url: &str, address: &Address) -> Result<PathBuf> {
    address.expect(&[], false)?;
    let wrong = |why: String| Error::usage(format!("`{url}` is no remote")).because(why);
    let url = Url::parse(url).map_err(|why| wrong(why.to_string()))?;
    url.file().ok_or_else(|| wrong("it names no directory".to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_are_no_remotes_are_told() {
        let open = |url: &str| match open(url, &Settings::default()) {
            Ok(remote) => panic!("{} is open", remote.name()),
            Err(error) => format!("{error:?}"),
        };
        assert!(open("s4://bucket").contains("did you mean `s3`"));
        assert!(open("ftp://x").contains("known are file, oci"));
        assert!(open("file://host/x").contains("file:///absolute/path"));
        assert!(open("file:///x?a=b").contains("unknown option `a`"));
        assert!(open("/srv/cache").contains("no scheme"));
    }
}
