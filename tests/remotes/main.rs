//! Builds that share results through remotes: what moves, what is believed, and what a remote in trouble costs.
#![cfg(all(feature = "object-store", feature = "reapi"))]

#[path = "../common/mod.rs"]
mod common;

mod faults;
mod poison;
mod servers;
mod share;
mod statements;
mod support;
mod trouble;
