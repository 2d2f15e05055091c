//! `isolith init`: a starter recipe that builds as it is.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::Context;
use crate::error::{Error, Result};

/// The starter recipe.
pub(super) const STARTER: &str = include_str!("starter.toml");

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to write it
    #[arg(default_value = "recipe.toml")]
    path: PathBuf,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let path = &args.path;
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(|why| {
        if why.kind() == ErrorKind::AlreadyExists {
            Error::usage(format!("`{}` exists already and is left as it is", path.display()))
                .hint("name another file: isolith init PATH")
        } else {
            Error::io("write", path, why)
        }
    })?;
    file.write_all(STARTER.as_bytes()).map_err(|why| Error::io("write", path, why))?;
    context.ui.note(&format!("wrote {0}; build it with: isolith build {0}", path.display()));
    Ok(ExitCode::SUCCESS)
}
