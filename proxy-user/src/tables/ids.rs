//! Ids, regions and frontends: who has which, and when it may be used again.
//!
//! What becomes free is first kept apart: a program that is still running may have read it. It
//! may be used again after a grace period ([`Ids::seal`], then [`Ids::release`]).

use super::claims::{Claimed, Claims};
use super::content::Dialled;
use super::regions::Regions;
use super::{Capacity, Freed, Map};
use crate::frontend::{Protocol, ServiceName};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A map has no room for what a Service needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("map {map} is full: {needed} rows needed, {capacity} are there")]
pub struct TableFull {
    /// Which map.
    pub map: Map,
    /// Rows in use plus those that the failed step needs. Not above `capacity` if `SLOTS` has
    /// enough free words, but not in one run.
    pub needed: u32,
    /// The map's `max_entries`.
    pub capacity: u32,
}

/// Allocator of everything that rows are made of.
#[derive(Debug)]
pub struct Ids {
    claims: Claims,
    pub(super) services: Pool,
    pub(super) backends_v4: Pool,
    pub(super) backends_v6: Pool,
    /// Of either family.
    pub(super) source_sets: Pool,
    pub(super) regions: Regions,
    generation: u32,
    freed: Vec<Freed>,
}

/// What became free before a grace period began.
#[derive(Debug)]
pub struct Batch(Vec<Freed>);

impl Batch {
    /// Whether backends are among what has become free.
    pub fn has_backends(&self) -> bool {
        let is_backend = |it: &Freed| matches!(it, Freed::BackendV4(_) | Freed::BackendV6(_));
        self.0.iter().any(is_backend)
    }
}

/// Ids from 1 up to the end of an array.
#[derive(Debug)]
pub(super) struct Pool {
    map: Map,
    capacity: u32,
    /// First id that was never given out.
    next: u32,
    free: Vec<u32>,
}

/// What is in use from the start.
#[derive(Debug, Default)]
pub(super) struct InUse {
    pub(super) services: Vec<u32>,
    pub(super) backends_v4: Vec<u32>,
    pub(super) backends_v6: Vec<u32>,
    pub(super) source_sets: Vec<u32>,
    /// Start -> words.
    pub(super) regions: BTreeMap<u32, u32>,
}

impl Ids {
    /// Everything free. Generations count up from `first_generation`: choose it at random, so
    /// that flows older than this agent don't take new backends for theirs.
    pub fn new(capacity: Capacity, first_generation: u32) -> Self {
        Self::with(capacity, first_generation, &InUse::default())
    }

    pub(super) fn with(capacity: Capacity, first_generation: u32, used: &InUse) -> Self {
        Self {
            claims: Claims::new(&capacity),
            services: Pool::new(Map::Services, &capacity, &used.services),
            backends_v4: Pool::new(Map::BackendsV4, &capacity, &used.backends_v4),
            backends_v6: Pool::new(Map::BackendsV6, &capacity, &used.backends_v6),
            source_sets: Pool::new(Map::SourceRangesV4, &capacity, &used.source_sets),
            regions: Regions::new(capacity.slots, &used.regions),
            generation: first_generation,
            freed: Vec::new(),
        }
    }

    /// Claims frontends whose rows are in the maps already.
    pub fn adopt(&mut self, name: &ServiceName, dialled: impl Iterator<Item = Dialled>) {
        for at in dialled {
            self.claims.insert(at, name);
        }
    }

    /// Takes back what a Service does not use any more. Frontends are free at once: returns the
    /// Services that were waiting for them. The rest is kept apart.
    pub fn free(&mut self, freed: impl IntoIterator<Item = Freed>) -> Vec<ServiceName> {
        let mut waiting = Vec::new();
        for freed in freed {
            match freed {
                Freed::Frontend(address, port, protocol) => {
                    waiting.extend(self.claims.release((address, port, protocol)));
                }
                other => self.freed.push(other),
            }
        }
        waiting
    }

    /// Takes back what was never written to a map: it is free at once. Returns the Services that
    /// were waiting for frontends.
    pub fn unuse(&mut self, unused: impl IntoIterator<Item = Freed>) -> Vec<ServiceName> {
        unused
            .into_iter()
            .flat_map(|freed| self.put_back(freed))
            .collect()
    }

    /// What has become free since the last call; to be released after a grace period that begins
    /// now.
    pub fn seal(&mut self) -> Option<Batch> {
        let freed = std::mem::take(&mut self.freed);
        (!freed.is_empty()).then_some(Batch(freed))
    }

    /// Makes a batch available again.
    pub fn release(&mut self, batch: Batch) {
        self.unuse(batch.0);
    }

    /// Rows in use, including those kept apart; words in the case of `SLOTS`, sets in that of source ranges.
    pub fn used(&self, map: Map) -> u32 {
        match map {
            Map::FrontendsV4 | Map::FrontendsV6 => self.claims.used(map),
            Map::Services => self.services.used(),
            Map::Slots => self.regions.used(),
            Map::BackendsV4 => self.backends_v4.used(),
            Map::BackendsV6 => self.backends_v6.used(),
            Map::SourceRangesV4 | Map::SourceRangesV6 => self.source_sets.used(),
        }
    }

    /// The Service that has a frontend; no protocol: the address as such.
    pub fn holder(&self, at: (IpAddr, u16, Option<Protocol>)) -> Option<&ServiceName> {
        self.claims.holder(at)
    }

    /// A generation unlike those before; never 0.
    pub(super) fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.generation
    }

    pub(super) fn claim(&mut self, at: Dialled, name: &ServiceName) -> Result<Claimed, TableFull> {
        self.claims.claim(at, name)
    }

    fn put_back(&mut self, freed: Freed) -> Vec<ServiceName> {
        match freed {
            Freed::Frontend(address, port, protocol) => {
                return self.claims.release((address, port, protocol));
            }
            Freed::Service(id) => self.services.give_back(id),
            Freed::Region { start, words } => self.regions.give_back(start, words),
            Freed::BackendV4(id) => self.backends_v4.give_back(id),
            Freed::BackendV6(id) => self.backends_v6.give_back(id),
            Freed::SourceSet(id) => self.source_sets.give_back(id),
        }
        Vec::new()
    }
}

impl Pool {
    fn new(map: Map, capacity: &Capacity, used: &[u32]) -> Self {
        let next = used.iter().max().map_or(1, |highest| highest + 1);
        let mut free: Vec<bool> = vec![true; next as usize];
        for &id in used {
            free[id as usize] = false;
        }
        Self {
            map,
            capacity: capacity.of(map),
            next,
            free: (1..next).rev().filter(|&id| free[id as usize]).collect(),
        }
    }

    pub(super) fn take(&mut self) -> Result<u32, TableFull> {
        if let Some(id) = self.free.pop() {
            return Ok(id);
        }
        if self.next >= self.capacity {
            return Err(TableFull {
                map: self.map,
                needed: self.next.saturating_add(1),
                capacity: self.capacity,
            });
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    pub(super) fn give_back(&mut self, id: u32) {
        // Never given out, but another agent's maps may have had it in use.
        if id != 0 {
            self.free.push(id);
        }
    }

    fn used(&self) -> u32 {
        self.next - 1 - self.free.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity() -> Capacity {
        Capacity {
            frontends_v4: 2,
            frontends_v6: 2,
            services: 5,
            slots: 16,
            backends_v4: 4,
            backends_v6: 4,
            source_ranges: 4,
        }
    }

    #[test]
    fn ids_in_use_at_the_start_are_not_given_out() {
        let mut pool = Pool::new(Map::Services, &capacity(), &[3, 1]);
        assert_eq!(pool.used(), 2);
        assert_eq!(pool.take(), Ok(2));
        assert_eq!(pool.take(), Ok(4));
        let full = pool.take().unwrap_err();
        assert_eq!(
            full.to_string(),
            "map SERVICES is full: 6 rows needed, 5 are there"
        );
    }

    #[test]
    fn what_is_free_is_not_used_before_its_release() {
        let mut ids = Ids::new(capacity(), 0);
        let taken: Vec<u32> = (0..3).map(|_| ids.backends_v4.take().unwrap()).collect();
        ids.free([Freed::BackendV4(taken[0])]);
        assert!(ids.backends_v4.take().is_err());
        let batch = ids.seal().unwrap();
        assert!(ids.backends_v4.take().is_err());
        assert_eq!(ids.used(Map::BackendsV4), 3);
        ids.release(batch);
        assert_eq!(ids.backends_v4.take(), Ok(taken[0]));
    }

    #[test]
    fn generations_skip_zero_when_they_wrap() {
        let mut ids = Ids::new(capacity(), u32::MAX - 1);
        assert_eq!(ids.next_generation(), u32::MAX);
        assert_eq!(ids.next_generation(), 1);
    }
}
