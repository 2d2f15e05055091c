//! What the TOML parser says, in the form of all other mistakes.

use super::context::Context;

const DUPLICATE: &str = "duplicate key";

/// Notes what the parser refused. Behind a broken value everything may look broken, so only the first counts;
/// but keys that are there twice are independent of each other.
pub fn report(cx: &Context<'_>, errors: &[toml::de::Error]) {
    for (at, error) in errors.iter().enumerate() {
        if at == 0 || (error.message() == DUPLICATE && errors[0].message() == DUPLICATE) {
            let span = error.span().unwrap_or(0..0);
            let (message, hint) = explain(error.message(), cx.source(&span));
            cx.error(&span, message, hint);
        }
    }
}

/// Message and hint. The parser's text is `<problem>[, expected <list>]`; `found` is what it points at.
fn explain(said: &str, found: &str) -> (String, String) {
    let (problem, expected) = said.split_once(", expected ").unwrap_or((said, ""));
    let hint = match (problem, expected) {
        (DUPLICATE, _) => {
            let hint = "a key or table may be there once: join the two, or rename one";
            return (format!("`{found}` is there twice"), hint.into());
        }
        ("string values must be quoted", _) if found.trim().is_empty() => {
            return ("syntax error: a value is missing".into(), "write one behind the `=`".into());
        }
        ("string values must be quoted", _) => format!("put it in quotes: `\"{found}\"`"),
        ("invalid basic string", _) if found.is_empty() => {
            "a string ends on its own line with `\"`; one of several lines stands in `\"\"\"`".into()
        }
        ("missing escaped value", _) => "a backslash itself is written `\\\\`, or the text in `'…'`".into(),
        (_, "") => "the file must be TOML: text in quotes, lists in `[ ]`, one `key = value` a line".into(),
        (_, "nothing") => "take it out".into(),
        (_, expected) => format!("TOML wants {expected} here"),
    };
    (format!("syntax error: {problem}"), hint)
}
