//! What a remote is opened with. The library reads no environment: whoever opens one hands over what it may need.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::{Access, Progress, Watch};

/// Bytes a second that a transfer has to make: the time of those that it falls behind is lost time.
pub const LEAST_RATE: u64 = 100 << 10;

/// How long a remote may take. A call ends with an error when one of these is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Until a connection is there.
    pub connect: Duration,
    /// While nothing comes, or goes.
    pub idle: Duration,
    /// For a call as a whole, beyond what the bytes of its blob take at [`LEAST_RATE`].
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            total: Duration::from_secs(300),
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
            tries: TRIES,
            pause: PAUSE,
            ..(*self.access).clone()
        }
    }
}

/// How often something is tried that may go better next time.
#[cfg_attr(not(feature = "net"), allow(dead_code))]
pub(super) const TRIES: u32 = 3;
/// The pause after the first try; each one after it is twice as long.
#[cfg_attr(not(feature = "net"), allow(dead_code))]
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// The end of a call.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "net"), allow(dead_code))]
pub(super) struct Deadline {
    began: Instant,
    /// How much time there is.
    all: Duration,
}

#[cfg_attr(not(feature = "net"), allow(dead_code))]
impl Deadline {
    /// That of a call that moves so many bytes.
    pub fn moving(bytes: u64, limits: Limits) -> Deadline {
        let all = limits.total.saturating_add(Duration::from_millis(bytes.saturating_mul(1000) / LEAST_RATE));
        Deadline { began: Instant::now(), all }
    }

    /// How much time there was.
    #[cfg_attr(not(feature = "net"), allow(dead_code))]
    pub fn all(self) -> Duration {
        self.all
    }

    /// How long it is until then; none when it is over.
    pub fn left(self) -> Option<Duration> {
        let left = self.all.saturating_sub(self.began.elapsed());
        (!left.is_zero()).then_some(left)
    }
}

impl Watch for Deadline {
    fn progress(&self, _: Progress) {}

    fn cancelled(&self) -> bool {
        self.left().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_has_the_time_that_it_takes() {
        let second = Duration::from_secs(1);
        let limits = Limits { connect: second, idle: second, total: second };
        assert_eq!(Deadline::moving(0, limits).all(), second);
        assert_eq!(Deadline::moving(300 << 20, limits).all(), second + 3072 * second);
        assert!(Deadline::moving(u64::MAX, limits).left().is_some());
        let over = Deadline::moving(0, Limits { total: Duration::ZERO, ..limits });
        assert_eq!(over.left(), None);
        assert!(over.cancelled());
    }

    #[test]
    fn an_empty_variable_is_none() {
        let variables = [("AWS_REGION", ""), ("AWS_PROFILE", "p")];
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let settings = Settings { variables, ..Settings::default() };
        assert_eq!((settings.variable("AWS_REGION"), settings.variable("AWS_PROFILE")), (None, Some("p")));
    }
}
