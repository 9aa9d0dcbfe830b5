//! The maps, their sizes and their two families.

use super::{FamilyOp, FamilyTables, Freed, Ids, Op, ServiceTables, TableFull};
use proxy_common::{AddrV4, AddrV6, Address};
use std::fmt;
use std::net::IpAddr;

/// The maps that the agent writes service by service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Map {
    /// Hash: address, port, protocol -> service id.
    FrontendsV4,
    /// Hash: address, port, protocol -> service id.
    FrontendsV6,
    /// Array: service id -> word that says where its region is.
    Services,
    /// Array of words: the regions.
    Slots,
    /// Array: backend id -> backend.
    BackendsV4,
    /// Array: backend id -> backend.
    BackendsV6,
    /// Trie: set and range of addresses.
    SourceRangesV4,
    /// Trie: set and range of addresses.
    SourceRangesV6,
}

impl Map {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::FrontendsV4,
        Self::FrontendsV6,
        Self::Services,
        Self::Slots,
        Self::BackendsV4,
        Self::BackendsV6,
        Self::SourceRangesV4,
        Self::SourceRangesV6,
    ];

    /// The map's name in the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FrontendsV4 => "FRONTENDS_V4",
            Self::FrontendsV6 => "FRONTENDS_V6",
            Self::Services => "SERVICES",
            Self::Slots => "SLOTS",
            Self::BackendsV4 => "BACKENDS_V4",
            Self::BackendsV6 => "BACKENDS_V6",
            Self::SourceRangesV4 => "SOURCE_RANGES_V4",
            Self::SourceRangesV6 => "SOURCE_RANGES_V6",
        }
    }
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `max_entries` of each map. Index 0 of `SERVICES` and `BACKENDS_*` is never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Rows of `FRONTENDS_V4`.
    pub frontends_v4: u32,
    /// Rows of `FRONTENDS_V6`.
    pub frontends_v6: u32,
    /// Length of `SERVICES`.
    pub services: u32,
    /// Length of `SLOTS`, in words.
    pub slots: u32,
    /// Length of `BACKENDS_V4`.
    pub backends_v4: u32,
    /// Length of `BACKENDS_V6`.
    pub backends_v6: u32,
    /// Rows of `SOURCE_RANGES_V4`, and of `SOURCE_RANGES_V6`.
    pub source_ranges: u32,
}

impl Capacity {
    /// `max_entries` of one map.
    pub const fn of(&self, map: Map) -> u32 {
        match map {
            Map::FrontendsV4 => self.frontends_v4,
            Map::FrontendsV6 => self.frontends_v6,
            Map::Services => self.services,
            Map::Slots => self.slots,
            Map::BackendsV4 => self.backends_v4,
            Map::BackendsV6 => self.backends_v6,
            Map::SourceRangesV4 | Map::SourceRangesV6 => self.source_ranges,
        }
    }
}

/// An address family and its maps.
pub trait Family: Address {
    /// The map of what can be dialled.
    const FRONTENDS: Map;
    /// The map of who answers.
    const BACKENDS: Map;
    /// The map of who may dial.
    const SOURCE_RANGES: Map;
    /// A write to one of these maps.
    fn op(op: FamilyOp<Self>) -> Op;
    /// The address, if it is of this family.
    fn from_ip(address: IpAddr) -> Option<Self>;
    /// A Service's rows in these maps.
    fn rows(tables: &ServiceTables) -> &FamilyTables<Self>;
    /// A Service's rows in these maps.
    fn rows_mut(tables: &mut ServiceTables) -> &mut FamilyTables<Self>;
    /// Takes a backend id.
    ///
    /// # Errors
    /// There is none left.
    fn take_backend(ids: &mut Ids) -> Result<u32, TableFull>;
    /// A backend id that is not in use any more.
    fn freed_backend(id: u32) -> Freed;
}

impl Family for AddrV4 {
    const FRONTENDS: Map = Map::FrontendsV4;
    const BACKENDS: Map = Map::BackendsV4;
    const SOURCE_RANGES: Map = Map::SourceRangesV4;

    fn op(op: FamilyOp<Self>) -> Op {
        Op::V4(op)
    }

    fn rows(tables: &ServiceTables) -> &FamilyTables<Self> {
        &tables.v4
    }

    fn rows_mut(tables: &mut ServiceTables) -> &mut FamilyTables<Self> {
        &mut tables.v4
    }

    fn take_backend(ids: &mut Ids) -> Result<u32, TableFull> {
        ids.backends_v4.take()
    }

    fn freed_backend(id: u32) -> Freed {
        Freed::BackendV4(id)
    }

    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(Self::new(address)),
            IpAddr::V6(_) => None,
        }
    }
}

impl Family for AddrV6 {
    const FRONTENDS: Map = Map::FrontendsV6;
    const BACKENDS: Map = Map::BackendsV6;
    const SOURCE_RANGES: Map = Map::SourceRangesV6;

    fn op(op: FamilyOp<Self>) -> Op {
        Op::V6(op)
    }

    fn rows(tables: &ServiceTables) -> &FamilyTables<Self> {
        &tables.v6
    }

    fn rows_mut(tables: &mut ServiceTables) -> &mut FamilyTables<Self> {
        &mut tables.v6
    }

    fn take_backend(ids: &mut Ids) -> Result<u32, TableFull> {
        ids.backends_v6.take()
    }

    fn freed_backend(id: u32) -> Freed {
        Freed::BackendV6(id)
    }

    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(Self::new(address)),
        }
    }
}
