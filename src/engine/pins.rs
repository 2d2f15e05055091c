//! What every fetched input of a recipe is pinned to: by the recipe, by its lock file, or by finding out.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

mod image;

use super::{Event, Observer};
use crate::base::debian::{
    Archives, Choice, Debian, Package, Packages, Reader, SourceFile, SourcePackage, SourceRequest,
    architecture,
};
use crate::digest::ContentDigest;
use crate::error::{Class, Error, Result};
use crate::oci::Digest;
use crate::oci::source::Images;
use crate::recipe::{Base, DebianPins, Git, GitRef, Lock, Locked, Origin, Recipe, Remote};
use crate::source::Pin;
use crate::source::fetch::{self, Access, Progress, Want, Watch};
use crate::source::git;
use crate::store::Store;

/// What is done about inputs that nothing pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinning<'a> {
    /// An error names them.
    Required,
    /// They are resolved, and the lock file gets them.
    Missing,
    /// So are these, although they are pinned; all with an empty list.
    Anew(&'a [String]),
}

/// What to do about a package that is pinned and is not there any more.
const DROPPED: &str = "mirrors drop old versions: `isolith lock RECIPE --update base` (or the source's name) pins those that \
    are there now; or name a mirror that keeps them all (a snapshot) under `[debian]` in the configuration";

/// Resolves pins with what a build has at hand.
pub struct Pinner<'a> {
    /// Where fetched bytes go.
    pub store: &'a Store,
    /// What may be reached.
    pub access: &'a Access,
    /// Where Debian packages come from.
    pub archives: &'a Archives,
    /// Where images come from.
    pub images: &'a Images,
    /// What is done about inputs that nothing pins.
    pub pinning: Pinning<'a>,
    /// The lock files' texts by the path of the recipe, in place of the files: then none is read or written.
    pub locks: Option<BTreeMap<PathBuf, String>>,
    /// Where events go.
    pub observer: &'a dyn Observer,
    /// Set to stop.
    pub cancel: &'a AtomicBool,
}

/// What the inputs of a recipe are pinned to, by the name of the source; the base is called `base`.
#[derive(Debug, Default)]
pub struct Pins {
    base: Option<Pin>,
    debian: Option<Packages>,
    image: Option<Digest>,
    files: BTreeMap<String, Pin>,
    commits: BTreeMap<String, String>,
    packages: BTreeMap<String, SourcePackage>,
    /// The text of the lock file as it is now, when something in it counts.
    pub lock: Option<String>,
}

/// One change of a lock file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LockChange {
    /// `sources.NAME` or `base`.
    pub place: String,
    /// What it is pinned to now; none when the entry was taken out.
    pub pin: Option<String>,
}

impl Pins {
    /// The digest of the archive of the base.
    pub fn base(&self) -> Result<&Pin> {
        self.base.as_ref().ok_or_else(|| Error::machine("the base has no pin"))
    }

    /// What the tag of an image is pinned to; none where no tag has to be.
    pub fn image(&self) -> Option<&Digest> {
        self.image.as_ref()
    }

    /// The packages of a Debian base.
    pub fn debian(&self) -> Result<&Packages> {
        self.debian.as_ref().ok_or_else(|| Error::machine("the base has no packages"))
    }

    /// The digest of a source.
    pub fn file(&self, source: &str) -> Result<&Pin> {
        self.files.get(source).ok_or_else(|| Error::machine(format!("source `{source}` has no pin")))
    }

    /// The files of a source package.
    pub fn source_package(&self, source: &str) -> Result<&SourcePackage> {
        let package = self.packages.get(source);
        package.ok_or_else(|| Error::machine(format!("source `{source}` has no files")))
    }

    /// The commit of a source.
    pub fn commit(&self, source: &str) -> Result<&str> {
        let commit = self.commits.get(source).map(String::as_str);
        commit.ok_or_else(|| Error::machine(format!("source `{source}` has no commit")))
    }
}

/// One recipe whose pins are looked for.
struct Work<'a> {
    pinner: &'a Pinner<'a>,
    recipe: &'a Recipe,
    lock: Option<Lock>,
    /// What nothing pins, when that is an error: name, and what the lock says instead.
    unpinned: Vec<String>,
    changes: Vec<LockChange>,
}

impl Pinner<'_> {
    /// The pins of a recipe. The lock file is read if it is needed, and written if something was resolved.
    pub fn pins(&self, recipe: &Recipe) -> Result<Pins> {
        self.pins_and_changes(recipe).map(|(pins, _)| pins)
    }

    /// The same, with what changed in the lock file.
    pub fn pins_and_changes(&self, recipe: &Recipe) -> Result<(Pins, Vec<LockChange>)> {
        let mut pins = Pins::default();
        let (unpinned, changes) = (Vec::new(), Vec::new());
        let mut work = Work { pinner: self, recipe, lock: None, unpinned, changes };
        match &recipe.base {
            Base::Fetched(remote) => pins.base = work.remote(&["base"], "the base", remote)?,
            Base::Image(base) => pins.image = work.image(base)?,
            Base::Debian(request) => pins.debian = work.debian(request)?,
            _ => {}
        }
        for (name, source) in &recipe.sources {
            let place = ["sources", name.as_str()];
            let what = format!("source `{name}`");
            match &source.origin {
                Origin::Path(_) => {}
                Origin::Archive { remote, .. } | Origin::File(remote) => {
                    pins.files.extend(work.remote(&place, &what, remote)?.map(|pin| (name.clone(), pin)));
                }
                Origin::Debian(request) => {
                    let package = work.source_package(&place, &what, request)?;
                    pins.packages.extend(package.map(|package| (name.clone(), package)));
                }
                Origin::Git(git) => {
                    pins.commits.extend(work.commit(&place, &what, git)?.map(|rev| (name.clone(), rev)));
                }
            }
        }
        work.finish(pins)
    }

    /// The blob that a pin names, fetched if need be.
    pub fn blob(&self, what: &str, remote: &Remote, pin: &Pin) -> Result<ContentDigest> {
        let want = Want { what, urls: &remote.urls, pin: Some(pin) };
        Ok(fetch::fetch(self.store, self.access, &want, &self.watch(what))?.blob)
    }

    /// The same, opened; its bytes have just been checked.
    pub fn open(&self, what: &str, remote: &Remote, pin: &Pin) -> Result<File> {
        self.open_with(self.access, what, remote, pin)
    }

    fn open_with(&self, access: &Access, what: &str, remote: &Remote, pin: &Pin) -> Result<File> {
        if let Some(file) = fetch::open(self.store, pin)? {
            return Ok(file);
        }
        let want = Want { what, urls: &remote.urls, pin: Some(pin) };
        let blob = fetch::fetch(self.store, access, &want, &self.watch(what))?.blob;
        self.store
            .open_blob(&blob)?
            .ok_or_else(|| Error::machine(format!("{what} is lost, although it has just been fetched")))
    }

    /// The file of a Debian package, fetched if need be; its bytes have just been checked.
    pub fn package(&self, package: &Package) -> Result<File> {
        let what = format!("the package `{}`", package.name);
        self.of_archive(&what, &package.suite, &package.path, &package.sha256, package.size)
    }

    /// Its blob.
    pub fn package_blob(&self, package: &Package) -> Result<ContentDigest> {
        self.package(package)?;
        self.named(&package.sha256)
    }

    /// A file of a source package, fetched if need be; its bytes have just been checked.
    pub fn source_file(&self, package: &SourcePackage, file: &SourceFile) -> Result<File> {
        self.of_archive(&format!("`{}`", file.name()), &package.suite, &file.path, &file.sha256, file.size)
    }

    /// A file of an archive. Its size is pinned too: no mirror makes us take more.
    fn of_archive(&self, what: &str, suite: &str, path: &str, sha256: &Pin, size: u64) -> Result<File> {
        let access = Access { max_size: size.min(self.access.max_size), ..self.access.clone() };
        let remote = Remote { urls: self.archives.urls(suite, path), pin: None };
        self.open_with(&access, what, &remote, sha256).map_err(|error| match error.class() {
            // Not the fault of the bytes, of the user, or of a machine that is offline.
            Class::Machine if !self.access.offline => error.hint(DROPPED),
            _ => error,
        })
    }

    /// Its blob.
    pub fn source_blob(&self, package: &SourcePackage, file: &SourceFile) -> Result<ContentDigest> {
        self.source_file(package, file)?;
        self.named(&file.sha256)
    }

    /// The blob of something that has just been opened.
    fn named(&self, pin: &Pin) -> Result<ContentDigest> {
        fetch::named(self.store, pin).ok_or_else(|| Error::machine(format!("the blob {pin} is lost")))
    }

    /// Who reads the indexes of archives.
    fn reader<'b>(&'b self, watch: &'b Watching<'b>) -> Reader<'b> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
        Reader { store: self.store, access: self.access, archives: self.archives, watch, now }
    }

    /// Who is told of a download of `what`.
    pub fn watch<'b>(&'b self, what: &'b str) -> Watching<'b> {
        Watching { observer: self.observer, cancel: self.cancel, what }
    }
}

/// Makes events of a download's progress.
pub struct Watching<'a> {
    observer: &'a dyn Observer,
    cancel: &'a AtomicBool,
    what: &'a str,
}

impl Watch for Watching<'_> {
    fn progress(&self, progress: Progress) {
        let Progress { url, bytes, total, rate, done } = progress;
        self.observer.event(Event::Fetching { what: self.what.to_string(), url, bytes, total, rate, done });
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

impl Work<'_> {
    fn lock(&mut self) -> Result<&mut Lock> {
        match self.lock {
            Some(ref mut lock) => Ok(lock),
            None => {
                let path = &self.recipe.path;
                let lock = match &self.pinner.locks {
                    Some(kept) => {
                        Lock::parse(kept.get(path).map_or("", String::as_str), &Lock::path_of(path))?
                    }
                    None => Lock::load(path)?,
                };
                Ok(self.lock.insert(lock))
            }
        }
    }

    /// Whether a pin that is there is to be found out anew.
    fn is_anew(&self, place: &[&str]) -> bool {
        let name = place.last().copied().unwrap_or_default();
        match self.pinner.pinning {
            Pinning::Anew([]) => true,
            Pinning::Anew(names) => names.iter().any(|wanted| wanted == name),
            _ => false,
        }
    }

    /// What the lock says, unless it has to be found out.
    fn locked<T>(&mut self, place: &[&str], what: &str, found: Locked<T>) -> Option<T> {
        let says = match found {
            Locked::To(pin) if !self.is_anew(place) => return Some(pin),
            Locked::To(_) | Locked::Missing => String::new(),
            Locked::Stale(was) => format!(" (the lock file has it for {was})"),
        };
        match self.pinner.pinning {
            Pinning::Required => self.unpinned.push(format!("{what}{says}")),
            _ if !says.is_empty() => {
                let message = format!("{what} is not what is locked{says}: it is pinned anew");
                self.pinner.observer.event(Event::Warning { message });
            }
            _ => {}
        }
        None
    }

    fn remote(&mut self, place: &[&str], what: &str, remote: &Remote) -> Result<Option<Pin>> {
        if let Some(pin) = &remote.pin {
            return Ok(Some(pin.clone()));
        }
        let found = self.lock()?.remote(place, remote);
        if let Some(pin) = self.locked(place, what, found) {
            return Ok(Some(pin));
        }
        if self.pinner.pinning == Pinning::Required {
            return Ok(None);
        }
        let want = Want { what, urls: &remote.urls, pin: None };
        let fetched = fetch::fetch(self.pinner.store, self.pinner.access, &want, &self.pinner.watch(what))?;
        self.lock()?.set_remote(place, remote, &fetched.pin, fetched.size);
        self.changes.push(LockChange { place: place.join("."), pin: Some(fetched.pin.to_string()) });
        Ok(Some(fetched.pin))
    }

    fn commit(&mut self, place: &[&str], what: &str, git: &Git) -> Result<Option<String>> {
        if let GitRef::Rev(rev) = &git.at {
            return Ok(Some(rev.clone()));
        }
        let found = self.lock()?.commit(place, git);
        if let Some(rev) = self.locked(place, what, found) {
            return Ok(Some(rev));
        }
        if self.pinner.pinning == Pinning::Required {
            return Ok(None);
        }
        let (kind, name) = match &git.at {
            GitRef::Tag(name) => ("tags", name),
            GitRef::Branch(name) | GitRef::Rev(name) => ("heads", name),
        };
        let rev = git::resolve(self.pinner.access, &self.pinner.watch(what), what, &git.url, kind, name)?;
        self.lock()?.set_commit(place, git, &rev);
        self.changes.push(LockChange { place: place.join("."), pin: Some(rev.clone()) });
        Ok(Some(rev))
    }

    fn source_package(
        &mut self,
        place: &[&str],
        what: &str,
        request: &SourceRequest,
    ) -> Result<Option<SourcePackage>> {
        let found = self.lock()?.source_package(place, request);
        if let Some(package) = self.locked(place, what, found) {
            return Ok(Some(package));
        }
        if self.pinner.pinning == Pinning::Required {
            return Ok(None);
        }
        let watch = self.pinner.watch(what);
        let package = self.pinner.reader(&watch).find_source(request)?;
        self.lock()?.set_source_package(place, request, &package);
        let pin = format!("{} {}", request.name, package.version);
        self.changes.push(LockChange { place: place.join("."), pin: Some(pin) });
        Ok(Some(package))
    }

    fn debian(&mut self, request: &Debian) -> Result<Option<Packages>> {
        let arch = architecture().ok_or_else(|| {
            Error::machine(format!(
                "Debian has no packages for a machine like this ({})",
                std::env::consts::ARCH
            ))
        })?;
        let found = self.lock()?.debian(request, arch);
        if let Some(packages) = self.locked(&["base"], "the base", found) {
            return Ok(Some(packages));
        }
        if self.pinner.pinning == Pinning::Required {
            return Ok(None);
        }
        // Without `--update` what is pinned stays as far as it goes.
        let was = self.lock()?.debian_pins(arch);
        let keep = was.as_ref().filter(|_| !self.is_anew(&["base"])).map(|was| &was.packages);
        let released = was.as_ref().map(|was| was.released.clone()).unwrap_or_default();
        let watch = self.pinner.watch("the base");
        let choice = self.pinner.reader(&watch).choose(request, arch, keep, &released)?;
        let Choice { packages, released } = choice;
        let pins = DebianPins { request: request.clone(), released, packages };
        self.lock()?.set_debian(arch, &pins);
        let changed = was.as_ref().is_none_or(|was| *was != pins);
        if changed {
            let number = pins.packages.iter().count();
            self.changes
                .push(LockChange { place: "base".to_string(), pin: Some(format!("{number} packages")) });
        }
        Ok(Some(pins.packages))
    }

    fn finish(mut self, mut pins: Pins) -> Result<(Pins, Vec<LockChange>)> {
        if !self.unpinned.is_empty() {
            let recipe = self.recipe.path.display();
            return Err(Error::recipe(format!("not pinned in `{recipe}`: {}", self.unpinned.join(", ")))
                .because(format!(
                    "neither it nor `{}` says what they have to be",
                    Lock::path_of(&self.recipe.path).display()
                ))
                .hint(format!("`isolith lock {recipe}` pins them in the lock file")));
        }
        // Entries that nothing needs go when the lock file is asked for, not in passing.
        if let Pinning::Anew(_) = self.pinner.pinning {
            self.tidy()?;
        }
        if let Some(lock) = &mut self.lock {
            if self.pinner.locks.is_none() {
                lock.save()?;
            }
            pins.lock = Some(lock.to_string());
        }
        Ok((pins, self.changes))
    }

    /// Takes out what the recipe does not leave open.
    fn tidy(&mut self) -> Result<()> {
        let recipe = self.recipe;
        let open = |place: &[&str]| match place {
            ["sources", name] => recipe.sources.get(*name).is_some_and(|source| match &source.origin {
                Origin::Path(_) => false,
                Origin::Archive { remote, .. } | Origin::File(remote) => remote.pin.is_none(),
                Origin::Git(git) => !matches!(git.at, GitRef::Rev(_)),
                Origin::Debian(_) => true,
            }),
            _ => match &recipe.base {
                Base::Fetched(remote) => remote.pin.is_none(),
                Base::Image(base) => image::tag_of(base).is_some(),
                Base::Debian(_) => true,
                _ => false,
            },
        };
        let gone = self.lock()?.retain(open);
        self.changes.extend(gone.into_iter().map(|place| LockChange { place, pin: None }));
        Ok(())
    }
}
