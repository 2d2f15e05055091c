//! `isolith key`: what signs results that are shared.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Context, remotes};
use crate::error::{Error, Result};
use crate::trust::SecretKey;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a key, put it into the key file, and print its public half
    Generate {
        /// The file (default: `key` of the settings, else ~/.config/isolith/key)
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print the public half of the key: what others put into `trusted-keys`
    Show {
        /// The file (default: ISOLITH_KEY, `key` of the settings, else ~/.config/isolith/key)
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let settings = context.settings(None, None)?;
    let at = |file: Option<PathBuf>| match file {
        Some(file) => Ok(context.surroundings.env.cwd.join(file)),
        None => remotes::key_file(context, &settings),
    };
    let key = match args.action {
        Action::Generate { file } => {
            let path = at(file)?;
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir).map_err(|why| Error::io("create directory", dir, why))?;
            }
            let key = SecretKey::generate()?;
            key.write_new(&path)?;
            if !context.global.quiet {
                context.ui.note(&format!("the secret key is in {}", path.display()));
            }
            key
        }
        Action::Show { file } => {
            let found = match &file {
                Some(_) => SecretKey::read(&at(file.clone())?)?,
                None => remotes::signer(context, &settings)?,
            };
            found.ok_or_else(|| {
                Error::usage("there is no key")
                    .hint("`isolith key generate` makes one; or name its file with --file")
            })?
        }
    };
    context.ui.print(format!("{}\n", key.public()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
