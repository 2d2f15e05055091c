//! Where an archive is, whom it is signed by, and its indexes, fetched and checked.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use super::release::Release;
#[cfg(feature = "debian")]
use super::signature::Keys;
use crate::digest::ContentDigest;
use crate::error::{Error, Result};
use crate::layer::decompress;
use crate::source::Pin;
use crate::source::fetch::{self, Access, Want, Watch};
use crate::store::Store;

/// The largest `InRelease` that is taken, in bytes; Debian's have a fraction of a MiB.
const LARGEST_RELEASE: u64 = 32 << 20;
/// The largest index, unpacked; the one of Debian's `main` has 50 MiB.
const LARGEST_INDEX: u64 = 1 << 30;

/// Where packages come from, and whose signature counts.
#[derive(Debug, Clone, Default)]
pub struct Archives {
    /// Best first.
    pub mirrors: Vec<Mirror>,
    /// The keyrings for mirrors that name none.
    pub keyrings: Vec<Keyring>,
    /// Indexes count although they have expired.
    pub expired_is_good: bool,
}

/// A copy of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The directory above `dists` and `pool`, without a `/` at its end.
    pub url: String,
    /// The suites that it is known to have; none when that is not known.
    pub suites: Vec<String>,
    /// Whose signatures count; none for those of [`Archives::keyrings`].
    pub signed_by: Vec<Keyring>,
}

/// Public keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keyring {
    /// In a file, binary or armored.
    File(PathBuf),
    /// Written out.
    Text(String),
}

impl Archives {
    /// The mirrors to try for a suite, best first: those that are known to have it, else all.
    pub fn mirrors_of(&self, suite: &str) -> Vec<&Mirror> {
        let knows =
            |mirror: &&Mirror| mirror.suites.is_empty() || mirror.suites.iter().any(|known| known == suite);
        let known: Vec<&Mirror> = self.mirrors.iter().filter(knows).collect();
        if known.is_empty() { self.mirrors.iter().collect() } else { known }
    }

    /// Where a file of the archive of a suite may be, best first; `path` is relative to a mirror.
    pub fn urls(&self, suite: &str, path: &str) -> Vec<String> {
        self.mirrors_of(suite).into_iter().map(|mirror| format!("{}/{path}", mirror.url)).collect()
    }
}

/// Fetches indexes with what a caller has at hand.
pub struct Reader<'a> {
    /// Where fetched bytes go.
    pub store: &'a Store,
    /// What may be reached.
    pub access: &'a Access,
    /// Where, and who signs.
    pub archives: &'a Archives,
    /// Who is told, and can stop it.
    pub watch: &'a dyn Watch,
    /// The time, in seconds since 1970.
    pub now: i64,
}

/// A suite, its `Release` checked.
#[derive(Debug)]
pub struct Suite<'a> {
    /// As the recipe names it.
    pub name: String,
    /// What is signed.
    pub release: Release,
    /// Where it was found.
    mirror: &'a Mirror,
}

impl<'a> Reader<'a> {
    /// The suite of that name, from the first mirror that has a good index of it.
    ///
    /// # Errors
    /// Why each mirror had none, and what to do.
    pub fn suite(&self, name: &str, released: &BTreeMap<String, String>) -> Result<Suite<'a>> {
        let mirrors = self.archives.mirrors_of(name);
        if mirrors.is_empty() {
            return Err(Error::usage(format!("there is no mirror to get `{name}` from")).hint(
                "name one in the configuration: under `[debian]`, `mirrors = [\"http://…/debian\"]`; without it the \
                 package sources of this machine are used, and it has none",
            ));
        }
        let mut troubles: Vec<Error> = Vec::new();
        for mirror in mirrors {
            let found = self.release(mirror, name).and_then(|release| {
                let not_before = released.get(name).map(String::as_str);
                release.check(name, self.now, not_before, self.archives.expired_is_good)?;
                Ok(release)
            });
            match found {
                Ok(release) => return Ok(Suite { name: name.to_string(), release, mirror }),
                Err(error) if error.class() == crate::error::Class::Interrupted => return Err(error),
                Err(error) => troubles.push(error.within(format!("`{}` gives no good index", mirror.url))),
            }
        }
        let all = troubles.iter().map(|error| format!("  {error}")).collect::<Vec<_>>().join("\n");
        let hint = troubles.iter().find_map(|error| error.hint_text()).unwrap_or_default().to_string();
        Err(Error::machine(format!("the suite `{name}` cannot be read"))
            .because(all.trim_start().to_string())
            .hint(hint))
    }

    /// Fetches `InRelease` and checks its signature. Offline the one that was fetched last counts.
    fn release(&self, mirror: &Mirror, suite: &str) -> Result<Release> {
        let url = format!("{}/dists/{suite}/InRelease", mirror.url);
        let noted = self.store.get_note::<ContentDigest>("debian", &url).filter(|_| self.access.offline);
        let blob = match noted {
            Some(blob) => blob,
            None => {
                let access =
                    Access { max_size: LARGEST_RELEASE.min(self.access.max_size), ..self.access.clone() };
                let what = format!("the index of `{suite}`");
                let want = Want { what: &what, urls: std::slice::from_ref(&url), pin: None };
                let blob = fetch::fetch(self.store, &access, &want, self.watch)?.blob;
                self.store.put_note("debian", &url, &blob)?;
                blob
            }
        };
        let file = self.store.open_blob(&blob)?.ok_or_else(|| Error::machine(format!("`{url}` is lost")))?;
        let mut message = String::new();
        file.take(LARGEST_RELEASE)
            .read_to_string(&mut message)
            .map_err(|why| Error::machine(format!("`{url}` is not text")).because(why))?;
        let text = self.verified(mirror, &url, &message)?;
        Release::parse(&text)
            .map_err(|why| Error::machine(format!("`{url}` is not the index of a suite")).because(why))
    }

    #[cfg(feature = "debian")]
    fn verified(&self, mirror: &Mirror, url: &str, message: &str) -> Result<String> {
        let keyrings = if mirror.signed_by.is_empty() { &self.archives.keyrings } else { &mirror.signed_by };
        let mut keys = Keys::default();
        for keyring in keyrings {
            let bytes = match keyring {
                Keyring::Text(text) => text.clone().into_bytes(),
                Keyring::File(path) => std::fs::read(path).map_err(|e| {
                    Error::io("read the keyring", path, e).hint(
                        "install it, or name another one: `keyrings` under `[debian]` in the configuration",
                    )
                })?,
            };
            keys.add(&bytes).map_err(|why| {
                let shown = match keyring {
                    Keyring::File(path) => format!("`{}`", path.display()),
                    Keyring::Text(_) => "the key that is written out".to_string(),
                };
                Error::machine(format!("{shown} is not a keyring")).because(why)
            })?;
        }
        if keys.is_empty() {
            return Err(Error::machine("there is no keyring to check the archive's signature with").hint(
                "install it (Debian: apt-get install debian-archive-keyring), or name one: \
                 `keyrings = [\"/path/to/archive-keyring.gpg\"]` under `[debian]` in the configuration",
            ));
        }
        keys.verified(message, self.now).map_err(|why| {
            Error::machine(format!("the signature of `{url}` does not count")).because(why).hint(
                "is it the right archive, and is the keyring up to date? `keyrings` under `[debian]` in the \
                 configuration names it; never use an index that is not signed",
            )
        })
    }

    #[cfg(not(feature = "debian"))]
    fn verified(&self, _: &Mirror, url: &str, _: &str) -> Result<String> {
        Err(Error::machine(format!("the signature of `{url}` cannot be checked"))
            .because("this isolith was built without the feature `debian`"))
    }

    /// The text of an index of a suite: `path` is below its directory and has no ending; the smallest form that
    /// there is of it is fetched. None when the suite has no such index.
    pub fn index(&self, suite: &Suite<'_>, path: &str) -> Result<Option<String>> {
        let files = &suite.release.files;
        let found = ["xz", "gz", ""].into_iter().find_map(|ending| {
            let path = if ending.is_empty() { path.to_string() } else { format!("{path}.{ending}") };
            files.get(&path).map(|(pin, size)| (path, pin, *size))
        });
        let Some((packed, pin, size)) = found else { return Ok(None) };
        let limit = files.get(path).map_or(LARGEST_INDEX, |(_, size)| *size).min(LARGEST_INDEX);
        let what = format!("`{packed}` of `{}`", suite.name);
        let access = Access { max_size: size.min(self.access.max_size), ..self.access.clone() };
        let want = Want { what: &what, urls: &self.index_urls(suite, &packed, pin), pin: Some(pin) };
        fetch::fetch(self.store, &access, &want, self.watch)?;
        let file = fetch::open(self.store, pin)?.ok_or_else(|| Error::machine(format!("{what} is lost")))?;
        let mut bytes = Vec::new();
        let failed = |why: std::io::Error| {
            let error = Error::machine(format!("cannot unpack {what}")).because(why);
            error.hint("it is as the archive has signed it, and broken: name another mirror, or wait for the next one")
        };
        decompress(file)?.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > limit {
            return Err(Error::machine(format!("{what} has more than {limit} bytes when it is unpacked"))
                .hint("the archive says that it has less: it is broken, or a trap"));
        }
        Ok(Some(
            String::from_utf8(bytes)
                .unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned()),
        ))
    }

    /// The mirror that had the suite comes first: others may be a little ahead or behind.
    fn index_urls(&self, suite: &Suite<'_>, path: &str, pin: &Pin) -> Vec<String> {
        let mut mirrors = self.archives.mirrors_of(&suite.name);
        mirrors.sort_by_key(|mirror| *mirror != suite.mirror);
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        let by_hash = format!("{dir}/by-hash/SHA256/{}", pin.hex());
        let names = suite.release.by_hash.then_some(by_hash).into_iter().chain([path.to_string()]);
        let names: Vec<String> = names.collect();
        let all = mirrors.iter().flat_map(|mirror| {
            names.iter().map(move |name| format!("{}/dists/{}/{name}", mirror.url, suite.name))
        });
        all.collect()
    }
}
