//! Every package that could be installed: what the `Packages` files of all suites and components name.

use std::collections::HashMap;

use super::control::{self, Paragraph};
use super::package::Package;
use super::relation::{self, Op, Relation};
use super::version;
use crate::source::{Algorithm, Pin};

/// One `Packages` file.
#[derive(Debug)]
pub struct Index {
    /// The suite it is of.
    pub suite: String,
    /// How much its packages are wanted: 500; 100 or 1 for suites that are not taken from by themselves
    /// (`NotAutomatic`), as apt_preferences(5) has it.
    pub rank: u16,
    /// Its text.
    pub text: String,
}

/// A package in one version.
#[derive(Debug, Clone, Copy)]
pub struct Binary<'a> {
    /// The paragraph.
    pub paragraph: Paragraph<'a>,
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// `Essential: yes`.
    pub essential: bool,
    /// 1 required, 2 important, 3 standard, 4 optional, 5 extra; 0 when none is given.
    pub priority: u8,
    /// `Multi-Arch: allowed`.
    pub allowed: bool,
    /// Which index it is in.
    pub index: usize,
    provides: &'a str,
}

/// A package that another one provides.
#[derive(Debug, Clone, Copy)]
pub struct Provider<'a> {
    /// Position of the version that provides it.
    pub by: usize,
    /// As which version.
    pub version: Option<&'a str>,
}

impl Provider<'_> {
    /// Whether it would do for a relation to what it provides.
    pub fn is_for(&self, relation: &Relation<'_>) -> bool {
        relation.qualifier.is_none()
            && match (relation.version, self.version) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some((op, wanted)), Some(version)) => op.holds(version, wanted),
            }
    }
}

/// All of them.
#[derive(Debug)]
pub struct Universe<'a> {
    /// Where they are from.
    pub indexes: &'a [Index],
    /// Every version of every package.
    pub all: Vec<Binary<'a>>,
    /// The architecture.
    pub arch: &'a str,
    by_name: HashMap<&'a str, Vec<usize>>,
    provided: HashMap<&'a str, Vec<Provider<'a>>>,
}

impl<'a> Universe<'a> {
    /// Reads the indexes. Packages of other architectures, and what cannot be one, are left out.
    pub fn read(indexes: &'a [Index], arch: &'a str) -> Universe<'a> {
        let mut universe =
            Universe { indexes, all: Vec::new(), arch, by_name: HashMap::new(), provided: HashMap::new() };
        for (index, Index { text, .. }) in indexes.iter().enumerate() {
            for paragraph in control::paragraphs(text) {
                let Some(binary) = binary(paragraph, index, arch) else { continue };
                let at = universe.all.len();
                universe.by_name.entry(binary.name).or_default().push(at);
                for relation in
                    relation::parse(binary.provides, arch).unwrap_or_default().into_iter().flatten()
                {
                    let version = match relation.version {
                        Some((Op::Same, version)) => Some(version),
                        Some(_) => continue,
                        None => None,
                    };
                    universe.provided.entry(relation.name).or_default().push(Provider { by: at, version });
                }
                universe.all.push(binary);
            }
        }
        universe
    }

    /// The versions of a package.
    pub fn versions(&self, name: &str) -> &[usize] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// Who provides a package.
    pub fn providers(&self, name: &str) -> &[Provider<'a>] {
        self.provided.get(name).map_or(&[], Vec::as_slice)
    }

    /// The names of all packages, with their versions.
    pub fn names(&self) -> impl Iterator<Item = (&'a str, &[usize])> {
        self.by_name.iter().map(|(name, all)| (*name, all.as_slice()))
    }

    /// The version that is installed unless something else is said: of those most wanted the latest; of several
    /// suites with the same one the first.
    pub fn candidate(&self, name: &str) -> Option<usize> {
        let better = |a: usize, b: usize| {
            let rank = |at: usize| self.indexes[self.all[at].index].rank;
            let order = rank(a).cmp(&rank(b));
            order.then_with(|| version::compare(self.all[a].version, self.all[b].version)).is_ge()
        };
        self.versions(name).iter().copied().reduce(|best, next| if better(best, next) { best } else { next })
    }

    /// The relations in some fields of a version, in this order; none when they cannot be read.
    pub fn relations(&self, at: usize, fields: &[&str]) -> Option<Vec<Vec<Relation<'a>>>> {
        let mut all = Vec::new();
        for field in fields {
            if let Some(value) = self.all[at].paragraph.get(field) {
                all.extend(relation::parse(value, self.arch).ok()?);
            }
        }
        Some(all)
    }

    /// Whether a version would do for a relation, itself or by what it provides.
    pub fn satisfies(&self, at: usize, relation: &Relation<'_>) -> bool {
        self.is_it(at, relation) || self.provides(at, relation)
    }

    fn is_it(&self, at: usize, relation: &Relation<'_>) -> bool {
        let binary = &self.all[at];
        binary.name == relation.name
            && relation.allows(binary.version)
            && match relation.qualifier {
                None => true,
                Some("any") => binary.allowed,
                Some(arch) => arch == self.arch,
            }
    }

    /// Whether a version provides what a relation names.
    pub fn provides(&self, at: usize, relation: &Relation<'_>) -> bool {
        self.providers(relation.name).iter().any(|provider| provider.by == at && provider.is_for(relation))
    }

    /// Every version that would do for a relation.
    pub fn solutions(&self, relation: &Relation<'_>) -> Vec<usize> {
        let real = self.versions(relation.name).iter().copied().filter(|at| self.is_it(*at, relation));
        let provided = self.providers(relation.name).iter().filter(|provider| provider.is_for(relation));
        let mut all: Vec<usize> = real.chain(provided.map(|provider| provider.by)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The version as a lock file pins it; none when its paragraph lacks what that takes.
    pub fn package(&self, at: usize) -> Option<Package> {
        let Binary { paragraph, name, version, index, .. } = self.all[at];
        let path = paragraph.get("Filename")?;
        let path = path.strip_prefix("./").unwrap_or(path);
        Some(Package {
            name: name.to_string(),
            version: version.to_string(),
            arch: paragraph.get("Architecture")?.to_string(),
            sha256: Pin::new(Algorithm::Sha256, paragraph.get("SHA256")?)?,
            size: paragraph.get("Size")?.parse().ok()?,
            path: Some(path).filter(|path| Package::is_path(path))?.to_string(),
            suite: self.indexes[index].suite.clone(),
        })
    }
}

fn binary<'a>(paragraph: Paragraph<'a>, index: usize, arch: &str) -> Option<Binary<'a>> {
    let mut binary = Binary {
        paragraph,
        name: "",
        version: "",
        essential: false,
        priority: 0,
        allowed: false,
        index,
        provides: "",
    };
    let mut fits = false;
    for (key, value) in paragraph.fields() {
        match key {
            "Package" => binary.name = value,
            "Version" => binary.version = value,
            "Architecture" => fits = value == arch || value == "all",
            "Essential" => binary.essential = value == "yes",
            "Priority" => {
                let known = ["required", "important", "standard", "optional", "extra"];
                binary.priority = known.iter().position(|known| *known == value).map_or(0, |at| at as u8 + 1);
            }
            "Multi-Arch" => binary.allowed = value == "allowed",
            "Provides" => binary.provides = value,
            _ => {}
        }
    }
    (fits && Package::is_name(binary.name) && Package::is_version(binary.version)).then_some(binary)
}
