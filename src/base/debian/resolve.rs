//! Which packages an installation takes: the choices are those of apt's `MarkInstall`, for an empty system and
//! without recommended packages.
//!
//! Depth first, in the order of the fields: of alternatives the first that can be installed, of several packages
//! that provide one the one that apt's `CompareProviders` likes best. What turns out not to work is given up, with
//! what it would have been needed for, and the next alternative is tried.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use super::relation::Relation;
use super::universe::{Index, Universe};

/// Like apt: a chain that is this long leads nowhere.
const DEEPEST: usize = 1500;

/// What is said of one package by its name.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// The version that may be installed.
    candidate: Option<usize>,
    /// The version that will be.
    install: Option<usize>,
    /// What is so may not be changed.
    protected: bool,
    /// It is part of what is there already.
    there: bool,
}

/// A selection in progress.
#[derive(Debug)]
pub struct Resolver<'u, 'a> {
    universe: &'u Universe<'a>,
    states: HashMap<&'a str, State>,
    /// Relations of versions, as they are asked for.
    needs: HashMap<usize, Option<Vec<Vec<Relation<'a>>>>>,
    refuses: HashMap<usize, Vec<Relation<'a>>>,
    mentions: RefCell<HashMap<&'a str, (usize, usize)>>,
}

impl<'u, 'a> Resolver<'u, 'a> {
    /// Nothing is chosen.
    pub fn new(universe: &'u Universe<'a>) -> Self {
        Resolver {
            universe,
            states: HashMap::new(),
            needs: HashMap::new(),
            refuses: HashMap::new(),
            mentions: RefCell::default(),
        }
    }

    /// A package that must not be installed.
    pub fn exclude(&mut self, name: &str) {
        if let Some(at) = self.universe.versions(name).first() {
            let name = self.universe.all[*at].name;
            self.states.insert(name, State { protected: true, ..State::default() });
        }
    }

    /// The version of a package that would be installed.
    pub fn candidate(&mut self, name: &'a str) -> Option<usize> {
        let state = self.state(name);
        state.install.or(state.candidate)
    }

    /// The version of a package that is to be installed if the package is.
    pub fn prefer(&mut self, at: usize) {
        let state = self.state(self.universe.all[at].name);
        if state.install.is_none() && !(state.protected && state.candidate.is_none()) {
            state.candidate = Some(at);
        }
    }

    /// Chooses these packages and all they need, beside what is chosen. They are as good as there afterwards:
    /// nothing that is chosen later takes them away.
    ///
    /// # Errors
    /// The package that could not be installed, by its position.
    pub fn install(&mut self, wanted: &[usize]) -> Result<(), usize> {
        for at in wanted {
            self.prefer(*at);
            let name = self.universe.all[*at].name;
            let state = self.state(name);
            if state.install.is_none() {
                state.protected = state.candidate.is_some() || state.protected;
            }
            if state.there && state.install != Some(*at) {
                return Err(*at);
            }
            self.mark(name, false, 0, true);
        }
        for at in wanted {
            self.mark(self.universe.all[*at].name, true, 0, true);
        }
        for at in wanted {
            if self.installed(self.universe.all[*at].name) != Some(*at) {
                return Err(*at);
            }
        }
        self.drop_what_nothing_needs(wanted);
        if let Some(broken) = self.chosen().into_iter().find(|at| !self.is_whole(*at)) {
            return Err(broken);
        }
        for state in self.states.values_mut().filter(|state| state.install.is_some()) {
            (state.there, state.protected, state.candidate) = (true, true, state.install);
        }
        // What was given up for these may do for others.
        let universe = self.universe;
        for (name, state) in &mut self.states {
            if state.install.is_none() && !state.protected && state.candidate.is_none() {
                state.candidate = universe.candidate(name);
            }
        }
        Ok(())
    }

    /// Every version that is chosen, in the order of the names.
    pub fn chosen(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.states.values().filter_map(|state| state.install).collect();
        all.sort_by_key(|at| self.universe.all[*at].name);
        all
    }

    /// The version of a package that is chosen.
    pub fn installed(&self, name: &str) -> Option<usize> {
        self.states.get(name)?.install
    }

    /// Whether nobody may install a package.
    pub fn is_excluded(&self, name: &str) -> bool {
        self.states
            .get(name)
            .is_some_and(|state| state.protected && state.install.is_none() && state.candidate.is_none())
    }

    /// What a version needs (each a list of alternatives); none when it cannot be read.
    pub fn needs(&mut self, at: usize) -> Option<Vec<Vec<Relation<'a>>>> {
        let universe = self.universe;
        self.needs.entry(at).or_insert_with(|| universe.relations(at, &["Pre-Depends", "Depends"])).clone()
    }

    /// What a version cannot be there with.
    pub fn refuses(&mut self, at: usize) -> Vec<Relation<'a>> {
        let universe = self.universe;
        let read = || universe.relations(at, &["Conflicts", "Breaks"]).unwrap_or_default();
        self.refuses.entry(at).or_insert_with(|| read().into_iter().flatten().collect()).clone()
    }

    /// Whether a chosen version would do for a relation.
    pub fn is_satisfied(&self, relation: &Relation<'_>) -> bool {
        self.holds(relation, |state| state.install)
    }

    /// The chosen packages, `at` aside, that a negative relation of `at` is about.
    pub fn opponents(&self, at: usize, relation: &Relation<'a>) -> Vec<usize> {
        let own = self.universe.all[at].name;
        let all = self.universe.solutions(relation).into_iter();
        all.filter(|other| {
            let name = self.universe.all[*other].name;
            name != own && self.installed(name) == Some(*other)
        })
        .collect()
    }

    fn state(&mut self, name: &'a str) -> &mut State {
        let universe = self.universe;
        self.states
            .entry(name)
            .or_insert_with(|| State { candidate: universe.candidate(name), ..State::default() })
    }

    fn holds(&self, relation: &Relation<'_>, which: impl Fn(&State) -> Option<usize>) -> bool {
        let of = |name: &str| match self.states.get(name) {
            Some(state) => which(state),
            None => which(&State { candidate: self.universe.candidate(name), ..State::default() }),
        };
        of(relation.name).is_some_and(|at| self.universe.satisfies(at, relation))
            || self.universe.providers(relation.name).iter().any(|provider| {
                provider.is_for(relation) && of(self.universe.all[provider.by].name) == Some(provider.by)
            })
    }

    /// Whether all that a version needs is chosen, and nothing that it cannot be with.
    fn is_whole(&mut self, at: usize) -> bool {
        let Some(needs) = self.needs(at) else { return false };
        let refuses = self.refuses(at);
        needs.iter().all(|group| group.iter().any(|one| self.is_satisfied(one)))
            && refuses.iter().all(|relation| self.opponents(at, relation).is_empty())
    }

    /// apt's `MarkInstall`: installs a package, and with `deep` what it needs.
    fn mark(&mut self, name: &'a str, deep: bool, depth: usize, wanted: bool) -> bool {
        let state = *self.state(name);
        if depth > DEEPEST || (!wanted && state.protected && state.install.is_none()) {
            return false;
        }
        let Some(at) = state.candidate else { return false };
        if state.there || (!state.protected && state.install == Some(at) && self.is_whole(at)) {
            return state.install == Some(at);
        }
        let Some(needs) = self.needs(at) else { return false };
        if deep {
            let possible = |group: &Vec<Relation<'a>>| {
                group.iter().any(|one| {
                    self.holds(one, |state| state.candidate) || self.holds(one, |state| state.install)
                })
            };
            if !needs.iter().all(possible) {
                if !state.protected {
                    *self.state(name) = State::default();
                }
                return false;
            }
        }
        let may_give_up = !state.protected && !wanted;
        if wanted {
            self.state(name).install = Some(at);
        }
        let mut failed = false;
        let mut open = Vec::new();
        if deep {
            let open_only = |group: &&Vec<Relation<'a>>| {
                state.protected || !group.iter().any(|one| self.is_satisfied(one))
            };
            open = needs.iter().filter(open_only).cloned().collect();
            if !self.refuse(at, state.protected) {
                failed = true;
                if may_give_up {
                    return false;
                }
            }
        }
        self.state(name).install = Some(at);
        if !deep {
            return !failed;
        }
        self.state(name).protected = true;
        for group in &open {
            if !self.fulfil(group, depth, state.protected) {
                failed = true;
                if may_give_up {
                    break;
                }
            }
        }
        self.state(name).protected = state.protected;
        if failed && may_give_up {
            *self.state(name) = State::default();
        }
        !failed
    }

    /// Gives up the packages that `at` cannot be with; with `for_good` nobody else may choose them either.
    fn refuse(&mut self, at: usize, for_good: bool) -> bool {
        let own = self.universe.all[at].name;
        let mut good = true;
        for relation in self.refuses(at) {
            if !for_good && self.opponents(at, &relation).is_empty() {
                continue;
            }
            for other in self.universe.solutions(&relation) {
                let name = self.universe.all[other].name;
                let state = *self.state(name);
                if name == own || state.candidate != Some(other) {
                    continue;
                }
                if state.install.is_some() {
                    if state.protected {
                        good = false;
                        continue;
                    }
                    self.state(name).install = None;
                }
                if for_good {
                    *self.state(name) = State { protected: true, ..State::default() };
                }
            }
        }
        good
    }

    /// Sees to it that one of several alternatives is chosen.
    fn fulfil(&mut self, group: &[Relation<'a>], depth: usize, for_good: bool) -> bool {
        if group.iter().any(|one| self.is_satisfied(one)) {
            if for_good {
                // What is the only choice for something that must be there must be there too.
                let all = self.solutions(group, false);
                if let [only] = all[..] {
                    let name = self.universe.all[only].name;
                    if !self.state(name).protected {
                        self.state(name).protected = true;
                        return self.mark(name, true, depth + 1, false);
                    }
                }
            }
            return true;
        }
        let all = self.solutions(group, true);
        for at in &all {
            let name = self.universe.all[*at].name;
            if self.state(name).candidate != Some(*at) {
                continue;
            }
            if for_good && all.len() == 1 {
                if !self.mark(name, false, depth + 1, false) {
                    continue;
                }
                self.state(name).protected = true;
            }
            if self.mark(name, true, depth + 1, false) {
                return true;
            }
        }
        false
    }

    /// The versions that may be installed for one of several alternatives, best first; those that are there count
    /// too, and with `there_first` come first.
    fn solutions(&mut self, group: &[Relation<'a>], there_first: bool) -> Vec<usize> {
        let mut all: Vec<usize> = Vec::new();
        for relation in group {
            let mut some = Vec::new();
            for at in self.universe.solutions(relation) {
                let state = *self.state(self.universe.all[at].name);
                let is_out = state.protected && state.install.is_none();
                if state.candidate == Some(at) && !is_out {
                    some.push(at);
                }
            }
            let mut keyed: Vec<_> = some.into_iter().map(|at| (self.liking(at, relation), at)).collect();
            keyed.sort_by(|(a, at_a), (b, at_b)| {
                let mentioned = |at: usize| self.mentioned(self.universe.all[at].name);
                a.cmp(b).then_with(|| mentioned(*at_b).cmp(&mentioned(*at_a)))
            });
            all.extend(keyed.into_iter().map(|(_, at)| at));
        }
        if there_first {
            let there =
                |at: &usize| self.states.get(self.universe.all[*at].name).is_some_and(|state| state.there);
            let (first, then): (Vec<_>, Vec<_>) = all.into_iter().partition(there);
            all = [first, then].concat();
        }
        let mut seen = BTreeSet::new();
        all.retain(|at| seen.insert(*at));
        all
    }

    /// apt's `CompareProviders`: the least is liked best; among equals, what was mentioned last.
    fn liking(&self, at: usize, relation: &Relation<'a>) -> impl Ord + use<'a> {
        let binary = self.universe.all[at];
        let state = self.states.get(binary.name).copied().unwrap_or_default();
        (!state.protected, !state.there, binary.name != relation.name, !binary.essential, binary.priority)
    }

    /// Where a name comes up first in the indexes; apt numbers packages in this order.
    fn mentioned(&self, name: &'a str) -> (usize, usize) {
        if let Some(known) = self.mentions.borrow().get(name) {
            return *known;
        }
        let first = self.universe.indexes.iter().enumerate().find_map(|(index, Index { text, .. })| {
            let is_end = |byte: Option<&u8>| {
                byte.is_none_or(|byte| !byte.is_ascii_alphanumeric() && !b"+-._/".contains(byte))
            };
            let bytes = text.as_bytes();
            let is_word = |at: usize| {
                is_end(at.checked_sub(1).map(|before| &bytes[before])) && is_end(bytes.get(at + name.len()))
            };
            let mut found = memchr::memmem::find_iter(bytes, name);
            found.find(|at| is_word(*at) && is_in_relation(text, *at)).map(|at| (index, at))
        });
        let first = first.unwrap_or((usize::MAX, 0));
        self.mentions.borrow_mut().insert(name, first);
        first
    }

    /// Takes out what was chosen on the way and is of no use any more.
    fn drop_what_nothing_needs(&mut self, wanted: &[usize]) {
        let mut reached: BTreeSet<usize> = wanted.iter().copied().collect();
        reached.extend(self.states.values().filter(|state| state.there).filter_map(|state| state.install));
        let mut open: Vec<usize> = reached.iter().copied().collect();
        while let Some(at) = open.pop() {
            for relation in self.needs(at).unwrap_or_default().iter().flatten() {
                for other in self.universe.solutions(relation) {
                    if self.installed(self.universe.all[other].name) == Some(other) && reached.insert(other) {
                        open.push(other);
                    }
                }
            }
        }
        for state in self.states.values_mut() {
            if state.install.is_some_and(|at| !reached.contains(&at)) {
                state.install = None;
            }
        }
    }
}

/// Whether the line at `at` is of a field that names packages.
fn is_in_relation(text: &str, at: usize) -> bool {
    let line = &text[text[..at].rfind('\n').map_or(0, |newline| newline + 1)..at];
    let field = line.split(':').next().unwrap_or_default();
    let known = [
        "Package",
        "Pre-Depends",
        "Depends",
        "Conflicts",
        "Breaks",
        "Recommends",
        "Suggests",
        "Replaces",
        "Enhances",
        "Provides",
    ];
    known.contains(&field) && line.contains(':')
}
