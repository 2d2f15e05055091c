//! The one error type of the library: what failed, why, and what to do.
//!
//! `what` names the thing (path, step, key, system call); `why` is the cause with its errno;
//! `hint` is what the user can do. The class decides the exit code (docs/errors.md).

mod near;

use std::error::Error as StdError;
use std::fmt;
use std::path::Path;

pub use near::{did_you_mean, nearest};

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Which exit code an error ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A step failed (1).
    Step,
    /// The command line is wrong (2).
    Usage,
    /// The recipe or its lock file is wrong (3).
    Recipe,
    /// Not reproducible, or a miss under `--fail-on-miss` (4).
    Difference,
    /// isolith or the machine failed (125).
    Machine,
    /// Interrupted (130).
    Interrupted,
}

impl Class {
    /// The exit code of the process.
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Step => 1,
            Class::Usage => 2,
            Class::Recipe => 3,
            Class::Difference => 4,
            Class::Machine => 125,
            Class::Interrupted => 130,
        }
    }
}

/// An error in three parts.
pub struct Error(Box<Parts>);

struct Parts {
    class: Class,
    what: String,
    why: Option<Box<dyn StdError + Send + Sync>>,
    hint: Option<String>,
}

impl Error {
    /// An error of `class` that says what failed.
    pub fn new(class: Class, what: impl Into<String>) -> Self {
        Self(Box::new(Parts { class, what: what.into(), why: None, hint: None }))
    }

    /// isolith or the machine failed.
    pub fn machine(what: impl Into<String>) -> Self {
        Self::new(Class::Machine, what)
    }

    /// Something in the recipe is wrong.
    pub fn recipe(what: impl Into<String>) -> Self {
        Self::new(Class::Recipe, what)
    }

    /// The command line is wrong.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Class::Usage, what)
    }

    /// A file operation failed: "cannot {verb} `{path}`", with the cause.
    pub fn io(verb: &str, path: &Path, why: impl Into<std::io::Error>) -> Self {
        Self::machine(format!("cannot {verb} `{}`", path.display())).because(why.into())
    }

    /// Adds the cause.
    pub fn because(mut self, why: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.why = Some(why.into());
        self
    }

    /// Adds what the user can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The error as the cause of a larger one, which takes over its class and hint.
    pub fn within(mut self, what: impl Into<String>) -> Self {
        let hint = self.0.hint.take();
        let mut outer = Self::new(self.0.class, what).because(self);
        outer.0.hint = hint;
        outer
    }

    /// Puts the error under another class.
    pub fn class_as(mut self, class: Class) -> Self {
        self.0.class = class;
        self
    }

    /// The class, and with it the exit code.
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// What failed, without cause and hint.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// What to do about it, if anything is known.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The chain of causes, outermost first.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.source();
        while let Some(cause) = next {
            // One of ours tells its causes itself, and they come next.
            let ours = cause.downcast_ref::<Error>().map(|error| error.what().to_string());
            causes.push(ours.unwrap_or_else(|| cause.to_string()));
            next = cause.source();
        }
        causes
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        for cause in self.causes() {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        if let Some(hint) = &self.0.hint {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.why.as_deref().map(|why| why as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_told_once() {
        let error =
            Error::io("write", Path::new("/x"), std::io::Error::from_raw_os_error(28)).hint("free some");
        let error = error.within("cannot keep it").within("cannot build");
        let text = "cannot build: cannot keep it: cannot write `/x`: No space left on device (os error 28)";
        assert_eq!((error.to_string().as_str(), error.hint_text()), (text, Some("free some")));
        assert_eq!(error.causes().len(), 3);
    }
}
