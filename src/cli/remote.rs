//! `isolith remote`: what is in a remote, and away with what is of no use.

use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::{Context, remotes};
use crate::config::{RemoteSettings, Settings};
use crate::error::{Error, Result};
use crate::remote::{RecordKey, Remote};
use crate::trust::{SecretKey, collect};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Say whether each remote answers, and what is done with it
    Status {
        /// Names of the settings, or URLs (default: all of the settings)
        #[arg(value_name = "NAME|URL")]
        remotes: Vec<String>,
        /// One JSON object a remote, one a line
        #[arg(long)]
        json: bool,
    },
    /// List the records
    Ls {
        /// Its name, or URL
        #[arg(value_name = "NAME|URL")]
        remote: String,
    },
    /// Remove records
    Rm {
        /// Its name, or URL
        #[arg(value_name = "NAME|URL")]
        remote: String,
        /// Records, as `ls` prints them
        #[arg(required = true, value_parser = |text: &str| text.parse::<RecordKey>().map_err(|why| why.to_string()))]
        record: Vec<RecordKey>,
    },
    /// Remove records that cannot be read or whose layers are gone, and layers that no record refers to
    Gc {
        /// Its name, or URL
        #[arg(value_name = "NAME|URL")]
        remote: String,
        /// Keep layers that were put there in the last days: their records may be on the way
        #[arg(long, value_name = "DAYS", default_value_t = 1)]
        older_than: u32,
    },
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let settings = context.settings(None, None)?;
    match args.action {
        Action::Status { remotes: named, json } => {
            let list = remotes::chosen(&named, &settings)?;
            if list.is_empty() {
                context.ui.note("the settings name no remote");
            }
            let own = remotes::signer(context, &settings)?;
            let mut answers = true;
            for remote in list {
                answers &= status(context, &settings, &remote, own.as_ref(), json)?;
            }
            return Ok(if answers { ExitCode::SUCCESS } else { ExitCode::from(125) });
        }
        Action::Ls { remote } => {
            let keys = open(context, &settings, &remote, false)?.keys()?;
            let lines: Vec<String> = keys.iter().map(|key| format!("{key}\n")).collect();
            context.ui.print(lines.concat().as_bytes())?;
        }
        Action::Rm { remote, record } => {
            let remote = open(context, &settings, &remote, true)?;
            for key in record {
                if !remote.remove(&key)? {
                    return Err(Error::usage(format!("{} has no record {key}", remote.name()))
                        .hint("`isolith remote ls` prints those that it has"));
                }
            }
        }
        Action::Gc { remote, older_than } => {
            let remote = open(context, &settings, &remote, true)?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
            let found = collect(&*remote, now - i64::from(older_than) * 86400)?;
            context.ui.collected(&remote.name(), &found);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn open(context: &Context, settings: &Settings, named: &str, write: bool) -> Result<Box<dyn Remote>> {
    let named = remotes::chosen(&[named.to_string()], settings)?;
    let remote = named.first().ok_or_else(|| Error::usage("no remote is named"))?;
    remotes::opener(context, settings, remote, write)?()
}

/// Prints what there is to say of a remote; whether it answers.
fn status(
    context: &Context,
    settings: &Settings,
    remote: &RemoteSettings,
    own: Option<&SecretKey>,
    as_json: bool,
) -> Result<bool> {
    let policy = remotes::policy(settings, remote, own.map(SecretKey::public))?;
    let began = Instant::now();
    // Nobody has this one; an answer is an answer.
    let asked: RecordKey = format!("def-{}-{}", "0".repeat(64), "0".repeat(32))
        .parse()
        .map_err(|why| Error::machine("a record has no name").because(why))?;
    let answer = remotes::opener(context, settings, remote, false)?().and_then(|open| open.records(&[asked]));
    let ms = began.elapsed().as_millis() as u64;
    let error = answer.as_ref().err().map(|why| why.to_string());
    let write = match remote.write {
        crate::config::Write::Yes => "always",
        crate::config::Write::InCi => "in CI",
        crate::config::Write::No => "never",
    };
    if as_json {
        context.ui.json_lines(&[json!({
            "name": remote.name, "url": remote.url, "answers": answer.is_ok(), "ms": ms, "error": error,
            "read": remote.read, "write": write, "threshold": policy.threshold(),
            "trusted_keys": policy.keys().iter().map(|key| key.to_string()).collect::<Vec<_>>(),
        })])?;
    } else {
        let answers = error.map_or(format!("answers in {ms} ms"), |why| format!("does not answer: {why}"));
        let read = if remote.read { "always" } else { "never" };
        let (keys, k) = (policy.keys().len(), policy.threshold());
        let text = format!(
            "{}: {}\n  {answers}\n  read {read}, written {write}; {k} of {keys} trusted keys have to agree\n",
            remote.name, remote.url
        );
        context.ui.print(text.as_bytes())?;
    }
    Ok(answer.is_ok())
}
