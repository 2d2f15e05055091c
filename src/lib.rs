//! isolith: builds in sealed steps, on layers named by their content.
//!
//! The library never prints and never reads the environment. `ARCHITECTURE.md` has the map.

pub mod base;
pub mod cli;
pub mod config;
pub mod digest;
pub mod engine;
pub mod error;
pub mod key;
pub mod layer;
pub mod net;
pub mod oci;
pub mod path;
pub mod recipe;
pub mod remote;
pub mod sandbox;
pub mod source;
pub mod store;
pub mod sys;
pub mod trust;
pub mod ui;

pub use error::{Error, Result};
