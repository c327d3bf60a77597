//! Partitions of items into groups, and how groups are held out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;

use nomaly_data::subset::{Choice, choose};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::split::{FEW_FOLDS, FOLDS_UP_TO, MANY_FOLDS_UP_TO, MAX_FOLDS, MOST_HELD_OUT, Split};

/// The groups of a fit's images, as stored in the model file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupInfo {
    /// The requested rule: `auto`, `none`, `folder`, `gap=2` or a pattern.
    pub by: String,
    /// The number of groups of the used images.
    pub count: usize,
    /// How the groups came about, in words; `None` if every image is its own group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
}

/// A partition of items, numbered from 0, into groups. Items of one group depend on each other, groups do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// The group of each item; groups are numbered in the order of their first items.
    of: Vec<u32>,
    /// The items of each group, ascending.
    members: Vec<Vec<usize>>,
}

impl Groups {
    /// `items` independent items.
    pub fn singletons(items: usize) -> Self {
        Self { of: (0..items as u32).collect(), members: (0..items).map(|item| vec![item]).collect() }
    }

    /// Items with equal keys form a group.
    pub fn of_keys<K: Eq + Hash>(keys: impl IntoIterator<Item = K>) -> Self {
        let mut numbers: HashMap<K, u32> = HashMap::new();
        let (mut of, mut members) = (Vec::new(), Vec::<Vec<usize>>::new());
        for (item, key) in keys.into_iter().enumerate() {
            let group = *numbers.entry(key).or_insert(members.len() as u32);
            if group as usize == members.len() {
                members.push(Vec::new());
            }
            members[group as usize].push(item);
            of.push(group);
        }
        Self { of, members }
    }

    /// The number of items.
    pub fn items(&self) -> usize {
        self.of.len()
    }

    /// The number of groups.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// Whether every item is a group of its own.
    pub fn is_trivial(&self) -> bool {
        self.count() == self.items()
    }

    /// The group of each item.
    pub fn of(&self) -> &[u32] {
        &self.of
    }

    /// The items of each group, ascending.
    pub fn members(&self) -> &[Vec<usize>] {
        &self.members
    }

    /// The items of the group of an item, ascending.
    pub fn group_of(&self, item: usize) -> &[usize] {
        &self.members[self.of[item] as usize]
    }

    /// The size of the largest group.
    pub fn largest(&self) -> usize {
        self.members.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The partition to hold out by so that at least `rest` items always remain: these groups, except that the items of
    /// too large groups are left out one by one.
    pub fn leaving(&self, rest: usize) -> Cow<'_, Self> {
        let fits = |members: &Vec<usize>| members.len() == 1 || members.len() + rest <= self.items();
        if self.members.iter().all(fits) {
            return Cow::Borrowed(self);
        }
        let key = |(item, group): (usize, &u32)| {
            if fits(&self.members[*group as usize]) { (true, *group as usize) } else { (false, item) }
        };
        Cow::Owned(Self::of_keys(self.of.iter().enumerate().map(key)))
    }

    /// Up to `most` folds of items, each ascending, that keep groups together, with as equal numbers of groups as
    /// possible. They depend only on the groups and `seed`.
    pub fn folds(&self, most: usize, seed: u64) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.count()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let count = self.count().min(most);
        (0..count).map(|fold| self.items_of(order.iter().skip(fold).step_by(count))).collect()
    }

    /// The items of these groups, ascending.
    fn items_of<'a>(&self, groups: impl Iterator<Item = &'a usize>) -> Vec<usize> {
        let mut items: Vec<usize> = groups.flat_map(|&group| self.members[group].iter().copied()).collect();
        items.sort_unstable();
        items
    }

    /// The items, ascending, of random groups that have at least `items` items together; never all groups.
    pub(crate) fn hold_out(&self, items: usize, seed: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.count()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let mut taken = 0;
        let mut held_out = 0;
        while held_out < items && taken + 1 < order.len() {
            held_out += self.members[order[taken]].len();
            taken += 1;
        }
        self.items_of(order[..taken].iter())
    }

    /// The splits for calibration, for fits whose cost grows with the number of items.
    ///
    /// Up to 1 000 items: 10-fold cross-validation over the groups; up to 10 000 items: 5-fold. Above that a single
    /// random split holds out a fifth of the items, at most 10 000, which costs one further fit and estimates a
    /// false-alarm rate of 1 % with a standard error of 0.1 points.
    pub fn splits(&self, seed: u64) -> Vec<Split> {
        let n = self.items();
        let tests = if n <= MANY_FOLDS_UP_TO {
            self.folds(MAX_FOLDS, seed)
        } else if n <= FOLDS_UP_TO {
            self.folds(FEW_FOLDS, seed)
        } else {
            vec![self.hold_out(MOST_HELD_OUT.min(n / FEW_FOLDS), seed)]
        };
        tests.into_iter().map(|test| Split::holding_out(test, n)).collect()
    }

    /// At most `most` random items, ascending: from as many groups as possible, then further ones of each.
    pub(crate) fn choose(&self, most: usize, seed: u64) -> Vec<usize> {
        if self.is_trivial() || most >= self.items() {
            return choose(self.items(), most, Choice::Seeded(seed));
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut shuffled = self.members.clone();
        shuffled.iter_mut().for_each(|members| members.shuffle(&mut random));
        shuffled.shuffle(&mut random);
        let rounds =
            (0..self.largest()).flat_map(|round| shuffled.iter().filter_map(move |members| members.get(round)));
        let mut chosen: Vec<usize> = rounds.copied().take(most).collect();
        chosen.sort_unstable();
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::folds;

    fn groups() -> Groups {
        Groups::of_keys("aabbbcdddda".chars())
    }

    #[test]
    fn items_with_one_key_are_a_group() {
        let groups = groups();
        assert_eq!((groups.items(), groups.count(), groups.largest()), (11, 4, 4));
        assert_eq!(groups.of(), [0, 0, 1, 1, 1, 2, 3, 3, 3, 3, 0]);
        assert_eq!(groups.group_of(10), [0, 1, 10]);
        assert!(!groups.is_trivial() && Groups::singletons(3).is_trivial());
        assert_eq!(Groups::of_keys(0..5), Groups::singletons(5));
    }

    #[test]
    fn folds_keep_groups_together_and_are_the_plain_ones_without_groups() {
        let groups = groups();
        for most in [2, 3, 10] {
            let folds = groups.folds(most, 4);
            assert_eq!(folds.len(), most.min(4));
            let mut all = folds.concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..11));
            for members in groups.members() {
                assert!(folds.iter().any(|fold| members.iter().all(|item| fold.contains(item))), "{folds:?}");
            }
        }
        for n in [3, 10, 57] {
            assert_eq!(Groups::singletons(n).folds(MAX_FOLDS, 7), folds(n, 7));
        }
    }

    #[test]
    fn a_part_is_held_out_by_whole_groups_and_something_is_left() {
        let groups = groups();
        for (items, seed) in (1..20).flat_map(|items| (0..5).map(move |seed| (items, seed))) {
            let held_out = groups.hold_out(items, seed);
            assert!(held_out.len() >= items.min(6) && held_out.len() < 11, "{items} {held_out:?}");
            for members in groups.members() {
                let inside = members.iter().filter(|item| held_out.contains(item)).count();
                assert!(inside == 0 || inside == members.len());
            }
        }
        assert!(Groups::singletons(1).hold_out(1, 0).is_empty());
    }

    #[test]
    fn groups_that_leave_too_few_items_are_taken_apart() {
        let groups = groups();
        assert!(matches!(groups.leaving(7), Cow::Borrowed(_)));
        let apart = groups.leaving(8);
        assert_eq!((apart.count(), apart.group_of(10)), (7, &[0, 1, 10][..]));
        assert!(groups.leaving(10).is_trivial());
    }

    #[test]
    fn few_items_are_chosen_from_many_groups() {
        let groups = groups();
        for seed in 0..10 {
            let chosen = groups.choose(4, seed);
            let of: std::collections::BTreeSet<u32> = chosen.iter().map(|&item| groups.of()[item]).collect();
            assert_eq!((chosen.len(), of.len(), chosen.is_sorted()), (4, 4, true));
            assert_eq!(groups.choose(9, seed).len(), 9);
        }
        assert!(groups.choose(11, 0).into_iter().eq(0..11));
        assert_eq!(Groups::singletons(50).choose(7, 3), choose(50, 7, Choice::Seeded(3)));
    }
}
