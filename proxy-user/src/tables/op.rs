//! One write to one map, as a value.

use super::{Family, Map};
use proxy_common::{AddrV4, AddrV6, Backend, Frontend, FrontendKey, ServiceWord, SourceRange};

/// One write. A list of them is applied in order; what order is safe is decided by [`super::diff`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A write to an IPv4 map.
    V4(FamilyOp<AddrV4>),
    /// A write to an IPv6 map.
    V6(FamilyOp<AddrV6>),
    /// Write `words` (header, then backend ids) to `SLOTS`, from index `start` on. No service
    /// points there while this is applied.
    PutRegion {
        /// Index of the first word.
        start: u32,
        /// The region's header and the ids of its backends.
        words: Vec<u32>,
    },
    /// Store a word of `SERVICES`: the moment at which a new region takes over.
    PutService {
        /// Service id.
        id: u32,
        /// Where its region is.
        word: ServiceWord,
    },
    /// Store [`ServiceWord::NONE`] under this service id.
    ClearService {
        /// Service id.
        id: u32,
    },
}

/// A write to one of the two maps that exist once per IP family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FamilyOp<A> {
    /// Write a row of `BACKENDS_*`.
    PutBackend {
        /// Backend id.
        id: u32,
        /// Its row.
        row: Backend<A>,
    },
    /// Insert or replace a row of `FRONTENDS_*`.
    PutFrontend {
        /// What clients dial.
        key: FrontendKey<A>,
        /// The service behind it.
        row: Frontend,
    },
    /// Remove a row of `FRONTENDS_*`; that it is already gone is no error.
    DeleteFrontend {
        /// What clients dialled.
        key: FrontendKey<A>,
    },
    /// Zero a row of `BACKENDS_*`.
    ClearBackend {
        /// Backend id.
        id: u32,
    },
    /// Insert a row of `SOURCE_RANGES_*`.
    PutRange {
        /// The range.
        key: RangeKey<A>,
    },
    /// Remove a row of `SOURCE_RANGES_*`; that it is already gone is no error.
    DeleteRange {
        /// The range.
        key: RangeKey<A>,
    },
}

/// Key of `SOURCE_RANGES_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeKey<A> {
    /// Set and address; the address has zeros behind its prefix.
    pub range: SourceRange<A>,
    /// Length of the address's prefix, in bits.
    pub prefix: u8,
}

/// The steps of a safe order; writes of one phase don't depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Ranges,
    Backends,
    Regions,
    Services,
    Frontends,
    Addresses,
    DeletedFrontends,
    ClearedServices,
    ClearedBackends,
    DeletedRanges,
}

impl Op {
    /// The map that is written.
    pub fn map(&self) -> Map {
        match self {
            Self::V4(op) => op.map(),
            Self::V6(op) => op.map(),
            Self::PutRegion { .. } => Map::Slots,
            Self::PutService { .. } | Self::ClearService { .. } => Map::Services,
        }
    }

    /// Its step in the safe order.
    pub(crate) fn phase(&self) -> Phase {
        match self {
            Self::V4(op) => op.phase(),
            Self::V6(op) => op.phase(),
            Self::PutRegion { .. } => Phase::Regions,
            Self::PutService { .. } => Phase::Services,
            Self::ClearService { .. } => Phase::ClearedServices,
        }
    }
}

impl<A: Family> FamilyOp<A> {
    fn map(&self) -> Map {
        match self {
            Self::PutFrontend { .. } | Self::DeleteFrontend { .. } => A::FRONTENDS,
            Self::PutBackend { .. } | Self::ClearBackend { .. } => A::BACKENDS,
            Self::PutRange { .. } | Self::DeleteRange { .. } => A::SOURCE_RANGES,
        }
    }

    fn phase(&self) -> Phase {
        match self {
            Self::PutBackend { .. } => Phase::Backends,
            // An address says that its other ports are nobody's: not before those that it has are there.
            Self::PutFrontend { key, .. } if key.is_of_address() => Phase::Addresses,
            Self::PutFrontend { .. } => Phase::Frontends,
            Self::DeleteFrontend { .. } => Phase::DeletedFrontends,
            Self::ClearBackend { .. } => Phase::ClearedBackends,
            Self::PutRange { .. } => Phase::Ranges,
            Self::DeleteRange { .. } => Phase::DeletedRanges,
        }
    }
}
