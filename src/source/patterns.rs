//! What a source leaves out: the rules of `.dockerignore`.
//!
//! Patterns are relative to the root of the source; the last one that matches a path or one of its parents
//! decides; `!` takes a path back in; `*` stays within one component and `**` does not
//! (docs.docker.com, "Dockerignore files"; the matcher is `globset`).

use globset::{GlobBuilder, GlobMatcher};

use crate::error::{Error, Result};

/// The name of the file with patterns at the root of a source. It is never part of the source itself.
pub const IGNORE_FILE: &str = ".isolithignore";

/// An ordered list of patterns.
#[derive(Debug, Default)]
pub struct Patterns {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    matcher: GlobMatcher,
    takes_back: bool,
}

impl Patterns {
    /// Parses one pattern a line; `#` starts a comment line. `origin` names the place in errors.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>, origin: &str) -> Result<Self> {
        let mut patterns = Self::default();
        patterns.extend(lines, origin)?;
        Ok(patterns)
    }

    /// Adds more patterns behind those that are there.
    pub fn extend<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>, origin: &str) -> Result<()> {
        for line in lines {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (takes_back, glob) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let glob = glob.trim_start_matches("./").trim_matches('/');
            let matcher = GlobBuilder::new(glob)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|e| {
                    Error::recipe(format!("`{line}` is not a pattern ({origin})"))
                        .because(e)
                        .hint("`*`, `?`, `[…]` and `**` are special; put a backslash before one to take it as it is")
                })?
                .compile_matcher();
            self.rules.push(Rule { matcher, takes_back });
        }
        Ok(())
    }

    /// Whether the path (relative, `a/b`) is left out.
    pub fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for rule in &self.rules {
            let hit = parents(path).any(|p| rule.matcher.is_match(p));
            if hit {
                excluded = !rule.takes_back;
            }
        }
        excluded
    }

    /// Whether something below an excluded directory could be taken back in.
    pub fn takes_back_any(&self) -> bool {
        self.rules.iter().any(|rule| rule.takes_back)
    }

    /// Whether there are no patterns at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

/// `a`, `a/b`, `a/b/c` for `a/b/c`.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).chain(std::iter::once(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockerignore_rules() {
        let p = Patterns::parse(
            ["# comment", "", "*.o", "/build/", "**/*.tmp", "docs/*", "!docs/keep.md", "a?c"],
            "test",
        )
        .unwrap();
        for out in
            ["x.o", "build", "build/deep/file", "deep/down/x.tmp", "x.tmp", "docs/other.md", "abc", "abc/d"]
        {
            assert!(p.excludes(out), "{out} should be left out");
        }
        for stays in ["sub/x.o", "sub/build", "docs/keep.md", "docs", "ac", "x.oo"] {
            assert!(!p.excludes(stays), "{stays} should stay");
        }
        assert!(p.takes_back_any());
    }

    #[test]
    fn a_bad_pattern_names_its_place() {
        let e = Patterns::parse(["["], "recipe.toml, sources.src").unwrap_err();
        assert!(e.what().contains("recipe.toml, sources.src"), "{e}");
    }
}
