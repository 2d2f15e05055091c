//! `[base]`: what the steps start from.

use std::path::Path;

use super::container;
use super::context::Kind;
use super::debian;
use super::inputs;
use super::model::Base;
use super::reader::{Table, Value};
use super::remote;
use crate::path::GuestPath;
use crate::source::Algorithm;

const KINDS: &str = "give exactly one of `scratch`, `host`, `dir`, `tar`, `oci`, `oci-layout`, `docker-archive`, `debian`, `recipe`";

/// Reads the base. Where it is broken something harmless stands in for it.
pub fn read(top: &mut Table<'_>) -> Base {
    let hint = "add `[base]` with one of `scratch = true`, `host`, `dir`, `tar`, `oci`, `debian`, `recipe`";
    let Some(value) = top.required("base", hint) else { return Base::Scratch };
    let Some(mut table) = value.table("write `[base]` and below it `scratch = true`, for example") else {
        return Base::Scratch;
    };
    let cx = table.cx;
    let kinds = ["scratch", "host", "dir", "tar", "oci", "oci-layout", "docker-archive", "debian", "recipe"];
    let mut given: Vec<Value<'_>> = kinds.into_iter().filter_map(|kind| table.take(kind)).collect();
    given.sort_by_key(|value| value.key_span.start);
    if given.is_empty() {
        table.missing(kinds, "the base is of no known kind", KINDS);
    }
    table.finish();
    if let [first, second, ..] = &given[..] {
        let message = format!("two bases: `{}` and `{}`", first.key, second.key);
        cx.error(&second.key_span, message, KINDS);
    }
    given.first().and_then(read_kind).unwrap_or(Base::Scratch)
}

fn read_kind(value: &Value<'_>) -> Option<Base> {
    let cx = value.cx;
    match value.key {
        "scratch" => {
            if !value.boolean()? {
                cx.error(&value.span, "`scratch` can only be true", KINDS);
            }
            Some(Base::Scratch)
        }
        "host" => host(value),
        "dir" => Some(Base::Dir { path: cx.host_path(&value.string()?, Kind::Directory)? }),
        "tar" => tar(value),
        "oci" | "oci-layout" | "docker-archive" => container::read(value),
        "debian" => debian::read(value).map(Base::Debian),
        _ => Some(Base::Recipe { path: cx.host_path(&value.string()?, Kind::File)? }),
    }
}

fn host(value: &Value<'_>) -> Option<Base> {
    let cx = value.cx;
    let texts = value.strings()?;
    if texts.is_empty() {
        let hint = "name the directories to show: `host = [\"/usr\", \"/bin\", \"/lib\", \"/lib64\"]`";
        cx.error(&value.span, "`host` shows nothing", hint);
    }
    let mut paths: Vec<GuestPath> = Vec::new();
    for text in &texts {
        let Some(path) = cx.guest_path(text) else { continue };
        if inputs::is_reserved(&path) {
            let hint = "name the directories that hold programs, such as `/usr` and `/bin`";
            cx.error(&text.span, format!("the `host` base cannot show `{path}`"), hint);
        } else if paths.contains(&path) {
            cx.error(&text.span, format!("`{path}` is listed twice"), "take one of the two out");
        } else if let Err(why) = Path::new("/").join(path.as_relative()).symlink_metadata() {
            let hint = "take it out, or install what should be there";
            cx.error(&text.span, format!("the `host` base cannot show `{path}`: {why}"), hint);
        }
        paths.push(path);
    }
    paths.sort();
    Some(Base::Host { paths })
}

fn tar(value: &Value<'_>) -> Option<Base> {
    let cx = value.cx;
    let mut table = value.table("write `tar = { path = \"rootfs.tar.gz\" }`")?;
    let (path, url) = (table.take("path"), table.take("url"));
    if path.is_none() && url.is_none() {
        let hint = "name the archive: `tar = { path = \"rootfs.tar.gz\" }`, or `url`";
        table.missing(["path", "url"], "`path` is missing", hint);
    }
    if let (Some(path), Some(url)) = (&path, &url) {
        let second = if path.key_span.start > url.key_span.start { path } else { url };
        cx.error(&second.key_span, "two archives: `path` and `url`", "take one of the two out");
    }
    if let Some(url) = url {
        let remote = remote::remote(&url, &mut table);
        table.finish();
        return Some(Base::Fetched(remote?));
    }
    let pin = remote::digest(&mut table, &[Algorithm::Sha256]);
    table.finish();
    let path = path?.string()?;
    let line = cx.line(&path.span);
    let path = cx.host_path(&path, Kind::File)?;
    Some(Base::Tar { path, line, sha256: pin.map(|pin| pin.hex().to_string()) })
}
