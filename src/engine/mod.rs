//! Plan a recipe's graph, look keys up, run what is missing, record results.

mod api;
mod build;
mod debian;
mod demand;
pub(crate) mod diff;
mod event;
mod explain;
mod export;
mod history;
mod image;
pub mod inspect;
mod lock;
mod log;
mod pins;
mod plan;
mod planner;
mod redact;
mod sbom;
mod schedule;
mod session;
mod shell;
mod stack;
mod state;
pub mod verify;
mod worker;
mod workshop;

pub use api::{Built, CachePolicy, Explanation, Failure, Request, State, Target, Verdict};
pub use diff::{Comparison, PathDifference, Subject};
pub use event::{Event, Observer, OutcomeKind, StepReport};
pub use image::{ImageForm, ImageOptions, ImageTarget, Layers, Made, is_tag};
pub use lock::LockReport;
pub use pins::LockChange;
pub use sbom::Format as SbomFormat;
pub use session::{Inputs, Session};
