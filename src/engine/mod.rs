//! Plan a recipe's graph, look keys up, run what is missing, record results.

mod api;
mod attend;
mod build;
mod debian;
mod demand;
pub(crate) mod diff;
mod event;
mod explain;
mod export;
mod history;
pub mod inspect;
mod lock;
mod log;
mod pins;
mod plan;
mod planner;
mod redact;
mod run;
mod schedule;
mod session;
mod shell;
mod stack;
mod state;
mod user;
pub mod verify;
mod worker;

pub use api::{Built, CachePolicy, Explanation, Failure, Request, State, Target, Verdict};
pub use attend::Attendance;
pub use diff::{Comparison, PathDifference, Subject};
pub use event::{Event, Observer, OutcomeKind, StepReport};
pub use lock::LockReport;
pub use pins::LockChange;
pub use run::{Ran, RunOptions};
pub use session::{Inputs, Session};
