//! Plan a recipe's graph, look keys up, run what is missing, record results.

mod api;
mod attend;
mod attest;
mod build;
mod container;
mod debian;
mod demand;
pub(crate) mod diff;
mod event;
mod explain;
mod export;
mod history;
mod image;
pub mod inspect;
mod kept;
mod lock;
mod log;
mod pins;
mod plan;
mod planner;
mod redact;
mod remotes;
mod report;
mod run;
mod sbom;
mod schedule;
mod session;
mod shell;
mod shown;
mod stack;
mod state;
mod user;
pub mod verify;
mod worker;
mod workshop;

pub use api::{
    BuildName, Built, CachePolicy, Explanation, Failure, Request, State, Target, Verdict, Wanted, What,
};
pub use attend::Attendance;
pub use diff::{Comparison, Part, PathDifference, Subject};
pub use event::{Event, Observer, OutcomeKind, StepReport};
pub use history::Past;
pub use image::{ImageForm, ImageOptions, ImageTarget, Layers, Made, is_tag};
pub use lock::LockReport;
pub use pins::LockChange;
pub use remotes::{Opener, Opinion, RemoteReport, RemoteSetup, Remotes, Said, Voice};
pub use report::BuildReport;
pub use run::{Ran, RunOptions};
pub use sbom::Format as SbomFormat;
pub use session::{Inputs, Session};
