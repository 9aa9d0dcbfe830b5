//! What an earlier run has left in the maps, and whose it is.

use super::content::Dialled;
use super::ids::InUse;
use super::{Capacity, Family, Ids, RangeKey, ServiceTables};
use crate::frontend::{Frontend as Wanted, FrontendKind, ServicePort};
use proxy_common::{AddrV4, AddrV6, Backend, Frontend, FrontendKey, RegionHeader, ServiceWord};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Content of all maps, as read at start. Empty (all zero) rows of arrays are left out, except in
/// `slots`, which is the array itself; its zero tail may be cut off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// Rows of `FRONTENDS_V4`, in any order.
    pub frontends_v4: Vec<(FrontendKey<AddrV4>, Frontend)>,
    /// Rows of `FRONTENDS_V6`, in any order.
    pub frontends_v6: Vec<(FrontendKey<AddrV6>, Frontend)>,
    /// Rows of `SERVICES` that are not [`ServiceWord::NONE`], by id.
    pub services: Vec<(u32, ServiceWord)>,
    /// The words of `SLOTS`, from index 0 on.
    pub slots: Vec<u32>,
    /// Rows of `BACKENDS_V4` whose generation is not 0, by id.
    pub backends_v4: Vec<(u32, Backend<AddrV4>)>,
    /// Rows of `BACKENDS_V6` whose generation is not 0, by id.
    pub backends_v6: Vec<(u32, Backend<AddrV6>)>,
    /// Rows of `SOURCE_RANGES_V4`, in any order.
    pub ranges_v4: Vec<RangeKey<AddrV4>>,
    /// Rows of `SOURCE_RANGES_V6`, in any order.
    pub ranges_v6: Vec<RangeKey<AddrV6>>,
}
/// Rows that no Service has asked for yet, one set for each service id.
#[derive(Debug, Default)]
pub struct Orphans {
    by_service: BTreeMap<u32, ServiceTables>,
    by_frontend: HashMap<Dialled, u32>,
}

impl Orphans {
    /// Sorts a dump by service id, and sets up the allocator to match.
    ///
    /// Nothing in a dump is taken for granted: a region that is out of bounds, of another
    /// generation, shared or with backends that are not there is not kept, so that whoever takes
    /// over the service writes a new one.
    pub fn restore(dump: &Dump, capacity: Capacity, first_generation: u32) -> (Self, Ids) {
        let mut sorter = Sorter::new(dump, capacity);
        for &(id, word) in &dump.services {
            sorter.service(id, word);
        }
        let by_service = sorter.finish();
        let ids = Ids::with(capacity, first_generation, &in_use(&by_service));
        let mut by_frontend = HashMap::new();
        for (&id, tables) in &by_service {
            by_frontend.extend(tables.dialled().map(|at| (at, id)));
        }
        let orphans = Self {
            by_service,
            by_frontend,
        };
        (orphans, ids)
    }

    /// Hands out the rows that lead to one of these ports' frontends.
    pub fn take(&mut self, ports: &[ServicePort]) -> ServiceTables {
        let mut taken = ServiceTables::default();
        for frontend in ports.iter().flat_map(|port| &port.frontends) {
            for at in [Some(dialled(frontend)), address(frontend)]
                .into_iter()
                .flatten()
            {
                if let Some(&id) = self.by_frontend.get(&at) {
                    taken.absorb(self.remove(id));
                }
            }
        }
        taken
    }

    /// Whether there are none (any more).
    pub fn is_empty(&self) -> bool {
        self.by_service.is_empty()
    }

    /// Hands out the next rows that nobody has asked for.
    pub fn pop(&mut self) -> Option<(u32, ServiceTables)> {
        let id = *self.by_service.keys().next()?;
        Some((id, self.remove(id)))
    }

    fn remove(&mut self, id: u32) -> ServiceTables {
        let tables = self.by_service.remove(&id).unwrap_or_default();
        for at in tables.dialled() {
            self.by_frontend.remove(&at);
        }
        tables
    }
}

fn dialled(frontend: &Wanted) -> Dialled {
    (frontend.address, frontend.port, Some(frontend.protocol))
}

/// Its address as such, if it is a cluster address.
fn address(frontend: &Wanted) -> Option<Dialled> {
    (frontend.kind == FrontendKind::ClusterIp).then_some((frontend.address, 0, None))
}

/// What no service has goes under this service id, which no service has either.
const NO_SERVICE: u32 = 0;

struct Sorter<'a> {
    slots: &'a [u32],
    by_service: BTreeMap<u32, ServiceTables>,
    /// Backends and source ranges that are not part of a service yet.
    rest: ServiceTables,
    /// Start -> words, of all services.
    regions: BTreeMap<u32, u32>,
}

impl<'a> Sorter<'a> {
    fn new(dump: &'a Dump, capacity: Capacity) -> Self {
        let slots = dump.slots.len().min(capacity.slots as usize);
        let mut sorter = Self {
            slots: &dump.slots[..slots],
            by_service: BTreeMap::new(),
            rest: ServiceTables::default(),
            regions: BTreeMap::new(),
        };
        sorter.family(&dump.frontends_v4, &dump.backends_v4, &dump.ranges_v4);
        sorter.family(&dump.frontends_v6, &dump.backends_v6, &dump.ranges_v6);
        sorter
    }

    fn family<A: Family>(
        &mut self,
        frontends: &[(FrontendKey<A>, Frontend)],
        backends: &[(u32, Backend<A>)],
        ranges: &[RangeKey<A>],
    ) {
        for &(key, row) in frontends {
            let tables = self.by_service.entry(row.service).or_default();
            A::rows_mut(tables).frontends.insert(key, row);
        }
        let rest = A::rows_mut(&mut self.rest);
        rest.backends.extend(backends.iter().copied());
        rest.ranges.extend(ranges.iter().copied());
    }

    fn service(&mut self, id: u32, word: ServiceWord) {
        let mut tables = self.by_service.remove(&id).unwrap_or_default();
        tables.services.insert(id, word);
        if let Some(words) = self.region(word)
            && self.adopt(words, &mut tables)
        {
            self.regions.insert(word.region(), words.len() as u32);
            tables.regions.insert(word.region(), words.to_vec());
        }
        self.by_service.insert(id, tables);
    }

    /// The words that a service word points at, if they are what it promises.
    fn region(&self, word: ServiceWord) -> Option<&'a [u32]> {
        let slots = self.slots.get(word.region() as usize..)?;
        let (header, ids) = slots.split_at_checked(RegionHeader::WORDS as usize)?;
        let backends = header[RegionHeader::BACKENDS as usize] as usize;
        if header[0] != word.generation() || ids.len() < backends {
            return None;
        }
        let words = &slots[..header.len() + backends];
        let end = word.region() + words.len() as u32;
        let before = self.regions.range(..end).next_back();
        let overlaps = before.is_some_and(|(start, length)| start + length > word.region());
        (!overlaps).then_some(words)
    }

    /// Moves what a region leads to to its service. Its family is that of its frontends.
    fn adopt(&mut self, words: &[u32], tables: &mut ServiceTables) -> bool {
        let v4 = tables.v4.frontends.is_empty();
        let v6 = tables.v6.frontends.is_empty();
        match (v4, v6) {
            (false, true) => adopt::<AddrV4>(&mut self.rest, words, tables),
            (true, false) => adopt::<AddrV6>(&mut self.rest, words, tables),
            (true, true) | (false, false) => false,
        }
    }

    fn finish(mut self) -> BTreeMap<u32, ServiceTables> {
        if !self.rest.is_empty() {
            let tables = self.by_service.entry(NO_SERVICE).or_default();
            tables.absorb(self.rest);
        }
        self.by_service
    }
}

fn adopt<A: Family>(from: &mut ServiceTables, words: &[u32], to: &mut ServiceTables) -> bool {
    let (header, ids) = words.split_at(RegionHeader::WORDS as usize);
    let from = A::rows_mut(from);
    let rows = &mut from.backends;
    let distinct: BTreeSet<u32> = ids.iter().copied().collect();
    if distinct.len() < ids.len() || !distinct.iter().all(|id| rows.contains_key(id)) {
        return false;
    }
    let moved: Vec<_> = ids.iter().filter_map(|id| rows.remove_entry(id)).collect();
    let to = A::rows_mut(to);
    to.backends.extend(moved);
    let set = header[RegionHeader::SOURCES as usize];
    to.ranges
        .extend(from.ranges.extract_if(.., |key| key.range.set == set));
    true
}

fn in_use(by_service: &BTreeMap<u32, ServiceTables>) -> InUse {
    let mut used = InUse::default();
    for tables in by_service.values() {
        used.services.extend(tables.services.keys());
        used.backends_v4.extend(tables.v4.backends.keys());
        used.backends_v6.extend(tables.v6.backends.keys());
        let v4 = tables.v4.ranges.iter().map(|key| key.range.set);
        let sets: BTreeSet<u32> = v4
            .chain(tables.v6.ranges.iter().map(|key| key.range.set))
            .collect();
        used.source_sets.extend(sets);
        let regions = tables.regions.iter();
        used.regions
            .extend(regions.map(|(start, words)| (*start, words.len() as u32)));
    }
    used
}
