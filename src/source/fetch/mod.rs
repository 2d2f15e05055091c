//! Bytes from elsewhere into the store: mirrors in order, tries with pauses, digests checked on the way.

#[cfg(feature = "net")]
mod http;
mod receive;

use std::fs::File;

use receive::Receiver;

use super::{Algorithm, Pin, Url};
use crate::digest::ContentDigest;
use crate::error::{Error, Result};
use crate::net::{self, Candidate, interrupted};
pub use crate::net::{Access, Progress, Proxies, Watch};
use crate::store::Store;

/// What is wanted.
pub struct Want<'a> {
    /// For messages: "source `src` of `x.toml`".
    pub what: &'a str,
    /// Where it may be, best first.
    pub urls: &'a [String],
    /// What it must hash to; none when that is to be found out.
    pub pin: Option<&'a Pin>,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The blob in the store.
    pub blob: ContentDigest,
    /// The pin it was wanted by, or its SHA-256 when there was none.
    pub pin: Pin,
    /// Its length in bytes.
    pub size: u64,
}

/// How one URL failed.
enum Trouble {
    /// It may go better next time.
    Passing(String),
    /// It will not.
    Final(String),
    /// The bytes are others than the pinned ones.
    Mismatch { expected: Pin, got: Pin },
    /// Not the server's fault.
    Ours(Error),
}

/// The blob with these bytes, fetched unless the store has it. What fails leaves nothing behind.
///
/// # Errors
/// Class `Recipe` when a server sent other bytes than the pinned ones; `Machine` when nothing could be
/// fetched, with what was tried; `Interrupted`.
pub fn fetch(store: &Store, access: &Access, want: &Want, watch: &dyn Watch) -> Result<Fetched> {
    if let Some(known) = want.pin.map(|pin| known(store, pin)).transpose()?.flatten() {
        return Ok(known);
    }
    let candidates: Vec<Candidate> = want.urls.iter().flat_map(|url| access.candidates(url)).collect();
    let mut receiver = Receiver::new(store, want.pin)?;
    let mut troubles: Vec<(String, Trouble)> = Vec::new();
    for candidate in candidates {
        let url = match candidate {
            Candidate::Try(url) => url,
            Candidate::Refused(url, why) => {
                troubles.push((url, Trouble::Final(why)));
                continue;
            }
        };
        match try_one(access, &url, &mut receiver, watch) {
            Ok(()) => return receiver.keep(store, watch, url.as_str()),
            Err(Trouble::Ours(error)) => return Err(error),
            Err(trouble) => troubles.push((url.to_string(), trouble)),
        }
    }
    Err(failed(access, want, troubles))
}

/// The blob that a pin names, if the store has it whole.
fn known(store: &Store, pin: &Pin) -> Result<Option<Fetched>> {
    let Some(file) = open(store, pin)? else { return Ok(None) };
    let blob = named(store, pin).ok_or_else(|| Error::machine("a blob without a name"))?;
    let size = file.metadata().map_err(|e| Error::io("read", &store.blob_path(&blob), e))?.len();
    Ok(Some(Fetched { blob, pin: pin.clone(), size }))
}

/// The name of the blob that a pin names, if the store knows it.
pub fn named(store: &Store, pin: &Pin) -> Option<ContentDigest> {
    match pin.algorithm() {
        Algorithm::Blake3 => pin.hex().parse().ok(),
        _ => store.blob_named(&pin.to_string()),
    }
}

/// Opens the blob that a pin names: its bytes have just been checked. None when the store does not have it.
pub fn open(store: &Store, pin: &Pin) -> Result<Option<File>> {
    match named(store, pin) {
        Some(blob) => store.open_blob(&blob),
        None => Ok(None),
    }
}

/// Tries one URL as often as it is worth it.
fn try_one(access: &Access, url: &Url, receiver: &mut Receiver, watch: &dyn Watch) -> Result<(), Trouble> {
    let mut pause = access.pause;
    let mut tries = access.tries.max(1);
    loop {
        tries -= 1;
        let trouble = match get(access, url, receiver, watch).and_then(|()| receiver.check()) {
            Ok(()) => return Ok(()),
            Err(trouble) => trouble,
        };
        if watch.cancelled() {
            return Err(Trouble::Ours(interrupted()));
        }
        match trouble {
            Trouble::Passing(_) if tries > 0 => {}
            // A part of other bytes may have been the start of it.
            Trouble::Mismatch { .. } if receiver.was_resumed() && tries > 0 => receiver.restart()?,
            trouble => {
                if !matches!(trouble, Trouble::Passing(_)) {
                    receiver.restart()?;
                }
                return Err(trouble);
            }
        }
        if !net::pause(pause, watch) {
            return Err(Trouble::Ours(interrupted()));
        }
        pause *= 2;
    }
}

fn get(access: &Access, url: &Url, receiver: &mut Receiver, watch: &dyn Watch) -> Result<(), Trouble> {
    if let Some(path) = url.file() {
        receiver.restart()?;
        let mut file = File::open(&path).map_err(|why| Trouble::Final(why.to_string()))?;
        let meta = file.metadata().map_err(|why| Trouble::Final(why.to_string()))?;
        if !meta.is_file() {
            return Err(Trouble::Final("it is not a regular file".to_string()));
        }
        return receiver.take(&mut file, Some(meta.len()), access, url.as_str(), watch);
    }
    #[cfg(feature = "net")]
    return http::get(access, url, receiver, watch);
    #[cfg(not(feature = "net"))]
    Err(Trouble::Final("this isolith was built without the feature `net`".to_string()))
}

/// The error when no URL gave the bytes.
fn failed(access: &Access, want: &Want, troubles: Vec<(String, Trouble)>) -> Error {
    let mismatch = troubles.iter().find_map(|(url, trouble)| match trouble {
        Trouble::Mismatch { expected, got } => Some((url, expected, got)),
        _ => None,
    });
    if let Some((url, expected, got)) = mismatch {
        return Error::recipe(format!("the bytes of {} are not the pinned ones", want.what))
            .because(format!("{url}\n  expected {expected}\n  got      {got}"))
            .hint(
                "if upstream has really changed the file, check it and pin the new digest (in the recipe, or with \
                 `isolith lock --update`); if not, name another mirror: the server or the way to it is not to be trusted",
            );
    }
    let hint = if access.offline {
        "run once without `--offline` (and without `offline = true` in the configuration) to fetch it"
    } else if troubles
        .iter()
        .any(|(_, trouble)| matches!(trouble, Trouble::Final(why) if why.contains("allowed-hosts")))
    {
        "add the host to `allowed-hosts`, or a mirror under `[mirrors]`, in the configuration"
    } else {
        "check the URL and the network (proxies come from http_proxy, https_proxy and no_proxy), or name a mirror"
    };
    let all: Vec<String> = troubles
        .into_iter()
        .map(|(url, trouble)| match trouble {
            Trouble::Passing(why) | Trouble::Final(why) => format!("{url}: {why}"),
            Trouble::Ours(error) => format!("{url}: {error}"),
            Trouble::Mismatch { .. } => url,
        })
        .collect();
    Error::machine(format!("cannot fetch {}", want.what)).because(all.join("; ")).hint(hint)
}
