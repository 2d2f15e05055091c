//! What the user writes, validated into a typed model with spans. `docs/recipe.md` is the reference.
//!
//! `parse` walks the TOML tree by hand with small readers: `Context` collects mistakes with their places,
//! `Table` and `Value` are one table or value under its eyes. A mistake never stops the walk; whatever
//! stands in for the broken value is thrown away with the rest, since one diagnostic is enough to refuse.

mod args;
mod base;
mod container;
mod context;
mod debian;
mod diagnostic;
mod graph;
mod image;
mod inputs;
mod limits;
mod lock;
mod model;
mod mounts;
mod reader;
mod remote;
mod step;
mod syntax;
mod words;

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::DeTable;

pub use crate::config::{size, time};
use crate::{Error, Result};
pub use container::image_of;
use context::Context;
pub use diagnostic::Diagnostic;
pub use inputs::is_reserved;
pub use lock::{DebianPins, Lock, Locked, Place};
pub use model::{
    Base, Dep, Git, GitRef, Healthcheck, Image, ImageBase, Mount, Origin, Output, Recipe, Remote, Source,
    Step,
};
use reader::Table;

/// Reads and checks the recipe file at `path`, with the arguments `set` laid over its `[args]`.
///
/// Every error is of class `Recipe`. Mistakes in the text are shown with the path as it was given here,
/// all in one error whose first line has no `error: ` in front of it.
pub fn load(path: &Path, set: &BTreeMap<String, String>) -> Result<Recipe> {
    let unreadable = |why: std::io::Error| {
        let error = Error::recipe(format!("cannot read the recipe `{}`", path.display())).because(why);
        error.hint("give the path of a recipe file; `isolith init` writes one to start from")
    };
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let real = path.canonicalize().map_err(unreadable)?;
    let parsed = match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, &real, set),
        Err(why) => Err(vec![not_utf8(&bytes, why.valid_up_to(), &real)]),
    };
    parsed.map_err(|found| all_of(found, path))
}

/// Reads a recipe that was kept, without a look at the files that it names: they may be others by now. `path` is
/// where it was, absolute.
///
/// # Errors
/// Those of [`load`]: what an older isolith took need not be right for this one.
pub fn load_kept(text: &str, path: &Path, set: &BTreeMap<String, String>) -> Result<Recipe> {
    parse_in(Context::of_kept(text, path), set).map_err(|found| all_of(found, path))
}

/// All mistakes as one error, with the path as the user knows it.
fn all_of(found: Vec<Diagnostic>, path: &Path) -> Error {
    let shown = found.into_iter().map(|d| Diagnostic { file: path.to_path_buf(), ..d }.to_string());
    let all = shown.collect::<Vec<_>>().join("\n\n");
    Error::recipe(all.strip_prefix("error: ").unwrap_or(&all))
}

/// Checks the text of a recipe. `path` is the absolute path of its file: relative paths in the recipe start
/// at its directory. Reports every mistake that does not follow from another one, in the order of the text.
pub fn parse(text: &str, path: &Path, set: &BTreeMap<String, String>) -> Result<Recipe, Vec<Diagnostic>> {
    parse_in(Context::new(text, path), set)
}

fn parse_in(cx: Context<'_>, set: &BTreeMap<String, String>) -> Result<Recipe, Vec<Diagnostic>> {
    let (tree, errors) = DeTable::parse_recoverable(cx.text);
    if !errors.is_empty() {
        syntax::report(&cx, &errors);
        return Err(cx.into_found());
    }
    let recipe = read(&cx, tree.get_ref(), set);
    let found = cx.into_found();
    if found.is_empty() { Ok(recipe) } else { Err(found) }
}

/// Reads the top level. What it gives is only good if `cx` has collected nothing.
fn read<'a>(cx: &'a Context<'a>, tree: &'a DeTable<'a>, set: &BTreeMap<String, String>) -> Recipe {
    let mut top = Table::top(cx, tree);
    // First, since nearly every other string may refer to them.
    cx.set_args(args::read(&mut top, set));

    let name = top.required_string("name", "a recipe needs a name: `name = \"hello\"`");
    if let Some(name) = &name {
        words::check_recipe_name(cx, name);
    }
    let name = name.map(|name| name.text).unwrap_or_default();
    let version = top.string("version").and_then(|version| cx.expand(&version));
    let epoch = match top.take("epoch").and_then(|value| Some((value.integer()?, value))) {
        Some((epoch, value)) if epoch < 0 => {
            cx.error(&value.span, "`epoch` is before 1970", "give seconds since 1970-01-01, 0 or more");
            1
        }
        Some((epoch, _)) => epoch,
        None => 1,
    };
    let base = base::read(&mut top);
    let sources = inputs::sources(&mut top, &base);
    let deps = inputs::deps(&mut top, &sources);
    let steps = step::read_all(&mut top, &name, &sources, &deps);
    let outputs = inputs::outputs(&mut top);
    let image = image::read(&mut top, &outputs);
    top.finish();

    Recipe {
        path: cx.file.to_path_buf(),
        text: cx.text.to_string(),
        name,
        version,
        epoch,
        args: cx.args().clone(),
        base,
        sources: sources.into_iter().map(|(name, source)| (name, source.value)).collect(),
        deps: deps.into_iter().map(|(name, dep)| (name, dep.value)).collect(),
        steps,
        outputs,
        image,
    }
}

/// The diagnostic for bytes that are not text.
fn not_utf8(bytes: &[u8], at: usize, path: &Path) -> Diagnostic {
    // Up to `at` the lossy text is the file itself; there it has U+FFFD.
    let text = String::from_utf8_lossy(bytes);
    let hint = "save the file as UTF-8";
    Diagnostic::new(&text, path, &(at..at + '\u{fffd}'.len_utf8()), "the recipe is not UTF-8 text", hint)
}
