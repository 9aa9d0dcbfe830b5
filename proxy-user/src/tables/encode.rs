//! Service ports as rows, keeping the ids of what exists.

use super::claims::Claimed;
use super::content::Dialled;
use super::ids::Ids;
use super::rows::{backend_row, frontend_row, key, place, range_key, same, words};
use super::{Family, Freed, ServiceTables, TableFull};
use crate::frontend::{self, Cidr, IpFamily, ServiceName, ServicePort};
use proxy_common::{
    AddrV4, AddrV6, Backend, Frontend, FrontendKey, FrontendKind, RegionHeader, ServiceWord,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The rows of a Service, and what had to be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The rows.
    pub tables: ServiceTables,
    /// Frontends that are someone else's.
    pub conflicts: Vec<Conflict>,
}

/// A frontend that two Services want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// What both want.
    pub frontend: frontend::Frontend,
    /// Who has it; may be the asking Service itself, by another of its ports.
    pub holder: ServiceName,
}

/// The rows that a Service with these ports should have, given those it has.
///
/// A service port keeps its service id, and its backends their ids and generations. A changed list
/// of backends gets a region of its own. Ids that are new are taken from `ids`.
///
/// # Errors
/// The map that is full; then nothing has been taken.
pub fn encode(
    name: &ServiceName,
    ports: &[ServicePort],
    actual: &ServiceTables,
    ids: &mut Ids,
) -> Result<Encoded, TableFull> {
    let mut encoder = Encoder {
        name,
        actual,
        ids,
        desired: ServiceTables::default(),
        conflicts: Vec::new(),
        known: BTreeSet::new(),
        sets: BTreeMap::new(),
        taken: Vec::new(),
    };
    for port in ports {
        let done = match port.family {
            IpFamily::V4 => encoder.port::<AddrV4>(port),
            IpFamily::V6 => encoder.port::<AddrV6>(port),
        };
        if let Err(full) = done {
            encoder.ids.unuse(encoder.taken);
            return Err(full);
        }
    }
    Ok(Encoded {
        tables: encoder.desired,
        conflicts: encoder.conflicts,
    })
}

struct Encoder<'a> {
    name: &'a ServiceName,
    actual: &'a ServiceTables,
    ids: &'a mut Ids,
    desired: ServiceTables,
    conflicts: Vec<Conflict>,
    /// Services that a port has taken over, or at least their backends.
    known: BTreeSet<u32>,
    /// Sets of source ranges: ports share them.
    sets: BTreeMap<Vec<Cidr>, u32>,
    /// What has been taken from `ids`.
    taken: Vec<Freed>,
}

/// Of `BACKENDS_*`, by id.
type Rows<A> = Vec<(u32, Backend<A>)>;

impl Encoder<'_> {
    fn port<A: Family>(&mut self, port: &ServicePort) -> Result<(), TableFull> {
        let mut frontends = Vec::new();
        for frontend in &port.frontends {
            frontends.extend(self.claim::<A>(frontend)?);
        }
        if frontends.is_empty() {
            return Ok(());
        }
        let known = self.known_service(&frontends);
        let (backends, rows) = self.backends::<A>(known, &port.backends)?;
        let sources = self.sources::<A>(known, port.source_ranges.as_deref())?;
        let words = words(port, sources, backends);
        let service = self.service_id(known, &frontends, &words)?;
        let word = self.region(service, words)?;
        self.desired.services.insert(service, word);
        let rows = rows
            .into_iter()
            .map(|(id, row)| (id, row.of_service(service)));
        // Built as a whole: one by one takes several times as long.
        let backends = &mut A::rows_mut(&mut self.desired).backends;
        backends.append(&mut rows.collect());
        self.addresses(service, &frontends)?;
        let rows = frontends.into_iter();
        let rows = rows.map(|(key, kind)| (key, frontend_row(service, kind, port)));
        A::rows_mut(&mut self.desired).frontends.extend(rows);
        Ok(())
    }

    /// Rows that say of cluster addresses that they are, by the first port that has them.
    fn addresses<A: Family>(
        &mut self,
        service: u32,
        frontends: &[(FrontendKey<A>, FrontendKind)],
    ) -> Result<(), TableFull> {
        for (key, kind) in frontends {
            let address = FrontendKey::of_address(key.address);
            let is_known = |encoder: &Self| {
                encoder
                    .desired
                    .family::<A>()
                    .frontends
                    .contains_key(&address)
            };
            if *kind != FrontendKind::ClusterIp || is_known(self) {
                continue;
            }
            let at: Dialled = (key.address.ip(), 0, None);
            match self.ids.claim(at, self.name)? {
                Claimed::New => self.taken.push(Freed::Frontend(at.0, at.1, at.2)),
                Claimed::Held => {}
                // Whoever has it says the same.
                Claimed::By(_) => continue,
            }
            let row = Frontend::new(service, FrontendKind::Address);
            A::rows_mut(&mut self.desired)
                .frontends
                .insert(address, row);
        }
        Ok(())
    }

    fn claim<A: Family>(
        &mut self,
        frontend: &frontend::Frontend,
    ) -> Result<Option<(FrontendKey<A>, FrontendKind)>, TableFull> {
        let Some((key, kind)) = key::<A>(frontend) else {
            return Ok(None);
        };
        let at: Dialled = (frontend.address, frontend.port, Some(frontend.protocol));
        let holder = match self.ids.claim(at, self.name)? {
            Claimed::New => {
                self.taken.push(Freed::Frontend(at.0, at.1, at.2));
                None
            }
            Claimed::Held => {
                let twice = self.desired.family::<A>().frontends.contains_key(&key);
                twice.then(|| self.name.clone())
            }
            Claimed::By(holder) => Some(holder),
        };
        if let Some(holder) = holder {
            self.conflicts.push(Conflict {
                frontend: *frontend,
                holder,
            });
            return Ok(None);
        }
        Ok(Some((key, kind)))
    }

    /// The service that one of the frontends leads to and no earlier port has taken over.
    fn known_service<A: Family>(
        &mut self,
        frontends: &[(FrontendKey<A>, FrontendKind)],
    ) -> Option<u32> {
        let rows = &self.actual.family::<A>().frontends;
        let known = frontends.iter().filter_map(|(key, _)| rows.get(key));
        let free = |id: &u32| self.actual.services.contains_key(id) && !self.known.contains(id);
        let known = known.map(|row| row.service).find(free)?;
        self.known.insert(known);
        Some(known)
    }

    /// The known id, unless a frontend that goes elsewhere would see the new region before it is
    /// gone.
    fn service_id<A: Family>(
        &mut self,
        known: Option<u32>,
        frontends: &[(FrontendKey<A>, FrontendKind)],
        words: &[u32],
    ) -> Result<u32, TableFull> {
        let rows = self.actual.family::<A>().frontends.iter();
        let leaves = |id, key: &FrontendKey<A>, row: &Frontend| {
            let is_kept = || frontends.iter().any(|(kept, _)| kept == key);
            row.service == id && !key.is_of_address() && !is_kept()
        };
        if let Some(id) = known
            && (self.known_words(id).is_some_and(|known| same(known, words))
                || !rows.clone().any(|(key, row)| leaves(id, key, row)))
        {
            return Ok(id);
        }
        let id = self.ids.services.take()?;
        self.taken.push(Freed::Service(id));
        Ok(id)
    }

    /// Ids of the backends, in the order of a region, and their rows, which don't name their service yet.
    fn backends<A: Family>(
        &mut self,
        known: Option<u32>,
        backends: &[frontend::Backend],
    ) -> Result<(Vec<u32>, Rows<A>), TableFull> {
        let mut known = self.known_backends::<A>(known).into_iter().peekable();
        let mut ids = Vec::with_capacity(backends.len());
        let mut rows = Vec::with_capacity(backends.len());
        for backend in backends {
            let Some(address) = A::from_ip(backend.address) else {
                continue;
            };
            let at = (backend.address, backend.port);
            while known.next_if(|(other, ..)| *other < at).is_some() {}
            let (id, generation) = match known.next_if(|(other, ..)| *other == at) {
                Some((_, id, generation)) => (id, generation),
                None => self.new_backend::<A>()?,
            };
            rows.push((id, backend_row(backend, address, generation)));
            ids.push((place(backend), id));
        }
        ids.sort_by_key(|(place, _)| *place);
        Ok((ids.into_iter().map(|(_, id)| id).collect(), rows))
    }

    /// The set of ranges that may dial load balancers' addresses: the one that there is, if it is the same.
    fn sources<A: Family>(
        &mut self,
        known: Option<u32>,
        ranges: Option<&[Cidr]>,
    ) -> Result<u32, TableFull> {
        let Some(ranges) = ranges else {
            return Ok(0);
        };
        if let Some(set) = self.sets.get(ranges) {
            return Ok(*set);
        }
        let in_set = |set| {
            let keys = ranges
                .iter()
                .filter_map(move |range| range_key::<A>(set, range));
            keys.collect::<BTreeSet<_>>()
        };
        let known = known.and_then(|id| self.known_words(id));
        let known = known.and_then(|words| words.get(RegionHeader::SOURCES as usize));
        let rows = &self.actual.family::<A>().ranges;
        let is_same = |set: &&u32| {
            let there = rows.iter().filter(|key| key.range.set == **set);
            **set != 0 && there.eq(&in_set(**set))
        };
        let set = match known.filter(is_same) {
            Some(set) => *set,
            None => {
                let set = self.ids.source_sets.take()?;
                self.taken.push(Freed::SourceSet(set));
                set
            }
        };
        A::rows_mut(&mut self.desired).ranges.extend(in_set(set));
        self.sets.insert(ranges.to_vec(), set);
        Ok(set)
    }

    /// The backends that the service has now, sorted as those that it should have; id and generation of each.
    fn known_backends<A: Family>(&self, service: Option<u32>) -> Vec<((IpAddr, u16), u32, u32)> {
        // Ids are in the order of addresses, so each is looked up: in an array, which is faster than in a tree.
        let rows: Vec<_> = self.actual.family::<A>().backends.iter().collect();
        let row = |id: &u32| {
            let found = rows.binary_search_by_key(&id, |(id, _)| *id).ok()?;
            let (_, row) = rows[found];
            let at = (row.address.ip(), row.port.number());
            Some((at, *id, row.generation))
        };
        let ids = service.and_then(|id| self.known_ids(id));
        let ids = ids.unwrap_or_default().iter();
        let mut known: Vec<_> = ids.filter_map(row).collect();
        known.sort_by_key(|(at, ..)| *at);
        known
    }

    /// Ids of the backends in the service's region, if it has one.
    fn known_ids(&self, service: u32) -> Option<&[u32]> {
        self.known_words(service)?
            .get(RegionHeader::WORDS as usize..)
    }

    /// The words of the service's region, if it has one.
    fn known_words(&self, service: u32) -> Option<&[u32]> {
        let word = self.actual.services.get(&service)?;
        let words = self.actual.regions.get(&word.region())?;
        Some(words)
    }

    fn new_backend<A: Family>(&mut self) -> Result<(u32, u32), TableFull> {
        let id = A::take_backend(self.ids)?;
        self.taken.push(A::freed_backend(id));
        Ok((id, self.ids.next_generation()))
    }

    /// A region with these words, whose generation is still to be filled in: the one that is there, if it is
    /// the same.
    fn region(&mut self, service: u32, mut words: Vec<u32>) -> Result<ServiceWord, TableFull> {
        if let Some(known) = self.known_words(service)
            && same(known, &words)
            && let Some(&word) = self.actual.services.get(&service)
        {
            let known = known.to_vec();
            self.desired.regions.insert(word.region(), known);
            return Ok(word);
        }
        let generation = self.ids.next_generation();
        words[0] = generation;
        let length = words.len() as u32;
        let start = self.ids.regions.take(length)?;
        self.taken.push(Freed::Region {
            start,
            words: length,
        });
        self.desired.regions.insert(start, words);
        Ok(ServiceWord::new(start, generation))
    }
}
