//! For which zones endpoints are meant, and whether this node is in one of them.
//!
//! There may be a million endpoints, but there are few combinations of zones: each is kept once.

use std::collections::HashMap;

/// For whom an endpoint is meant, as far as it is said: the best use of it, not the only one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hint {
    /// It isn't said.
    #[default]
    None,
    /// For this node, or its zone.
    Here,
    /// For others alone.
    Elsewhere,
}

/// A combination of zones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ZoneSet(u16);

/// All combinations that were ever seen.
#[derive(Debug, Default)]
pub(super) struct Zones {
    /// The node's own one.
    own: Option<Box<str>>,
    /// By the names of the zones in their order, with commas between them, which names don't have.
    ids: HashMap<Box<str>, ZoneSet>,
    /// By number; of those from 1 on.
    hints: Vec<Hint>,
}

impl ZoneSet {
    /// No zone is named.
    pub(super) const NONE: Self = Self(0);
}

impl Zones {
    /// The combination of these zones. Beyond 65535 of them a new one counts as none: that switches hints off
    /// where it appears, and no real cluster has as many.
    pub(super) fn set<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> ZoneSet {
        let mut names = names.filter(|name| !name.is_empty());
        let Some(first) = names.next() else {
            return ZoneSet::NONE;
        };
        let mut names: Vec<&str> = names.collect();
        if names.is_empty() {
            return self.id(first);
        }
        names.push(first);
        names.sort_unstable();
        names.dedup();
        self.id(&names.join(","))
    }

    fn id(&mut self, names: &str) -> ZoneSet {
        if let Some(known) = self.ids.get(names) {
            return *known;
        }
        let Ok(number) = u16::try_from(self.hints.len() + 1) else {
            return ZoneSet::NONE;
        };
        self.hints.push(hint(names, self.own.as_deref()));
        self.ids.insert(names.into(), ZoneSet(number));
        ZoneSet(number)
    }

    /// What a combination means for this node.
    pub(super) fn hint(&self, set: ZoneSet) -> Hint {
        let index = usize::from(set.0).checked_sub(1);
        let hint = index.and_then(|index| self.hints.get(index));
        hint.copied().unwrap_or_default()
    }

    /// Sets the zone this node is in; returns whether it is another one.
    pub(super) fn set_own(&mut self, zone: Option<&str>) -> bool {
        if self.own.as_deref() == zone {
            return false;
        }
        self.own = zone.map(Box::from);
        for (names, set) in &self.ids {
            if let Some(known) = self.hints.get_mut(usize::from(set.0) - 1) {
                *known = hint(names, zone);
            }
        }
        true
    }
}

fn hint(names: &str, own: Option<&str>) -> Hint {
    match own {
        Some(own) if names.split(',').any(|name| name == own) => Hint::Here,
        _ => Hint::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_combination_is_kept_once_whatever_its_order() {
        let mut zones = Zones::default();
        let one = zones.set(["b", "a", "b"].into_iter());
        assert_eq!(zones.set(["a", "b"].into_iter()), one);
        assert_ne!(zones.set(["a"].into_iter()), one);
        assert_eq!(zones.set([""].into_iter()), ZoneSet::NONE);
        assert_eq!(zones.hints.len(), 2);
    }

    #[test]
    fn hints_follow_the_zone_of_the_node() {
        let mut zones = Zones::default();
        let a = zones.set(["a"].into_iter());
        let both = zones.set(["a", "b"].into_iter());
        let hints = |zones: &Zones| [ZoneSet::NONE, a, both].map(|set| zones.hint(set));
        assert_eq!(
            hints(&zones),
            [Hint::None, Hint::Elsewhere, Hint::Elsewhere]
        );
        assert!(zones.set_own(Some("b")));
        assert!(!zones.set_own(Some("b")));
        assert_eq!(hints(&zones), [Hint::None, Hint::Elsewhere, Hint::Here]);
        let late = zones.set(["b"].into_iter());
        assert_eq!(zones.hint(late), Hint::Here);
        assert!(zones.set_own(None));
        assert_eq!(
            hints(&zones),
            [Hint::None, Hint::Elsewhere, Hint::Elsewhere]
        );
    }

    #[test]
    fn more_combinations_than_there_are_numbers_count_as_none() {
        let mut zones = Zones::default();
        let last = (0..=u32::from(u16::MAX)).map(|number| {
            let name = number.to_string();
            zones.set([name.as_str()].into_iter())
        });
        assert_eq!(last.last(), Some(ZoneSet::NONE));
    }
}
