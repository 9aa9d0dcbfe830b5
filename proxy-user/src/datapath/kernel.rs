//! The kernel's maps, written op by op.

use crate::datapath::array::{Rows, Words};
use crate::datapath::bpf::{Row, wait_for_programs};
use crate::datapath::filter::{FILTERS, FilterMap};
use crate::datapath::pins::Pins;
use crate::datapath::{Capacity, Datapath, Dump, Error, FamilyOp, Grace, Map, Op, RangeKey};
use anyhow::{Context as _, Result};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, MapError, MapInfo};
use bytemuck::Pod;
use proxy_common::{
    AddrV4, AddrV6, Address, Backend, Frontend, FrontendKey, NodeConfig, RegionHeader, ServiceWord,
    SourceRange,
};
use std::io;
use std::time::Duration;

/// The pinned maps, opened.
pub struct Kernel {
    capacity: Capacity,
    config: Array<MapData, Row<NodeConfig>>,
    services: Words,
    slots: Rows<u32>,
    v4: FamilyMaps<AddrV4>,
    v6: FamilyMaps<AddrV6>,
}

struct FamilyMaps<A>
where
    FrontendKey<A>: Pod,
    Backend<A>: Pod,
    SourceRange<A>: Pod,
{
    frontends: HashMap<MapData, Row<FrontendKey<A>>, Row<Frontend>>,
    filter: FilterMap,
    backends: Rows<Backend<A>>,
    ranges: LpmTrie<MapData, Row<SourceRange<A>>, u32>,
    names: [Map; 3],
}

impl Kernel {
    /// Opens the maps that a loaded object has pinned.
    ///
    /// # Errors
    /// The map that is not there, or is none of ours.
    pub fn open(pins: &Pins) -> Result<Self> {
        let [filter4, filter6] = FILTERS;
        Ok(Self {
            config: open(pins, "CONFIG")?,
            services: Words::open(pins, Map::Services)?,
            slots: Rows::open(pins, Map::Slots)?,
            v4: FamilyMaps::open(
                pins,
                [Map::FrontendsV4, Map::BackendsV4, Map::SourceRangesV4],
                filter4,
            )?,
            v6: FamilyMaps::open(
                pins,
                [Map::FrontendsV6, Map::BackendsV6, Map::SourceRangesV6],
                filter6,
            )?,
            capacity: capacity(pins),
        })
    }

    fn write(&mut self, op: &Op) -> Result<(), Error> {
        match op {
            Op::V4(op) => self.v4.write(op),
            Op::V6(op) => self.v6.write(op),
            Op::PutRegion { start, words } => self.slots.put(*start, words),
            Op::PutService { id, word } => self.services.put(*id, word.word()),
            Op::ClearService { id } => self.services.put(*id, ServiceWord::NONE.word()),
        }
    }

    /// As far as services point: regions don't overlap, so the last one that starts is the last that
    /// ends.
    fn dump_slots(&self, services: &[(u32, ServiceWord)]) -> Vec<u32> {
        let starts = services.iter().map(|(_, word)| word.region());
        let Some(last) = starts.max() else {
            return Vec::new();
        };
        let header = last.saturating_add(RegionHeader::WORDS);
        // A row that can't be read is out of bounds, and so is the region.
        let count = (last + RegionHeader::BACKENDS) as usize;
        let backends = self.slots.read(header).get(count).copied();
        self.slots
            .read(header.saturating_add(backends.unwrap_or_default()))
    }
}

/// Opens a pinned map.
pub(super) fn open<T: TryFrom<aya::maps::Map, Error = MapError>>(
    pins: &Pins,
    name: &str,
) -> Result<T> {
    aya::maps::Map::from_map_data(open_map(pins, name)?)?
        .try_into()
        .with_context(|| format!("map {name}"))
}

/// A pinned map of any type.
pub(super) fn open_map(pins: &Pins, name: &str) -> Result<MapData> {
    let path = pins.map(name);
    MapData::from_pin(&path).with_context(|| format!("can't open {}", path.display()))
}

impl<A: Address> FamilyMaps<A>
where
    FrontendKey<A>: Pod,
    Backend<A>: Pod,
    SourceRange<A>: Pod,
{
    fn open(pins: &Pins, names: [Map; 3], filter: &str) -> Result<Self> {
        let [frontends, backends, ranges] = names;
        let maps = Self {
            frontends: open(pins, frontends.name())?,
            filter: FilterMap::open(pins, filter)?,
            backends: Rows::open(pins, backends)?,
            ranges: open(pins, ranges.name())?,
            names,
        };
        // An earlier version may have written them without.
        for key in maps.frontends.keys() {
            let Row(key) = key.with_context(|| format!("reading {frontends}"))?;
            maps.filter.add_frontend(&key.address);
        }
        Ok(maps)
    }

    fn write(&mut self, op: &FamilyOp<A>) -> Result<(), Error> {
        let [frontends, _, ranges] = self.names;
        match op {
            FamilyOp::PutBackend { id, row } => self.backends.put(*id, &[*row]),
            FamilyOp::ClearBackend { id } => self.backends.clear(*id),
            FamilyOp::PutFrontend { key, row } => {
                self.filter.add_frontend(&key.address);
                let outcome = self.frontends.insert(Row(*key), Row(*row), 0);
                outcome.map_err(|error| failed(frontends, error))
            }
            FamilyOp::DeleteFrontend { key } => match self.frontends.remove(&Row(*key)) {
                Err(MapError::KeyNotFound) => Ok(()),
                outcome => outcome.map_err(|error| failed(frontends, error)),
            },
            FamilyOp::PutRange { key } => {
                let outcome = self.ranges.insert(&trie_key(key), 1, 0);
                outcome.map_err(|error| failed(ranges, error))
            }
            FamilyOp::DeleteRange { key } => match self.ranges.remove(&trie_key(key)) {
                Err(MapError::KeyNotFound) => Ok(()),
                outcome => outcome.map_err(|error| failed(ranges, error)),
            },
        }
    }

    fn dump_frontends(&self) -> Result<Vec<(FrontendKey<A>, Frontend)>, Error> {
        let rows = self.frontends.iter();
        rows.map(|row| row.map(|(key, row)| (key.0, row.0)))
            .collect::<Result<_, _>>()
            .map_err(|error| failed(self.names[0], error))
    }

    fn dump_ranges(&self) -> Result<Vec<RangeKey<A>>, Error> {
        let keys = self.ranges.keys();
        keys.map(|key| key.map(|key| range_key(&key)))
            .collect::<Result<_, _>>()
            .map_err(|error| failed(self.names[2], error))
    }

    fn dump_backends(&self) -> Vec<(u32, Backend<A>)> {
        let rows = self.backends.read(u32::MAX);
        (0..)
            .zip(rows)
            .filter(|(_, row)| row.generation != 0)
            .collect()
    }
}

/// The set is part of the prefix.
fn trie_key<A: Address>(key: &RangeKey<A>) -> Key<Row<SourceRange<A>>>
where
    SourceRange<A>: Pod,
{
    let bits = SourceRange::<A>::SET_BITS + u32::from(key.prefix);
    Key::new(bits, Row(key.range))
}

fn range_key<A: Address>(key: &Key<Row<SourceRange<A>>>) -> RangeKey<A>
where
    SourceRange<A>: Pod,
{
    let prefix = key.prefix_len().saturating_sub(SourceRange::<A>::SET_BITS);
    RangeKey {
        range: key.data().0,
        prefix: prefix as u8,
    }
}

fn capacity(pins: &Pins) -> Capacity {
    // A map that can't be asked has no room for anything.
    let size =
        |map: Map| MapInfo::from_pin(pins.map(map.name())).map_or(0, |info| info.max_entries());
    Capacity {
        frontends_v4: size(Map::FrontendsV4),
        frontends_v6: size(Map::FrontendsV6),
        services: size(Map::Services),
        slots: size(Map::Slots),
        backends_v4: size(Map::BackendsV4),
        backends_v6: size(Map::BackendsV6),
        source_ranges: size(Map::SourceRangesV4),
    }
}

impl Datapath for Kernel {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn dump(&mut self) -> Result<Dump, Error> {
        let services = (0..).zip(self.services.read().map(ServiceWord::from_word));
        let services: Vec<(u32, ServiceWord)> = services
            .filter(|(_, word)| *word != ServiceWord::NONE)
            .collect();
        Ok(Dump {
            frontends_v4: self.v4.dump_frontends()?,
            frontends_v6: self.v6.dump_frontends()?,
            slots: self.dump_slots(&services),
            services,
            backends_v4: self.v4.dump_backends(),
            backends_v6: self.v6.dump_backends(),
            ranges_v4: self.v4.dump_ranges()?,
            ranges_v6: self.v6.dump_ranges()?,
        })
    }

    fn apply(&mut self, ops: &[Op]) -> (usize, Result<(), Error>) {
        for (applied, op) in ops.iter().enumerate() {
            if let Err(error) = self.write(op) {
                return (applied, Err(error));
            }
        }
        (ops.len(), Ok(()))
    }

    fn configure(&mut self, config: &NodeConfig) -> Result<(), Error> {
        self.config
            .set(0, Row(*config), 0)
            .map_err(|error| Error::Syscall {
                what: "writing CONFIG".into(),
                source: source_of(error),
            })
    }

    fn grace(&self) -> Grace {
        Box::pin(async {
            let waited = tokio::task::spawn_blocking(wait_for_programs).await;
            if !matches!(waited, Ok(Ok(()))) {
                // No such call: a program runs for microseconds, this is a million of them.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
    }
}

fn failed(map: Map, error: MapError) -> Error {
    let source = source_of(error);
    match source.raw_os_error() {
        // A trie says so in its own way.
        Some(libc::E2BIG | libc::ENOSPC) => Error::Full { map },
        _ => Error::Syscall {
            what: format!("writing {map}"),
            source,
        },
    }
}

fn source_of(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        other => io::Error::other(other),
    }
}
