//! `[image]`: what runs when the finished stack, or an output, has become a container image.

use std::collections::{BTreeMap, BTreeSet};

use super::context::Context;
use super::limits;
use super::model::{Healthcheck, Image, Output};
use super::reader::{Table, Text, Value};
use super::{step, words};
use crate::path::GuestPath;

/// Reads the table. `outputs` are those of the recipe.
pub fn read(top: &mut Table<'_>, outputs: &BTreeMap<String, Output>) -> Image {
    let hint = "write `[image]` and below it `entrypoint = [\"/usr/bin/prog\"]`, for example";
    let Some(mut table) = top.take("image").and_then(|value| value.table(hint)) else {
        return Image::default();
    };
    let cx = table.cx;
    let image = Image {
        output: table.string("output").and_then(|name| output(cx, name, outputs)),
        entrypoint: table.take("entrypoint").and_then(|value| command(&value)),
        cmd: table.take("cmd").and_then(|value| command(&value)),
        env: step::env(&mut table),
        user: table.string("user").and_then(|text| user(cx, &text)),
        workdir: table.string("workdir").and_then(|text| cx.guest_path(&text)),
        labels: labels(&mut table),
        ports: table.take("ports").map(|value| ports(&value)).unwrap_or_default(),
        volumes: table.take("volumes").map(|value| volumes(&value)).unwrap_or_default(),
        stop_signal: table.string("stop-signal").and_then(|text| signal(cx, &text)),
        healthcheck: table.take("healthcheck").and_then(|value| healthcheck(&value)),
        author: table.string("author").and_then(|text| cx.expand(&text)),
    };
    table.finish();
    image
}

fn output(cx: &Context<'_>, name: Text, outputs: &BTreeMap<String, Output>) -> Option<String> {
    if outputs.contains_key(&name.text) {
        return Some(name.text);
    }
    let known: Vec<&String> = outputs.keys().collect();
    let hint = words::did_you_mean(&name.text, known.iter().map(|n| n.as_str()));
    let hint = hint.unwrap_or_else(|| match known.len() {
        0 => "the recipe has no outputs; the image has the finished stack in it".into(),
        _ => format!("the recipe has {}", words::list(&known)),
    });
    cx.error(&name.span, format!("there is no output `{}`", name.text), hint);
    None
}

/// A program and its arguments, or nothing; a string would need a shell that may not be there.
fn command(value: &Value<'_>) -> Option<Vec<String>> {
    let words = value.strings()?;
    if words.first().is_some_and(|word| word.text.is_empty()) {
        let hint = format!("name the program: `{} = [\"/usr/bin/prog\"]`", value.key);
        value.cx.error(&words[0].span, format!("`{}` names no program", value.key), hint);
    }
    words.iter().map(|word| value.cx.expand(word)).collect()
}

/// `user`, `uid`, `user:group` or `uid:gid`, as the image specification has it.
fn user(cx: &Context<'_>, text: &Text) -> Option<String> {
    let written = cx.expand(text)?;
    let part = |name: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        !name.is_empty() && name.bytes().all(plain) && !name.starts_with('-')
    };
    let parts: Vec<&str> = written.split(':').collect();
    if parts.len() > 2 || !parts.iter().all(|name| part(name)) {
        let hint =
            "write a name or number, perhaps with a group: `user = \"1000:1000\"`, `user = \"www-data\"`";
        cx.error(&text.span, format!("`{written}` is not a user"), hint);
    }
    Some(written)
}

fn labels(image: &mut Table<'_>) -> BTreeMap<String, String> {
    let cx = image.cx;
    let hint = "write `labels = { \"org.opencontainers.image.title\" = \"hello\" }`";
    let table = image.take("labels").and_then(|value| value.table(hint));
    let mut labels = BTreeMap::new();
    for entry in table.iter().flat_map(|table| table.entries()) {
        if entry.key.is_empty() {
            cx.error(&entry.key_span, "a label has no name", "give it one, such as `maintainer`");
        } else if entry.key.starts_with(RESERVED) {
            let hint = "isolith says there what made the image; choose another name";
            cx.error(&entry.key_span, format!("labels named `{RESERVED}…` are isolith's own"), hint);
        }
        if let Some(value) = entry.string().and_then(|value| cx.expand(&value)) {
            labels.insert(entry.key.to_string(), value);
        }
    }
    labels
}

/// What the names of isolith's own labels begin with.
const RESERVED: &str = "dev.isolith.";

/// `8080` or `"53/udp"`; the protocol is always said in the end, so that one port has one form.
fn ports(value: &Value<'_>) -> BTreeSet<String> {
    let hint = "write a list: `ports = [8080, \"53/udp\"]`";
    let mut ports = BTreeSet::new();
    for item in value.array(hint).unwrap_or_default() {
        let (written, span) = if item.is_integer() {
            match item.integer() {
                Some(number) => (number.to_string(), item.span.clone()),
                None => continue,
            }
        } else {
            let Some(text) = item.string() else { continue };
            let Some(written) = item.cx.expand(&text) else { continue };
            (written, text.span)
        };
        let (number, protocol) = written.split_once('/').unwrap_or((&written, "tcp"));
        let digits = number.bytes().all(|b| b.is_ascii_digit());
        let port = number.parse::<u16>().ok().filter(|port| digits && *port > 0);
        match port.filter(|_| ["tcp", "udp", "sctp"].contains(&protocol)) {
            Some(port) => drop(ports.insert(format!("{port}/{protocol}"))),
            None => {
                let hint = "a number from 1 to 65535, perhaps with `/tcp`, `/udp` or `/sctp`";
                item.cx.error(&span, format!("`{written}` is not a port"), hint);
            }
        }
    }
    ports
}

fn volumes(value: &Value<'_>) -> BTreeSet<GuestPath> {
    let mut volumes = BTreeSet::new();
    for text in value.strings().unwrap_or_default() {
        let Some(path) = value.cx.guest_path(&text) else { continue };
        if path.is_root() {
            value.cx.error(&text.span, "`/` cannot be a volume", "name a directory of the image");
        }
        volumes.insert(path);
    }
    volumes
}

/// A name as signal(7) has it, or a number.
fn signal(cx: &Context<'_>, text: &Text) -> Option<String> {
    let written = cx.expand(text)?;
    let real_time = |name: &str| {
        let rest = name.strip_prefix("SIGRTMIN+").or_else(|| name.strip_prefix("SIGRTMAX-"));
        name == "SIGRTMIN"
            || name == "SIGRTMAX"
            || rest.is_some_and(|n| n.parse::<u8>().is_ok_and(|n| n <= 30))
    };
    let number = written.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number));
    if !number && !real_time(&written) && written.parse::<nix::sys::signal::Signal>().is_err() {
        let names = nix::sys::signal::Signal::iterator().map(|signal| signal.as_str());
        let hint = words::did_you_mean(&written, names)
            .unwrap_or_else(|| "write a name such as \"SIGTERM\" or \"SIGRTMIN+3\"".into());
        cx.error(&text.span, format!("`{written}` is not a signal"), hint);
    }
    Some(written)
}

fn healthcheck(value: &Value<'_>) -> Option<Healthcheck> {
    let hint = "write `healthcheck = { test = \"curl -f http://localhost/\", interval = \"30s\" }`";
    let mut table = value.table(hint)?;
    let hint = "say what is run: `test = \"text for the shell\"`, or `test = [\"prog\", \"arg\"]`";
    let test = table.required("test", hint).and_then(|test| match test.is_array() {
        true => command(&test).map(|words| match words.is_empty() {
            true => vec!["NONE".to_string()],
            false => [vec!["CMD".to_string()], words].concat(),
        }),
        false => {
            let text = test.string()?;
            Some(vec!["CMD-SHELL".to_string(), test.cx.expand(&text)?])
        }
    });
    let mut time = |key| table.take(key).and_then(|value| limits::time(&value));
    let (interval, timeout, start_period) = (time("interval"), time("timeout"), time("start-period"));
    let retries = table.take("retries").and_then(|value| {
        let retries = u32::try_from(value.integer()?).ok().filter(|n| *n > 0);
        if retries.is_none() {
            value.cx.error(&value.span, "`retries` must be above zero", "write a whole number such as 3");
        }
        retries
    });
    table.finish();
    Some(Healthcheck { test: test?, interval, timeout, start_period, retries })
}
