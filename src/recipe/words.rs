//! Names and lists of words.

use super::context::Context;
use super::reader::Text;
pub use crate::error::{did_you_mean, nearest};

/// `a`, `b` and `c`, each in backquotes.
pub fn list<S: AsRef<str>>(words: &[S]) -> String {
    words.iter().map(|word| format!("`{}`", word.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Reports a recipe name that is not `[a-z0-9][a-z0-9._+-]*`.
pub fn check_recipe_name(cx: &Context<'_>, name: &Text) {
    let good = is_name(&name.text) && !name.text.bytes().any(|b| b.is_ascii_uppercase());
    if !good {
        let hint = "use lower-case letters, digits and `._+-`, with a letter or digit in front";
        cx.error(&name.span, format!("`{}` cannot be the name of a recipe", name.text), hint);
    }
}

/// Reports a name of a step, source, dep, output or secret that is not `[A-Za-z0-9][A-Za-z0-9._+-]*`.
pub fn check_name(cx: &Context<'_>, what: &str, name: &Text) {
    if !is_name(&name.text) {
        let hint = "use letters, digits and `._+-`, with a letter or digit in front";
        cx.error(&name.span, format!("`{}` cannot be the name of {what}", name.text), hint);
    }
}

fn is_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(is_name("a") && is_name("0.1+x_y-Z"));
        assert!(!is_name("") && !is_name(".a") && !is_name("a:b") && !is_name("a/b") && !is_name("é"));
    }
}
