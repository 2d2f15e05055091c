//! What every reader of a recipe shares: the text, the arguments, and the mistakes found so far.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use super::args;
use super::diagnostic::Diagnostic;
use super::reader::Text;
use crate::path::{GuestPath, GuestPathError};

/// One recipe being read.
pub struct Context<'a> {
    /// The whole recipe.
    pub text: &'a str,
    /// Nothing is said of files of this machine: it is a recipe of an earlier build.
    pub kept: bool,
    /// The recipe file, absolute.
    pub file: &'a Path,
    args: OnceCell<BTreeMap<String, String>>,
    found: RefCell<Vec<(usize, Diagnostic)>>,
}

impl<'a> Context<'a> {
    pub fn new(text: &'a str, file: &'a Path) -> Self {
        Self { text, kept: false, file, args: OnceCell::new(), found: RefCell::default() }
    }

    /// Of a recipe that was kept.
    pub fn of_kept(text: &'a str, file: &'a Path) -> Self {
        Self { kept: true, ..Self::new(text, file) }
    }

    /// Notes a mistake.
    pub fn error(&self, span: &Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        let diagnostic = Diagnostic::new(self.text, self.file, span, message, hint);
        self.found.borrow_mut().push((span.start, diagnostic));
    }

    /// The mistakes, in the order of the text.
    pub fn into_found(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(at, _)| *at);
        found.into_iter().map(|(_, diagnostic)| diagnostic).collect()
    }

    /// What is written at `span`.
    pub fn source(&self, span: &Range<usize>) -> &'a str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// The number of the line a span starts on, from 1.
    pub fn line(&self, span: &Range<usize>) -> usize {
        self.text.get(..span.start).unwrap_or_default().matches('\n').count() + 1
    }

    /// Gives the arguments in force; once, before any text is expanded.
    pub fn set_args(&self, args: BTreeMap<String, String>) {
        // A second call would be a bug of ours; keeping the first is the harmless answer to it.
        let _ = self.args.set(args);
    }

    /// The arguments in force.
    pub fn args(&self) -> &BTreeMap<String, String> {
        self.args.get_or_init(BTreeMap::new)
    }

    /// Replaces `${NAME}`; a name that is not an argument is reported.
    pub fn expand(&self, text: &Text) -> Option<String> {
        args::expand(&text.text, self.args())
            .map_err(|bad| {
                let (message, hint) = bad.explain(self.args());
                self.error(&self.within(text, &bad.text), message, hint);
            })
            .ok()
    }

    /// Where `part` stands in the source of a string: exact unless escapes are in the way.
    fn within(&self, text: &Text, part: &str) -> Range<usize> {
        match self.source(&text.span).find(part) {
            Some(at) => text.span.start + at..text.span.start + at + part.len(),
            None => text.span.clone(),
        }
    }

    /// A path inside the sandbox.
    pub fn guest_path(&self, text: &Text) -> Option<GuestPath> {
        let path = self.expand(text)?;
        GuestPath::parse(&path)
            .map_err(|why| {
                let hint = match why {
                    GuestPathError::Relative => "a path inside the sandbox starts with `/`",
                    GuestPathError::Parent => "write where the `..` leads to",
                    GuestPathError::Nul => "take the NUL out",
                };
                self.error(&text.span, format!("`{path}`: {why}"), hint);
            })
            .ok()
    }

    /// The directory of the recipe.
    pub fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("/"))
    }

    /// A file or directory of this machine that is there, taken from the directory of the recipe.
    pub fn host_path(&self, text: &Text, kind: Kind) -> Option<PathBuf> {
        let written = self.expand(text)?;
        let dir = self.directory();
        // Collecting the components drops `./`; `..` stays, it may stand behind a symlink.
        let path: PathBuf = dir.join(&written).components().collect();
        let (problem, hint) = match std::fs::metadata(&path) {
            _ if self.kept => return Some(without_parents(path)),
            _ if written.is_empty() => ("the path is empty".into(), "name a file or directory"),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
                (format!("`{written}` does not exist"), "relative paths start at the recipe's directory")
            }
            Err(why) => (format!("cannot look at `{written}`: {why}"), "let it be readable for you"),
            Ok(meta) if kind == Kind::Directory && !meta.is_dir() => {
                (format!("`{written}` is not a directory"), "name a directory")
            }
            Ok(meta) if kind == Kind::File && !meta.is_file() => {
                (format!("`{written}` is not a file"), "name a regular file")
            }
            Ok(meta) if !meta.is_dir() && !meta.is_file() => {
                (format!("`{written}` is neither a file nor a directory"), "name a file or directory")
            }
            Ok(_) => return Some(without_parents(path)),
        };
        self.error(&text.span, problem, hint);
        None
    }
}

/// A path that people can read: where its `..` lead to, with its own name even if that is a symlink.
fn without_parents(path: PathBuf) -> PathBuf {
    if !path.components().any(|part| part == Component::ParentDir) {
        return path;
    }
    let real = match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => dir.canonicalize().map(|dir| dir.join(name)),
        _ => path.canonicalize(),
    };
    real.unwrap_or_else(|_| {
        // Gone, of a recipe that was kept: as if there had been no symlinks.
        path.components().fold(PathBuf::new(), |mut clean, part| {
            match part {
                Component::ParentDir => drop(clean.pop()),
                part => clean.push(part),
            }
            clean
        })
    })
}

/// What a host path has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Either,
}
