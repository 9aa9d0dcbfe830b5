//! A dump as text, without ids: equal texts mean that packets fare equally.

use super::{Dump, Family};
use proxy_common::{Address, Backend, Frontend, FrontendKey, FrontendKind, RegionHeader};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

/// One paragraph for each service, then what no frontend leads to.
impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reader = Reader::new(self);
        let v4 = reader.family("v4", &self.frontends_v4, &self.backends_v4);
        let v6 = reader.family("v6", &self.frontends_v6, &self.backends_v6);
        for service in v4.iter().chain(&v6) {
            f.write_str(service)?;
        }
        for id in reader
            .services
            .keys()
            .filter(|id| !reader.used.contains(id))
        {
            writeln!(f, "left over: service {id}")?;
        }
        Ok(())
    }
}

struct Reader<'a> {
    slots: &'a [u32],
    /// Region and generation by id.
    services: BTreeMap<u32, (u32, u32)>,
    /// Services that frontends lead to.
    used: BTreeSet<u32>,
}

type Rows<K, V> = [(K, V)];

impl<'a> Reader<'a> {
    fn new(dump: &'a Dump) -> Self {
        let services = dump.services.iter();
        let services = services.map(|(id, word)| (*id, (word.region(), word.generation())));
        Self {
            slots: &dump.slots,
            services: services.collect(),
            used: BTreeSet::new(),
        }
    }

    fn family<A: Family>(
        &mut self,
        family: &str,
        frontends: &Rows<FrontendKey<A>, Frontend>,
        backends: &Rows<u32, Backend<A>>,
    ) -> Vec<String> {
        let mut left: BTreeMap<u32, Backend<A>> = backends.iter().copied().collect();
        let mut by_service: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        let mut sorted = frontends.to_vec();
        sorted.sort_unstable_by_key(|(key, _)| (key.address.ip(), key.port.number(), key.proto()));
        let mut order = Vec::new();
        for (key, row) in sorted {
            let lines = by_service.entry(row.service).or_insert_with(|| {
                order.push(row.service);
                Vec::new()
            });
            lines.push(frontend(&key, &row));
        }
        let mut paragraphs = Vec::new();
        for id in order {
            let mut lines = by_service.remove(&id).unwrap_or_default();
            lines.extend(self.backends(id, &mut left));
            paragraphs.push(lines.concat());
        }
        let left = left.into_values().map(|row| backend(&row));
        paragraphs.extend(left.map(|row| format!("left over, {family}: {}", row.trim_start())));
        paragraphs
    }

    /// The backends of a service, taken out of `rows`.
    fn backends<A: Family>(
        &mut self,
        id: u32,
        rows: &mut BTreeMap<u32, Backend<A>>,
    ) -> Vec<String> {
        self.used.insert(id);
        let Some(ids) = self.region(id) else {
            return vec!["  broken: no region\n".to_owned()];
        };
        let row = |id: &u32| match rows.remove(id) {
            Some(row) => backend(&row),
            None => "  broken: no such backend, or twice\n".to_owned(),
        };
        ids.iter().map(row).collect()
    }

    fn region(&self, id: u32) -> Option<&'a [u32]> {
        let (start, generation) = *self.services.get(&id)?;
        let words = self.slots.get(start as usize..)?;
        let (header, ids) = words.split_at_checked(RegionHeader::WORDS as usize)?;
        let complete = header[0] == generation;
        ids.get(..header[1] as usize).filter(|_| complete)
    }
}

fn frontend<A: Family>(key: &FrontendKey<A>, row: &Frontend) -> String {
    let at = SocketAddr::new(key.address.ip(), key.port.number());
    let proto = key.proto().map_or("?", |proto| proto.name());
    let kind = match row.kind() {
        Some(FrontendKind::ClusterIp) => "ClusterIP",
        Some(FrontendKind::NodePort) => "NodePort",
        None => "?",
    };
    let closes = if row.closes_tcp() { " closes TCP" } else { "" };
    format!("{kind} {at}/{proto}{closes}\n")
}

fn backend<A: Address>(row: &Backend<A>) -> String {
    let at = SocketAddr::new(row.address.ip(), row.port.number());
    let local = if row.is_local() { " local" } else { "" };
    format!("  {at}{local}\n")
}
