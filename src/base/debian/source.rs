//! Source packages: which files one has, by the archive's signed indexes, and the tree they make.
//!
//! The tree is that of `dpkg-source -x`, with the patches of the package applied, without quilt's `.pc`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::archive::Reader;
use super::control::{self, Paragraph};
use super::package::Package;
use super::patch::{self, Files};
use super::release::file_line;
use super::version;
use crate::digest::LayerId;
use crate::error::{Error, Result};
use crate::layer::{Extract, IdShift, Kind, Limits, Manifest, decompress, extract};
use crate::path::GuestPath;
use crate::source::{Lay, Pin};
use crate::store::Store;

/// The largest `.dsc`, patch, and file that a patch changes, in bytes.
const LARGEST_DSC: u64 = 4 << 20;
const LARGEST_PATCH: u64 = 256 << 20;

/// A source package that a recipe wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRequest {
    /// Its name.
    pub name: String,
    /// Its version; none for the latest.
    pub version: Option<String>,
    /// Where it is looked for.
    pub suites: Vec<String>,
    /// In which parts of the archive.
    pub components: Vec<String>,
}

/// A source package that a lock file pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePackage {
    /// Its version.
    pub version: String,
    /// The suite whose index named it.
    pub suite: String,
    /// Its files, the `.dsc` among them, in the order of their names.
    pub files: Vec<SourceFile>,
}

/// A file of a source package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// SHA-256 of the file.
    pub sha256: Pin,
    /// Its length in bytes.
    pub size: u64,
    /// Where it is below a mirror.
    pub path: String,
}

impl SourceFile {
    /// Its name.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

impl Reader<'_> {
    /// Finds a source package in the signed indexes of its suites.
    ///
    /// # Errors
    /// Class `Recipe` when there is none; what fetching gives.
    pub fn find_source(&self, request: &SourceRequest) -> Result<SourcePackage> {
        let mut found: Option<SourcePackage> = None;
        let mut there = Vec::new();
        for name in &request.suites {
            let suite = self.suite(name, &BTreeMap::new())?;
            for component in &request.components {
                let text = self.index(&suite, &format!("{component}/source/Sources"))?.unwrap_or_default();
                for paragraph in named(&text, &request.name) {
                    if paragraph.get("Extra-Source-Only") == Some("yes") {
                        continue;
                    }
                    let Some(version) = paragraph.get("Version") else { continue };
                    there.push(version.to_string());
                    let wanted = request.version.as_ref().is_none_or(|wanted| wanted == version);
                    let newer = |known: &SourcePackage| version::compare(version, &known.version).is_gt();
                    if wanted && found.as_ref().is_none_or(newer) {
                        let files = files(paragraph).ok_or_else(|| {
                            Error::machine(format!(
                                "the index does not say what `{}` consists of",
                                request.name
                            ))
                        })?;
                        found =
                            Some(SourcePackage { version: version.to_string(), suite: name.clone(), files });
                    }
                }
            }
        }
        found.ok_or_else(|| {
            let suites = request.suites.join(", ");
            let wanted = request.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
            let hint = match there.is_empty() {
                true => "name the suite or the component that has it; a source package may have another name than its packages".to_string(),
                false => format!("there is {}", there.join(", ")),
            };
            Error::recipe(format!("there is no source package `{}`{wanted} in {suites}", request.name)).hint(hint)
        })
    }
}

/// The paragraphs of a `Sources` file about one package. The others, which are nearly all, are not looked at.
fn named<'t>(text: &'t str, name: &'t str) -> impl Iterator<Item = Paragraph<'t>> {
    let bytes = text.as_bytes();
    let found = memchr::memmem::find_iter(bytes, "Package: ");
    found.filter_map(move |at| {
        let is_start = at == 0 || text[..at].ends_with("\n\n");
        let line = text[at..].lines().next().unwrap_or_default();
        let is_it = is_start && line.strip_prefix("Package: ").is_some_and(|found| found.trim() == name);
        is_it.then(|| control::paragraphs(&text[at..]).next()).flatten()
    })
}

fn files(paragraph: Paragraph<'_>) -> Option<Vec<SourceFile>> {
    let dir = paragraph.get("Directory")?;
    let mut files = Vec::new();
    for line in control::lines(paragraph.get("Checksums-Sha256")?) {
        let (name, sha256, size) = file_line(line)?;
        let path = format!("{dir}/{name}");
        files.push(SourceFile { sha256, size, path: Some(path).filter(|path| Package::is_path(path))? });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    (!files.is_empty()).then_some(files)
}

/// Opens a file of a package; its bytes have just been checked.
type Open<'a> = &'a dyn Fn(&SourceFile) -> Result<File>;

/// Lays in the tree of a source package.
///
/// # Errors
/// A package of a kind that is not known, one whose `.dsc` names other files than are pinned, and patches that do not
/// apply.
pub fn lay_source(
    store: &Store,
    package: &SourcePackage,
    open: Open<'_>,
    lay: &Lay,
    limits: Limits,
    ids: IdShift,
) -> Result<LayerId> {
    let parts = Parts::of(package, open)?;
    let mut tree = Work { scratch: Vec::new(), files: BTreeMap::new() };
    for (file, place) in &parts.archives {
        tree.unpack(store, open(file)?, place, limits, ids)?;
    }
    match parts.diff {
        Some(diff) => tree.patch(&read(open(diff)?, LARGEST_PATCH, diff.name())?, diff.name())?,
        None if parts.quilt => tree.quilt()?,
        None => {}
    }
    if let Some(rules) = tree.files.get_mut("debian/rules") {
        rules.executable = true;
    }
    lay.fill(store, ids, limits, |into| tree.lay(into))
}

/// What a `.dsc` says of a file: name, digest, size.
pub type Named = (String, Pin, u64);

/// What a package consists of.
struct Parts<'a> {
    /// The archives in the order in which they are unpacked, each with its place below the top.
    archives: Vec<(&'a SourceFile, String)>,
    diff: Option<&'a SourceFile>,
    quilt: bool,
}

impl<'a> Parts<'a> {
    fn of(package: &'a SourcePackage, open: Open<'_>) -> Result<Parts<'a>> {
        let wrong = |why: String| Error::machine("the source package cannot be used").because(why);
        let dsc = package.files.iter().find(|file| file.name().ends_with(".dsc"));
        let dsc = dsc.ok_or_else(|| wrong("it has no `.dsc`".to_string()))?;
        let bytes = read(open(dsc)?, LARGEST_DSC, dsc.name())?;
        let (format, named) = dsc_of(&bytes).map_err(|why| wrong(format!("`{}`: {why}", dsc.name())))?;
        for (name, pin, _) in &named {
            if !package.files.iter().any(|file| file.name() == name && file.sha256 == *pin) {
                return Err(wrong(format!("its `.dsc` names another `{name}` than the archive's index")));
            }
        }
        let files = || package.files.iter().filter(|file| named.iter().any(|(name, ..)| name == file.name()));
        let tars = files().filter(|file| file.name().contains(".tar."));
        let mut archives = Vec::new();
        let mut parts = Vec::new();
        let (mut debian, mut diff) = (None, None);
        for file in tars.filter(|file| !file.name().ends_with(".asc")) {
            let stem = file.name().rsplit_once(".tar.").map_or("", |(stem, _)| stem);
            match stem.rsplit_once(".orig-") {
                Some((_, component)) => parts.push((file, component.to_string())),
                None if stem.ends_with(".debian") => debian = Some((file, "debian".to_string())),
                None => archives.insert(0, (file, String::new())),
            }
        }
        for file in files().filter(|file| file.name().ends_with(".diff.gz")) {
            diff = Some(file);
        }
        let quilt = match format.as_str() {
            "3.0 (quilt)" if archives.len() == 1 && debian.is_some() && diff.is_none() => true,
            "3.0 (native)" | "1.0" if archives.len() == 1 && parts.is_empty() && debian.is_none() => false,
            _ => return Err(wrong(format!("its format `{format}` is not known, or it lacks files for it")).hint(
                "known are `3.0 (quilt)`, `3.0 (native)` and `1.0`; name its archive as a `url` source instead",
            )),
        };
        archives.extend(parts);
        archives.extend(debian);
        Ok(Parts { archives, diff, quilt })
    }
}

/// The format and the files of a `.dsc`: a paragraph, perhaps in the armor of a signature. Who signed it does not
/// matter: the archive's own signature covers it.
///
/// # Errors
/// What it lacks.
pub fn dsc_of(bytes: &[u8]) -> Result<(String, Vec<Named>), String> {
    let text = String::from_utf8_lossy(bytes);
    let text = match text.strip_prefix("-----BEGIN PGP SIGNED MESSAGE-----") {
        Some(rest) => rest.split_once("\n\n").map_or("", |(_, rest)| rest),
        None => &text,
    };
    let text = text.split("\n-----BEGIN PGP SIGNATURE-----").next().unwrap_or_default();
    let paragraph = control::paragraphs(text).next().ok_or("it is empty")?;
    let format = paragraph.get("Format").ok_or("it has no `Format`")?.to_string();
    let list = paragraph.get("Checksums-Sha256").ok_or("it has no SHA-256 digests")?;
    let files = control::lines(list).map(file_line).collect::<Option<Vec<_>>>();
    let files = files.filter(|files| files.iter().all(|(name, ..)| !name.contains('/')));
    Ok((format, files.ok_or("its digests cannot be read")?))
}

fn read(file: File, most: u64, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let reader = decompress(file)?;
    reader
        .take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|why| Error::machine(format!("cannot read `{name}`")).because(why))?;
    match bytes.len() as u64 > most {
        true => Err(Error::machine(format!("`{name}` has more than {most} bytes"))),
        false => Ok(bytes),
    }
}

/// A tree that is being put together.
struct Work {
    scratch: Vec<crate::store::Scratch>,
    /// By path below the top.
    files: BTreeMap<String, Node>,
}

struct Node {
    executable: bool,
    what: What,
}

enum What {
    Dir,
    Symlink(Vec<u8>),
    /// A file on disk, of this size.
    Disk(PathBuf, u64),
    Memory(Vec<u8>),
}

impl Work {
    /// Unpacks an archive below `place`, in place of what is there. A single directory at its top is left out.
    fn unpack(
        &mut self,
        store: &Store,
        archive: File,
        place: &str,
        limits: Limits,
        ids: IdShift,
    ) -> Result<()> {
        let scratch = store.scratch()?;
        let dir = scratch.tree()?;
        let mut into = Extract::new(&dir, ids, &GuestPath::root(), 0, limits)?;
        extract(archive, &mut into)?;
        let manifest = into.finish()?;
        // The package's own files come as `debian/…`.
        let strip = if place == "debian" { 0 } else { usize::from(has_one_top(&manifest)) };
        if !place.is_empty() {
            let inside = format!("{place}/");
            self.files.retain(|path, _| path != place && !path.starts_with(&inside));
        }
        for entry in manifest.entries() {
            let Ok(path) = std::str::from_utf8(entry.path.as_bytes()) else {
                return Err(Error::machine("a name in the archive is not UTF-8"));
            };
            let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).skip(strip).collect();
            if parts.is_empty() {
                continue;
            }
            let path = match place {
                "" | "debian" => parts.join("/"),
                _ => format!("{place}/{}", parts.join("/")),
            };
            if place == "debian" && parts[0] != "debian" {
                return Err(Error::machine(format!("`{path}` has no place among the package's own files")));
            }
            let what = match &entry.kind {
                Kind::Dir { .. } => What::Dir,
                Kind::Symlink { target } => What::Symlink(target.clone()),
                Kind::File { size, .. } => What::Disk(dir.join(entry.path.as_relative()), *size),
                _ => return Err(Error::machine(format!("`{path}` is neither a file nor a directory"))),
            };
            self.files.insert(path, Node { executable: entry.mode & 0o100 != 0, what });
        }
        self.scratch.push(scratch);
        Ok(())
    }

    /// Applies the patches that `debian/patches/series` names.
    fn quilt(&mut self) -> Result<()> {
        let wrong =
            |why: String| Error::machine("the patches of the source package do not apply").because(why);
        let series = ["debian/patches/debian.series", "debian/patches/series"];
        let mut found = None;
        for name in series {
            found = found.or(Files::read(self, name).map_err(wrong)?);
        }
        let text = found.unwrap_or_default();
        for line in String::from_utf8_lossy(&text).lines() {
            let mut words = line.split(" #").next().unwrap_or_default().split_ascii_whitespace();
            let Some(name) = words.next().filter(|name| !name.starts_with('#')) else { continue };
            let path = format!("debian/patches/{name}");
            let patch = Files::read(self, &path).map_err(wrong)?;
            let patch = patch.ok_or_else(|| wrong(format!("there is no `{path}`")))?;
            self.patch(&patch, name)?;
        }
        Ok(())
    }

    fn patch(&mut self, patch: &[u8], name: &str) -> Result<()> {
        patch::apply(patch, self)
            .map_err(|why| Error::machine(format!("the patch `{name}` does not apply")).because(why))
    }

    fn lay(&self, into: &mut Extract<'_>) -> Result<()> {
        for (path, node) in &self.files {
            let name = path.as_bytes();
            match &node.what {
                What::Dir => into.directory(name)?,
                What::Symlink(target) => into.symlink(name, target)?,
                What::Memory(bytes) => {
                    into.file(name, node.executable, bytes.len() as u64, &mut &bytes[..])?
                }
                What::Disk(file, size) => {
                    let mut open = File::open(file).map_err(|e| Error::io("read", file, e))?;
                    into.file(name, node.executable, *size, &mut open)?;
                }
            }
        }
        Ok(())
    }
}

impl Files for Work {
    fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
        match self.files.get(name).map(|node| &node.what) {
            None => Ok(None),
            Some(What::Memory(bytes)) => Ok(Some(bytes.clone())),
            Some(What::Disk(_, size)) if *size > LARGEST_PATCH => {
                Err(format!("`{name}` is too large to be patched"))
            }
            Some(What::Disk(file, _)) => {
                std::fs::read(file).map(Some).map_err(|why| format!("`{name}`: {why}"))
            }
            // What a link leads to is not looked at: it may be outside.
            Some(What::Symlink(_) | What::Dir) => Err(format!("`{name}` is not a regular file")),
        }
    }

    fn write(&mut self, name: &str, content: Vec<u8>, executable: Option<bool>) -> Result<(), String> {
        for (at, _) in name.match_indices('/') {
            match self.files.get(&name[..at]).map(|node| &node.what) {
                Some(What::Dir) => {}
                None => {
                    let dir = Node { executable: false, what: What::Dir };
                    self.files.insert(name[..at].to_string(), dir);
                }
                Some(_) => return Err(format!("`{}` is not a directory", &name[..at])),
            }
        }
        let was = self.files.get(name).is_some_and(|node| node.executable);
        let node = Node { executable: executable.unwrap_or(was), what: What::Memory(content) };
        self.files.insert(name.to_string(), node);
        Ok(())
    }

    /// Directories that this leaves empty go too, as with GNU patch.
    fn remove(&mut self, name: &str) -> Result<(), String> {
        self.files.remove(name);
        let mut dir = Path::new(name).parent().and_then(Path::to_str).unwrap_or_default().to_string();
        while !dir.is_empty() && !self.files.keys().any(|path| path.starts_with(&format!("{dir}/"))) {
            self.files.remove(&dir);
            dir = Path::new(&dir).parent().and_then(Path::to_str).unwrap_or_default().to_string();
        }
        Ok(())
    }
}

/// Whether an archive has one name at its top, and that is a directory.
fn has_one_top(manifest: &Manifest) -> bool {
    let is_top = |path: &GuestPath| path.parent().is_some_and(|parent| parent.is_root());
    let mut tops = manifest.entries().iter().filter(|entry| is_top(&entry.path));
    let first = tops.next();
    tops.next().is_none() && first.is_some_and(|entry| matches!(entry.kind, Kind::Dir { .. }))
}
