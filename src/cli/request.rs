//! The arguments that every subcommand which plans a recipe shares, and the [`Request`] made of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::Context;
use super::target::RecipeRef;
use crate::config::Settings;
use crate::engine::{CachePolicy, Request, Session};
use crate::error::{Error, Result};
use crate::sys::signals;

/// A recipe, or one of its steps, with its values.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct OneRecipe {
    /// The recipe file (or an earlier build: RECIPE@NUMBER, @TAG), and maybe one of its steps
    #[arg(value_name = "RECIPE[@BUILD][:STEP]")]
    pub target: RecipeRef,
    #[command(flatten)]
    args: RecipeArgs,
}

impl OneRecipe {
    /// A request that uses every cached result.
    pub fn request(self, settings: &Settings) -> Result<Request> {
        self.args.request(self.target, settings)
    }

    /// For commands that only look: that request, and the store it is about.
    pub fn look(self, context: &Context) -> Result<(Session, Request)> {
        signals::die_on_broken_pipe();
        let settings = context.settings(None, None)?;
        let request = self.request(&settings)?;
        Ok((Session::open(&settings.store.value)?, request))
    }
}

#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct RecipeArgs {
    /// Override an argument of the recipe
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_set)]
    pub set: Vec<(String, String)>,
    /// Give a secret: from the environment variable of that name, another one, or a file
    #[arg(long, value_name = "NAME[=env:VAR|=file:PATH]", value_parser = parse_secret)]
    pub secret: Vec<(String, SecretFrom)>,
    /// Fail when something is not pinned, in the recipe or in its lock file
    #[arg(long)]
    pub locked: bool,
}

/// Where the value of a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SecretFrom {
    Env(String),
    File(PathBuf),
}

impl RecipeArgs {
    /// The same as flags for another process. Values of secrets are not among them.
    pub fn flags(&self) -> Vec<OsString> {
        let set = self.set.iter().flat_map(|(key, value)| ["--set".to_string(), format!("{key}={value}")]);
        let mut flags: Vec<OsString> = set.map(OsString::from).collect();
        for (name, from) in &self.secret {
            let mut text = OsString::from(format!("{name}="));
            match from {
                SecretFrom::Env(variable) => text.push(format!("env:{variable}")),
                SecretFrom::File(path) => {
                    text.push("file:");
                    text.push(path);
                }
            }
            flags.extend(["--secret".into(), text]);
        }
        flags
    }

    /// A request that uses every cached result.
    pub fn request(&self, target: RecipeRef, settings: &Settings) -> Result<Request> {
        let what = target.what();
        let RecipeRef { recipe, step: until, .. } = target;
        let mut secrets = BTreeMap::new();
        for (name, from) in &self.secret {
            secrets.insert(name.clone(), read_secret(name, from)?);
        }
        Ok(Request {
            recipe,
            what,
            args: self.set.iter().cloned().collect(),
            jobs: settings.jobs.value,
            cache: CachePolicy::Use,
            fail_on_miss: false,
            locked: self.locked,
            secrets,
            until,
            wanted: Default::default(),
            conditions: Default::default(),
        })
    }
}

fn read_secret(name: &str, from: &SecretFrom) -> Result<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    match from {
        SecretFrom::Env(variable) => std::env::var_os(variable).map(OsStringExt::into_vec).ok_or_else(|| {
            Error::usage(format!("secret `{name}`: the environment variable `{variable}` is not set"))
                .hint(format!("export {variable}=…, or take it from a file: --secret {name}=file:PATH"))
        }),
        SecretFrom::File(path) => std::fs::read(path).map_err(|why| {
            Error::usage(format!("secret `{name}`: cannot read `{}`", path.display()))
                .because(why)
                .hint(format!("name a file that you can read: --secret {name}=file:PATH"))
        }),
    }
}

pub(super) fn parse_set(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err("expected KEY=VALUE".to_string()),
    }
}

fn parse_secret(text: &str) -> Result<(String, SecretFrom), String> {
    let (name, from) = match text.split_once('=') {
        None => (text, SecretFrom::Env(text.to_string())),
        Some((name, from)) => match from.split_once(':') {
            Some(("env", variable)) if !variable.is_empty() => (name, SecretFrom::Env(variable.to_string())),
            Some(("file", path)) if !path.is_empty() => (name, SecretFrom::File(path.into())),
            // A bare value would end up in the shell's history and in `ps`.
            _ => return Err("expected NAME, NAME=env:VARIABLE or NAME=file:PATH".to_string()),
        },
    };
    if name.is_empty() { Err("the name is empty".to_string()) } else { Ok((name.to_string(), from)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_secrets() {
        assert_eq!(parse_set("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(parse_set("A="), Ok(("A".into(), "".into())));
        assert!(parse_set("A").is_err() && parse_set("=x").is_err());

        assert_eq!(parse_secret("T"), Ok(("T".into(), SecretFrom::Env("T".into()))));
        assert_eq!(parse_secret("T=env:V"), Ok(("T".into(), SecretFrom::Env("V".into()))));
        assert_eq!(parse_secret("T=file:a:b"), Ok(("T".into(), SecretFrom::File("a:b".into()))));
        let args = RecipeArgs {
            set: vec![("A".into(), "b=c".into())],
            secret: vec![
                ("T".into(), SecretFrom::Env("V".into())),
                ("F".into(), SecretFrom::File("a:b".into())),
            ],
            locked: true,
        };
        assert_eq!(args.flags(), ["--set", "A=b=c", "--secret", "T=env:V", "--secret", "F=file:a:b"]);
        assert!(parse_secret("T=hunter2").is_err() && parse_secret("=env:V").is_err());
    }
}
