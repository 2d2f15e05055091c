//! `isolith store`: where it is, what is in it, whether it is whole, and away with it.

use std::process::ExitCode;
use std::time::Duration;

use super::Context;
use crate::config::MaxSize;
use crate::error::{Class, Result};
use crate::recipe::time;
use crate::sandbox::ids;
use crate::store::{Keep, Store};

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
    /// Remove what no remembered build and no tag needs
    #[command(
        after_help = "Tagged builds stay in any case. Where a flag says nothing the settings do: [gc] with keep, \
        unused-for and max-size."
    )]
    Gc {
        /// Builds of each recipe that stay remembered, the newest (default: all that are, 16 at most)
        #[arg(long, value_name = "N", value_parser = super::build::at_least_one)]
        keep: Option<usize>,
        /// Forget builds that are older; the newest of a recipe counts from when it was last asked for
        #[arg(long, value_name = "TIME", value_parser = |text: &str| time(text).ok_or("expected a time such as 90s or 720h"))]
        unused_for: Option<u64>,
        /// Forget the oldest builds until the store is no larger (default: 10% of the file system)
        #[arg(long, value_name = "SIZE|N%|none", value_parser = MaxSize::parse)]
        max_size: Option<MaxSize>,
        /// Change nothing; say what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Remove fetched files too; what needs them fetches them again
        #[arg(long)]
        fetched: bool,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Remove the store with everything in it
    Clear,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let settings = context.settings(None, None)?;
    let store = &settings.store;
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
            context.ui.store_info(store, &info, json)?;
        }
        Action::Fsck { json } => {
            let opened = Store::open_existing(root)?;
            let problems = opened.fsck(ids::enter()?)?;
            context.ui.problems(&problems, json)?;
            if problems.iter().any(|problem| !problem.is_left_alone()) {
                return Ok(ExitCode::from(Class::Machine.exit_code()));
            }
        }
        Action::Gc { keep, unused_for, max_size, dry_run, fetched, json } => {
            let of = &settings.gc;
            let most = max_size.or(of.max_size.as_ref().map(|most| most.value)).unwrap_or_default();
            let all = Keep::default();
            let keep = Keep {
                builds: keep.or(of.keep.as_ref().map(|keep| keep.value)).unwrap_or(all.builds),
                within: unused_for.or(of.unused_for.as_ref().map(|age| age.value)).map(Duration::from_secs),
                size: most.bytes(root),
                fetched: !fetched,
            };
            let opened = dry_run.then(|| Store::open_existing(root)).transpose()?;
            let entered = ids::enter();
            let swept = match opened {
                Some(store) => store.would_collect(keep),
                None => Store::gc(root, keep),
            };
            let swept = swept.map_err(|error| entered.err().unwrap_or(error))?;
            context.ui.swept(&swept, keep.size, (dry_run, json))?;
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
