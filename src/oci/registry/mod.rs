//! A client for registries (OCI distribution specification 1.1), blocking and streaming.
//!
//! Reading tries mirrors first, like everything that is fetched; writing goes to the registry itself. Which hosts may be
//! asked, through which proxies, and how patiently, is the policy of [`Access`]. Credentials are looked up when a
//! server asks for them, and go to it and the token server that it names only.

mod artifacts;
mod blob;
mod credentials;
mod login;
mod request;
mod upload;

use std::io::Read;
use std::sync::Arc;

use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, Digest, MediaType};
use ureq::http::Method;

pub use credentials::{Credentials, Login};
pub use login::{Challenge, challenges};
pub use upload::Uploaded;

use self::request::{Ask, Server, Tokens};
use super::digest::Hasher;
use super::document::{MANIFEST_TYPES, MOST_MANIFEST};
use crate::error::{Error, Result};
use crate::net::{Access, Agents, Failure, Watch, interrupted, while_wanted};

/// Who asks registries. Connections and tokens are kept as long as it lives.
#[derive(Default)]
pub struct Registry {
    access: Arc<Access>,
    credentials: Arc<Credentials>,
    agents: Agents,
    tokens: Tokens,
}

/// A manifest or index as a registry gave it; its bytes are those of the digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Of the bytes.
    pub digest: Digest,
    /// What the registry says it is.
    pub media_type: String,
    /// As they came.
    pub bytes: Vec<u8>,
}

/// What a request is about, for errors.
struct Matter<'a> {
    image: &'a Reference,
    what: String,
}

impl Registry {
    /// A client with this policy and these credentials.
    pub fn new(access: Arc<Access>, credentials: Arc<Credentials>) -> Registry {
        Registry { access, credentials, agents: Agents::default(), tokens: Tokens::default() }
    }

    /// The manifest or index that the tag or digest of a reference names (the digest, where it has both).
    ///
    /// # Errors
    /// Class `Recipe` when what comes is not what the digest says; `Machine`; `Interrupted`.
    pub fn resolve(&self, image: &Reference, watch: &dyn Watch) -> Result<Fetched> {
        let name = match (image.digest(), image.tag()) {
            (Some(digest), _) => digest,
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        };
        self.document(image, name, image.digest(), watch)
    }

    /// The manifest or index with a digest.
    pub fn manifest(&self, image: &Reference, digest: &Digest, watch: &dyn Watch) -> Result<Fetched> {
        self.document(image, digest.as_ref(), Some(digest.as_ref()), watch)
    }

    fn document(
        &self,
        image: &Reference,
        name: &str,
        digest: Option<&str>,
        watch: &dyn Watch,
    ) -> Result<Fetched> {
        let matter = Matter { image, what: format!("the manifest `{name}`") };
        let path = format!("manifests/{name}");
        let ask = Ask { method: Method::GET, accept: &MANIFEST_TYPES, write: false, range: None };
        let (media_type, bytes) = self.wanted(watch, || {
            self.ask_in_turn(&matter, self.candidates(image, &path), watch, |server, url| {
                let response = self.ask(server, url, &ask, watch)?;
                let media_type = request::text(&response, "content-type").unwrap_or_default().to_string();
                Ok((media_type, request::small(response, MOST_MANIFEST)?))
            })
        })?;
        let mut hasher = Hasher::sha256();
        let digest: Digest = match digest {
            Some(digest) => {
                let digest = digest.parse().map_err(|why| self.bad(&matter, format!("{why}")))?;
                Hasher::check(&bytes, &digest).map_err(|why| self.bad(&matter, why))?;
                digest
            }
            None => {
                hasher.update(&bytes);
                hasher.text().parse().map_err(|why| self.bad(&matter, format!("{why}")))?
            }
        };
        Ok(Fetched { digest, media_type, bytes })
    }

    /// A small blob as a whole, checked: a configuration.
    pub fn small_blob(&self, image: &Reference, blob: &Descriptor, watch: &dyn Watch) -> Result<Vec<u8>> {
        if blob.size() > MOST_MANIFEST {
            let matter = Matter { image, what: format!("the blob `{}`", blob.digest()) };
            return Err(self.bad(&matter, format!("it has more than {MOST_MANIFEST} bytes")));
        }
        self.blob(image, blob, watch, |bytes| {
            let mut all = Vec::new();
            bytes.read_to_end(&mut all).map(|_| all).map_err(|why| broken(blob.digest(), why))
        })
    }

    /// Gives the bytes of a blob to `read` as they come. They are checked on the way: where they are not those of
    /// the digest and size, the last read fails; so `read` must read to the end. A connection that breaks is taken up
    /// again where it broke.
    pub fn blob<T>(
        &self,
        image: &Reference,
        blob: &Descriptor,
        watch: &dyn Watch,
        read: impl FnOnce(&mut (dyn Read + Send)) -> Result<T>,
    ) -> Result<T> {
        self.wanted(watch, || blob::stream(self, image, blob, watch, read))
    }

    /// Gives a part of the bytes of a blob to `read`, as they come and unchecked; false when it is not there.
    pub fn blob_part(
        &self,
        image: &Reference,
        blob: &Descriptor,
        range: std::ops::Range<u64>,
        watch: &dyn Watch,
        read: &mut dyn FnMut(&mut dyn Read) -> Result<()>,
    ) -> Result<bool> {
        self.wanted(watch, || blob::part(self, image, blob, range, watch, read))
    }

    /// Whether the repository has a blob.
    pub fn has_blob(&self, image: &Reference, digest: &Digest, watch: &dyn Watch) -> Result<bool> {
        let matter = Matter { image, what: format!("the blob `{digest}`") };
        let ask = Ask { method: Method::HEAD, accept: &[], write: true, range: None };
        self.wanted(watch, || {
            self.ask_itself(&matter, &format!("blobs/{digest}"), watch, |server, url| {
                match self.ask(server, url, &ask, watch) {
                    Ok(_) => Ok(true),
                    Err(request::Trouble::Absent(_)) => Ok(false),
                    Err(trouble) => Err(trouble),
                }
            })
        })
    }

    /// Asks the registry to take a blob over from another of its repositories; false when it does not, and the blob
    /// has to be uploaded.
    pub fn mount_blob(
        &self,
        image: &Reference,
        digest: &Digest,
        from: &str,
        watch: &dyn Watch,
    ) -> Result<bool> {
        self.wanted(watch, || upload::mount(self, image, digest, from, watch))
    }

    /// Uploads a blob of known digest and size. `open` gives its bytes from the start, again when a try fails.
    pub fn push_blob(
        &self,
        image: &Reference,
        blob: (&Digest, u64),
        watch: &dyn Watch,
        open: &mut dyn FnMut() -> Result<Box<dyn Read>>,
    ) -> Result<()> {
        self.wanted(watch, || upload::whole(self, image, blob, watch, open))
    }

    /// Uploads a blob whose digest and size are not known before its last byte. It is tried once.
    pub fn push_stream(&self, image: &Reference, from: &mut dyn Read, watch: &dyn Watch) -> Result<Uploaded> {
        self.wanted(watch, || upload::stream(self, image, from, watch))
    }

    /// Puts a manifest or index under the tag (else the digest) of a reference. All it refers to has to be there.
    pub fn push_manifest(
        &self,
        image: &Reference,
        media_type: &MediaType,
        bytes: &[u8],
        watch: &dyn Watch,
    ) -> Result<Digest> {
        self.wanted(watch, || upload::manifest(self, image, media_type.as_ref(), bytes, watch))
    }

    /// Runs something that can be broken off.
    fn wanted<T>(&self, watch: &dyn Watch, work: impl FnOnce() -> T) -> T {
        while_wanted(watch, || self.agents.break_off(), work)
    }

    /// Asks one candidate after the other, each with patience, until one answers.
    fn ask_in_turn<T>(
        &self,
        matter: &Matter,
        candidates: impl IntoIterator<Item = request::Candidate>,
        watch: &dyn Watch,
        mut each: impl FnMut(&Server, &crate::net::Url) -> Result<T, request::Trouble>,
    ) -> Result<T> {
        let mut troubles = Vec::new();
        for (shown, candidate) in candidates {
            let (server, url) = match candidate {
                Ok(candidate) => candidate,
                Err(why) => {
                    troubles.push((shown, request::Trouble::Failed(Failure::Final(why))));
                    continue;
                }
            };
            match self.patiently(watch, || each(&server, &url)) {
                Ok(done) => return Ok(done),
                Err(request::Trouble::Ours(error)) => return Err(error),
                Err(request::Trouble::Failed(Failure::Cancelled)) => return Err(interrupted()),
                Err(trouble) => troubles.push((shown, trouble)),
            }
        }
        Err(self.failed(matter, troubles))
    }

    /// Asks the registry itself, and no mirror of it.
    fn ask_itself<T>(
        &self,
        matter: &Matter,
        path: &str,
        watch: &dyn Watch,
        each: impl FnMut(&Server, &crate::net::Url) -> Result<T, request::Trouble>,
    ) -> Result<T> {
        self.ask_in_turn(matter, [self.itself(matter.image, path)], watch, each)
    }

    fn bad(&self, matter: &Matter, why: String) -> Error {
        Error::recipe(format!("{} of `{}` is not what it should be", matter.what, matter.image))
            .because(why)
            .hint("the registry, or the way to it, gives other bytes than the pinned ones: do not rely on it")
    }

    fn failed(&self, matter: &Matter, troubles: Vec<(String, request::Trouble)>) -> Error {
        let hint = request::hint(&self.access, matter.image, &troubles);
        let all: Vec<String> = troubles.into_iter().map(|(url, why)| format!("{url}: {why}")).collect();
        Error::machine(format!("cannot get {} of `{}`", matter.what, matter.image))
            .because(all.join("; "))
            .hint(hint)
    }
}

/// The error of a blob that could not be read.
fn broken(digest: &Digest, why: std::io::Error) -> Error {
    let error = match why.kind() {
        std::io::ErrorKind::InvalidData => {
            Error::recipe(format!("the blob `{digest}` is not what it should be"))
        }
        _ => Error::machine(format!("cannot read the blob `{digest}`")),
    };
    error.because(why)
}
