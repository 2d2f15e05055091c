//! What a difference is likely to come from, and the usual fix. Guesses, said to be such: they look at what
//! the bytes look like and at which variations were on.

use serde::Serialize;

use super::variation::Variation;
use super::words::{Look, look, pair};
use crate::engine::PathDifference;
use crate::engine::inspect::Content;
use crate::layer::Change;

/// A likely cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// In a word or two.
    pub cause: &'static str,
    /// The usual fix.
    pub fix: &'static str,
    /// What points to it.
    pub evidence: String,
}

/// What is known beside the bytes.
pub struct Clues<'a> {
    /// What was varied.
    pub on: &'a [Variation],
    /// The smallest set of variations that makes a path differ, if it was looked for.
    pub smallest: &'a dyn Fn(&str) -> Option<&'a [Variation]>,
    /// Cpus of this machine.
    pub cpus: usize,
    /// Whether a number of the reference and one of the other build are inode numbers of their layers.
    pub inodes: &'a dyn Fn(u64, u64) -> bool,
}

type Kind = (&'static str, &'static str);

const TIMESTAMP: Kind = ("timestamp", "use $SOURCE_DATE_EPOCH, which every step has, in place of the clock");
const GZIP: Kind = ("gzip header time", "compress with `gzip -n`");
const TAR: Kind = (
    "times or owners in a tar archive",
    "tar --sort=name --mtime=@$SOURCE_DATE_EPOCH --owner=0 --group=0 --numeric-owner",
);
const AR: Kind =
    ("times or owners in an ar archive", "use `ar` in its deterministic mode: `ar rcD`, `ranlib -D`");
const ZIP: Kind =
    ("times in a zip archive", "set the files' times to $SOURCE_DATE_EPOCH first, and use `zip -X`");
const PYC: Kind = ("Python bytecode with times", "python3 -m compileall --invalidation-mode checked-hash");
const BUILD_PATH: Kind =
    ("build path", "compile with -ffile-prefix-map=OLD=NEW, or in a directory of a fixed name");
const TMP_NAME: Kind = ("temporary name", "give the file a fixed name, or keep the name out of the result");
const DIR_ORDER: Kind = (
    "directory order",
    "sort what a directory listing gives: `tar --sort=name`, `sort`, sorted(os.listdir())",
);
const HASH_ORDER: Kind =
    ("hash seed", "sort before writing, or fix the seed: PYTHONHASHSEED=0, PERL_HASH_SEED=0");
const UID: Kind = ("user or group id", "set the owner: `install -o 0 -g 0`, `tar --owner=0 --group=0`");
const BUILD_ID: Kind =
    ("build id", "it is a hash of the rest: look for what else differs, or link with -Wl,--build-id=none");
const LOCALE: Kind = ("locale", "sort and compare in one locale: LC_ALL=C");
const RACE: Kind = (
    "parallel race",
    "name what must come before what (make: the missing dependency), or do not use -j there",
);
const MODE: Kind = ("umask or a race for the mode", "set the mode: `install -m`, `chmod`");
const HOST: Kind = ("host name", "every sandbox has the same one; look for other ways to it");
const KERNEL: Kind = ("kernel release", "do not keep what `uname` says");
const CPUS: Kind = ("cpu count", "keep $JOBS and nproc out of the result");
const ADDRESS: Kind = ("memory address (ASLR)", "do not print or sort by pointers");
const RANDOM: Kind = ("random number", "take it from a fixed seed, such as a hash of the input");
const INODE: Kind =
    ("inode number or disk layout", "keep inode numbers out of the result; they differ from disk to disk");
const LIMITS: Kind = ("resource limits", "every sandbox has the same ones; look for other ways to them");
const ENVIRONMENT: Kind =
    ("environment of the caller", "nothing of it reaches a sandbox; look for what else changed");

/// Likely causes for each path of a step, the likeliest first.
pub fn of_step<'a>(paths: &[PathDifference], clues: &'a Clues<'a>) -> Vec<Vec<Cause>> {
    paths.iter().map(|path| of_path(path, paths, clues)).collect()
}

fn of_path<'a>(path: &PathDifference, all: &[PathDifference], clues: &'a Clues<'a>) -> Vec<Cause> {
    let smallest = (clues.smallest)(&path.difference.path.to_string());
    let mut found = Found { causes: Vec::new(), clues, smallest };
    for change in &path.difference.changes {
        match change {
            Change::Mode { a, b } => found.add(MODE, format!("mode {a} and {b}")),
            Change::Owner { a, b } => found.add(UID, format!("owner {a} and {b}")),
            Change::Target { a, b } => found.words(a, b),
            Change::OnlyInA { .. } | Change::OnlyInB { .. } => found.name(path, all),
            _ => {}
        }
    }
    if let Some(content) = &path.content {
        for (name, content) in content.all() {
            found.content(&name, content);
        }
    }
    found.by_variation();
    found.causes
}

struct Found<'a> {
    causes: Vec<Cause>,
    clues: &'a Clues<'a>,
    smallest: Option<&'a [Variation]>,
}

impl Found<'_> {
    fn add(&mut self, (cause, fix): Kind, evidence: impl Into<String>) {
        if !self.causes.iter().any(|there| there.cause == cause) {
            self.causes.push(Cause { cause, fix, evidence: evidence.into() });
        }
    }

    fn content(&mut self, name: &str, content: &Content) {
        let within = if name.is_empty() { String::new() } else { format!("{name}: ") };
        for member in &content.members {
            for (fact, a, b) in &member.facts {
                let said = format!("{within}{}: {fact} {a} and {b}", member.name);
                match (content.format, *fact) {
                    (Some("gzip file"), "time") => self.add(GZIP, said),
                    (Some("Python bytecode"), "time") => self.add(PYC, said),
                    (Some("tar archive"), "time" | "owner" | "owner name" | "mode") => self.add(TAR, said),
                    (Some("ar archive"), "time" | "owner" | "mode") => self.add(AR, said),
                    (Some("zip archive"), "time" | "extra") => self.add(ZIP, said),
                    _ => {}
                }
            }
        }
        if content.notes.iter().any(|note| note.contains("another order")) {
            self.add(DIR_ORDER, format!("{within}the same members in another order"));
        }
        if name.ends_with("section .note.gnu.build-id") {
            // What else differs comes before it.
            return;
        }
        match &content.text {
            Some(text) => self.text(text),
            None if content.members.is_empty() => {
                self.words(&content.bytes.strings[0], &content.bytes.strings[1])
            }
            None if content.members.iter().all(|m| m.name == "section .note.gnu.build-id") => {
                self.add(BUILD_ID, "nothing else differs in the file");
            }
            None => {}
        }
    }

    fn text(&mut self, text: &str) {
        let lines =
            |sign: char| -> Vec<&str> { text.lines().filter_map(|line| line.strip_prefix(sign)).collect() };
        let (gone, come) = (lines('-'), lines('+'));
        let sorted = |lines: &[&str]| {
            let mut sorted: Vec<String> = lines.iter().map(|line| line.to_string()).collect();
            sorted.sort();
            sorted
        };
        if !gone.is_empty() && sorted(&gone) == sorted(&come) {
            // A scramble looks like a hash table, a few lines that have moved like processes that overtook others.
            let side = |sign: char| -> Vec<&str> {
                text.lines().filter_map(|line| line.strip_prefix([sign, ' '])).collect()
            };
            let (old, new) = (side('-'), side('+'));
            let by_locale =
                |one: &[&str], other: &[&str]| one.is_sorted() && folds(other) && !other.is_sorted();
            if by_locale(&old, &new) || by_locale(&new, &old) {
                self.add(LOCALE, "the same lines, sorted by other rules");
            }
            let kept = text.lines().filter(|line| line.starts_with(' ')).count();
            return self.order("the same lines in another order", gone.len() <= kept);
        }
        for (one, other) in gone.iter().zip(&come) {
            let words = |line: &str| {
                let separators = |c: char| c.is_whitespace() || ",;[]{}()'\"".contains(c);
                sorted(&line.split(separators).filter(|word| !word.is_empty()).collect::<Vec<_>>())
            };
            if words(one).len() > 2 && words(one) == words(other) {
                self.order("the same words in another order", false);
            } else {
                self.words(one, other);
            }
        }
    }

    /// Things stand in another order.
    fn order(&mut self, evidence: &str, few: bool) {
        if self.smallest.unwrap_or(self.clues.on).contains(&Variation::DirOrder) {
            self.add(DIR_ORDER, evidence);
        }
        for kind in if few { [RACE, HASH_ORDER] } else { [HASH_ORDER, RACE] } {
            self.add(kind, evidence);
        }
    }

    /// Two texts stand in one place.
    fn words(&mut self, a: &str, b: &str) {
        let (one, other) = pair(a, b);
        if one.is_empty() && other.is_empty() {
            return;
        }
        let said = format!("`{one}` and `{other}`");
        match look(&one, &other, a, b) {
            Look::Time => self.add(TIMESTAMP, said),
            Look::Address => self.add(ADDRESS, said),
            Look::Temporary => self.add(TMP_NAME, said),
            Look::Path => self.add(BUILD_PATH, said),
            Look::Random => self.add(RANDOM, said),
            Look::Kernel => self.add(KERNEL, said),
            Look::Numbers(one, other) => {
                let known = self.smallest.unwrap_or(self.clues.on);
                let cpus = self.clues.cpus as u64;
                if known.contains(&Variation::Cpus) && (one, other) == (cpus, 1) {
                    return self.add(CPUS, said);
                }
                if (self.clues.inodes)(one, other) {
                    self.add(INODE, format!("{said}, which are inode numbers of files of the layers"));
                }
                self.add(RANDOM, said);
            }
            Look::Plain => {}
        }
    }

    /// A path that only one side has: maybe the other side has it under another name.
    fn name(&mut self, path: &PathDifference, all: &[PathDifference]) {
        let gone = |path: &PathDifference| matches!(path.difference.changes[..], [Change::OnlyInA { .. }]);
        let come = |path: &PathDifference| matches!(path.difference.changes[..], [Change::OnlyInB { .. }]);
        let side = gone(path);
        let parent = path.difference.path.parent();
        let mut others = all.iter().filter(|other| {
            other.difference.path.parent() == parent && if side { come(other) } else { gone(other) }
        });
        let text = |path: &PathDifference| String::from_utf8_lossy(path.difference.path.name()).into_owned();
        match others.next() {
            Some(other) => {
                let (one, other) = (text(path), text(other));
                self.words(&one, &other);
                if self.causes.is_empty() {
                    self.add(TMP_NAME, format!("`{one}` on one side, `{other}` on the other"));
                }
            }
            None => self.add(RACE, "it is there only sometimes"),
        }
    }

    /// What the search for the smallest set of variations has shown stands first.
    fn by_variation(&mut self) {
        let Some(smallest) = self.smallest else { return };
        let [variation] = smallest else {
            if smallest.is_empty() {
                let likely = |cause: &Cause| {
                    [TIMESTAMP, INODE, RANDOM, HASH_ORDER, RACE, TMP_NAME, GZIP, TAR, AR, ZIP, PYC]
                        .iter()
                        .any(|k| k.0 == cause.cause)
                };
                self.causes.sort_by_key(|cause| !likely(cause));
                if self.causes.is_empty() {
                    self.add(RANDOM, "it differs under the same conditions too");
                    self.add(RACE, "it differs under the same conditions too");
                }
            }
            return;
        };
        let kind = match variation {
            Variation::Cpus => CPUS,
            Variation::Aslr => ADDRESS,
            Variation::Clock => TIMESTAMP,
            Variation::DirOrder => DIR_ORDER,
            Variation::Inodes | Variation::FileSystem | Variation::StorePath => INODE,
            Variation::HostName => HOST,
            Variation::Personality => KERNEL,
            Variation::Umask => MODE,
            Variation::Rlimits => LIMITS,
            Variation::Environment => ENVIRONMENT,
            Variation::User | Variation::Ids | Variation::OneId => UID,
            Variation::Jobs | Variation::Load => RACE,
        };
        let evidence = format!("it takes the variation `{}` to make it differ", variation.name());
        // Special forms of the same cause say more.
        let special = |cause: &Cause| match kind {
            TIMESTAMP => [GZIP, TAR, AR, ZIP, PYC].iter().any(|k| k.0 == cause.cause),
            _ => cause.cause == kind.0,
        };
        match self.causes.iter().position(special) {
            Some(at) => {
                let mut first = self.causes.remove(at);
                first.evidence = format!("{}; {evidence}", first.evidence);
                self.causes.insert(0, first);
            }
            None => {
                let weak = |cause: &Cause| [RANDOM, RACE, HASH_ORDER].iter().any(|k| k.0 == cause.cause);
                // What the bytes say plainly is not overruled: time passes between builds, too.
                let at = if self.causes.first().is_none_or(weak) { 0 } else { self.causes.len() };
                self.causes.insert(at, Cause { cause: kind.0, fix: kind.1, evidence });
            }
        }
    }
}

/// Sorted as most locales do it: upper and lower case together.
fn folds(lines: &[&str]) -> bool {
    lines.is_sorted_by_key(|line| line.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::inspect;
    use crate::layer::Difference;
    use crate::path::GuestPath;

    fn path(path: &str, change: Change, content: Option<Content>) -> PathDifference {
        let difference = Difference { path: GuestPath::parse(path).unwrap(), changes: vec![change] };
        PathDifference { difference, content }
    }

    fn texts(a: &str, b: &str) -> PathDifference {
        let content = inspect::compare(a.as_bytes(), b.as_bytes(), 3);
        path("/x", Change::Content { a: 0, b: 0 }, content)
    }

    fn causes(
        paths: &[PathDifference],
        on: &[Variation],
        smallest: Option<&[Variation]>,
    ) -> Vec<&'static str> {
        let clues = Clues {
            on,
            smallest: &|_| smallest,
            cpus: 4,
            inodes: &|one, other| (one, other) == (1_723_121, 993_121),
        };
        of_step(paths, &clues)[0].iter().map(|cause| cause.cause).collect()
    }

    fn first(a: &str, b: &str, on: &[Variation]) -> &'static str {
        causes(&[texts(a, b)], on, None).first().copied().unwrap_or("none")
    }

    #[test]
    fn texts_show_what_they_are() {
        use Variation::*;
        assert_eq!(first("built Nov 24 2026\n", "built Dec 29 2027\n", &[]), TIMESTAMP.0);
        assert_eq!(first("at 1795000000 s\n", "at 1829560000 s\n", &[]), TIMESTAMP.0);
        assert_eq!(first("p = 0x7ffff7fb2010\n", "p = 0x7f1c2b3d4010\n", &[]), ADDRESS.0);
        assert_eq!(first("in /tmp/tmp.aB3dE9xQ1z\n", "in /tmp/tmp.QqW1zX0pLm\n", &[]), TMP_NAME.0);
        assert_eq!(first("jobs 4\n", "jobs 1\n", &[Cpus]), CPUS.0);
        assert_eq!(first("n 17231\n", "n 993\n", &[]), RANDOM.0);
        assert_eq!(first("n 1723121\n", "n 993121\n", &[]), INODE.0);
        assert_eq!(
            first("7ffffffde000-7ffffffff000 rw-p\n", "7ffd5ccdc000-7ffd5ccfd000 rw-p\n", &[]),
            ADDRESS.0
        );
        assert_eq!(first("a\nb\nc\n", "c\nb\na\n", &[DirOrder]), DIR_ORDER.0);
        assert_eq!(first("{'x', 'y', 'z'}\n", "{'z', 'x', 'y'}\n", &[]), HASH_ORDER.0);
        assert_eq!(first("B\nD\na\nc\n", "a\nB\nc\nD\n", &[]), LOCALE.0);
        assert_eq!(first("a\nb\nc\nd\n", "b\nc\nd\na\n", &[]), RACE.0);
        assert_eq!(first("src /build/a1/x.c\n", "src /build/b2/x.c\n", &[]), BUILD_PATH.0);
    }

    #[test]
    fn the_smallest_set_decides() {
        use Variation::*;
        let lines = [texts("a\nb\nc\n", "c\nb\na\n")];
        assert_eq!(causes(&lines, &[DirOrder, Jobs], Some(&[Jobs]))[0], RACE.0);
        assert_eq!(causes(&lines, &[DirOrder, Jobs], Some(&[DirOrder]))[0], DIR_ORDER.0);
        assert_eq!(causes(&lines, &[DirOrder, Jobs], Some(&[]))[0], HASH_ORDER.0);
        assert_eq!(causes(&[texts("x\n", "y\n")], &[Cpus], Some(&[Cpus])), [CPUS.0]);
    }

    #[test]
    fn files_that_come_and_go() {
        let (gone, come) = (Change::OnlyInA { kind: "file" }, Change::OnlyInB { kind: "file" });
        let both = [path("/o/tmp.abcDEF1234", gone.clone(), None), path("/o/tmp.xyzQWE9876", come, None)];
        assert_eq!(causes(&both, &[], None), [TMP_NAME.0]);
        assert_eq!(causes(&[path("/o/x", gone, None)], &[], None), [RACE.0]);
    }

    #[test]
    fn headers_of_compressed_files() {
        use std::io::Write;
        let gz = |time| {
            let mut out = flate2::GzBuilder::new().mtime(time).write(Vec::new(), flate2::Compression::fast());
            out.write_all(b"hello").unwrap();
            out.finish().unwrap()
        };
        let content = inspect::compare(&gz(1), &gz(2), 3);
        assert_eq!(causes(&[path("/x.gz", Change::Content { a: 0, b: 0 }, content)], &[], None), [GZIP.0]);
    }
}
