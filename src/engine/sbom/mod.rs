//! `sbom`: a bill of materials of everything that is pinned, of a recipe and the recipes it uses.

mod cyclonedx;
mod purl;
mod spdx;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::pins::{Pinning, Pins};
use super::{Observer, Session};
use crate::base::debian::utc;
use crate::error::Result;
use crate::recipe::{self, Base, GitRef, Origin, Recipe, Remote};
use crate::source::Pin;

/// The form of a bill of materials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// SPDX 2.3, JSON.
    Spdx,
    /// CycloneDX 1.6, JSON.
    CycloneDx,
}

/// What a recipe is made of.
#[derive(Debug, Serialize)]
struct Bill {
    /// The recipe that was asked for comes first.
    parts: Vec<Part>,
    /// Which part is made of which, by position.
    needs: Vec<(usize, usize)>,
    /// The epoch of the recipe, as a date.
    created: String,
}

/// One thing that goes in.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Part {
    /// A recipe, and not an input.
    is_recipe: bool,
    name: String,
    version: Option<String>,
    purl: Option<String>,
    pins: Vec<Pin>,
    /// Where it can be had, when there is one place.
    url: Option<String>,
}

impl Session {
    /// The bill of materials as text. The same recipe and lock files give the same bytes.
    ///
    /// # Errors
    /// Class `Recipe` when something is not pinned.
    pub fn sbom(
        &mut self,
        path: &Path,
        args: &BTreeMap<String, String>,
        format: Format,
        observer: &dyn Observer,
    ) -> Result<String> {
        let mut bill = Bill { parts: Vec::new(), needs: Vec::new(), created: String::new() };
        let mut open = vec![(path.to_path_buf(), args.clone(), None)];
        let mut seen: Vec<(std::path::PathBuf, usize)> = Vec::new();
        while let Some((path, args, by)) = open.pop() {
            let recipe = recipe::load(&path, &args)?;
            let known = seen.iter().find(|(known, _)| *known == recipe.path).map(|(_, at)| *at);
            let at = known.unwrap_or(bill.parts.len());
            bill.needs.extend(by.map(|by| (by, at)));
            if known.is_some() {
                continue;
            }
            seen.push((recipe.path.clone(), at));
            if bill.parts.is_empty() {
                bill.created = utc(recipe.epoch);
            }
            let pins = self.pinner(Pinning::Required, observer).pins(&recipe)?;
            bill.recipe(&recipe, &pins)?;
            let below = match &recipe.base {
                Base::Recipe { path } => Some(path.clone()),
                _ => None,
            };
            let used = below.into_iter().chain(recipe.deps.values().map(|dep| dep.recipe.clone()));
            open.extend(used.map(|path| (path, BTreeMap::new(), Some(at))));
        }
        bill.needs.sort_unstable();
        bill.needs.dedup();
        let document = match format {
            Format::Spdx => spdx::document(&bill),
            Format::CycloneDx => cyclonedx::document(&bill),
        };
        Ok(format!("{document:#}\n"))
    }
}

impl Bill {
    /// Adds a recipe with its own inputs.
    fn recipe(&mut self, recipe: &Recipe, pins: &Pins) -> Result<()> {
        let at = self.parts.len();
        let (name, version) = (recipe.name.clone(), recipe.version.clone());
        self.parts.push(Part { is_recipe: true, name, version, purl: None, pins: Vec::new(), url: None });
        match &recipe.base {
            Base::Debian(_) => {
                for package in pins.debian()?.iter() {
                    let purl = purl::deb(&package.name, &package.version, &package.arch, &package.suite);
                    let version = Some(package.version.clone());
                    self.input(at, &package.name, version, purl, vec![package.sha256.clone()], None);
                }
            }
            Base::Fetched(remote) => self.remote(at, "base", remote, pins.base()?),
            Base::Tar { path, sha256: Some(sha256), .. } => {
                let pin = Pin::new(crate::source::Algorithm::Sha256, sha256);
                let name = path.file_name().map_or("base".into(), |name| name.to_string_lossy());
                let purl = purl::generic(&name, None, &[("checksum", format!("sha256:{sha256}"))]);
                self.input(at, &name, None, purl, pin.into_iter().collect(), None);
            }
            _ => {}
        }
        for (name, source) in &recipe.sources {
            match &source.origin {
                Origin::Path(_) => {}
                Origin::Archive { remote, .. } | Origin::File(remote) => {
                    self.remote(at, name, remote, pins.file(name)?);
                }
                Origin::Debian(request) => {
                    let package = pins.source_package(name)?;
                    let purl = purl::deb(&request.name, &package.version, "source", &package.suite);
                    let digests = package.files.iter().filter(|file| file.name().ends_with(".dsc"));
                    let digests = digests.map(|file| file.sha256.clone()).collect();
                    self.input(at, &request.name, Some(package.version.clone()), purl, digests, None);
                }
                Origin::Git(git) => {
                    let commit = pins.commit(name)?;
                    let version = match &git.at {
                        GitRef::Tag(tag) => tag.as_str(),
                        _ => commit,
                    };
                    let purl = purl::git(name, &git.written, commit);
                    let url = git.written.contains("://").then(|| format!("git+{}@{commit}", git.written));
                    self.input(at, name, Some(version.to_string()), purl, Vec::new(), url);
                }
            }
        }
        Ok(())
    }

    fn remote(&mut self, by: usize, name: &str, remote: &Remote, pin: &Pin) {
        let url = remote.urls.first().cloned().unwrap_or_default();
        let last = url.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let shown = if last.is_empty() { name } else { last };
        let more = [("checksum", pin.to_string()), ("download_url", url.clone())];
        let purl = purl::generic(shown, None, &more);
        self.input(by, shown, None, purl, vec![pin.clone()], Some(url.clone()));
    }

    /// Adds an input of a recipe; one that several use is there once.
    fn input(
        &mut self,
        by: usize,
        name: &str,
        version: Option<String>,
        purl: String,
        pins: Vec<Pin>,
        url: Option<String>,
    ) {
        let part = Part { is_recipe: false, name: name.to_string(), version, purl: Some(purl), pins, url };
        let at = self.parts.iter().position(|known| *known == part).unwrap_or(self.parts.len());
        if at == self.parts.len() {
            self.parts.push(part);
        }
        self.needs.push((by, at));
    }

    /// Names the bill by all that is in it, 32 hexadecimal digits.
    fn digest(&self) -> String {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        blake3::hash(&bytes).to_hex()[..32].to_string()
    }
}
