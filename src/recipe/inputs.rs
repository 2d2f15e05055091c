//! `[sources]`, `[deps]` and `[outputs]`: what goes in beside the base, and what comes out.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use super::context::Kind;
use super::debian;
use super::model::{Base, Dep, Origin, Output, Source};
use super::reader::{Table, Text, Value};
use super::remote::{self, ORIGINS};
use super::words;
use crate::path::GuestPath;

/// Something with a name, and where the name stands.
pub struct Named<T> {
    pub value: T,
    pub span: Range<usize>,
}

/// True for `/` and what the sandbox itself provides in every step: `/proc`, `/dev`, `/sys` and all in them.
pub fn is_reserved(path: &GuestPath) -> bool {
    path.is_root() || is_in(path, &["proc", "dev", "sys"])
}

/// True where nothing of a layer is seen and nothing written becomes part of one.
fn is_outside_layers(path: &GuestPath) -> bool {
    is_in(path, &["proc", "dev", "sys", "tmp", "run", "var/tmp"])
}

fn is_in(path: &GuestPath, places: &[&str]) -> bool {
    places.iter().any(|place| GuestPath::from_relative(place).is_ok_and(|place| path.starts_with(&place)))
}

/// The tables `[<key>.NAME]`, each given to `read`.
fn named<T>(
    top: &mut Table<'_>,
    key: &'static str,
    what: &str,
    mut read: impl FnMut(&Value<'_>, &mut Table<'_>) -> Option<T>,
) -> BTreeMap<String, Named<T>> {
    let hint = format!("write one table each: `[{key}.NAME]`");
    let mut all = BTreeMap::new();
    for entry in top.take(key).and_then(|value| value.table(&hint)).iter().flat_map(|t| t.entries()) {
        let name = Text { text: entry.key.to_string(), span: entry.key_span.clone() };
        words::check_name(entry.cx, what, &name);
        let Some(mut table) = entry.table(&hint) else { continue };
        let value = read(&entry, &mut table);
        table.finish();
        if let Some(value) = value {
            all.insert(name.text, Named { value, span: name.span });
        }
    }
    all
}

/// Reads `[sources]`.
pub fn sources(top: &mut Table<'_>, base: &Base) -> BTreeMap<String, Named<Source>> {
    let cx = top.cx;
    // Places taken so far: path, whether a file is there, the name of the source.
    let mut taken: Vec<(GuestPath, bool, String)> = Vec::new();
    named(top, "sources", "a source", |entry, table| {
        let mut given: Vec<Value<'_>> = ORIGINS.into_iter().filter_map(|kind| table.take(kind)).collect();
        given.sort_by_key(|value| value.key_span.start);
        if given.is_empty() {
            let hint =
                "name a directory or file: `path = \"src\"`; or what is fetched: `url`, `git`, `debian`";
            table.missing(ORIGINS, "`path` is missing", hint);
        }
        if let [first, second, ..] = &given[..] {
            let message = format!("two origins: `{}` and `{}`", first.key, second.key);
            cx.error(&second.key_span, message, remote::origins());
        }
        let exclude = table.take("exclude").and_then(|value| value.strings()).unwrap_or_default();
        let exclude = exclude.iter().filter_map(|pattern| cx.expand(pattern)).collect();
        let (origin, place, is_file) = match given.first() {
            Some(value) if value.key == "url" => fetched(value, table),
            Some(value) => {
                let origin = match value.key {
                    "git" => remote::git(value, table),
                    "debian" => debian::source(value, table, base).map(Origin::Debian),
                    _ => value.string().and_then(|path| cx.host_path(&path, Kind::Either)).map(Origin::Path),
                };
                let is_file = matches!(&origin, Some(Origin::Path(path)) if path.is_file());
                (origin, table.required_string("unpack", PLACE), is_file)
            }
            None => (None, table.required_string("unpack", PLACE), false),
        };
        let unpack = place.and_then(|text| Some((cx.guest_path(&text)?, text.span)));
        if let Some((place, span)) = &unpack {
            check_place(cx, place, is_file, span, &taken);
            taken.push((place.clone(), is_file, entry.key.to_string()));
        }
        // The name stays known, so that a `uses` of it is not reported too.
        let origin = origin.unwrap_or_else(|| Origin::Path(PathBuf::new()));
        Some(Source { origin, exclude, unpack: unpack.unwrap_or_default().0 })
    })
}

const PLACE: &str = "say where steps see it: `unpack = \"/src\"`";

/// A `url`: an archive that is unpacked, or with `file` in place of `unpack` a file as it is. Gives the place
/// too, and whether a file is there.
fn fetched(url: &Value<'_>, table: &mut Table<'_>) -> (Option<Origin>, Option<Text>, bool) {
    let cx = table.cx;
    let remote = remote::remote(url, table);
    let strip = table.take("strip");
    let Some(file) = table.take("file") else {
        let strip = match strip.and_then(|value| Some((value.integer()?, value))) {
            None => Some(1),
            Some((strip, value)) => usize::try_from(strip).ok().filter(|strip| *strip <= 16).or_else(|| {
                let hint = "it is how many leading directories of each name are dropped: 0 to 16";
                cx.error(&value.span, format!("`strip` cannot be {strip}"), hint);
                None
            }),
        };
        let place = table.required_string("unpack", "say where it is unpacked: `unpack = \"/src\"`");
        let origin = remote.zip(strip).map(|(remote, strip)| Origin::Archive { remote, strip });
        return (origin, place, false);
    };
    for other in [table.take("unpack"), strip].into_iter().flatten() {
        let message = format!("`{}` does not go with `file`", other.key);
        cx.error(&other.key_span, message, "`file` lays the file in as it is, `unpack` unpacks it: give one");
    }
    (remote.map(Origin::File), file.string(), true)
}

fn check_place(
    cx: &super::context::Context<'_>,
    place: &GuestPath,
    is_file: bool,
    span: &Range<usize>,
    taken: &[(GuestPath, bool, String)],
) {
    if is_outside_layers(place) {
        let hint = "every step has its own /proc /dev /sys /tmp /var/tmp /run; unpack somewhere else";
        return cx.error(span, format!("a source at `{place}` would not be seen"), hint);
    }
    if place.is_root() && is_file {
        let hint = "give the whole place, with the name of the file: `unpack = \"/etc/motd\"`";
        return cx.error(span, "a file cannot be `/`", hint);
    }
    for (other, other_is_file, name) in taken {
        if place == other {
            let hint = "give each source a place of its own";
            return cx.error(span, format!("the source `{name}` is at `{place}` already"), hint);
        }
        let inside = (*other_is_file && place.starts_with(other)) || (is_file && other.starts_with(place));
        if inside {
            let hint = "a file has nothing inside; give each source a place of its own";
            let message =
                format!("`{place}` and `{other}`, the place of the source `{name}`, exclude each other");
            return cx.error(span, message, hint);
        }
    }
}

/// Reads `[deps]`.
pub fn deps(top: &mut Table<'_>, sources: &BTreeMap<String, Named<Source>>) -> BTreeMap<String, Named<Dep>> {
    let cx = top.cx;
    named(top, "deps", "a dep", |entry, table| {
        if let Some(source) = sources.get(entry.key) {
            let message = format!("`{}` is a source and a dep", entry.key);
            let line = cx.line(&source.span);
            let hint = format!("`uses` could mean both: rename this one or the source on line {line}");
            cx.error(&entry.key_span, message, hint);
        }
        let recipe = table.required_string("recipe", "name its file: `recipe = \"other.toml\"`");
        let output = table.string("output").map(|output| {
            words::check_name(cx, "an output", &output);
            output.text
        });
        let recipe = recipe.and_then(|recipe| cx.host_path(&recipe, Kind::File)).unwrap_or_default();
        Some(Dep { recipe, output: output.unwrap_or_else(|| "default".into()) })
    })
}

/// Reads `[outputs]`.
pub fn outputs(top: &mut Table<'_>) -> BTreeMap<String, Output> {
    let cx = top.cx;
    let outputs = named(top, "outputs", "an output", |_, table| {
        let text = table.required_string("from", "say what it is: `from = \"/out\"`")?;
        let from = cx.guest_path(&text)?;
        if is_outside_layers(&from) {
            let hint = "let a step write it somewhere else, such as /out";
            cx.error(&text.span, format!("what is in `{from}` never becomes part of a layer"), hint);
        }
        Some(Output { from })
    });
    outputs.into_iter().map(|(name, output)| (name, output.value)).collect()
}
