//! The kernel's maps, written op by op.

use crate::datapath::bpf::{Row, read_array, wait_for_programs};
use crate::datapath::filter::{FILTERS, FilterMap};
use crate::datapath::pins::Pins;
use crate::datapath::{Capacity, Datapath, Dump, Error, FamilyOp, Grace, Map, Op};
use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, MapData, MapError, MapInfo};
use bytemuck::{Pod, Zeroable};
use proxy_common::{
    AddrV4, AddrV6, Address, Backend, Frontend, FrontendKey, NodeConfig, RegionHeader, ServiceWord,
};
use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

/// The pinned maps, opened.
pub struct Kernel {
    pins: Pins,
    capacity: Capacity,
    config: Array<MapData, Row<NodeConfig>>,
    services: Array<MapData, u64>,
    slots: Array<MapData, u32>,
    v4: FamilyMaps<AddrV4>,
    v6: FamilyMaps<AddrV6>,
}

struct FamilyMaps<A>
where
    FrontendKey<A>: Pod,
    Backend<A>: Pod,
{
    frontends: HashMap<MapData, Row<FrontendKey<A>>, Row<Frontend>>,
    filter: FilterMap,
    backends: Array<MapData, Row<Backend<A>>>,
    names: [Map; 2],
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
            services: open(pins, Map::Services.name())?,
            slots: open(pins, Map::Slots.name())?,
            v4: FamilyMaps::open(pins, [Map::FrontendsV4, Map::BackendsV4], filter4)?,
            v6: FamilyMaps::open(pins, [Map::FrontendsV6, Map::BackendsV6], filter6)?,
            capacity: capacity(pins),
            pins: pins.clone(),
        })
    }

    fn write(&mut self, op: &Op) -> Result<(), Error> {
        match op {
            Op::V4(op) => self.v4.write(op),
            Op::V6(op) => self.v6.write(op),
            Op::PutRegion { start, words } => self.put_region(*start, words),
            Op::PutService { id, word } => self.put_service(*id, *word),
            Op::ClearService { id } => self.put_service(*id, ServiceWord::NONE),
        }
    }

    /// As far as services point: regions don't overlap, so the last one that starts is the last that
    /// ends.
    fn dump_slots(&self, services: &[(u32, ServiceWord)]) -> Result<Vec<u32>, Error> {
        let starts = services.iter().map(|(_, word)| word.region());
        let Some(last) = starts.max() else {
            return Ok(Vec::new());
        };
        // A row that can't be read is out of bounds, and so is the region.
        let backends = self.slots.get(&last.saturating_add(1), 0).unwrap_or(0);
        let end = last
            .saturating_add(RegionHeader::WORDS)
            .saturating_add(backends);
        read(&self.pins, Map::Slots, end.min(self.capacity.slots))
    }

    fn put_region(&mut self, start: u32, words: &[u32]) -> Result<(), Error> {
        for (index, word) in (start..).zip(words) {
            self.slots
                .set(index, word, 0)
                .map_err(|error| failed(Map::Slots, error))?;
        }
        Ok(())
    }

    fn put_service(&mut self, id: u32, word: ServiceWord) -> Result<(), Error> {
        self.services
            .set(id, word.word(), 0)
            .map_err(|error| failed(Map::Services, error))
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
{
    fn open(pins: &Pins, names: [Map; 2], filter: &str) -> Result<Self> {
        let [frontends, backends] = names.map(Map::name);
        let maps = Self {
            frontends: open(pins, frontends)?,
            filter: FilterMap::open(pins, filter)?,
            backends: open(pins, backends)?,
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
        let [frontends, backends] = self.names;
        match op {
            FamilyOp::PutBackend { id, row } => self
                .backends
                .set(*id, Row(*row), 0)
                .map_err(|error| failed(backends, error)),
            FamilyOp::ClearBackend { id } => {
                let row = Row(Backend::zeroed());
                self.backends
                    .set(*id, row, 0)
                    .map_err(|error| failed(backends, error))
            }
            FamilyOp::PutFrontend { key, row } => {
                self.filter.add_frontend(&key.address);
                let outcome = self.frontends.insert(Row(*key), Row(*row), 0);
                outcome.map_err(|error| failed(frontends, error))
            }
            FamilyOp::DeleteFrontend { key } => match self.frontends.remove(&Row(*key)) {
                Err(MapError::KeyNotFound) => Ok(()),
                outcome => outcome.map_err(|error| failed(frontends, error)),
            },
        }
    }

    fn dump_frontends(&self) -> Result<Vec<(FrontendKey<A>, Frontend)>, Error> {
        let rows = self.frontends.iter();
        rows.map(|row| row.map(|(key, row)| (key.0, row.0)))
            .collect::<Result<_, _>>()
            .map_err(|error| failed(self.names[0], error))
    }

    fn dump_backends(&self, pins: &Pins, length: u32) -> Result<Vec<(u32, Backend<A>)>, Error> {
        let rows: Vec<Backend<A>> = read(pins, self.names[1], length)?;
        Ok((0..)
            .zip(rows)
            .filter(|(_, row)| row.generation != 0)
            .collect())
    }
}

/// The first `length` rows of an array; `T` is what its values are.
fn read<T: Pod>(pins: &Pins, map: Map, length: u32) -> Result<Vec<T>, Error> {
    let failed = |source| Error::Syscall {
        what: format!("reading {map}"),
        source,
    };
    let data = MapData::from_pin(pins.map(map.name()));
    let data = data.map_err(|error| failed(source_of(error)))?;
    read_array(data.fd().as_fd(), length).map_err(failed)
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
    }
}

impl Datapath for Kernel {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn dump(&mut self) -> Result<Dump, Error> {
        let words: Vec<u64> = read(&self.pins, Map::Services, self.capacity.services)?;
        let services = (0..).zip(words.into_iter().map(ServiceWord::from_word));
        let services: Vec<(u32, ServiceWord)> = services
            .filter(|(_, word)| *word != ServiceWord::NONE)
            .collect();
        Ok(Dump {
            frontends_v4: self.v4.dump_frontends()?,
            frontends_v6: self.v6.dump_frontends()?,
            slots: self.dump_slots(&services)?,
            services,
            backends_v4: self
                .v4
                .dump_backends(&self.pins, self.capacity.backends_v4)?,
            backends_v6: self
                .v6
                .dump_backends(&self.pins, self.capacity.backends_v6)?,
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
        Some(libc::E2BIG) => Error::Full { map },
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
