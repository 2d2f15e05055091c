//! Who says what, and who is believed: keys, signed records, and the policy that weighs them (docs/security.md).
//!
//! A record is a DSSE envelope over an in-toto statement: "the definition or action of this name came to that layer".
//! Nothing of it is looked at before its signature was found to be of the key that it was asked for.

mod collect;
mod envelope;
mod key;
mod policy;
mod record;
mod statement;

pub use collect::{Collected, collect};
pub use envelope::{Envelope, PAYLOAD_TYPE, Unreadable};
pub use key::{NotAKey, PublicKey, SecretKey};
pub use policy::{Agreed, Policy, Vote, Weighed};
pub use record::{Claim, Refused, read};
pub use statement::{
    BUILD_TYPE, BuildDefinition, Builder, Metadata, PREDICATE_TYPE, Provenance, Resource, RunDetails,
    STATEMENT_TYPE, Statement,
};
