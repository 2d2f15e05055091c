//! `[args]`, `--set`, and the replacement of `${NAME}`.

use std::collections::BTreeMap;

use super::reader::Table;
use super::words;

/// The arguments in force: the defaults with `set` over them.
pub fn read(top: &mut Table<'_>, set: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let cx = top.cx;
    let table =
        top.take("args").and_then(|value| value.table("write `[args]` and below it `NAME = \"value\"`"));
    let place = table.as_ref().map_or(0..0, |table| table.span.clone());
    let mut args = BTreeMap::new();
    for entry in table.iter().flat_map(|table| table.entries()) {
        if !is_arg_name(entry.key) {
            let hint =
                "use letters, digits and `_`, with no digit in front, so that `${NAME}` can refer to it";
            cx.error(&entry.key_span, format!("`{}` cannot be the name of an argument", entry.key), hint);
        }
        // A broken one is declared all the same: its uses are not mistakes of their own.
        args.insert(entry.key.to_string(), entry.string().map(|value| value.text).unwrap_or_default());
    }
    for (name, value) in set {
        if let Some(current) = args.get_mut(name) {
            current.clone_from(value);
            continue;
        }
        let hint = words::did_you_mean(name, args.keys().map(String::as_str));
        let hint = hint.unwrap_or_else(|| declared(&args));
        cx.error(&place, format!("`--set {name}`: the recipe has no argument of that name"), hint);
    }
    args
}

fn declared(args: &BTreeMap<String, String>) -> String {
    match args.len() {
        0 => "it has none; declare it with its default under `[args]`".into(),
        _ => format!("its arguments are {}", words::list(&args.keys().collect::<Vec<_>>())),
    }
}

fn is_arg_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A `${…}` that is not an argument.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown {
    /// All of it, `${` and `}` included.
    pub text: String,
}

impl Unknown {
    /// Message and hint.
    pub fn explain(&self, args: &BTreeMap<String, String>) -> (String, String) {
        let name = self.text.trim_start_matches("${").trim_end_matches('}');
        let near = words::nearest(name, args.keys().map(String::as_str));
        let hint = match near {
            Some(near) => format!("did you mean `${{{near}}}`?"),
            None => format!("declare it under `[args]`, or write `${}` for the text itself", self.text),
        };
        (format!("`{}` is not an argument of this recipe", self.text), hint)
    }
}

/// Replaces every `${NAME}`; `$${` becomes the text `${`.
pub fn expand(text: &str, args: &BTreeMap<String, String>) -> Result<String, Unknown> {
    let value = |piece| match piece {
        Piece::Text(text) => Ok(text),
        Piece::Reference { name, whole, .. } => match args.get(name) {
            Some(value) => Ok(value.as_str()),
            None => Err(Unknown { text: whole.to_string() }),
        },
    };
    pieces(text).into_iter().map(value).collect()
}

/// The same for shell text, where a `${…}` that is not an argument is the shell's own.
pub fn expand_shell(text: &str, args: &BTreeMap<String, String>) -> String {
    let value = |piece| match piece {
        Piece::Text(text) => text,
        Piece::Reference { name, written, .. } => args.get(name).map_or(written, String::as_str),
    };
    pieces(text).into_iter().map(value).collect()
}

/// A part of a text with references in it.
enum Piece<'a> {
    Text(&'a str),
    /// `whole` is the `${…}`; `written` the part of it this piece stands for: all of it, or only the `${`
    /// when what is inside is not a name, since a reference may start in there.
    Reference {
        name: &'a str,
        whole: &'a str,
        written: &'a str,
    },
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            pieces.extend([Piece::Text(before), Piece::Text("${")]);
            rest = &reference[2..];
            continue;
        }
        let whole = reference.find('}').map_or(reference, |end| &reference[..=end]);
        let name = whole[2..].trim_end_matches('}');
        let written = if is_arg_name(name) && whole.ends_with('}') { whole } else { "${" };
        pieces.extend([Piece::Text(before), Piece::Reference { name, whole, written }]);
        rest = &reference[written.len()..];
    }
    pieces.push(Piece::Text(rest));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> BTreeMap<String, String> {
        [("A", "1"), ("LEVEL", "${A}")].map(|(k, v)| (k.to_string(), v.to_string())).into()
    }

    #[test]
    fn values_are_put_in_once() {
        assert_eq!(expand("-O${A}/${A}", &args()).unwrap(), "-O1/1");
        assert_eq!(expand("${LEVEL}", &args()).unwrap(), "${A}");
        assert_eq!(expand("$A $$ $", &args()).unwrap(), "$A $$ $");
        assert_eq!(expand("$${A} $${B:-x}", &args()).unwrap(), "${A} ${B:-x}");
    }

    #[test]
    fn strangers_are_refused_outside_the_shell() {
        for text in ["${B}", "${A:-1}", "${", "x ${a"] {
            assert!(expand(text, &args()).is_err(), "{text}");
            assert_eq!(expand_shell(text, &args()), text);
        }
        assert_eq!(expand_shell("${B:-${A}} ${A}", &args()), "${B:-1} 1");
        assert_eq!(expand_shell("é${A}é$${HOME}", &args()), "é1é${HOME}");
    }
}
