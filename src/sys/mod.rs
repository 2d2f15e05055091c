//! Every raw system call and all `unsafe`, as safe functions.

mod child;

pub use child::{Refusal, in_child};
