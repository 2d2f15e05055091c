//! Submodules: `.gitmodules` says where each path's repository is.

use super::command::Git;
use super::is_local;
use super::object::Objects;
use super::tree::{Link, entries, root_of};
use crate::error::{Error, Result};

/// A submodule to lay in.
pub(super) struct Submodule {
    /// From the top of the repository it is in.
    pub path: Vec<u8>,
    pub url: String,
    pub commit: String,
}

/// Paths and URLs, as `.gitmodules` of a commit has them.
pub(super) fn read(git: &Git, objects: &mut Objects, commit: &str) -> Result<Vec<(String, String)>> {
    let root = root_of(objects, commit)?;
    let bytes = objects.whole(&root, "tree")?;
    let file = entries(&bytes, root.len() / 2).flatten().find(|entry| entry.name == b".gitmodules");
    // A symlink there is a known trick.
    let Some(file) = file.filter(|file| file.mode & 0o170_000 == 0o100_000) else { return Ok(Vec::new()) };
    let text = objects.whole(&file.id, "blob")?;
    let list = git.text_of(&["config", "--null", "--file", "-", "--list"], &text)?;
    let mut found: Vec<(String, Option<String>, Option<String>)> = Vec::new();
    for (key, value) in list.split('\0').filter_map(|item| item.split_once('\n')) {
        let Some((name, what)) = key.strip_prefix("submodule.").and_then(|key| key.rsplit_once('.')) else {
            continue;
        };
        if !found.iter().any(|(known, ..)| known == name) {
            found.push((name.to_string(), None, None));
        }
        if let Some((_, path, url)) = found.iter_mut().find(|(known, ..)| known == name) {
            match what {
                "path" => *path = Some(value.to_string()),
                "url" => *url = Some(value.to_string()),
                _ => {}
            }
        }
    }
    Ok(found.into_iter().filter_map(|(_, path, url)| path.zip(url)).collect())
}

/// Finds the repository of each link. `parent` is the URL of the repository they are in.
pub(super) fn pair(
    links: Vec<Link>,
    said: &[(String, String)],
    parent: &str,
    what: &str,
) -> Result<Vec<Submodule>> {
    let find = |link: Link| {
        let shown = String::from_utf8_lossy(&link.path).into_owned();
        let url = said.iter().find(|(path, _)| path.as_bytes() == link.path).map(|(_, url)| url);
        let Some(url) = url else {
            return Err(Error::recipe(format!("`.gitmodules` of {what} does not say where `{shown}` is"))
                .hint("leave `submodules` out, or use a commit in which it does"));
        };
        let url = absolute(url, parent).ok_or_else(|| {
            Error::recipe(format!("the submodule `{shown}` of {what} is at `{url}`, which is not followed"))
                .hint("only https, http, ssh and git URLs are, and local ones in local repositories")
        })?;
        Ok(Submodule { path: link.path, url, commit: link.commit })
    };
    links.into_iter().map(find).collect()
}

/// The URL of a submodule; none for what a repository must not make us follow.
fn absolute(url: &str, parent: &str) -> Option<String> {
    let mut rest = url;
    let mut base = parent.trim_end_matches('/').to_string();
    if url.starts_with("./") || url.starts_with("../") {
        loop {
            if let Some(after) = rest.strip_prefix("./") {
                rest = after;
            } else if let Some(after) = rest.strip_prefix("../") {
                let cut = base.rfind('/').or_else(|| base.rfind(':'))?;
                // Never into the scheme or the host.
                let floor = base.find("://").map_or(0, |at| at + 3);
                if cut < floor {
                    return None;
                }
                base.truncate(cut);
                rest = after;
            } else {
                break;
            }
        }
        return Some(format!("{base}/{rest}")).filter(|url| is_safe(url, parent));
    }
    Some(url.to_string()).filter(|url| is_safe(url, parent))
}

fn is_safe(url: &str, parent: &str) -> bool {
    let remote = ["https://", "http://", "ssh://", "git://"];
    let scheme = remote.iter().find_map(|scheme| url.strip_prefix(scheme));
    let plain = !url.bytes().any(|b| b.is_ascii_control() || b == b' ');
    plain
        && match scheme {
            Some(rest) => !rest.is_empty() && !rest.starts_with('-'),
            None if is_local(url) => is_local(parent),
            // user@host:path
            None => {
                !url.starts_with('-')
                    && !url.contains("::")
                    && url
                        .find(':')
                        .is_some_and(|at| at > 0 && url[..at].contains('@') && !url[..at].contains('/'))
            }
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_submodules() {
        let https = "https://h/a/b.git";
        for (url, parent, wanted) in [
            ("../c.git", https, Some("https://h/a/c.git")),
            ("./c", https, Some("https://h/a/b.git/c")),
            ("../../../../x", https, None),
            ("https://o/x", https, Some("https://o/x")),
            ("git@o:x/y", https, Some("git@o:x/y")),
            ("file:///etc", https, None),
            ("/etc", https, None),
            ("../c", "/srv/a/b", Some("/srv/a/c")),
            ("/srv/c", "/srv/a/b", Some("/srv/c")),
            ("ext::sh -c x", https, None),
            ("ext::x", https, None),
            ("-oProxyCommand=x", https, None),
            ("ssh://-oProxyCommand=x/y", https, None),
            ("c", https, None),
        ] {
            assert_eq!(absolute(url, parent).as_deref(), wanted, "{url}");
        }
    }
}
