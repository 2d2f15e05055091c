//! Which remotes a command shares results with, and by whose keys.

use std::path::PathBuf;
use std::sync::Arc;

use super::Context;
use crate::config::{Origin, PATIENCE, RemoteSettings, Settings, Write, default_key_file};
use crate::engine::{Opener, RemoteSetup, Remotes};
use crate::error::{Error, Result, did_you_mean};
use crate::trust::{Policy, PublicKey, SecretKey};

/// Variables with what reaches a server as it is, and so is not for one that only a repository names.
const BARE: [&str; 6] =
    ["WEBDAV_USER", "WEBDAV_PASSWORD", "WEBDAV_TOKEN", "REDIS_USER", "REDIS_PASSWORD", "REAPI_TOKEN"];

#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct RemoteArgs {
    /// Share results with this remote: its name in the settings, or a URL (default: all of the settings)
    #[arg(long, value_name = "NAME|URL")]
    remote: Vec<String>,
    /// Share results with no remote
    #[arg(long, conflicts_with = "remote")]
    no_remote: bool,
}

impl RemoteArgs {
    /// The remotes that were asked for.
    pub fn remotes(&self, context: &Context, settings: &Settings) -> Result<Remotes> {
        if self.no_remote {
            return Ok(Remotes::default());
        }
        let list = chosen(&self.remote, settings)?;
        if list.is_empty() {
            return Ok(Remotes::default());
        }
        let signer = signer(context, settings)?;
        let own = signer.as_ref().map(SecretKey::public);
        let list = list.into_iter().map(|remote| setup(context, settings, remote, own));
        Ok(Remotes { list: list.collect::<Result<_>>()?, signer })
    }
}

/// The remotes of the settings, or those that are named, in the order in which they are asked.
pub(super) fn chosen(named: &[String], settings: &Settings) -> Result<Vec<RemoteSettings>> {
    let known = &settings.remotes.list;
    if named.is_empty() {
        let sent = |remote: &RemoteSettings| match remote.of_repository {
            // Nothing goes where only the repository says so.
            true => RemoteSettings { write: Write::No, ..remote.clone() },
            false => remote.clone(),
        };
        return Ok(known.iter().map(sent).collect());
    }
    let mut list: Vec<RemoteSettings> = Vec::new();
    for text in named {
        let remote = match known.iter().find(|remote| remote.name == *text) {
            // Whoever names it means it.
            Some(remote) => RemoteSettings { of_repository: false, ..remote.clone() },
            None if text.contains(':') => by_url(text),
            None => {
                let names: Vec<&str> = known.iter().map(|remote| remote.name.as_str()).collect();
                let hint = did_you_mean(text, names.iter().copied()).unwrap_or_else(|| match &names[..] {
                    [] => "the settings name none: give a URL, such as file:///srv/isolith".to_string(),
                    names => format!("the settings name {}; or give a URL", names.join(", ")),
                });
                return Err(Error::usage(format!("there is no remote called `{text}`")).hint(hint));
            }
        };
        if list.iter().all(|other| other.name != remote.name) {
            list.push(remote);
        }
    }
    Ok(list)
}

fn by_url(url: &str) -> RemoteSettings {
    RemoteSettings {
        name: url.to_string(),
        url: url.to_string(),
        read: true,
        write: Write::Yes,
        trusted_keys: None,
        threshold: None,
        patience: PATIENCE,
        headers: Vec::new(),
        origin: Origin::Flag("--remote"),
        of_repository: false,
    }
}

/// The file of the key that signs.
pub(super) fn key_file(context: &Context, settings: &Settings) -> Result<PathBuf> {
    let named = settings.remotes.key.as_ref().map(|key| key.value.clone());
    named.or_else(|| default_key_file(&context.surroundings.env)).ok_or_else(|| {
        Error::usage("there is no place for a key: neither HOME nor XDG_CONFIG_HOME is set")
            .hint("say where with --file FILE, or `key` in the settings")
    })
}

/// The key that signs: of `ISOLITH_KEY`, or of the key file. None when there is none.
pub(super) fn signer(context: &Context, settings: &Settings) -> Result<Option<SecretKey>> {
    // A secret, so it is not kept with the rest of the environment.
    if let Some(text) = std::env::var_os("ISOLITH_KEY").filter(|text| !text.is_empty()) {
        let key = text.to_str().and_then(|text| text.trim().parse().ok());
        return key.map(Some).ok_or_else(|| {
            Error::usage("ISOLITH_KEY holds no secret key")
                .hint("it is the one line of the file that `isolith key generate` writes")
        });
    }
    let named = settings.remotes.key.is_some();
    match key_file(context, settings) {
        Ok(path) => match SecretKey::read(&path)? {
            None if named => Err(Error::usage(format!("the key file `{}` is not there", path.display()))
                .hint("`isolith key generate` makes it; or take `key` out of the settings")),
            key => Ok(key),
        },
        Err(_) => Ok(None),
    }
}

fn setup(
    context: &Context,
    settings: &Settings,
    remote: RemoteSettings,
    own: Option<PublicKey>,
) -> Result<RemoteSetup> {
    let policy = policy(settings, &remote, own)?;
    let ci = context.surroundings.ci;
    let write = matches!((remote.write, ci), (Write::Yes, _) | (Write::InCi, true));
    Ok(RemoteSetup {
        open: opener(context, settings, &remote, write)?,
        name: remote.name,
        read: remote.read,
        write,
        policy,
        patience: remote.patience,
    })
}

/// Whose records of a remote count. What this machine has signed itself counts too, unless the remote has a list of
/// its own.
pub(super) fn policy(settings: &Settings, remote: &RemoteSettings, own: Option<PublicKey>) -> Result<Policy> {
    let of_all = settings.remotes.trusted_keys.as_ref();
    let (texts, origin) = match (&remote.trusted_keys, of_all) {
        (Some(keys), _) => (keys.clone(), remote.origin.clone()),
        (None, Some(keys)) => (keys.value.clone(), keys.origin.clone()),
        (None, None) => (Vec::new(), Origin::Default),
    };
    let mut keys = Vec::new();
    for text in texts {
        let key = text.parse::<PublicKey>().map_err(|why| {
            Error::usage(format!("`{text}` in trusted-keys ({origin})"))
                .because(why)
                .hint("`isolith key show` prints the public key of a machine")
        })?;
        keys.push(key);
    }
    keys.extend(own.filter(|_| remote.trusted_keys.is_none()));
    let of_all = settings.remotes.threshold.as_ref().map(|threshold| threshold.value);
    let threshold = remote.threshold.or(of_all).unwrap_or(1);
    Policy::new(keys, usize::try_from(threshold).unwrap_or(usize::MAX))
        .map_err(|why| why.within(format!("remote `{}`", remote.name)))
}

/// How a remote is opened. A URL that is none is told at once; whether anything is there shows when it is asked.
pub(super) fn opener(
    context: &Context,
    settings: &Settings,
    remote: &RemoteSettings,
    write: bool,
) -> Result<Opener> {
    crate::remote::check(&remote.url)?;
    // Many of them are secrets, so they are not kept with the rest of the environment.
    let variable = |name: &&str| Some((name.to_string(), std::env::var(name).ok()?));
    let allowed = |name: &&&str| !remote.of_repository || !BARE.contains(name);
    let header = |(name, variable): &(String, String)| crate::remote::Header {
        name: name.clone(),
        variable: variable.clone(),
        value: std::env::var(variable).ok(),
    };
    let patience = remote.patience;
    let limits = crate::remote::Limits::default();
    let how = crate::remote::Settings {
        access: context.inputs(settings).access,
        registry_credentials: context.surroundings.auth_files.clone(),
        variables: crate::remote::VARIABLES.iter().filter(allowed).filter_map(variable).collect(),
        token: None,
        headers: remote.headers.iter().map(header).collect(),
        // A build gives a remote up by its own clock, after twice the patience at the latest.
        limits: crate::remote::Limits { connect: limits.connect.min(patience), idle: 2 * patience, ..limits },
        read_only: !write,
    };
    let url = remote.url.clone();
    Ok(Arc::new(move || crate::remote::open(&url, &how)))
}
