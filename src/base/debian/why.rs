//! Why a package cannot be installed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::resolve::Resolver;
use super::universe::Universe;

/// From the package to what is in the way, one sentence a link.
pub fn chain<'a>(resolver: &mut Resolver<'_, 'a>, universe: &Universe<'a>, from: usize) -> Vec<String> {
    let mut chain = Vec::new();
    let mut seen = BTreeSet::new();
    if !follow(resolver, universe, from, &mut seen, &mut chain) {
        chain.push("what it needs cannot be there together".to_string());
    }
    chain
}

/// From one of the roots to a package that was chosen because of it, one sentence a link; and the root.
pub fn path<'a>(
    resolver: &mut Resolver<'_, 'a>,
    universe: &Universe<'a>,
    roots: &[usize],
    to: usize,
) -> (usize, Vec<String>) {
    let mut from: BTreeMap<usize, (usize, String)> = BTreeMap::new();
    let mut open: VecDeque<usize> = roots.iter().copied().collect();
    let mut seen: BTreeSet<usize> = roots.iter().copied().collect();
    while let Some(at) = open.pop_front().filter(|at| *at != to) {
        for relation in resolver.needs(at).unwrap_or_default().iter().flatten() {
            for next in universe.solutions(relation) {
                if resolver.installed(universe.all[next].name) == Some(next) && seen.insert(next) {
                    from.insert(next, (at, format!("`{}` needs `{relation}`", universe.all[at].name)));
                    open.push_back(next);
                }
            }
        }
    }
    let (mut at, mut links) = (to, Vec::new());
    while let Some((before, link)) = from.get(&at) {
        links.insert(0, link.clone());
        at = *before;
    }
    (at, links)
}

/// Goes one link further; false when nothing is in the way here.
fn follow<'a>(
    resolver: &mut Resolver<'_, 'a>,
    universe: &Universe<'a>,
    at: usize,
    seen: &mut BTreeSet<usize>,
    chain: &mut Vec<String>,
) -> bool {
    let name = universe.all[at].name;
    if !seen.insert(at) || chain.len() > 100 {
        return false;
    }
    if resolver.is_excluded(name) {
        chain.push(format!("`{name}` is excluded"));
        return true;
    }
    if let Some(there) = resolver.installed(name).filter(|there| *there != at) {
        let (there, wanted) = (universe.all[there].version, universe.all[at].version);
        chain.push(format!("`{name}` is needed as {wanted} here and as {there} elsewhere"));
        return true;
    }
    for relation in resolver.refuses(at) {
        if let Some(other) = resolver.opponents(at, &relation).first() {
            chain.push(format!("`{name}` cannot be there with `{}` ({relation})", universe.all[*other].name));
            return true;
        }
    }
    for other in resolver.chosen() {
        for relation in resolver.refuses(other) {
            let other = universe.all[other].name;
            if other != name && universe.satisfies(at, &relation) {
                chain.push(format!("`{other}` cannot be there with `{name}` ({relation})"));
                return true;
            }
        }
    }
    let Some(needs) = resolver.needs(at) else {
        chain.push(format!("what `{name}` needs cannot be read"));
        return true;
    };
    for group in needs {
        if group.iter().any(|one| resolver.is_satisfied(one)) {
            continue;
        }
        let shown: Vec<String> = group.iter().map(|one| format!("`{one}`")).collect();
        let shown = shown.join(" or ");
        let solutions: Vec<usize> = group.iter().flat_map(|one| universe.solutions(one)).collect();
        let before = chain.len();
        if solutions.is_empty() {
            let there: Vec<String> = group
                .iter()
                .flat_map(|one| universe.versions(one.name))
                .map(|at| format!("`{}` {}", universe.all[*at].name, universe.all[*at].version))
                .collect();
            let there =
                if there.is_empty() { String::new() } else { format!(" (there is {})", there.join(", ")) };
            chain.push(format!("`{name}` needs {shown}, which no suite has{there}"));
            return true;
        }
        chain.push(format!("`{name}` needs {shown}"));
        for solution in solutions {
            if follow(resolver, universe, solution, seen, chain) {
                return true;
            }
        }
        chain.truncate(before);
    }
    false
}
