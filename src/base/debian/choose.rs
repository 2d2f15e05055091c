//! From what a recipe asks for to the packages that it takes.

use std::collections::BTreeMap;

use super::archive::Reader;
use super::package::Packages;
use super::request::{Debian, Variant};
use super::resolve::Resolver;
use super::universe::{Index, Universe};
use super::why;
use crate::error::{Error, Result};

/// What was chosen, and from which indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The packages.
    pub packages: Packages,
    /// When the index of each suite was made: `2026-07-11T10:16:37Z`.
    pub released: BTreeMap<String, String>,
}

impl Reader<'_> {
    /// Reads the indexes and chooses. Versions of `keep` stay as they are where that is possible; `released` says when
    /// the indexes were made that were used last.
    ///
    /// # Errors
    /// Class `Recipe` when there is no such choice, with the reason; what fetching gives.
    pub fn choose(
        &self,
        request: &Debian,
        arch: &str,
        keep: Option<&Packages>,
        released: &BTreeMap<String, String>,
    ) -> Result<Choice> {
        let mut indexes = Vec::new();
        let mut dates = BTreeMap::new();
        for name in &request.suites {
            let suite = self.suite(name, released)?;
            for component in &request.components {
                let mut found = false;
                let of_all = suite.release.has_all.then_some("all");
                for of in [Some(arch), of_all].into_iter().flatten() {
                    let path = format!("{component}/binary-{of}/Packages");
                    let Some(text) = self.index(&suite, &path)? else { continue };
                    found = true;
                    indexes.push(Index { suite: name.clone(), rank: suite.release.rank, text });
                }
                if !found {
                    return Err(Error::recipe(format!(
                        "`{name}` has no packages of `{component}` for {arch}"
                    ))
                    .hint(format!("its components are {}", suite.release.components.join(", "))));
                }
            }
            dates.insert(name.clone(), suite.release.made());
        }
        let universe = Universe::read(&indexes, arch);
        let kept = keep.and_then(|keep| choose(&universe, request, Some(keep)).ok());
        let packages = match kept {
            Some(packages) => packages,
            None => choose(&universe, request, None)?,
        };
        Ok(Choice { packages, released: dates })
    }
}

/// Chooses packages of a universe.
///
/// # Errors
/// Class `Recipe` when there is no such choice, with the reason.
pub fn choose(universe: &Universe<'_>, request: &Debian, keep: Option<&Packages>) -> Result<Packages> {
    let mut resolver = Resolver::new(universe);
    for package in keep.iter().flat_map(|keep| keep.iter()) {
        let same = universe.versions(&package.name).iter().copied().find(|at| {
            universe.all[*at].version == package.version
                && universe.package(*at).is_some_and(|there| there.sha256 == package.sha256)
        });
        same.into_iter().for_each(|at| resolver.prefer(at));
    }
    for name in &request.exclude {
        resolver.exclude(name);
    }
    let included =
        request.include.iter().map(|wanted| included(universe, wanted)).collect::<Result<Vec<_>>>()?;
    // A version that is named counts for the variant's own packages, too.
    for (wanted, at) in request.include.iter().zip(&included) {
        if wanted.contains('=') {
            resolver.prefer(*at);
        }
    }
    for roots in variant(universe, request) {
        // Which version is taken may have been said above.
        let roots: Vec<usize> = roots.into_iter().filter_map(|name| resolver.candidate(name)).collect();
        install(&mut resolver, universe, &roots, request)?;
    }
    let base = resolver.chosen();
    let included: Vec<usize> = request
        .include
        .iter()
        .zip(included)
        .map(|(wanted, at)| match wanted.contains('=') {
            true => at,
            false => resolver.candidate(universe.all[at].name).unwrap_or(at),
        })
        .collect();
    install(&mut resolver, universe, &included, request)?;
    let packages = |all: Vec<usize>| {
        let package = |at: usize| {
            universe.package(at).ok_or_else(|| {
                let name = universe.all[at].name;
                Error::machine(format!("the index does not say where `{name}` is, or what it must hash to"))
                    .hint("the archive is broken: leave the package out, or name another archive")
            })
        };
        all.into_iter().map(package).collect::<Result<Vec<_>>>()
    };
    let added = resolver.chosen().into_iter().filter(|at| !base.contains(at)).collect();
    Ok(Packages { base: packages(base)?, added: packages(added)? })
}

fn install<'a>(
    resolver: &mut Resolver<'_, 'a>,
    universe: &Universe<'a>,
    roots: &[usize],
    request: &Debian,
) -> Result<()> {
    resolver.install(roots).map_err(|failed| {
        let (root, mut chain) = why::path(resolver, universe, roots, failed);
        chain.extend(why::chain(resolver, universe, failed));
        let name = universe.all[root].name;
        let hint = match chain.last() {
            Some(last) if last.contains("excluded") => {
                "take it out of `exclude`, or do without what needs it"
            }
            Some(last) if last.contains("no suite") => {
                "name the suite that has it in `suite`, or its component in `components`"
            }
            _ => "take one of them out of `include`, or name another version",
        };
        let suites = request.suites.join(", ");
        Error::recipe(format!("`{name}` cannot be installed from {suites}"))
            .because(chain.join("\n  "))
            .hint(hint)
    })
}

/// What the variant asks for: names in the order in which they are chosen, in stages. Taken from the first suite.
fn variant<'a>(universe: &Universe<'a>, request: &Debian) -> Vec<Vec<&'a str>> {
    let first = request.suites.first();
    let of = |good: fn(bool, u8) -> bool| {
        let mut names: Vec<&str> = universe
            .all
            .iter()
            .filter(|binary| Some(&universe.indexes[binary.index].suite) == first)
            .filter(|binary| good(binary.essential, binary.priority))
            .map(|binary| binary.name)
            .collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !request.exclude.iter().any(|excluded| excluded == name));
        names
    };
    let essential = || of(|essential, _| essential);
    let required = || of(|essential, priority| !essential && priority == 1);
    match request.variant {
        Variant::Essential => vec![essential()],
        Variant::Minbase => vec![essential(), required()],
        Variant::Custom => Vec::new(),
    }
}

/// The version that an item of `include` means. A virtual package stands for the one that provides it.
fn included(universe: &Universe<'_>, wanted: &str) -> Result<usize> {
    let (name, version) = match wanted.split_once('=') {
        Some((name, version)) => (name, Some(version)),
        None => (wanted, None),
    };
    if let Some(version) = version {
        let mut all = universe.versions(name).iter().copied();
        let found = all.find(|at| universe.all[*at].version == version);
        return found.ok_or_else(|| {
            let there = universe.versions(name).iter().map(|at| universe.all[*at].version);
            let there: Vec<String> = there.map(|version| format!("`{version}`")).collect();
            Error::recipe(format!("there is no version `{version}` of `{name}`")).hint(
                match there.is_empty() {
                    true => "there is no such package: is its component in `components`?".to_string(),
                    false => format!("there is {}", there.join(", ")),
                },
            )
        });
    }
    if let Some(at) = universe.candidate(name) {
        return Ok(at);
    }
    let mut providers: Vec<&str> =
        universe.providers(name).iter().map(|provider| universe.all[provider.by].name).collect();
    providers.sort_unstable();
    providers.dedup();
    match providers[..] {
        [only] => universe.candidate(only).ok_or_else(|| Error::machine("a provider that is not there")),
        [] => Err(Error::recipe(format!("there is no package `{name}`")).hint(near(universe, name))),
        _ => Err(Error::recipe(format!("`{name}` is provided by several packages"))
            .hint(format!("include one of {}", providers.join(", ")))),
    }
}

fn near(universe: &Universe<'_>, name: &str) -> String {
    let mut like: Vec<&str> =
        universe.names().map(|(known, _)| known).filter(|known| known.contains(name)).collect();
    like.sort_by_key(|known| (known.len(), *known));
    match like[..] {
        [] => "is its component in `components`, and its suite in `suite`?".to_string(),
        _ => format!("there is {}", like.into_iter().take(5).collect::<Vec<_>>().join(", ")),
    }
}
