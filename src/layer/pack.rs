//! stub
use super::{Entry, Manifest};
use crate::error::Result;
use std::io::Write;
use std::path::PathBuf;

/// Writes a layer as a deterministic tar archive.
pub fn pack(
    manifest: &Manifest,
    content: &dyn Fn(&Entry) -> Result<PathBuf>,
    out: &mut dyn Write,
) -> Result<()> {
    todo!(
        "{manifest:?} {} {}",
        content as *const _ as *const () as usize,
        out as *const _ as *const () as usize
    )
}
