//! `isolith store`: where it is, what is in it, whether it is whole, and away with it.

use std::process::ExitCode;

use super::Context;
use crate::error::{Class, Result};
use crate::sandbox::ids;
use crate::store::Store;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print the directory of the store
    Path,
    /// Say where the store is, who said so, and what it holds
    Info {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Look for damage, remove it (it becomes a miss), and say what was found; ends with 125 if any was
    Fsck {
        /// One JSON object a problem, one a line
        #[arg(long)]
        json: bool,
    },
    /// Remove the store with everything in it
    Clear,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let store = context.settings(None, None)?.store;
    let root = store.value.as_path();
    match args.action {
        Action::Path => context.ui.print(format!("{}\n", root.display()).as_bytes())?,
        Action::Info { json } => {
            let opened = Store::open_existing(root)?;
            let mut info = opened.info()?;
            // Layers may have directories that only the ids of the sandbox can read.
            if info.unreadable > 0 && ids::enter().is_ok() {
                info = opened.info()?;
            }
            context.ui.store_info(&store, &info, json)?;
        }
        Action::Fsck { json } => {
            let opened = Store::open_existing(root)?;
            let problems = opened.fsck(ids::enter()?)?;
            context.ui.problems(&problems, json)?;
            if problems.iter().any(|problem| !problem.is_left_alone()) {
                return Ok(ExitCode::from(Class::Machine.exit_code()));
            }
        }
        Action::Clear => {
            // Without the ids there can be no files of theirs either; if there are, their error is the cause.
            let entered = ids::enter();
            let cleared = Store::clear(root).map_err(|error| entered.err().unwrap_or(error))?;
            for path in &cleared.left {
                context.ui.note(&format!("left alone, not part of the store: {}", path.display()));
            }
            if !context.global.quiet {
                context.ui.note(&format!("removed {}", root.display()));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
