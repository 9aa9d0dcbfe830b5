//! Runs of words in `SLOTS`: the smallest free run that fits is taken, neighbours are joined.

use super::{Map, TableFull};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub(super) struct Regions {
    capacity: u32,
    used: u32,
    /// Start -> length; no two runs touch.
    free: BTreeMap<u32, u32>,
    /// The same as (length, start).
    by_length: BTreeSet<(u32, u32)>,
}

impl Regions {
    /// `capacity` words, all free but the given runs, which must not overlap.
    pub(super) fn new(capacity: u32, used: &BTreeMap<u32, u32>) -> Self {
        let mut regions = Self {
            capacity,
            used: 0,
            free: BTreeMap::new(),
            by_length: BTreeSet::new(),
        };
        let mut end = 0;
        for (&start, &words) in used {
            regions.insert(end, start - end);
            regions.used += words;
            end = start + words;
        }
        regions.insert(end, capacity - end);
        regions
    }

    /// Takes a run; returns its start.
    pub(super) fn take(&mut self, words: u32) -> Result<u32, TableFull> {
        let fitting = self.by_length.range((words, 0)..).next();
        let &(length, start) = fitting.ok_or(TableFull {
            map: Map::Slots,
            needed: self.used.saturating_add(words),
            capacity: self.capacity,
        })?;
        self.remove(start, length);
        self.insert(start + words, length - words);
        self.used += words;
        Ok(start)
    }

    /// Makes a run that was taken free again.
    pub(super) fn give_back(&mut self, start: u32, words: u32) {
        self.used -= words;
        let (mut from, mut to) = (start, start + words);
        if let Some((&before, &length)) = self.free.range(..start).next_back()
            && before + length == start
        {
            self.remove(before, length);
            from = before;
        }
        if let Some(&length) = self.free.get(&to) {
            self.remove(to, length);
            to += length;
        }
        self.insert(from, to - from);
    }

    pub(super) fn used(&self) -> u32 {
        self.used
    }

    fn insert(&mut self, start: u32, length: u32) {
        if length > 0 {
            self.free.insert(start, length);
            self.by_length.insert((length, start));
        }
    }

    fn remove(&mut self, start: u32, length: u32) {
        self.free.remove(&start);
        self.by_length.remove(&(length, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_used_run_is_not_given_out_again() {
        let mut regions = Regions::new(10, &BTreeMap::from([(2, 3), (8, 2)]));
        assert_eq!(regions.used(), 5);
        assert_eq!(regions.take(3), Ok(5));
        assert_eq!(regions.take(2), Ok(0));
        let full = regions.take(1).unwrap_err();
        assert_eq!((full.needed, full.capacity), (11, 10));
    }

    proptest! {
        #[test]
        fn runs_never_overlap_and_all_of_them_come_back(
            steps in prop::collection::vec((1..9u32, any::<prop::sample::Index>(), any::<bool>()), 0..200)
        ) {
            let mut regions = Regions::new(64, &BTreeMap::new());
            let mut taken: Vec<(u32, u32)> = Vec::new();
            for (words, index, give) in steps {
                if give && !taken.is_empty() {
                    let (start, words) = taken.swap_remove(index.index(taken.len()));
                    regions.give_back(start, words);
                } else if let Ok(start) = regions.take(words) {
                    prop_assert!(start + words <= 64);
                    let apart = |&(other, length): &(u32, u32)| start + words <= other || other + length <= start;
                    prop_assert!(taken.iter().all(apart));
                    taken.push((start, words));
                }
                prop_assert_eq!(regions.used(), taken.iter().map(|(_, words)| words).sum::<u32>());
            }
            for (start, words) in taken {
                regions.give_back(start, words);
            }
            prop_assert_eq!(regions.take(64), Ok(0));
        }
    }
}
