//! Rows of the flow maps: the translation of one direction of one connection.

use crate::{Address, BackendRef, Port, Proto};

/// Key of `FLOWS_V4` and `FLOWS_V6`: a packet's addresses, ports and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Tuple<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub sport: Port,
    /// Destination port.
    pub dport: Port,
    proto: u32,
}

impl<A: Address> Tuple<A> {
    /// The tuple of a packet from `src:sport` to `dst:dport`.
    #[inline(always)]
    pub fn new(proto: Proto, (src, sport): (A, Port), (dst, dport): (A, Port)) -> Self {
        Self {
            src,
            dst,
            sport,
            dport,
            proto: proto.number() as u32,
        }
    }

    /// The tuple of a packet that answers this one.
    #[inline(always)]
    pub fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            proto: self.proto,
        }
    }

    /// IP protocol number.
    #[inline(always)]
    pub const fn proto_number(&self) -> u32 {
        self.proto
    }

    /// The protocol, if the row holds a valid one.
    pub fn proto(&self) -> Option<Proto> {
        u8::try_from(self.proto).ok().and_then(Proto::from_number)
    }
}

/// Which of the two edges of the host's network stack a flow's translation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Hook {
    /// tc ingress: before routing and netfilter.
    Ingress = 1,
    /// tc egress: after routing and netfilter.
    Egress = 2,
}

/// Which of a connection's rows this one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum FlowRole {
    /// Client to frontend: the destination becomes the backend (ingress).
    Dnat = 1,
    /// Backend to client: the source becomes the frontend (egress).
    UnDnat = 2,
    /// Client to backend, its source address still to be masked (egress); holds no translation.
    SnatPending = 3,
    /// Client to backend: the source becomes a node address (egress).
    Snat = 4,
    /// Backend to node address: the destination becomes the client (ingress).
    UnSnat = 5,
}

impl FlowRole {
    /// The hook at which a row of this role is applied.
    #[inline(always)]
    pub const fn hook(self) -> Hook {
        match self {
            Self::Dnat | Self::UnSnat => Hook::Ingress,
            Self::UnDnat | Self::SnatPending | Self::Snat => Hook::Egress,
        }
    }
}

/// Value of `FLOWS_V4` and `FLOWS_V6`: the whole rewrite of a packet, precomputed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Flow<A> {
    /// New source address.
    pub src: A,
    /// New destination address.
    pub dst: A,
    /// New source port.
    pub sport: Port,
    /// New destination port.
    pub dport: Port,
    hook: u8,
    closing: u8,
    role: u16,
    /// What the new addresses add to a one's complement sum over the old ones (RFC 1624).
    pub address_delta: u32,
    /// The same for the ports.
    pub port_delta: u32,
    /// The backend that was chosen.
    pub backend: BackendRef,
}

impl<A: Address> Flow<A> {
    /// A row that turns packets into `to`; the deltas must fit the row's key.
    #[inline(always)]
    pub fn new(role: FlowRole, to: &Tuple<A>, deltas: (u32, u32), backend: BackendRef) -> Self {
        Self {
            src: to.src,
            dst: to.dst,
            sport: to.sport,
            dport: to.dport,
            hook: role.hook() as u8,
            closing: 0,
            role: role as u16,
            address_delta: deltas.0,
            port_delta: deltas.1,
            backend,
        }
    }

    /// A row that turns packets into answers to `original`; the deltas must fit the row's key.
    #[inline(always)]
    pub fn reply(
        role: FlowRole,
        original: &Tuple<A>,
        deltas: (u32, u32),
        backend: BackendRef,
    ) -> Self {
        Self {
            src: original.dst,
            dst: original.src,
            sport: original.dport,
            dport: original.sport,
            ..Self::new(role, original, deltas, backend)
        }
    }

    /// Whether the row is applied at this hook.
    #[inline(always)]
    pub const fn applies_at(&self, hook: Hook) -> bool {
        self.hook == hook as u8
    }

    /// Whether the row has this role.
    #[inline(always)]
    pub const fn has_role(&self, role: FlowRole) -> bool {
        self.role == role as u16
    }

    /// What packets become that have the row's key.
    #[inline(always)]
    pub fn target(&self, key: &Tuple<A>) -> Tuple<A> {
        Tuple {
            src: self.src,
            dst: self.dst,
            sport: self.sport,
            dport: self.dport,
            proto: key.proto,
        }
    }

    /// Remembers that an end of the TCP connection has closed it.
    #[inline(always)]
    pub fn close(&mut self) {
        self.closing = 1;
    }

    /// Whether an end of the TCP connection has closed it: another connection between the same
    /// sockets may follow, and need not be one of ours.
    #[inline(always)]
    pub const fn is_closing(&self) -> bool {
        self.closing != 0
    }

    /// Whether packets become the same as by `other`.
    #[inline(always)]
    pub fn leads_where(&self, other: &Self) -> bool {
        (self.src, self.dst) == (other.src, other.dst)
            && (self.sport, self.dport) == (other.sport, other.dport)
    }
}
