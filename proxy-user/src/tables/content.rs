//! The rows of one Service, and what an op does to them.

use super::{Family, FamilyOp, Op, RangeKey};
use crate::frontend;
use proxy_common::{
    AddrV4, AddrV6, Backend, Frontend, FrontendKey, Proto, RegionHeader, ServiceWord,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// All rows that belong to one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceTables {
    pub(super) v4: FamilyTables<AddrV4>,
    pub(super) v6: FamilyTables<AddrV6>,
    /// By service id.
    pub(super) services: BTreeMap<u32, ServiceWord>,
    /// Header and backend ids, by index of the first word. Each belongs to at most one service id.
    pub(super) regions: BTreeMap<u32, Vec<u32>>,
}

/// The rows in the maps of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyTables<A> {
    pub(super) frontends: BTreeMap<FrontendKey<A>, Frontend>,
    /// By backend id.
    pub(super) backends: BTreeMap<u32, Backend<A>>,
    /// Who may dial addresses of load balancers.
    pub(super) ranges: BTreeSet<RangeKey<A>>,
}

impl<A> Default for FamilyTables<A> {
    fn default() -> Self {
        Self {
            frontends: BTreeMap::new(),
            backends: BTreeMap::new(),
            ranges: BTreeSet::new(),
        }
    }
}

/// Address, port and protocol of a frontend of either family; none for an address as such.
pub(super) type Dialled = (IpAddr, u16, Option<frontend::Protocol>);

/// Something a Service does not use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freed {
    /// The right to an address, port and protocol, or to an address as such.
    Frontend(IpAddr, u16, Option<frontend::Protocol>),
    /// A service id.
    Service(u32),
    /// Words of `SLOTS`.
    Region {
        /// Index of the first.
        start: u32,
        /// How many.
        words: u32,
    },
    /// Index into `BACKENDS_V4`.
    BackendV4(u32),
    /// Index into `BACKENDS_V6`.
    BackendV6(u32),
    /// A set of `SOURCE_RANGES_*`.
    SourceSet(u32),
}

impl ServiceTables {
    /// Whether there is no row at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The rows in the maps of one family.
    pub fn family<A: Family>(&self) -> &FamilyTables<A> {
        A::rows(self)
    }

    /// Does to these rows what the op does to the maps; adds what is free afterwards to `freed`.
    pub fn apply(&mut self, op: &Op, freed: &mut Vec<Freed>) {
        match op {
            Op::V4(op) => freed.extend(self.v4.apply(op)),
            Op::V6(op) => freed.extend(self.v6.apply(op)),
            Op::PutRegion { start, words } => {
                self.regions.insert(*start, words.clone());
            }
            Op::PutService { id, word } => {
                let before = self.services.insert(*id, *word);
                freed.extend(before.and_then(|word| self.remove_region(word)));
            }
            Op::ClearService { id } => {
                let before = self.services.remove(id);
                freed.extend(before.and_then(|word| self.remove_region(word)));
                freed.push(Freed::Service(*id));
            }
        }
    }

    /// The addresses, ports and protocols that these rows hold.
    pub fn dialled(&self) -> impl Iterator<Item = Dialled> {
        let v4 = self.v4.frontends.keys().filter_map(dialled);
        v4.chain(self.v6.frontends.keys().filter_map(dialled))
    }

    /// The rows that frontends lead to; without what is left of writes that were given up.
    pub fn reachable(&self) -> Self {
        let mut ids = self.v4.services();
        ids.append(&mut self.v6.services());
        let mut reachable = self.clone();
        reachable.services.retain(|id, _| ids.contains(id));
        reachable.drop_unpublished();
        let words = reachable.regions.values();
        let backends = words.filter_map(|words| words.get(RegionHeader::WORDS as usize..));
        let backends: BTreeSet<u32> = backends.flatten().copied().collect();
        reachable.v4.backends.retain(|id, _| backends.contains(id));
        reachable.v6.backends.retain(|id, _| backends.contains(id));
        let words = reachable.regions.values();
        let sets = words.filter_map(|words| words.get(RegionHeader::SOURCES as usize));
        let sets: BTreeSet<u32> = sets.copied().collect();
        let is_used = |set| sets.contains(&set);
        reachable.v4.ranges.retain(|key| is_used(key.range.set));
        reachable.v6.ranges.retain(|key| is_used(key.range.set));
        reachable
    }

    /// Forgets regions that were written but never pointed at.
    pub fn drop_unpublished(&mut self) -> Vec<Freed> {
        let published: BTreeSet<u32> = self.services.values().map(|word| word.region()).collect();
        let unpublished = self
            .regions
            .extract_if(.., |start, _| !published.contains(start));
        unpublished
            .map(|(start, words)| region(start, &words))
            .collect()
    }

    /// Everything that these rows use and those of `other` don't.
    pub fn beyond(&self, other: &Self) -> Vec<Freed> {
        let services = self.services.keys();
        let services = services.filter(|id| !other.services.contains_key(id));
        let regions = self.regions.iter();
        let regions = regions.filter(|(start, _)| !other.regions.contains_key(start));
        let mut beyond: Vec<Freed> = services.map(|id| Freed::Service(*id)).collect();
        beyond.extend(regions.map(|(start, words)| region(*start, words)));
        self.v4.beyond(&other.v4, &mut beyond);
        self.v6.beyond(&other.v6, &mut beyond);
        beyond
    }

    /// Takes over all rows of `other`; the two have none in common.
    pub fn absorb(&mut self, other: Self) {
        self.v4.frontends.extend(other.v4.frontends);
        self.v4.backends.extend(other.v4.backends);
        self.v4.ranges.extend(other.v4.ranges);
        self.v6.frontends.extend(other.v6.frontends);
        self.v6.backends.extend(other.v6.backends);
        self.v6.ranges.extend(other.v6.ranges);
        self.services.extend(other.services);
        self.regions.extend(other.regions);
    }

    fn remove_region(&mut self, word: ServiceWord) -> Option<Freed> {
        let words = self.regions.remove(&word.region())?;
        Some(region(word.region(), &words))
    }
}

impl<A: Family> FamilyTables<A> {
    /// How many rows of `FRONTENDS_*` there are that can be dialled.
    pub fn frontend_count(&self) -> usize {
        let keys = self.frontends.keys();
        keys.filter(|key| !key.is_of_address()).count()
    }

    /// How many rows of `SOURCE_RANGES_*` there are.
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is a range of this set.
    fn has_set(&self, set: u32) -> bool {
        self.ranges.iter().any(|key| key.range.set == set)
    }

    /// How many rows of `BACKENDS_*` there are.
    pub fn backend_count(&self) -> usize {
        self.backends.len()
    }

    /// How many service ids the frontends lead to.
    pub fn service_count(&self) -> usize {
        self.services().len()
    }

    fn services(&self) -> BTreeSet<u32> {
        self.frontends.values().map(|row| row.service).collect()
    }

    fn apply(&mut self, op: &FamilyOp<A>) -> Option<Freed> {
        match op {
            FamilyOp::PutBackend { id, row } => {
                self.backends.insert(*id, *row);
                None
            }
            FamilyOp::PutFrontend { key, row } => {
                self.frontends.insert(*key, *row);
                None
            }
            FamilyOp::DeleteFrontend { key } => {
                self.frontends.remove(key);
                freed_frontend(key)
            }
            FamilyOp::ClearBackend { id } => {
                self.backends.remove(id);
                Some(A::freed_backend(*id))
            }
            FamilyOp::PutRange { key } => {
                self.ranges.insert(*key);
                None
            }
            FamilyOp::DeleteRange { key } => {
                self.ranges.remove(key);
                let set = key.range.set;
                (!self.has_set(set)).then_some(Freed::SourceSet(set))
            }
        }
    }

    fn beyond(&self, other: &Self, beyond: &mut Vec<Freed>) {
        let frontends = self.frontends.keys();
        let frontends = frontends.filter(|key| !other.frontends.contains_key(key));
        beyond.extend(frontends.filter_map(freed_frontend));
        let backends = self.backends.keys();
        let backends = backends.filter(|id| !other.backends.contains_key(id));
        beyond.extend(backends.map(|id| A::freed_backend(*id)));
        let sets: BTreeSet<u32> = self.ranges.iter().map(|key| key.range.set).collect();
        let sets = sets.into_iter().filter(|set| !other.has_set(*set));
        beyond.extend(sets.map(Freed::SourceSet));
    }
}

/// A row of a protocol that nobody can claim frees nothing.
fn freed_frontend<A: Family>(key: &FrontendKey<A>) -> Option<Freed> {
    dialled(key).map(|(address, port, protocol)| Freed::Frontend(address, port, protocol))
}

fn dialled<A: Family>(key: &FrontendKey<A>) -> Option<Dialled> {
    if key.is_of_address() {
        return Some((key.address.ip(), 0, None));
    }
    let protocol = match key.proto()? {
        Proto::Tcp => frontend::Protocol::Tcp,
        Proto::Udp => frontend::Protocol::Udp,
        Proto::Sctp => frontend::Protocol::Sctp,
    };
    Some((key.address.ip(), key.port.number(), Some(protocol)))
}

fn region(start: u32, words: &[u32]) -> Freed {
    Freed::Region {
        start,
        words: u32::try_from(words.len()).unwrap_or(u32::MAX),
    }
}
