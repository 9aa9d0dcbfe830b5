//! Rows of the flow maps: the translation of one direction of one connection.

use crate::{Address, BackendRef, Port, Proto, Ticks};

/// Key of the flow tables, `FLOWS_*` and `HALF_OPEN_*`: a packet's addresses, ports and protocol.
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
    /// A process of this node to a frontend: destination and source in one (egress).
    HostDnat = 6,
    /// Backend to node address: both undone, for a process of this node (ingress).
    HostUnDnat = 7,
}

impl FlowRole {
    /// The hook at which a row of this role is applied.
    #[inline(always)]
    pub const fn hook(self) -> Hook {
        match self {
            Self::Dnat | Self::UnSnat | Self::HostUnDnat => Hook::Ingress,
            Self::UnDnat | Self::SnatPending | Self::Snat | Self::HostDnat => Hook::Egress,
        }
    }

    /// The role of a number, if the row holds a valid one.
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Dnat),
            2 => Some(Self::UnDnat),
            3 => Some(Self::SnatPending),
            4 => Some(Self::Snat),
            5 => Some(Self::UnSnat),
            6 => Some(Self::HostDnat),
            7 => Some(Self::HostUnDnat),
            _ => None,
        }
    }
}

/// Which of the two flow tables of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `FLOWS_*`: the client has sent again after an answer. Nothing is evicted.
    Confirmed,
    /// `HALF_OPEN_*`: every flow begins here; the least recently used goes when there is no room.
    HalfOpen,
}

/// What has happened to a flow, as a row of it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Mark {
    /// The sender of this direction has closed it (TCP FIN).
    Fin = 1,
    /// The sender of the other direction has.
    PeerFin = 2,
    /// An end has given the connection up (TCP RST), and nothing else has come since.
    Reset = 4,
    /// An answer has been seen; a row and its twin both know.
    Answered = 8,
    /// There must be a row that masks the flow; at the row that leads to its backend.
    Masked = 16,
    /// Packets pass this node's stack by, where they can.
    Fast = 32,
}

/// Value of the flow tables: the whole rewrite of a packet, precomputed.
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
    marks: u8,
    role: u16,
    /// What the new addresses add to a one's complement sum over the old ones (RFC 1624).
    pub address_delta: u32,
    /// The same for the ports.
    pub port_delta: u32,
    /// The backend that was chosen.
    pub backend: BackendRef,
    /// When a packet last found the row; written once a step at most.
    pub last_seen: Ticks,
    /// Index of the device by which a process of this node sent its first packet; of a flow that passes the stack
    /// by, of the one by which its packets come in, as routes name it; 0 for others.
    pub device: u32,
}

impl<A: Address> Flow<A> {
    /// A row that turns packets into `to`, made at `now`; the deltas must fit the row's key.
    #[inline(always)]
    pub fn new(
        role: FlowRole,
        to: &Tuple<A>,
        deltas: (u32, u32),
        backend: BackendRef,
        now: Ticks,
    ) -> Self {
        Self {
            src: to.src,
            dst: to.dst,
            sport: to.sport,
            dport: to.dport,
            hook: role.hook() as u8,
            marks: 0,
            role: role as u16,
            address_delta: deltas.0,
            port_delta: deltas.1,
            backend,
            last_seen: now,
            device: 0,
        }
    }

    /// A row that turns packets into answers to `original`; the deltas must fit the row's key.
    #[inline(always)]
    pub fn reply(
        role: FlowRole,
        original: &Tuple<A>,
        deltas: (u32, u32),
        backend: BackendRef,
        now: Ticks,
    ) -> Self {
        Self {
            src: original.dst,
            dst: original.src,
            sport: original.dport,
            dport: original.sport,
            ..Self::new(role, original, deltas, backend, now)
        }
    }

    /// Whether the row is applied at this hook.
    #[inline(always)]
    pub const fn applies_at(&self, hook: Hook) -> bool {
        self.hook == hook as u8
    }

    /// Whether packets look for the row at this hook: those that pass the stack by are done with at ingress.
    #[inline(always)]
    pub const fn is_found_at(&self, hook: Hook) -> bool {
        self.applies_at(hook) || (hook as u8 == Hook::Ingress as u8 && self.is_fast())
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

    /// The role, if the row holds a valid one.
    pub const fn role(&self) -> Option<FlowRole> {
        FlowRole::from_number(self.role)
    }

    /// Makes the row of a masked flow one that still waits to be masked.
    #[inline(always)]
    pub const fn unmask(&mut self) {
        self.role = FlowRole::SnatPending as u16;
    }

    /// Whether the row is found by answers, not by packets of the client.
    #[inline(always)]
    pub const fn is_answer(&self) -> bool {
        self.has_role(FlowRole::UnDnat)
            || self.has_role(FlowRole::UnSnat)
            || self.has_role(FlowRole::HostUnDnat)
    }

    /// Whether the packets that find the row pass the stack by, where they can.
    #[inline(always)]
    pub const fn is_fast(&self) -> bool {
        self.has(Mark::Fast) && !self.masks()
    }

    /// Whether the row gives packets between the edges another source, or is about to: it serves the flow
    /// whose answers are found under the reverse of its key.
    #[inline(always)]
    pub const fn masks(&self) -> bool {
        self.has_role(FlowRole::Snat) || self.has_role(FlowRole::SnatPending)
    }

    /// The key of the row that belongs to this one: a flow's way there and its way back.
    #[inline(always)]
    pub fn twin(&self, key: &Tuple<A>) -> Tuple<A> {
        self.target(key).reversed()
    }

    /// Remembers what has happened.
    #[inline(always)]
    pub const fn mark(&mut self, mark: Mark) {
        self.marks |= mark as u8;
    }

    /// Remembers it if it has happened, without a branch: the verifier would follow both ways.
    #[inline(always)]
    pub const fn mark_if(&mut self, mark: Mark, is_so: bool) {
        self.marks |= mark as u8 * is_so as u8;
    }

    /// Forgets it.
    #[inline(always)]
    pub const fn unmark(&mut self, mark: Mark) {
        self.marks &= !(mark as u8);
    }

    /// Whether it has happened.
    #[inline(always)]
    pub const fn has(&self, mark: Mark) -> bool {
        self.marks & mark as u8 != 0
    }

    /// Whether an end of the TCP connection has closed it: another connection between the same
    /// sockets may follow, and need not be one of ours.
    #[inline(always)]
    pub const fn is_closing(&self) -> bool {
        self.marks & (Mark::Fin as u8 | Mark::PeerFin as u8 | Mark::Reset as u8) != 0
    }

    /// Whether the connection may be taken to be over: both ends have closed it, or one has given it up and
    /// it has rested since. Anybody can send a reset in the name of others, and what goes on takes it back.
    #[inline(always)]
    pub const fn has_ended(&self, now: Ticks) -> bool {
        const BOTH: u8 = Mark::Fin as u8 | Mark::PeerFin as u8;
        const REST: u32 = 2;
        self.marks & BOTH == BOTH || self.has(Mark::Reset) && now.since(self.last_seen) >= REST
    }

    /// Whether packets become answers to packets of `original`.
    #[inline(always)]
    pub fn answers(&self, original: &Tuple<A>) -> bool {
        (self.src, self.dst) == (original.dst, original.src)
            && (self.sport, self.dport) == (original.dport, original.sport)
    }
}
