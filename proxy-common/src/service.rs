//! Rows of the service maps: who answers.

use crate::{Address, Port};
use bytemuck::{Pod, Zeroable};

/// Value of `SERVICES`: where the service's region lies in `SLOTS`, and which generation of it is
/// meant.
///
/// One aligned 64-bit word, which the agent replaces by one store: the moment at which a new region takes
/// over. A reader that finds a region of another generation there looks again. 0 is "no such service".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct ServiceWord {
    word: u64,
}

impl ServiceWord {
    /// No service under this id.
    pub const NONE: Self = Self { word: 0 };

    /// A service whose region starts at `region` and carries `generation` (not 0) in its header.
    pub const fn new(region: u32, generation: u32) -> Self {
        Self {
            word: (region as u64) << 32 | generation as u64,
        }
    }

    /// From the word read from the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { word }
    }

    /// The word as it lies in the map.
    pub const fn word(self) -> u64 {
        self.word
    }

    /// Index of the region's first word in `SLOTS`.
    #[inline(always)]
    pub const fn region(self) -> u32 {
        (self.word >> 32) as u32
    }

    /// Generation that the region's header must carry.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        self.word as u32
    }
}

/// The words at the start of a region in `SLOTS`; the ids of the backends follow.
///
/// They are in this order: those that answer under policy Local alone, under both policies, under policy
/// Cluster alone, and those that answer nobody new and go on with what they have begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct RegionHeader {
    /// The same as in the [`ServiceWord`] that points here, or the region is being reused.
    pub generation: u32,
    /// How many backend ids follow.
    pub backends: u32,
    /// How many of them, from the first on, answer under policy Local.
    pub local: u32,
    /// The first that answers under policy Cluster.
    pub cluster_from: u32,
    /// The one behind the last that does.
    pub cluster_to: u32,
    /// For how many ticks a client's connections lead to the same backend; 0: each to any.
    pub affinity: u32,
    /// Whose clients may dial addresses of load balancers: a set in `SOURCE_RANGES_*`; 0: all.
    pub sources: u32,
}

impl RegionHeader {
    /// Length in words of `SLOTS`.
    pub const WORDS: u32 = 7;
    /// Which word is which.
    pub const BACKENDS: u32 = 1;
    /// See [`RegionHeader::local`].
    pub const LOCAL: u32 = 2;
    /// See [`RegionHeader::cluster_from`].
    pub const CLUSTER_FROM: u32 = 3;
    /// See [`RegionHeader::cluster_to`].
    pub const CLUSTER_TO: u32 = 4;
    /// See [`RegionHeader::affinity`].
    pub const AFFINITY: u32 = 5;
    /// See [`RegionHeader::sources`].
    pub const SOURCES: u32 = 6;

    /// Of so many backends on other nodes, each of which answers anybody.
    pub const fn of_remote(generation: u32, backends: u32) -> Self {
        Self {
            generation,
            backends,
            local: 0,
            cluster_from: 0,
            cluster_to: backends,
            affinity: 0,
            sources: 0,
        }
    }

    /// As it lies in the map.
    pub fn words(self) -> [u32; Self::WORDS as usize] {
        bytemuck::cast(self)
    }
}

const _: () = assert!(size_of::<RegionHeader>() == RegionHeader::WORDS as usize * 4);

/// The lists of a service that a backend is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lists {
    /// Those that answer under policy Local.
    pub local: bool,
    /// Those that answer under policy Cluster.
    pub cluster: bool,
}

/// Value of `BACKENDS_V4` and `BACKENDS_V6`: an endpoint as the datapath sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Backend<A> {
    /// Address of the pod or host.
    pub address: A,
    /// Port it listens on.
    pub port: Port,
    traits: u16,
    /// Told apart from earlier holders of this id; 0 is an empty row.
    pub generation: u32,
    /// The service that it answers for; 0: not said.
    pub service: u32,
}

impl<A: Address> Backend<A> {
    const HERE: u16 = 1 << 0;
    const IN_LOCAL: u16 = 1 << 1;
    const IN_CLUSTER: u16 = 1 << 2;

    /// A backend that answers whenever where it runs lets it; `generation` is not 0.
    pub const fn new(address: A, port: Port, locality: Locality, generation: u32) -> Self {
        let lists = Lists {
            local: matches!(locality, Locality::Local),
            cluster: true,
        };
        Self {
            address,
            port,
            traits: Self::HERE * locality as u16,
            generation,
            service: 0,
        }
        .listed(lists)
    }

    /// The same in other lists.
    #[must_use]
    pub const fn listed(self, lists: Lists) -> Self {
        let local = Self::IN_LOCAL * lists.local as u16;
        let cluster = Self::IN_CLUSTER * lists.cluster as u16;
        Self {
            traits: self.traits & Self::HERE | local | cluster,
            ..self
        }
    }

    /// The same, and it answers for this service.
    #[must_use]
    pub const fn of_service(self, service: u32) -> Self {
        Self { service, ..self }
    }

    /// Whether it runs on this node.
    #[inline(always)]
    pub const fn is_local(&self) -> bool {
        self.traits & Self::HERE != 0
    }

    /// Whether it answers new clients, under policy Local or under policy Cluster.
    #[inline(always)]
    pub const fn answers(&self, stays_local: bool) -> bool {
        let list = if stays_local {
            Self::IN_LOCAL
        } else {
            Self::IN_CLUSTER
        };
        self.traits & list != 0
    }
}

/// Where a backend runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Locality {
    /// On another node, or on no known one.
    Remote = 0,
    /// On this node.
    Local = 1,
}

/// A backend as flows remember it: comparing both words tells in O(1) whether it still exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct BackendRef {
    /// Index into `BACKENDS_V4` or `BACKENDS_V6`.
    pub id: u32,
    /// The backend's generation when it was chosen.
    pub generation: u32,
}
