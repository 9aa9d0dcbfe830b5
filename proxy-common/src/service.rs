//! Rows of the service maps: what may be dialled, and who answers.

use crate::{Address, Port, Proto};
use bytemuck::{Pod, Zeroable};

/// Key of `FRONTENDS_V4` and `FRONTENDS_V6`: address, port and protocol that clients dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FrontendKey<A> {
    /// Dialled address.
    pub address: A,
    /// Dialled port.
    pub port: Port,
    /// IP protocol number.
    proto: u16,
}

impl<A: Address> FrontendKey<A> {
    /// The key of what a client dials.
    #[inline(always)]
    pub fn new(address: A, port: Port, proto: Proto) -> Self {
        Self {
            address,
            port,
            proto: proto.number() as u16,
        }
    }

    /// The protocol, if the row holds a valid one.
    pub fn proto(&self) -> Option<Proto> {
        u8::try_from(self.proto).ok().and_then(Proto::from_number)
    }
}

/// How a frontend came to be; decides which traffic policy applies and whether its clients are
/// inside the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum FrontendKind {
    /// A Service's cluster address.
    ClusterIp = 0,
    /// A Service's node port on one of this node's addresses.
    NodePort = 1,
}

/// Value of `FRONTENDS_V4` and `FRONTENDS_V6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Frontend {
    /// Index into `SERVICES`.
    pub service: u32,
    kind: u16,
    closes_tcp: u16,
}

impl Frontend {
    /// A frontend of the given service.
    pub const fn new(service: u32, kind: FrontendKind) -> Self {
        Self {
            service,
            kind: kind as u16,
            closes_tcp: 0,
        }
    }

    /// The same, and TCP sockets that are connected to it are closed when their backend goes, if wanted.
    #[must_use]
    pub const fn closing_tcp(self, is_wanted: bool) -> Self {
        Self {
            closes_tcp: is_wanted as u16,
            ..self
        }
    }

    /// Whether TCP sockets that are connected to it are closed when their backend goes.
    #[inline(always)]
    pub const fn closes_tcp(&self) -> bool {
        self.closes_tcp != 0
    }

    /// In one word, as functions of BPF programs want it: they have five registers for arguments.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        (self.service as u64) << 32 | (self.closes_tcp as u64) << 16 | self.kind as u64
    }

    /// From that word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self {
            service: (word >> 32) as u32,
            kind: word as u16,
            closes_tcp: (word >> 16) as u16,
        }
    }

    /// Whether clients dial it from outside of the cluster's own address space.
    #[inline(always)]
    pub const fn is_external(&self) -> bool {
        self.kind != FrontendKind::ClusterIp as u16
    }

    /// The kind, if the row holds a valid one.
    pub const fn kind(&self) -> Option<FrontendKind> {
        match self.kind {
            0 => Some(FrontendKind::ClusterIp),
            1 => Some(FrontendKind::NodePort),
            _ => None,
        }
    }
}

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct RegionHeader {
    /// The same as in the [`ServiceWord`] that points here, or the region is being reused.
    pub generation: u32,
    /// How many backend ids follow.
    pub backends: u32,
}

impl RegionHeader {
    /// Length in words of `SLOTS`.
    pub const WORDS: u32 = 2;
}

/// Value of `BACKENDS_V4` and `BACKENDS_V6`: an endpoint as the datapath sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Backend<A> {
    /// Address of the pod or host.
    pub address: A,
    /// Port it listens on.
    pub port: Port,
    local: u16,
    /// Told apart from earlier holders of this id; 0 is an empty row.
    pub generation: u32,
}

impl<A: Address> Backend<A> {
    /// A backend; `generation` is not 0.
    pub const fn new(address: A, port: Port, locality: Locality, generation: u32) -> Self {
        Self {
            address,
            port,
            local: locality as u16,
            generation,
        }
    }

    /// Whether it runs on this node.
    #[inline(always)]
    pub const fn is_local(&self) -> bool {
        self.local != 0
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
