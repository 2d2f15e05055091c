//! Commits of git repositories, as trees that do not depend on git: the program only fetches objects and hands
//! them over; every object is hashed here, and files are written here.

mod command;
mod object;
mod submodule;
mod tree;

use std::path::Path;

use super::Url;
use super::fetch::{Access, Watch};
use crate::error::{Error, Result};
use crate::layer::{Extract, Limits};
use crate::store::{Mirror, Store};
use command::Git;
use object::Objects;
pub use tree::{TreeEntry, entries};

/// Submodules of submodules of …: more than this are a mistake.
const DEEPEST: usize = 8;

/// What a git source is fetched with.
pub struct Fetcher<'a> {
    /// Where mirrors are.
    pub store: &'a Store,
    /// What may be reached.
    pub access: &'a Access,
    /// Who is told, and who can stop it.
    pub watch: &'a dyn Watch,
    /// For messages: "source `src` of `x.toml`".
    pub what: &'a str,
    /// How much a tree may have.
    pub limits: Limits,
}

/// The commit that a branch (`kind` is `heads`) or tag (`tags`) names now, as 40 or 64 hexadecimal digits.
pub fn resolve(
    access: &Access,
    watch: &dyn Watch,
    what: &str,
    url: &str,
    kind: &str,
    name: &str,
) -> Result<String> {
    let full = format!("refs/{kind}/{name}");
    let mut last = None;
    for url in reachable(access, what, url)? {
        let peeled = format!("{full}^{{}}");
        let git = Git::new(access, watch);
        match git.text(&["ls-remote", "--end-of-options", &url, &full, &peeled]) {
            Ok(text) => {
                let find = |wanted: &str| {
                    text.lines().filter_map(|line| line.split_once('\t')).find(|(_, name)| *name == wanted)
                };
                // An annotated tag is an object of its own; what it is peeled to is the commit.
                let Some((rev, _)) = find(&peeled).or_else(|| find(&full)) else {
                    let kind = if kind == "tags" { "tag" } else { "branch" };
                    return Err(Error::recipe(format!(
                        "`{url}` has no {kind} `{name}`, which {what} asks for"
                    ))
                    .hint(format!("`git ls-remote {url}` lists what it has")));
                };
                if !object::is_id(rev) {
                    return Err(Error::machine(format!("`{url}` says that `{name}` is `{rev}`")));
                }
                return Ok(rev.to_string());
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::machine(format!("no URL for {what}"))))
}

impl Fetcher<'_> {
    /// Lays the tree of a commit into `tree`.
    pub fn lay(&self, url: &str, commit: &str, submodules: bool, tree: &mut Extract) -> Result<()> {
        let mut seen = 0;
        self.lay_below(url, commit, submodules, tree, b"", 0, &mut seen)
    }

    #[allow(clippy::too_many_arguments)] // The recursion's own state; a type for it would only rename it.
    fn lay_below(
        &self,
        url: &str,
        commit: &str,
        submodules: bool,
        tree: &mut Extract,
        below: &[u8],
        depth: usize,
        seen: &mut u64,
    ) -> Result<()> {
        let links = {
            let mirror = self.with_commit(url, commit)?;
            let git = Git::new(self.access, self.watch).at(&mirror.path);
            let mut objects = Objects::open(git.batch()?)?;
            let mut walk =
                tree::Walk { objects: &mut objects, tree, limits: self.limits, seen, links: Vec::new() };
            walk.commit(commit, below, submodules)?;
            let links = std::mem::take(&mut walk.links);
            if links.is_empty() {
                return Ok(());
            }
            let said = submodule::read(&git, &mut objects, commit)?;
            submodule::pair(links, &said, url, self.what)?
        };
        if depth == DEEPEST {
            return Err(Error::machine(format!("submodules of {} are nested too deeply", self.what)));
        }
        for link in links {
            let path = if below.is_empty() { link.path } else { [below, b"/", &link.path].concat() };
            self.lay_below(&link.url, &link.commit, true, tree, &path, depth + 1, seen)?;
        }
        Ok(())
    }

    /// A mirror that has the commit, fetched if need be.
    fn with_commit(&self, url: &str, commit: &str) -> Result<Mirror> {
        let mirror = self.store.mirror(url, || self.watch.cancelled())?;
        let git = Git::new(self.access, self.watch).at(&mirror.path);
        if mirror.path.is_dir() && git.has(commit) {
            return Ok(mirror);
        }
        let urls = reachable(self.access, self.what, url)?;
        self.init(&mirror, commit)?;
        let mut last = None;
        for url in urls {
            match self.fetch(&git, &url, commit) {
                Ok(()) => return Ok(mirror),
                Err(error) if self.watch.cancelled() => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        let error = last.unwrap_or_else(|| Error::machine(format!("no URL for {}", self.what)));
        Err(error.within(format!("cannot fetch {}", self.what)))
    }

    /// Makes the repository; one that is broken is made anew.
    fn init(&self, mirror: &Mirror, commit: &str) -> Result<()> {
        let git = Git::new(self.access, self.watch);
        if mirror.path.is_dir() {
            if git.at(&mirror.path).text(&["rev-parse", "--git-dir"]).is_ok() {
                return Ok(());
            }
            self.store.drop_mirror(mirror)?;
        }
        let scratch = self.store.scratch()?;
        let new = scratch.path().join("git");
        let format = if commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
        // No templates: they may have hooks in them.
        let new_text = path_text(&new)?;
        git.text(&["init", "--quiet", "--bare", "--template=", format, new_text])?;
        std::fs::rename(&new, &mirror.path).map_err(|e| Error::io("write", &mirror.path, e))
    }

    fn fetch(&self, git: &Git, url: &str, commit: &str) -> Result<()> {
        let plain = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"];
        let one = [&plain[..], &["--depth=1", "--end-of-options", url, commit]].concat();
        let first = git.fetch(&one, url);
        if first.is_ok() && git.has(commit) {
            return Ok(());
        }
        if self.watch.cancelled() {
            return first;
        }
        // Some servers give only what a branch or tag names; then the commit is looked for behind all of them.
        let specs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
        let all = [&plain[..], &["--unshallow"], &["--end-of-options", url], &specs].concat();
        let shallow = git.is_shallow();
        let all: Vec<&str> = all.into_iter().filter(|flag| shallow || *flag != "--unshallow").collect();
        git.fetch(&all, url).map_err(|second| first.err().unwrap_or(second))?;
        match git.has(commit) {
            true => Ok(()),
            false => Err(Error::recipe(format!("`{url}` does not have the commit {commit}")).hint(
                "if its history was rewritten, pin another commit (`isolith lock --update` for a branch)",
            )),
        }
    }
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::machine(format!("`{}` is not UTF-8", path.display()))
            .hint("put the store elsewhere with `--store`")
    })
}

/// Whether a repository is on this machine.
fn is_local(url: &str) -> bool {
    url.starts_with('/') || url.starts_with("file://")
}

/// The host of `ssh://user@host:port/…`, `user@host:path` and the like.
fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.split(':').next().unwrap_or_default().to_ascii_lowercase()
}

/// What may be asked for a repository, in order: its mirrors, then itself.
fn reachable(access: &Access, what: &str, url: &str) -> Result<Vec<String>> {
    let mut may = Vec::new();
    let mut refused = Vec::new();
    for candidate in access.rewritten(url) {
        let why = match Url::parse(&candidate) {
            _ if is_local(&candidate) => None,
            Ok(parsed) => access.refuses(&parsed),
            Err(_) => access.refuses_host(&host(&candidate)),
        };
        match why {
            None => may.push(candidate),
            Some(why) => refused.push(format!("{candidate}: {why}")),
        }
    }
    if !may.is_empty() {
        return Ok(may);
    }
    let hint = match access.offline {
        true => {
            "run once without `--offline` (and without `offline = true` in the configuration) to fetch it"
        }
        false => "add the host to `allowed-hosts`, or a mirror under `[mirrors]`, in the configuration",
    };
    Err(Error::machine(format!("cannot fetch {what}")).because(refused.join("; ")).hint(hint))
}
