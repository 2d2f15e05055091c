//! Every raw system call and all `unsafe`, as safe functions.

mod child;
pub mod signals;

pub use child::{Refusal, in_child};
