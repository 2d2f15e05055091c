//! Which builds garbage collection lets the store remember.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{RootRecord, Store};
use crate::digest::{ContentDigest, LayerId};
use crate::error::Result;

/// Every build that is remembered, and those that shall be.
pub(super) struct Remembered {
    recipes: Vec<Recipe>,
    /// Stay whatever is forgotten.
    tagged: Vec<RootRecord>,
}

struct Recipe {
    /// Newest first; at least one.
    builds: Vec<RootRecord>,
    /// When the newest was asked for last.
    latest: SystemTime,
    /// So many of them stay.
    kept: usize,
}

impl Recipe {
    /// When a build was come by; the newest one counts from when it was asked for last.
    fn time(&self, at: usize) -> SystemTime {
        let finished = Duration::from_secs(self.builds[at].finished.max(0) as u64);
        if at == 0 { self.latest } else { UNIX_EPOCH + finished }
    }
}

impl Remembered {
    /// Those of a store; all of them stay.
    pub(super) fn of(store: &Store) -> Result<Remembered> {
        let recipes = store.all_roots()?.into_iter().filter(|(_, builds)| !builds.is_empty());
        let recipes = recipes.map(|(latest, builds)| Recipe { latest, kept: builds.len(), builds });
        let tagged = store.tags()?.into_iter().map(|tag| tag.build);
        Ok(Remembered { recipes: recipes.collect(), tagged: tagged.collect() })
    }

    /// So many of each recipe, at least one.
    pub(super) fn keep_newest(&mut self, count: usize) {
        for recipe in &mut self.recipes {
            recipe.kept = recipe.kept.min(count.max(1));
        }
    }

    /// None that is older.
    pub(super) fn keep_younger(&mut self, than: Duration) {
        let old = |time: SystemTime| time.elapsed().is_ok_and(|age| age > than);
        for recipe in &mut self.recipes {
            let young = (0..recipe.kept).take_while(|at| !old(recipe.time(*at))).count();
            recipe.kept = young;
        }
    }

    /// Forgets the oldest until the layers that stay have no more bytes than `most`, or nothing is left to forget.
    pub(super) fn fit(&mut self, sizes: &BTreeMap<LayerId, u64>, most: u64) {
        let mut users: BTreeMap<LayerId, usize> = BTreeMap::new();
        let kept = self.kept().map(layers_of);
        for layer in kept.flatten() {
            *users.entry(layer).or_default() += 1;
        }
        let size = |layer: &LayerId| sizes.get(layer).copied().unwrap_or_default();
        let mut total: u64 = users.keys().map(size).sum();
        while total > most {
            let last = self.recipes.iter_mut().filter(|recipe| recipe.kept > 0);
            let Some(oldest) = last.min_by_key(|recipe| recipe.time(recipe.kept - 1)) else { return };
            oldest.kept -= 1;
            for layer in layers_of(&oldest.builds[oldest.kept]) {
                let left = users.entry(layer).or_insert(1);
                *left -= 1;
                if *left == 0 {
                    total = total.saturating_sub(size(&layer));
                }
            }
        }
    }

    /// How many shall be forgotten.
    pub(super) fn forgotten(&self) -> usize {
        self.recipes.iter().map(|recipe| recipe.builds.len() - recipe.kept).sum()
    }

    /// The layers and texts that those name which stay.
    pub(super) fn live(&self) -> (HashSet<LayerId>, HashSet<ContentDigest>) {
        let layers = self.kept().flat_map(RootRecord::layers).copied().collect();
        (layers, self.kept().flat_map(RootRecord::texts).copied().collect())
    }

    /// Makes the store forget the others. The caller is alone in it.
    pub(super) fn write(&self, store: &Store) -> Result<()> {
        self.recipes.iter().filter(|recipe| recipe.kept < recipe.builds.len()).try_for_each(|recipe| {
            store.keep_roots(&recipe.builds[0], &recipe.builds[..recipe.kept], recipe.latest)
        })
    }

    fn kept(&self) -> impl Iterator<Item = &RootRecord> {
        self.recipes.iter().flat_map(|recipe| &recipe.builds[..recipe.kept]).chain(&self.tagged)
    }
}

/// Each layer of a build once.
fn layers_of(build: &RootRecord) -> HashSet<LayerId> {
    build.layers().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(n: u8) -> LayerId {
        format!("{n:02x}").repeat(32).parse().unwrap()
    }

    /// A build that ended `ago` seconds ago and has these layers.
    fn build(recipe: &str, ago: u64, layers: &[u8]) -> RootRecord {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        RootRecord {
            recipe: recipe.into(),
            name: String::new(),
            args: BTreeMap::new(),
            number: 1,
            given: 1,
            finished: (now - ago) as i64,
            definition: None,
            steps: Vec::new(),
            inputs: BTreeMap::new(),
            stack: layers.iter().map(|n| layer(*n)).collect(),
            outputs: BTreeMap::new(),
        }
    }

    fn recipe(builds: Vec<RootRecord>, latest: u64) -> Recipe {
        let latest = SystemTime::now() - Duration::from_secs(latest);
        Recipe { kept: builds.len(), builds, latest }
    }

    /// `a` has builds of ages 10 (asked for again 5 ago), 100 and 1000; `b` one of 50. Layer 1 is in all of them.
    fn some() -> Remembered {
        let a = vec![build("a", 10, &[1, 2]), build("a", 100, &[1, 3]), build("a", 1000, &[1, 4])];
        let recipes = vec![recipe(a, 5), recipe(vec![build("b", 50, &[1, 5])], 50)];
        Remembered { recipes, tagged: vec![build("a", 1000, &[1, 4])] }
    }

    fn kept(remembered: &Remembered) -> Vec<usize> {
        remembered.recipes.iter().map(|recipe| recipe.kept).collect()
    }

    #[test]
    fn by_number_and_age() {
        let mut all = some();
        all.keep_newest(2);
        assert_eq!((kept(&all), all.forgotten()), (vec![2, 1], 1));
        all.keep_newest(0);
        assert_eq!(kept(&all), [1, 1]);
        for (within, left) in [(2000, [3, 1]), (500, [2, 1]), (60, [1, 1]), (20, [1, 0]), (2, [0, 0])] {
            let mut all = some();
            all.keep_younger(Duration::from_secs(within));
            assert_eq!(kept(&all), left, "{within}");
        }
    }

    #[test]
    fn by_size_the_oldest_go_first_and_tags_stay() {
        let sizes: BTreeMap<LayerId, u64> =
            [(1, 100), (2, 10), (3, 10), (4, 10), (5, 10)].map(|(n, size)| (layer(n), size)).into();
        // Of the oldest nothing goes: a tag has it. What all have goes with the tag alone.
        for (most, left) in [(140, [3, 1]), (139, [1, 1]), (129, [1, 0]), (119, [0, 0]), (1, [0, 0])] {
            let mut all = some();
            all.fit(&sizes, most);
            assert_eq!(kept(&all), left, "{most}");
            assert!(all.live().0.contains(&layer(1)) && all.live().0.contains(&layer(4)));
        }
    }
}
