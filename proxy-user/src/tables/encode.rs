//! Service ports as rows, keeping the ids of what exists.

use super::claims::Claimed;
use super::content::Dialled;
use super::ids::Ids;
use super::{Family, Freed, ServiceTables, TableFull};
use crate::frontend::{self, IpFamily, Protocol, ServiceName, ServicePort};
use proxy_common::{
    AddrV4, AddrV6, Backend, Frontend, FrontendKey, FrontendKind, Locality, Port, Proto,
    RegionHeader, ServiceWord,
};
use std::collections::BTreeSet;
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
    /// What has been taken from `ids`.
    taken: Vec<Freed>,
}

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
        let backends = self.backends::<A>(known, &port.backends)?;
        let service = self.service_id(known, &frontends, &backends)?;
        let word = self.region(service, backends)?;
        self.desired.services.insert(service, word);
        let rows = frontends.into_iter().map(|(key, kind)| {
            (
                key,
                Frontend::new(service, kind).closing_tcp(port.closes_tcp),
            )
        });
        A::rows_mut(&mut self.desired).frontends.extend(rows);
        Ok(())
    }

    fn claim<A: Family>(
        &mut self,
        frontend: &frontend::Frontend,
    ) -> Result<Option<(FrontendKey<A>, FrontendKind)>, TableFull> {
        let Some((key, kind)) = key::<A>(frontend) else {
            return Ok(None);
        };
        let at: Dialled = (frontend.address, frontend.port, frontend.protocol);
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

    /// The known id, unless a frontend that goes elsewhere would see the new backends before it is
    /// gone.
    fn service_id<A: Family>(
        &mut self,
        known: Option<u32>,
        frontends: &[(FrontendKey<A>, FrontendKind)],
        backends: &[u32],
    ) -> Result<u32, TableFull> {
        let rows = self.actual.family::<A>().frontends.iter();
        let leaves = |id, key: &FrontendKey<A>, row: &Frontend| {
            row.service == id && !frontends.iter().any(|(kept, _)| kept == key)
        };
        if let Some(id) = known
            && (self.known_ids(id) == Some(backends)
                || !rows.clone().any(|(key, row)| leaves(id, key, row)))
        {
            return Ok(id);
        }
        let id = self.ids.services.take()?;
        self.taken.push(Freed::Service(id));
        Ok(id)
    }

    /// Ids of the backends, in order.
    fn backends<A: Family>(
        &mut self,
        known: Option<u32>,
        backends: &[frontend::Backend],
    ) -> Result<Vec<u32>, TableFull> {
        let mut known = self.known_backends::<A>(known).into_iter().peekable();
        let mut ids = Vec::with_capacity(backends.len());
        let mut rows = Vec::with_capacity(backends.len());
        for backend in backends.iter().filter(|it| it.in_cluster) {
            let Some(address) = A::from_ip(backend.address) else {
                continue;
            };
            let at = (backend.address, backend.port);
            while known.next_if(|(other, ..)| *other < at).is_some() {}
            let (id, generation) = match known.next_if(|(other, ..)| *other == at) {
                Some((_, id, generation)) => (id, generation),
                None => self.new_backend::<A>()?,
            };
            let port = Port::new(backend.port);
            let row = Backend::new(address, port, locality(backend), generation);
            rows.push((id, row));
            ids.push(id);
        }
        // Built as a whole: one by one takes several times as long.
        let desired = &mut A::rows_mut(&mut self.desired).backends;
        desired.append(&mut rows.into_iter().collect());
        Ok(ids)
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
        let word = self.actual.services.get(&service)?;
        let words = self.actual.regions.get(&word.region())?;
        words.get(RegionHeader::WORDS as usize..)
    }

    fn new_backend<A: Family>(&mut self) -> Result<(u32, u32), TableFull> {
        let id = A::take_backend(self.ids)?;
        self.taken.push(A::freed_backend(id));
        Ok((id, self.ids.next_generation()))
    }

    /// A region with these backends: the one that is there, if it is the same.
    fn region(&mut self, service: u32, backends: Vec<u32>) -> Result<ServiceWord, TableFull> {
        let known = self.actual.services.get(&service);
        if let Some(&word) = known
            && let Some(words) = self.actual.regions.get(&word.region())
            && self.known_ids(service) == Some(&backends)
        {
            self.desired.regions.insert(word.region(), words.clone());
            return Ok(word);
        }
        let generation = self.ids.next_generation();
        let mut words = vec![generation, backends.len() as u32];
        words.extend(backends);
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

fn key<A: Family>(frontend: &frontend::Frontend) -> Option<(FrontendKey<A>, FrontendKind)> {
    let proto = match frontend.protocol {
        Protocol::Tcp => Proto::Tcp,
        Protocol::Udp => Proto::Udp,
        Protocol::Sctp => return None,
    };
    let kind = match frontend.kind {
        frontend::FrontendKind::ClusterIp => FrontendKind::ClusterIp,
        frontend::FrontendKind::NodePort
        | frontend::FrontendKind::ExternalIp
        | frontend::FrontendKind::LoadBalancer => FrontendKind::NodePort,
    };
    let address = A::from_ip(frontend.address)?;
    Some((
        FrontendKey::new(address, Port::new(frontend.port), proto),
        kind,
    ))
}

fn locality(backend: &frontend::Backend) -> Locality {
    if backend.local {
        Locality::Local
    } else {
        Locality::Remote
    }
}
