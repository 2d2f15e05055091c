//! What a remote is opened with. The library reads no environment: whoever opens one hands over what it may need.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::{Access, Progress, Watch};

/// How long a remote may take. A call ends with an error when one of these is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Until a connection is there.
    pub connect: Duration,
    /// While nothing comes, or goes.
    pub idle: Duration,
    /// For a call as a whole, the transfer of a blob included.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            total: Duration::from_secs(1800),
        }
    }
}

/// How remotes are opened.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Which hosts may be asked, through which proxies, with which certificates. Its patience is that of `limits`.
    pub access: Arc<Access>,
    /// Files with credentials for registries, as for images.
    pub registry_credentials: Vec<PathBuf>,
    /// What the environment says: those of [`VARIABLES`] that are set.
    pub variables: BTreeMap<String, String>,
    /// Sent to a `webdav` or `grpc` remote as `Authorization: Bearer …`.
    pub token: Option<String>,
    /// Sent to a `grpc` remote with every request.
    pub headers: Vec<Header>,
    /// How long calls may take.
    pub limits: Limits,
    /// Nothing is written, not even a directory made.
    pub read_only: bool,
}

/// A header that a remote wants, such as the key of an account.
#[derive(Clone)]
pub struct Header {
    /// What it is called.
    pub name: String,
    /// The environment variable that holds its value.
    pub variable: String,
    /// Its value; none when that variable is not set.
    pub value: Option<String>,
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ${}", self.name, self.variable)
    }
}

/// The environment variables that remotes have a use for.
pub const VARIABLES: [&str; 26] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_OAUTH_ACCESS_TOKEN",
    "STORAGE_EMULATOR_HOST",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_ENDPOINT",
    "AZBLOB_ENDPOINT",
    "WEBDAV_USER",
    "WEBDAV_PASSWORD",
    "WEBDAV_TOKEN",
    "REDIS_USER",
    "REDIS_PASSWORD",
    "REAPI_TOKEN",
    "ACTIONS_RESULTS_URL",
    "ACTIONS_CACHE_URL",
    "ACTIONS_RUNTIME_TOKEN",
    "ACTIONS_CACHE_SERVICE_V2",
];

impl Settings {
    /// A variable that is set and not empty.
    #[cfg_attr(not(any(feature = "object-store", feature = "reapi")), allow(dead_code))]
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The policy of `access` with the patience of `limits`.
    #[cfg_attr(not(feature = "net"), allow(dead_code))]
    pub(super) fn patient_access(&self) -> Access {
        Access {
            stall: self.limits.idle,
            connect: self.limits.connect,
            tries: 2,
            pause: Duration::from_millis(200),
            ..(*self.access).clone()
        }
    }
}

/// The end of a call.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "net"), allow(dead_code))]
pub(super) struct Deadline(Instant);

#[cfg_attr(not(feature = "net"), allow(dead_code))]
impl Deadline {
    pub fn of(limits: Limits) -> Deadline {
        Deadline(Instant::now() + limits.total)
    }

    /// How long it is until then; none when it is over.
    pub fn left(self) -> Option<Duration> {
        let left = self.0.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

impl Watch for Deadline {
    fn progress(&self, _: Progress) {}

    fn cancelled(&self) -> bool {
        self.left().is_none()
    }
}
