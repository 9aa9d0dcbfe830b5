//! A dump as text, without ids: equal texts mean that packets fare equally.

use super::{Dump, Family, RangeKey};
use proxy_common::{
    Address, Backend, Frontend, FrontendKey, FrontendKind, FrontendTrait, Lists, RegionHeader,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

/// One paragraph for each service, then what no frontend leads to.
impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reader = Reader::new(self);
        let v4 = reader.family("v4", &self.frontends_v4, &self.backends_v4, &self.ranges_v4);
        let v6 = reader.family("v6", &self.frontends_v6, &self.backends_v6, &self.ranges_v6);
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
        ranges: &[RangeKey<A>],
    ) -> Vec<String> {
        let mut left: BTreeMap<u32, Backend<A>> = backends.iter().copied().collect();
        let mut sets = sets(ranges);
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
            lines.extend(self.region_lines(id, &mut left, &mut sets));
            paragraphs.push(lines.concat());
        }
        let unused = sets.into_values().flatten();
        paragraphs.extend(unused.map(|range| format!("left over, {family}: clients in {range}\n")));
        let left = left.into_values().map(|row| backend(&row));
        paragraphs.extend(left.map(|row| format!("left over, {family}: {}", row.trim_start())));
        paragraphs
    }

    /// What a service's region says and leads to, taken out of `rows` and `sets`.
    fn region_lines<A: Family>(
        &mut self,
        id: u32,
        rows: &mut BTreeMap<u32, Backend<A>>,
        sets: &mut BTreeMap<u32, Vec<String>>,
    ) -> Vec<String> {
        self.used.insert(id);
        let Some((header, ids)) = self.region(id) else {
            return vec!["  broken: no region\n".to_owned()];
        };
        let mut lines = Vec::new();
        if header.affinity != 0 {
            lines.push(format!("  affinity for {} ticks\n", header.affinity));
        }
        if header.sources != 0 {
            let ranges = sets.remove(&header.sources).unwrap_or_default();
            lines.push(format!("  clients in {}\n", ranges.join(", ")));
        }
        let row = |(id, lists): (&u32, Lists)| match rows.remove(id) {
            Some(row)
                if (row.answers(true), row.answers(false)) == (lists.local, lists.cluster) =>
            {
                backend(&row)
            }
            Some(row) => format!("  broken: {} is in other lists\n", backend(&row).trim()),
            None => "  broken: no such backend, or twice\n".to_owned(),
        };
        let lists = (0..).map(|index| lists(&header, index));
        lines.extend(ids.iter().zip(lists).map(row));
        lines
    }

    fn region(&self, id: u32) -> Option<(RegionHeader, &'a [u32])> {
        let (start, generation) = *self.services.get(&id)?;
        let words = self.slots.get(start as usize..)?;
        let (header, ids) = words.split_first_chunk::<{ RegionHeader::WORDS as usize }>()?;
        let header: RegionHeader = bytemuck::cast(*header);
        let complete = header.generation == generation;
        let ids = ids.get(..header.backends as usize)?;
        complete.then_some((header, ids))
    }
}

/// The lists that a backend in this place of a region is in.
fn lists(header: &RegionHeader, index: u32) -> Lists {
    Lists {
        local: index < header.local,
        cluster: (header.cluster_from..header.cluster_to).contains(&index),
    }
}

/// Ranges by set, as text.
fn sets<A: Family>(ranges: &[RangeKey<A>]) -> BTreeMap<u32, Vec<String>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut sets: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for key in sorted {
        let range = format!("{}/{}", key.range.address.ip(), key.prefix);
        sets.entry(key.range.set).or_default().push(range);
    }
    sets
}

fn frontend<A: Family>(key: &FrontendKey<A>, row: &Frontend) -> String {
    let at = SocketAddr::new(key.address.ip(), key.port.number());
    let kind = row.kind().map_or("?", FrontendKind::name);
    if key.is_of_address() {
        return format!("{kind} {}\n", at.ip());
    }
    let proto = key.proto().map_or("?", |proto| proto.name());
    let traits = [
        (FrontendTrait::StaysLocal, " policy Local"),
        (FrontendTrait::Sticks, " sticks"),
        (FrontendTrait::Restricted, " restricted"),
        (FrontendTrait::ClosesTcp, " closes TCP"),
    ];
    let traits = traits.iter().filter(|(what, _)| row.has(*what));
    let traits: String = traits.map(|(_, name)| *name).collect();
    format!("{kind} {at}/{proto}{traits}\n")
}

fn backend<A: Address>(row: &Backend<A>) -> String {
    let at = SocketAddr::new(row.address.ip(), row.port.number());
    let local = if row.is_local() { " local" } else { "" };
    let role = match (row.answers(true), row.answers(false)) {
        (true, true) => "",
        (false, true) if row.is_local() => " for policy Cluster alone",
        (false, true) => "",
        (true, false) => " for policy Local alone",
        (false, false) => " for nobody new",
    };
    format!("  {at}{local}{role}\n")
}
