//! Tables and values of the TOML tree, read key by key with their places.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::context::Context;
use super::words;

/// A string and where it stands.
#[derive(Debug, Clone)]
pub struct Text {
    pub text: String,
    pub span: Range<usize>,
}

/// One table. Keys are known by having been asked for; `finish` reports all others.
pub struct Table<'a> {
    pub cx: &'a Context<'a>,
    /// Its header, or the braces of an inline table.
    pub span: Range<usize>,
    map: &'a DeTable<'a>,
    known: Vec<&'static str>,
    missing: Vec<Missing>,
}

/// What is not there: reported at the end, and only if no unknown key looks like a misspelling of it.
struct Missing {
    keys: Vec<&'static str>,
    message: String,
    hint: String,
}

/// One value and the key it belongs to.
#[derive(Clone)]
pub struct Value<'a> {
    pub cx: &'a Context<'a>,
    pub key: &'a str,
    pub key_span: Range<usize>,
    pub span: Range<usize>,
    value: &'a DeValue<'a>,
}

impl<'a> Table<'a> {
    /// The whole file.
    pub fn top(cx: &'a Context<'a>, map: &'a DeTable<'a>) -> Self {
        Self { cx, span: 0..0, map, known: Vec::new(), missing: Vec::new() }
    }

    /// The value of a key that may be missing.
    pub fn take(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.known.push(key);
        let (name, value) = self.map.get_key_value(key)?;
        Some(Value::new(self.cx, name, value))
    }

    /// The value of a key that must be there.
    pub fn required(&mut self, key: &'static str, hint: &str) -> Option<Value<'a>> {
        let value = self.take(key);
        if value.is_none() {
            self.missing([key], format!("`{key}` is missing"), hint);
        }
        value
    }

    /// Notes that none of several keys is there, where one is needed.
    pub fn missing(
        &mut self,
        keys: impl Into<Vec<&'static str>>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.missing.push(Missing { keys: keys.into(), message: message.into(), hint: hint.into() });
    }

    /// A string that may be missing.
    pub fn string(&mut self, key: &'static str) -> Option<Text> {
        self.take(key)?.string()
    }

    /// A string that must be there.
    pub fn required_string(&mut self, key: &'static str, hint: &str) -> Option<Text> {
        self.required(key, hint)?.string()
    }

    /// Every entry, for tables whose keys are the user's names.
    pub fn entries(&self) -> Vec<Value<'a>> {
        let mut entries: Vec<_> = self.map.iter().map(|(k, v)| Value::new(self.cx, k, v)).collect();
        entries.sort_by_key(|entry| entry.key_span.start);
        entries
    }

    /// Reports what is missing, and the keys nobody asked for.
    pub fn finish(self) {
        let mut unknown = self.entries();
        unknown.retain(|entry| !self.known.contains(&entry.key));
        for entry in &unknown {
            let hint = words::did_you_mean(entry.key, self.known.iter().copied());
            let hint = hint.unwrap_or_else(|| match entry.key {
                // In TOML all that follows a header belongs to it: easily forgotten, and hard to see.
                "version" | "epoch" | "name" => format!("`{}` goes above the first `[table]`", entry.key),
                _ => format!("valid here: {}", words::list(&self.known)),
            });
            self.cx.error(&entry.key_span, format!("unknown key `{}`", entry.key), hint);
        }
        for Missing { keys, message, hint } in self.missing {
            let misspelled = |entry: &Value<'_>| words::nearest(entry.key, keys.iter().copied()).is_some();
            if !unknown.iter().any(misspelled) {
                self.cx.error(&self.span, message, hint);
            }
        }
    }
}

impl<'a> Value<'a> {
    fn new(
        cx: &'a Context<'a>,
        key: &'a toml::Spanned<std::borrow::Cow<'a, str>>,
        value: &'a toml::Spanned<DeValue<'a>>,
    ) -> Self {
        Self { cx, key: key.get_ref(), key_span: key.span(), span: value.span(), value: value.get_ref() }
    }

    fn wrong_type<T>(&self, expected: &str, hint: impl Into<String>) -> Option<T> {
        let found = with_article(self.value.type_str());
        self.cx.error(&self.span, format!("`{}`: expected {expected}, found {found}", self.key), hint);
        None
    }

    /// The string; never one with a NUL, which no path, argument or variable can have.
    pub fn string(&self) -> Option<Text> {
        match self.value.as_str() {
            None if self.value.is_array() || self.value.is_table() => {
                self.wrong_type("a string", "write one text in quotes: `\"…\"`")
            }
            None => {
                let quoted = format!("put it in quotes: `\"{}\"`", self.cx.source(&self.span));
                self.wrong_type("a string", quoted)
            }
            Some(text) if text.contains('\0') => {
                self.cx.error(&self.span, format!("`{}` has a NUL character in it", self.key), "take it out");
                None
            }
            // An editor's line ends are no part of a script; a `\r` that is written as an escape is.
            Some(text) if self.cx.source(&self.span).contains("\r\n") => {
                Some(Text { text: text.replace("\r\n", "\n"), span: self.span.clone() })
            }
            Some(text) => Some(Text { text: text.to_string(), span: self.span.clone() }),
        }
    }

    /// The integer.
    pub fn integer(&self) -> Option<i64> {
        let Some(digits) = self.value.as_integer() else {
            return self.wrong_type("an integer", "write a whole number without quotes");
        };
        let number = i64::from_str_radix(digits.as_str(), digits.radix()).ok();
        if number.is_none() {
            self.cx.error(
                &self.span,
                format!("`{}` is too large", self.key),
                format!("at most {}", i64::MAX),
            );
        }
        number
    }

    /// The number, whole or not.
    pub fn number(&self) -> Option<f64> {
        match self.value {
            DeValue::Integer(_) => self.integer().map(|n| n as f64),
            // The parser has seen to it that this is a float.
            DeValue::Float(digits) => digits.as_str().parse().ok().or(Some(f64::NAN)),
            _ => self.wrong_type("a number", "write a number without quotes, such as 2 or 1.5"),
        }
    }

    /// The truth value.
    pub fn boolean(&self) -> Option<bool> {
        let value = self.value.as_bool();
        value.or_else(|| self.wrong_type("true or false", format!("write `{} = true`", self.key)))
    }

    /// True for an integer.
    pub fn is_integer(&self) -> bool {
        self.value.is_integer()
    }

    /// True for an array.
    pub fn is_array(&self) -> bool {
        self.value.is_array()
    }

    /// Whether it is a table.
    pub fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// The elements of the array.
    pub fn array(&self, hint: &str) -> Option<Vec<Value<'a>>> {
        let Some(items) = self.value.as_array() else { return self.wrong_type("an array", hint) };
        let item = |item: &'a toml::Spanned<DeValue<'a>>| Value {
            span: item.span(),
            value: item.get_ref(),
            ..self.clone()
        };
        Some(items.iter().map(item).collect())
    }

    /// The strings of the array; what is not a string is reported and left out.
    pub fn strings(&self) -> Option<Vec<Text>> {
        let items = self.array(&format!("write a list of strings: `{} = [\"…\"]`", self.key))?;
        Some(items.iter().filter_map(Value::string).collect())
    }

    /// The table.
    pub fn table(&self, hint: &str) -> Option<Table<'a>> {
        let Some(map) = self.value.as_table() else { return self.wrong_type("a table", hint) };
        Some(Table { cx: self.cx, span: self.span.clone(), map, known: Vec::new(), missing: Vec::new() })
    }
}

fn with_article(kind: &str) -> String {
    match kind {
        "integer" | "array" => format!("an {kind}"),
        "datetime" => "a date".into(),
        _ => format!("a {kind}"),
    }
}
