//! Unified diffs, applied as `patch -p1 -F0 -E` does, which is what dpkg-source asks for: context has to match whole,
//! but may have moved.
//!
//! This knows nothing of files: names go through the caller's [`Files`], so a patch reaches what the caller lets it
//! reach.

use std::ops::Range;

/// The files that a patch may change.
pub trait Files {
    /// The content of a file; none when there is none of that name.
    fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, String>;
    /// Gives a file its new content, and sets whether it can be executed if that is said.
    fn write(&mut self, name: &str, content: Vec<u8>, executable: Option<bool>) -> Result<(), String>;
    /// Takes a file away.
    fn remove(&mut self, name: &str) -> Result<(), String>;
}

/// What a patch does to one file.
#[derive(Debug, Default)]
struct Change<'a> {
    old: Option<&'a [u8]>,
    new: Option<&'a [u8]>,
    executable: Option<bool>,
    hunks: Vec<Hunk<'a>>,
}

#[derive(Debug)]
struct Hunk<'a> {
    /// Number of the first old line, from 1; 0 when there is none.
    at: usize,
    /// Old and new lines, with their ends.
    old: Vec<&'a [u8]>,
    new: Vec<&'a [u8]>,
    /// Lines of context before the first change and behind the last.
    before: usize,
    behind: usize,
}

/// Applies a patch.
///
/// # Errors
/// What is wrong with it, or which part does not fit.
pub fn apply(patch: &[u8], files: &mut dyn Files) -> Result<(), String> {
    for change in parse(patch)? {
        one(&change, files)?;
    }
    Ok(())
}

fn one(change: &Change<'_>, files: &mut dyn Files) -> Result<(), String> {
    let (old, new) = (name(change.old)?, name(change.new)?);
    let mut found = None;
    for name in [&new, &old].into_iter().flatten() {
        if let Some(content) = files.read(name)? {
            found = Some((name.clone(), content));
            break;
        }
    }
    let (name, content) = match found {
        Some(found) => found,
        None => match new.or(old) {
            Some(name) if change.hunks.iter().all(|hunk| hunk.old.is_empty()) => (name, Vec::new()),
            Some(name) => return Err(format!("there is no file `{name}`")),
            None => return Err("it changes no file".to_string()),
        },
    };
    let lines: Vec<&[u8]> = content.split_inclusive(|b| *b == b'\n').collect();
    let mut result: Vec<u8> = Vec::with_capacity(content.len());
    let (mut done, mut offset) = (0, 0i64);
    for (number, hunk) in change.hunks.iter().enumerate() {
        let at = locate(&lines, hunk, done, offset)
            .ok_or_else(|| format!("part {} does not fit `{name}`", number + 1))?;
        offset = at as i64 - hunk.at.saturating_sub(1) as i64;
        lines[done..at].iter().for_each(|line| result.extend(*line));
        hunk.new.iter().for_each(|line| result.extend(*line));
        done = at + hunk.old.len();
    }
    lines[done..].iter().for_each(|line| result.extend(*line));
    match result.is_empty() && !change.hunks.is_empty() {
        true => files.remove(&name),
        false => files.write(&name, result, change.executable),
    }
}

/// The line, from 0, at which a hunk fits: the nearest to where it should be. One that has less context before than
/// behind belongs to the start of the file, the other way round to its end.
fn locate(lines: &[&[u8]], hunk: &Hunk<'_>, done: usize, offset: i64) -> Option<usize> {
    let last = lines.len().checked_sub(hunk.old.len()).filter(|last| *last >= done)?;
    let fits = |at: usize| lines[at..at + hunk.old.len()] == hunk.old[..];
    // Lines are numbered from 1, but a hunk without old lines says behind which it comes.
    let guess = if hunk.old.is_empty() { hunk.at as i64 } else { hunk.at as i64 - 1 } + offset;
    let guess = usize::try_from(guess.max(0)).unwrap_or_default();
    if hunk.old.is_empty() {
        return (done..=last).contains(&guess).then_some(guess).or((lines.len() == done).then_some(done));
    }
    if hunk.before < hunk.behind {
        return (done == 0 && fits(0)).then_some(0);
    }
    if hunk.behind < hunk.before {
        return fits(last).then_some(last);
    }
    let range: Range<usize> = done..last + 1;
    (0..=lines.len()).find_map(|distance| {
        let both = [guess.checked_add(distance), guess.checked_sub(distance)];
        both.into_iter().flatten().find(|at| range.contains(at) && fits(*at))
    })
}

/// A name without its first directory; none for `/dev/null`.
fn name(text: Option<&[u8]>) -> Result<Option<String>, String> {
    let Some(text) = text else { return Ok(None) };
    let text = std::str::from_utf8(text).map_err(|_| "a name in it is not UTF-8".to_string())?;
    if text == "/dev/null" {
        return Ok(None);
    }
    let bad = || format!("`{text}` cannot be the name of a file");
    let rest = text
        .trim_start_matches("./")
        .split_once('/')
        .map(|(_, rest)| rest.trim_start_matches('/'))
        .ok_or_else(bad)?;
    let good = !text.starts_with(['/', '"']) && rest.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if good { Ok(Some(rest.to_string())) } else { Err(bad()) }
}

/// The changes of a patch. Text around them is passed over.
fn parse(patch: &[u8]) -> Result<Vec<Change<'_>>, String> {
    let mut lines = patch.split_inclusive(|b| *b == b'\n').peekable();
    let mut changes: Vec<Change<'_>> = Vec::new();
    let mut git: Option<Change<'_>> = None;
    while let Some(line) = lines.next() {
        if let Some(names) = line.strip_prefix(b"diff --git ") {
            changes.extend(git.take().filter(|change| change.executable.is_some()));
            let mut names = trimmed(names).split(|b| *b == b' ');
            git = Some(Change { old: names.next(), new: names.next(), ..Change::default() });
        } else if let Some(change) = &mut git
            && [&b"new file mode "[..], b"new mode "].iter().any(|key| line.starts_with(key))
        {
            change.executable = Some(trimmed(line).ends_with(b"755"));
        } else if let (Some(_), true) =
            (&git, line.starts_with(b"rename from ") || line.starts_with(b"copy from "))
        {
            return Err("it renames or copies files".to_string());
        } else if line.starts_with(b"GIT binary patch") {
            return Err("it has binary parts".to_string());
        } else if let Some(old) = line.strip_prefix(b"--- ")
            && let Some(new) = lines.peek().and_then(|next| next.strip_prefix(b"+++ "))
        {
            lines.next();
            let executable = git.take().and_then(|change| change.executable);
            changes.push(Change {
                old: Some(stamped(old)),
                new: Some(stamped(new)),
                executable,
                hunks: Vec::new(),
            });
        } else if line.starts_with(b"@@ -")
            && let Some(change) = changes.last_mut()
        {
            change.hunks.push(hunk(line, &mut lines)?);
        }
    }
    changes.extend(git.filter(|change| change.executable.is_some()));
    Ok(changes)
}

/// A name without the time that may stand behind it.
fn stamped(text: &[u8]) -> &[u8] {
    trimmed(text.split(|b| *b == b'\t').next().unwrap_or_default())
}

fn trimmed(text: &[u8]) -> &[u8] {
    text.trim_ascii_end()
}

fn hunk<'a>(
    head: &[u8],
    lines: &mut std::iter::Peekable<impl Iterator<Item = &'a [u8]>>,
) -> Result<Hunk<'a>, String> {
    let shown = String::from_utf8_lossy(trimmed(head)).into_owned();
    let bad = || format!("`{shown}` is not followed by what it says");
    let ((at, mut old_left), (_, mut new_left)) = ranges(head).ok_or_else(bad)?;
    let mut hunk = Hunk { at, old: Vec::new(), new: Vec::new(), before: 0, behind: 0 };
    let mut changed = false;
    let mut last = b' ';
    while old_left > 0 || new_left > 0 || lines.peek().is_some_and(|line| line.starts_with(b"\\")) {
        let line = lines.next().ok_or_else(bad)?;
        let (kind, rest) = match line.first() {
            // Some programs drop the space of an empty line.
            Some(b'\n') | Some(b'\r') => (b' ', line),
            Some(kind) => (*kind, &line[1..]),
            None => return Err(bad()),
        };
        let (is_old, is_new) = match kind {
            b' ' => (true, true),
            b'-' => (true, false),
            b'+' => (false, true),
            // "\ No newline at end of file" is about the line above.
            b'\\' => {
                let cut = |list: &mut Vec<&'a [u8]>| {
                    if let Some(line) = list.last_mut() {
                        *line = line.strip_suffix(b"\n").unwrap_or(line);
                    }
                };
                if last != b'+' {
                    cut(&mut hunk.old);
                }
                if last != b'-' {
                    cut(&mut hunk.new);
                }
                continue;
            }
            _ => return Err(bad()),
        };
        if is_old {
            old_left = old_left.checked_sub(1).ok_or_else(bad)?;
            hunk.old.push(rest);
        }
        if is_new {
            new_left = new_left.checked_sub(1).ok_or_else(bad)?;
            hunk.new.push(rest);
        }
        match kind {
            b' ' if changed => hunk.behind += 1,
            b' ' => hunk.before += 1,
            _ => (changed, hunk.behind) = (true, 0),
        }
        last = kind;
    }
    Ok(hunk)
}

/// `@@ -A,B +C,D @@` as `((A, B), (C, D))`; a number that is left out is 1.
fn ranges(head: &[u8]) -> Option<((usize, usize), (usize, usize))> {
    let head = std::str::from_utf8(head.split(|b| *b == b'@').nth(2)?).ok()?;
    let mut words = head.split_ascii_whitespace();
    let range = |word: Option<&str>, sign: char| -> Option<(usize, usize)> {
        let word = word?.strip_prefix(sign)?;
        let (at, count) = word.split_once(',').unwrap_or((word, "1"));
        Some((at.parse().ok().filter(|at| *at < usize::MAX / 4)?, count.parse().ok()?))
    };
    Some((range(words.next(), '-')?, range(words.next(), '+')?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Default)]
    struct Memory(BTreeMap<String, (String, bool)>);

    impl Files for Memory {
        fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
            Ok(self.0.get(name).map(|(text, _)| text.clone().into_bytes()))
        }
        fn write(&mut self, name: &str, content: Vec<u8>, executable: Option<bool>) -> Result<(), String> {
            let was = self.0.get(name).is_some_and(|(_, executable)| *executable);
            self.0.insert(name.into(), (String::from_utf8(content).unwrap(), executable.unwrap_or(was)));
            Ok(())
        }
        fn remove(&mut self, name: &str) -> Result<(), String> {
            self.0.remove(name);
            Ok(())
        }
    }

    fn patched(before: &[(&str, &str)], patch: &str) -> Result<BTreeMap<String, (String, bool)>, String> {
        let mut files =
            Memory(before.iter().map(|(name, text)| (name.to_string(), (text.to_string(), false))).collect());
        apply(patch.as_bytes(), &mut files).map(|()| files.0)
    }

    #[test]
    fn changes_creations_and_removals() {
        let patch = "Description: text\n--- a/f\t2020-01-01\n+++ b/f\n@@ -2,3 +2,3 @@ where\n two\n-three\n+THREE\n four\n\
            --- /dev/null\n+++ b/d/new\n@@ -0,0 +1 @@\n+x\n\\ No newline at end of file\n\
            --- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n\
            diff --git a/run b/run\nnew file mode 100755\nindex 1..2\n--- /dev/null\n+++ b/run\n@@ -0,0 +1,1 @@\n+y\n";
        // The part of `f` has moved down by one line.
        let after = patched(&[("f", "zero\none\ntwo\nthree\nfour\nfive\n"), ("gone", "x\n")], patch).unwrap();
        assert_eq!(after["f"].0, "zero\none\ntwo\nTHREE\nfour\nfive\n");
        assert_eq!(after["d/new"], ("x".into(), false));
        assert_eq!(after["run"], ("y\n".into(), true));
        assert_eq!(after.len(), 3);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let of = |name: &str, text: &str| format!("--- a/{name}\n+++ b/{name}\n{text}");
        let file = [("f", "one\ntwo\nthree\n")];
        for (patch, why) in [
            (of("f", "@@ -1,3 +1,3 @@\n one\n-TWO\n+2\n three\n"), "does not fit"),
            (of("f", "@@ -1,3 +1,3 @@\n one\n-two\n"), "not followed"),
            (of("f", "@@ -1,1 +1,1 @@\n one\n-two\n+2\n three\n@@ -x"), "not followed"),
            (of("g", "@@ -1 +1 @@\n-a\n+b\n"), "no file"),
            (of("../f", "@@ -1 +1 @@\n-one\n+b\n"), "cannot be the name"),
            (of("x/../../f", "@@ -0,0 +1 @@\n+b\n"), "cannot be the name"),
            ("--- /etc/passwd\n+++ /etc/passwd\n@@ -0,0 +1 @@\n+b\n".into(), "cannot be the name"),
            ("diff --git a/f b/g\nrename from f\nrename to g\n".into(), "renames"),
        ] {
            let error = patched(&file, &patch).unwrap_err();
            assert!(error.contains(why), "{patch}: {error}");
        }
        // Without context before, it belongs to the start.
        assert!(patched(&[("f", "0\none\ntwo\n")], &of("f", "@@ -1,2 +1,3 @@\n+x\n one\n two\n")).is_err());
    }
}
