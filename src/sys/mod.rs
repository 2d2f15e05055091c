//! TODO

pub mod signals;
