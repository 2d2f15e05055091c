//! `[[step]]`: one command in one sandbox.

use std::collections::BTreeMap;
use std::ops::Range;

use super::args;
use super::context::Context;
use super::graph::{self, Links};
use super::inputs::Named;
use super::limits;
use super::model::{Dep, Source, Step};
use super::mounts;
use super::reader::{Table, Text};
use super::words;
use crate::key::Network;

/// The bytes of one argument or `NAME=value` that the kernel takes, with the NUL at its end: `MAX_ARG_STRLEN`, 32
/// pages of 4 KiB.
const MAX_ARG: usize = 128 << 10;

/// The highest user or group id a sandbox has.
const MAX_ID: u32 = 65535;

/// Reads every step and ties them together.
pub fn read_all(
    top: &mut Table<'_>,
    recipe: &str,
    sources: &BTreeMap<String, Named<Source>>,
    deps: &BTreeMap<String, Named<Dep>>,
) -> Vec<Step> {
    let cx = top.cx;
    let header = "a step is a table of its own: `[[step]]`";
    let items = top.take("step").and_then(|value| value.array(header)).unwrap_or_default();
    let mut steps = Vec::new();
    let mut links = Vec::new();
    for mut table in items.iter().filter_map(|item| item.table(header)) {
        let (mut step, link) = read(&mut table, recipe);
        let named = link.uses.as_deref();
        step.sources = used(sources.keys(), named);
        step.deps = used(deps.keys(), named);
        for (at, name) in named.unwrap_or_default().iter().enumerate() {
            if named.unwrap_or_default()[..at].iter().any(|other| other.text == name.text) {
                cx.error(&name.span, format!("`{}` is listed twice", name.text), "take one of the two out");
            } else if !sources.contains_key(&name.text) && !deps.contains_key(&name.text) {
                let known: Vec<&String> = sources.keys().chain(deps.keys()).collect();
                let hint = words::did_you_mean(&name.text, known.iter().map(|n| n.as_str()));
                let hint = hint.unwrap_or_else(|| match known.len() {
                    0 => "the recipe has neither sources nor deps".into(),
                    _ => format!("the recipe has {}", words::list(&known)),
                });
                cx.error(&name.span, format!("`{}` is no source and no dep", name.text), hint);
            }
        }
        table.finish();
        steps.push(step);
        links.push(link);
    }
    graph::link(cx, &mut steps, &links);
    steps
}

/// Those of `all` that are named; all of them when nothing was said.
fn used<'a>(all: impl Iterator<Item = &'a String>, named: Option<&[Text]>) -> Vec<String> {
    let wanted = |name: &&String| named.is_none_or(|named| named.iter().any(|text| text.text == **name));
    all.filter(wanted).cloned().collect()
}

fn read(table: &mut Table<'_>, recipe: &str) -> (Step, Links) {
    let cx = table.cx;
    let name = table.required_string("name", "give every step a name: `name = \"compile\"`");
    if let Some(name) = &name {
        words::check_name(cx, "a step", name);
    }
    let (uid, gid) = user(table).unwrap_or((0, 0));
    let step = Step {
        name: name.as_ref().map(|name| name.text.clone()).unwrap_or_default(),
        argv: command(table).unwrap_or_default(),
        env: env(table),
        cwd: table.string("cwd").and_then(|cwd| cx.guest_path(&cwd)).unwrap_or_default(),
        uid,
        gid,
        network: network(table).unwrap_or(Network::None),
        after: Vec::new(),
        sources: Vec::new(),
        deps: Vec::new(),
        limits: limits::read(table),
        mounts: mounts::read(table, recipe),
    };
    let links = Links {
        name,
        after: table.take("after").map(|value| value.strings().unwrap_or_default()),
        uses: table.take("uses").map(|value| value.strings().unwrap_or_default()),
    };
    (step, links)
}

/// `run` behind its shell, or `args`.
fn command(table: &mut Table<'_>) -> Option<Vec<String>> {
    let cx = table.cx;
    let (run, args, shell) = (table.take("run"), table.take("args"), table.take("shell"));
    if let (Some(_), Some(shell)) = (&args, &shell) {
        let hint = "`args` starts its program directly; take `shell` out, or write `run`";
        cx.error(&shell.key_span, "`shell` has no use beside `args`", hint);
    }
    match (run, args) {
        (Some(run), Some(args)) => {
            let second = if run.key_span.start > args.key_span.start { run } else { args };
            let hint = "keep `run` for shell text, or `args` for one program and its arguments";
            cx.error(&second.key_span, "the step has both `run` and `args`", hint);
            None
        }
        (None, None) => {
            let hint = "add `run = \"make\"`, or `args = [\"make\"]` for no shell";
            table.missing(["run", "args"], "the step has no command", hint);
            None
        }
        (Some(run), None) => {
            let text = args::expand_shell(&run.string()?.text, cx.args());
            let mut argv = match shell {
                Some(shell) => program(&shell.strings()?, &shell)?,
                None => vec!["/bin/sh".into(), "-euc".into()],
            };
            check_length(cx, &run.key_span, "run", text.len());
            argv.push(text);
            Some(argv)
        }
        (None, Some(args)) => program(&args.strings()?, &args),
    }
}

/// A program and its arguments, with something in it.
fn program(words: &[Text], value: &super::reader::Value<'_>) -> Option<Vec<String>> {
    if words.first().is_none_or(|word| word.text.is_empty()) {
        let hint = format!("name at least the program: `{} = [\"/bin/sh\"]`", value.key);
        value.cx.error(&value.span, format!("`{}` names no program", value.key), hint);
    }
    let expand = |word: &Text| {
        let text = value.cx.expand(word)?;
        check_length(value.cx, &word.span, value.key, text.len());
        Some(text)
    };
    words.iter().map(expand).collect()
}

/// Refuses what could never be started.
fn check_length(cx: &Context<'_>, span: &Range<usize>, what: &str, length: usize) {
    if length >= MAX_ARG {
        let message = format!("`{what}` has {length} bytes, and the kernel takes {} at most", MAX_ARG - 1);
        cx.error(span, message, "put long text into a file of a source, and let the step read that");
    }
}

/// `env`: names and values of variables.
pub fn env(table: &mut Table<'_>) -> BTreeMap<String, String> {
    let cx = table.cx;
    let entries = table.take("env").and_then(|value| value.table("write `env = { NAME = \"value\" }`"));
    let mut env = BTreeMap::new();
    for entry in entries.iter().flat_map(|table| table.entries()) {
        if entry.key.is_empty() || entry.key.contains(['=', '\0']) {
            let hint = "a name has at least one character, and neither `=` nor NUL";
            cx.error(&entry.key_span, format!("`{}` cannot be the name of a variable", entry.key), hint);
        }
        let value = entry.string().and_then(|value| cx.expand(&value));
        let value = value.unwrap_or_default();
        check_length(cx, &entry.key_span, entry.key, entry.key.len() + 1 + value.len());
        env.insert(entry.key.to_string(), value);
    }
    env
}

/// `"uid:gid"`.
fn user(table: &mut Table<'_>) -> Option<(u32, u32)> {
    let text = table.string("user")?;
    let written = table.cx.expand(&text)?;
    let id = |digits: &str| {
        let good = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        good.then(|| digits.parse::<u32>().ok()).flatten().filter(|id| *id <= MAX_ID)
    };
    let ids = written.split_once(':').and_then(|(uid, gid)| Some((id(uid)?, id(gid)?)));
    if ids.is_none() {
        let hint = format!("write numbers up to {MAX_ID}: `user = \"1000:1000\"`");
        table.cx.error(&text.span, format!("`{written}` is not a user and group"), hint);
    }
    ids
}

fn network(table: &mut Table<'_>) -> Option<Network> {
    let text = table.string("network")?;
    match table.cx.expand(&text)?.as_str() {
        "none" => Some(Network::None),
        "host" => Some(Network::Host),
        other => {
            let hint = words::did_you_mean(other, ["none", "host"]);
            let hint =
                hint.unwrap_or_else(|| "write \"none\", or \"host\" for the network of this machine".into());
            table.cx.error(&text.span, format!("there is no network `{other}`"), hint);
            None
        }
    }
}
