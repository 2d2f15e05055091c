//! Tags as names of small documents: found without an error where there is none, listed, and taken away.

use oci_spec::distribution::Reference;
use serde::Deserialize;
use ureq::http::{Method, StatusCode};

use super::request::{Ask, Trouble, small, text};
use super::{Fetched, Matter, Registry};
use crate::error::Result;
use crate::net::{Failure, Watch};
use crate::oci::digest::Hasher;
use crate::oci::document::{MANIFEST_TYPES, MOST_MANIFEST};

/// Pages of a list of tags that are read.
const MOST_PAGES: usize = 10_000;
/// The longest page, in bytes.
const MOST_PAGE: u64 = 16 << 20;

#[derive(Deserialize)]
struct Tags {
    /// Null where all tags are gone.
    tags: Option<Vec<String>>,
}

impl Registry {
    /// The manifest that the tag of a reference names, from the registry itself: a mirror may have an older one. None
    /// when it has none.
    pub fn tagged(&self, image: &Reference, watch: &dyn Watch) -> Result<Option<Fetched>> {
        let tag = image.tag().unwrap_or("latest");
        let matter = Matter { image, what: format!("the manifest `{tag}`") };
        let ask = Ask { method: Method::GET, accept: &MANIFEST_TYPES, write: false, range: None };
        let found = self.wanted(watch, || {
            self.ask_itself(&matter, &format!("manifests/{tag}"), watch, |server, url| {
                let response = match self.ask(server, url, &ask, watch) {
                    Ok(response) => response,
                    Err(Trouble::Absent(_)) => return Ok(None),
                    Err(trouble) => return Err(trouble),
                };
                let media_type = text(&response, "content-type").unwrap_or_default().to_string();
                Ok(Some((media_type, small(response, MOST_MANIFEST)?)))
            })
        })?;
        let Some((media_type, bytes)) = found else { return Ok(None) };
        let mut hasher = Hasher::sha256();
        hasher.update(&bytes);
        let digest = hasher.text().parse().map_err(|why| self.bad(&matter, format!("{why}")))?;
        Ok(Some(Fetched { digest, media_type, bytes }))
    }

    /// All tags of the repository of a reference.
    pub fn tags(&self, image: &Reference, watch: &dyn Watch) -> Result<Vec<String>> {
        let matter = Matter { image, what: "the list of tags".to_string() };
        let ask = Ask { method: Method::GET, accept: &[], write: false, range: None };
        let wrong = |why: String| Trouble::from(Failure::Final(why));
        self.wanted(watch, || {
            self.ask_itself(&matter, "tags/list?n=1000", watch, |server, url| {
                let (mut all, mut page) = (Vec::new(), url.clone());
                for _ in 0..MOST_PAGES {
                    let response = match self.ask(server, &page, &ask, watch) {
                        Ok(response) => response,
                        // A repository is there once something is in it.
                        Err(Trouble::Absent(_)) => return Ok(all),
                        Err(trouble) => return Err(trouble),
                    };
                    let next = text(&response, "link").and_then(next).map(|to| page.join(&to));
                    let tags: Tags = serde_json::from_slice(&small(response, MOST_PAGE)?)
                        .map_err(|why| wrong(format!("its list of tags cannot be read: {why}")))?;
                    all.extend(tags.tags.unwrap_or_default());
                    page = match next {
                        None => return Ok(all),
                        Some(Ok(to)) if to.origin() == page.origin() && to != page => to,
                        Some(_) => return Err(wrong("its list of tags goes on elsewhere".to_string())),
                    };
                }
                Err(wrong(format!("its list of tags has more than {MOST_PAGES} pages")))
            })
        })
    }

    /// Takes the manifest away that the tag of a reference names; false when there is none. What it refers to stays
    /// until the registry clears up.
    pub fn remove_tagged(&self, image: &Reference, watch: &dyn Watch) -> Result<bool> {
        let Some(found) = self.tagged(image, watch)? else { return Ok(false) };
        let matter = Matter { image, what: format!("the manifest `{}` away", found.digest) };
        let ask = Ask { method: Method::DELETE, accept: &[], write: true, range: None };
        self.wanted(watch, || {
            self.ask_itself(&matter, &format!("manifests/{}", found.digest), watch, |server, url| match self
                .ask(server, url, &ask, watch)
            {
                Ok(_) => Ok(true),
                Err(Trouble::Absent(_)) => Ok(false),
                Err(Trouble::Failed(Failure::Final(why)))
                    if why.contains(StatusCode::METHOD_NOT_ALLOWED.as_str()) =>
                {
                    Err(Failure::Final(format!("{why}; the registry is set up to delete nothing")).into())
                }
                Err(trouble) => Err(trouble),
            })
        })
    }
}

/// Where a list goes on (RFC 8288): `<URL>; rel="next"`.
fn next(link: &str) -> Option<String> {
    link.split(',').find_map(|part| {
        let (url, parameters) = part.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|p| matches!(p.trim(), "rel=next" | "rel=\"next\""));
        is_next.then(|| url.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::next;

    #[test]
    fn where_a_list_goes_on() {
        assert_eq!(next("</v2/a/tags/list?last=x>; rel=\"next\"").as_deref(), Some("/v2/a/tags/list?last=x"));
        assert_eq!(next("<a>; rel=prev, <b>; rel=next").as_deref(), Some("b"));
        for none in ["", "<", "<a>", "<a>; rel=last", "a; rel=next"] {
            assert_eq!(next(none), None, "{none}");
        }
    }
}
