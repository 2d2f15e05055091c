//! What may be reached from here and how: the policy, URLs, and the one http client. Everything that opens a
//! connection goes through it.

mod access;
#[cfg(feature = "net")]
mod client;
mod url;
mod watch;

pub use access::{Access, Candidate, Proxies};
#[cfg(feature = "net")]
pub use client::{Agents, Failure, Patient, agent, certificates, failure, while_wanted};
pub use url::{RESERVED, Url, UrlError};
pub use watch::{Progress, Watch, interrupted, pause};
