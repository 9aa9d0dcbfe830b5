//! Rows of the service maps: what may be dialled.

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

    /// The key of an address as such; see [`FrontendKind::Address`].
    #[inline(always)]
    pub fn of_address(address: A) -> Self {
        Self {
            address,
            port: Port::new(0),
            proto: 0,
        }
    }

    /// Whether it is one of an address as such.
    pub fn is_of_address(&self) -> bool {
        self.proto == 0
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
    /// An address outside that a Service claims.
    ExternalIp = 2,
    /// An address of a Service's load balancer.
    LoadBalancer = 3,
    /// A Service's cluster address as such, under port and protocol 0: nobody answers at its other ports.
    Address = 4,
}

impl FrontendKind {
    /// All of them, by number.
    pub const ALL: [Self; 5] = [
        Self::ClusterIp,
        Self::NodePort,
        Self::ExternalIp,
        Self::LoadBalancer,
        Self::Address,
    ];

    /// The name as Kubernetes writes it, or as close to it as there is one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::ExternalIp => "ExternalIP",
            Self::LoadBalancer => "LoadBalancer",
            Self::Address => "Address",
        }
    }
}

/// What holds for those who dial a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum FrontendTrait {
    /// TCP sockets that are connected to it are closed when their backend goes.
    ClosesTcp = 1 << 0,
    /// The traffic policy is `Local`: backends on this node alone answer.
    StaysLocal = 1 << 1,
    /// A client's connections lead to the same backend; for how long is in the region.
    Sticks = 1 << 2,
    /// It is for some clients only; for which is in the region.
    Restricted = 1 << 3,
}

/// Value of `FRONTENDS_V4` and `FRONTENDS_V6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Frontend {
    /// Index into `SERVICES`.
    pub service: u32,
    kind: u16,
    traits: u16,
}

impl Frontend {
    /// A frontend of the given service.
    pub const fn new(service: u32, kind: FrontendKind) -> Self {
        Self {
            service,
            kind: kind as u16,
            traits: 0,
        }
    }

    /// The same, of which something else holds if that is so.
    #[must_use]
    pub const fn with(self, what: FrontendTrait, is_so: bool) -> Self {
        Self {
            traits: self.traits | (what as u16 * is_so as u16),
            ..self
        }
    }

    /// Whether it holds.
    #[inline(always)]
    pub const fn has(&self, what: FrontendTrait) -> bool {
        self.traits & what as u16 != 0
    }

    /// In one word, as functions of BPF programs want it: they have five registers for arguments.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        (self.service as u64) << 32 | (self.traits as u64) << 16 | self.kind as u64
    }

    /// From that word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self {
            service: (word >> 32) as u32,
            kind: word as u16,
            traits: (word >> 16) as u16,
        }
    }

    /// Whether clients dial it from outside of the cluster's own address space.
    #[inline(always)]
    pub const fn is_external(&self) -> bool {
        self.kind != FrontendKind::ClusterIp as u16
    }

    /// Whether it is of this kind.
    #[inline(always)]
    pub const fn is(&self, kind: FrontendKind) -> bool {
        self.kind == kind as u16
    }

    /// The kind, if the row holds a valid one.
    pub fn kind(&self) -> Option<FrontendKind> {
        FrontendKind::ALL.get(usize::from(self.kind)).copied()
    }
}
