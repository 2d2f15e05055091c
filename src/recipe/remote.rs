//! What is fetched: `url` with its digests, and `git`.

use super::context::{Context, Kind};
use super::model::{Git, GitRef, Origin, Remote};
use super::reader::{Table, Text, Value};
use super::words;
use crate::source::{Algorithm, Pin, Url};

const FORM: &str = "write `url = \"https://…\"`, or a list with the mirrors behind the first";

/// The file that `url` and the digests of `table` name.
pub fn remote(url: &Value<'_>, table: &mut Table<'_>) -> Option<Remote> {
    let cx = url.cx;
    let texts = if url.is_array() { url.strings()? } else { vec![url.string()?] };
    if texts.is_empty() {
        cx.error(&url.span, "`url` names nothing", FORM);
    }
    let mut urls = Vec::new();
    for text in &texts {
        let Some(url) = cx.expand(text) else { continue };
        match Url::parse(&url) {
            Ok(parsed) if urls.contains(&parsed.to_string()) => {
                cx.error(&text.span, format!("`{parsed}` is listed twice"), "take one of the two out");
            }
            Ok(parsed) => urls.push(parsed.to_string()),
            Err(why) => {
                let hint = "give a URL such as https://example.org/hello-1.0.tar.gz or file:///srv/hello.tar";
                cx.error(&text.span, format!("`{url}`: {why}"), hint);
            }
        }
    }
    let pin = digest(table, &Algorithm::ALL);
    Some(Remote { urls, pin })
}

/// The digest that a table gives; at most one of `allowed`.
pub fn digest(table: &mut Table<'_>, allowed: &[Algorithm]) -> Option<Pin> {
    let cx = table.cx;
    let mut given: Vec<(Algorithm, Value<'_>)> =
        allowed.iter().filter_map(|algorithm| Some((*algorithm, table.take(algorithm.name())?))).collect();
    given.sort_by_key(|(_, value)| value.key_span.start);
    if let [(_, first), (_, second), ..] = &given[..] {
        let message = format!("two digests: `{}` and `{}`", first.key, second.key);
        cx.error(&second.key_span, message, "one is enough: take the others out");
    }
    let (algorithm, value) = given.into_iter().next()?;
    let text = value.string()?;
    let pin = Pin::new(algorithm, &cx.expand(&text)?);
    if pin.is_none() {
        let name = algorithm.name();
        let shown = name.to_ascii_uppercase().replace("SHA", "SHA-");
        let program = if algorithm == Algorithm::Blake3 { "b3sum" } else { &format!("{name}sum") };
        let hint = format!("give {} hexadecimal digits, as `{program}` prints them", algorithm.digits());
        cx.error(&text.span, format!("this is not a {shown} digest"), hint);
    }
    pin
}

/// A git repository and what of it is wanted.
pub fn git(url: &Value<'_>, table: &mut Table<'_>) -> Option<Origin> {
    let cx = url.cx;
    let kinds = ["rev", "tag", "branch"];
    let mut given: Vec<Value<'_>> = kinds.into_iter().filter_map(|kind| table.take(kind)).collect();
    given.sort_by_key(|value| value.key_span.start);
    let submodules = table.take("submodules").and_then(|value| value.boolean()).unwrap_or_default();
    if given.is_empty() {
        let hint = "say which: `rev = \"<commit>\"`, or `tag` or `branch`, which `isolith lock` pins";
        table.missing(kinds, "the commit is missing", hint);
    }
    if let [first, second, ..] = &given[..] {
        let message = format!("two commits: `{}` and `{}`", first.key, second.key);
        cx.error(&second.key_span, message, "give one of `rev`, `tag` and `branch`");
    }
    let url = url.string().and_then(|text| Some((repository(cx, &text)?, cx.expand(&text)?)));
    let which = given.into_iter().next()?;
    let text = which.string()?;
    let name = cx.expand(&text)?;
    let at = match which.key {
        "rev" => {
            let hex = matches!(name.len(), 40 | 64) && name.bytes().all(|b| b.is_ascii_hexdigit());
            if !hex {
                let hint = "give the whole commit id, 40 hexadecimal digits; or use `tag` or `branch`";
                cx.error(&text.span, format!("`{name}` is not a commit id"), hint);
            }
            GitRef::Rev(name.to_ascii_lowercase())
        }
        key => {
            if !is_ref(&name) {
                let message = format!("`{name}` cannot be the name of a {key}");
                cx.error(&text.span, message, "give its name without `refs/…` in front");
            }
            if key == "tag" { GitRef::Tag(name) } else { GitRef::Branch(name) }
        }
    };
    let (url, written) = url?;
    Some(Origin::Git(Git { url, written, at, submodules }))
}

/// A repository as git takes it. Only kinds of transport that run no program of the repository's choice.
fn repository(cx: &Context<'_>, text: &Text) -> Option<String> {
    let url = cx.expand(text)?;
    let hint = "give a https, http, ssh, git or file URL, or a directory of this machine";
    let plain = !url.starts_with('-') && !url.bytes().any(|b| b.is_ascii_control() || b == b' ');
    match url.split_once("://") {
        _ if !plain => {}
        Some(("http" | "https" | "file", _)) => match Url::parse(&url) {
            Ok(_) => return Some(url),
            Err(why) => {
                cx.error(&text.span, format!("`{url}`: {why}"), hint);
                return None;
            }
        },
        Some(("ssh" | "git", rest)) if !rest.is_empty() && !rest.starts_with('-') => return Some(url),
        None if !url.contains(':') => {
            let path = cx.host_path(text, Kind::Directory)?;
            return path.to_str().map(str::to_string);
        }
        // user@host:path
        None if !url.contains("::") && url.find(':') < url.find('/') => return Some(url),
        _ => {}
    }
    cx.error(&text.span, format!("`{url}` is not a git repository that can be used"), hint);
    None
}

/// The part of git-check-ref-format(1) that keeps a name from being read as something else.
fn is_ref(name: &str) -> bool {
    let odd = |c: char| c.is_ascii_control() || " ~^:?*[\\\u{7f}".contains(c);
    !name.is_empty()
        && !name.starts_with(['-', '/', '.'])
        && !name.starts_with("refs/")
        && !name.ends_with(['/', '.'])
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains("//")
        && !name.contains(odd)
}

/// Names of the origins, for messages.
pub const ORIGINS: [&str; 4] = ["path", "url", "git", "debian"];

/// "exactly one of `path`, `url`, …".
pub fn origins() -> String {
    format!("give exactly one of {}", words::list(&ORIGINS))
}
