//! `mounts`: caches, private memory and secrets over the stack of a step.

use super::inputs;
use super::model::Mount;
use super::reader::{Table, Text, Value};
use super::words;

const KINDS: &str = "write one of `{ cache = \"/place\" }`, `{ tmpfs = \"/place\" }`, `{ secret = \"NAME\", at = \"/place\" }`";

/// Reads the mounts of a step, sorted by place.
pub fn read(step: &mut Table<'_>, recipe: &str) -> Vec<Mount> {
    let cx = step.cx;
    let items =
        step.take("mounts").and_then(|value| value.array("write `mounts = [{ cache = \"/place\" }]`"));
    let mut mounts: Vec<Mount> = Vec::new();
    for item in items.unwrap_or_default() {
        let Some((mount, place)) = item.table(KINDS).and_then(|table| read_one(table, recipe)) else {
            continue;
        };
        let at = mount.at();
        if inputs::is_reserved(at) {
            let hint = "choose another place; /, /proc, /dev and /sys are the sandbox's own";
            cx.error(&place.span, format!("nothing can be mounted at `{at}`"), hint);
        } else if mounts.iter().any(|other| other.at() == at) {
            cx.error(&place.span, format!("two mounts at `{at}`"), "give each mount a place of its own");
        } else if let Some(file) = mounts.iter().find(|other| nests_in_file(other, &mount)) {
            let message = format!("`{at}` and `{}` cannot both be: one is in a secret's file", file.at());
            cx.error(&place.span, message, "put them side by side");
        }
        mounts.push(mount);
    }
    mounts.sort_by(|a, b| a.at().cmp(b.at()));
    mounts
}

/// True when one lies below the other, which is a secret and so a file.
fn nests_in_file(a: &Mount, b: &Mount) -> bool {
    let below = |outer: &Mount, inner: &Mount| {
        matches!(outer, Mount::Secret { .. }) && inner.at().starts_with(outer.at())
    };
    below(a, b) || below(b, a)
}

fn read_one(mut table: Table<'_>, recipe: &str) -> Option<(Mount, Text)> {
    let cx = table.cx;
    let span = table.span.clone();
    let kinds = ["cache", "tmpfs", "secret"];
    let mut given: Vec<Value<'_>> = kinds.into_iter().filter_map(|kind| table.take(kind)).collect();
    given.sort_by_key(|value| value.key_span.start);
    let (id, at) = (table.take("id"), table.take("at"));
    if given.is_empty() {
        table.missing(kinds, "the mount is of no known kind", KINDS);
    }
    table.finish();
    let kind = given.first()?;
    if let Some(second) = given.get(1) {
        cx.error(&second.key_span, format!("one mount is both `{}` and `{}`", kind.key, second.key), KINDS);
        return None;
    }
    if let Some(id) = id.as_ref().filter(|_| kind.key != "cache") {
        cx.error(&id.key_span, format!("a {} has no `id`", kind.key), "only caches have one; take it out");
    }
    if let Some(at) = at.as_ref().filter(|_| kind.key != "secret") {
        let hint = format!("the place is the value of `{}`; take `at` out", kind.key);
        cx.error(&at.key_span, format!("a {} has no `at`", kind.key), hint);
    }
    let text = kind.string()?;
    match kind.key {
        "cache" => {
            let at = cx.guest_path(&text)?;
            let id = match id {
                Some(id) => cache_id(&id)?,
                None => format!("{recipe}:{at}"),
            };
            Some((Mount::Cache { at, id }, text))
        }
        "tmpfs" => Some((Mount::Tmpfs { at: cx.guest_path(&text)? }, text)),
        _ => {
            words::check_name(cx, "a secret", &text);
            let Some(at) = at else {
                let hint = format!(
                    "say where its file is: `{{ secret = \"{0}\", at = \"/run/secrets/{0}\" }}`",
                    text.text
                );
                cx.error(&span, format!("the secret `{}` has no place", text.text), hint);
                return None;
            };
            let place = at.string()?;
            Some((Mount::Secret { at: cx.guest_path(&place)?, name: text.text }, place))
        }
    }
}

fn cache_id(value: &Value<'_>) -> Option<String> {
    let text = value.string()?;
    let id = value.cx.expand(&text)?;
    if id.is_empty() {
        value.cx.error(&text.span, "the `id` of a cache is empty", "name it, or leave `id` out");
    }
    Some(id)
}
