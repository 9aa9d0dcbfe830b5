//! What happens, counted: every packet that a program runs on adds to one counter, and so does every call
//! of a socket that names a frontend.

/// What became of a packet that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// No frontend and no flow of ours, or an ICMP error about such a packet: untouched.
    NotService,
    /// Neither IPv4 nor IPv6, neither TCP nor UDP, or with a VLAN tag: untouched.
    Unsupported,
    /// A fragment whose ports are not known: untouched.
    Fragment,
    /// Too short, or with contradicting lengths: untouched, the stack judges it.
    Malformed,
    /// To a frontend, of no known flow, and not the start of one: untouched.
    NoFlow,
    /// Of a known flow that is translated at the other hook: untouched.
    OtherHook,
    /// Translated by a known flow.
    Established,
    /// First packet of a flow: backend chosen, destination translated; of a process of this node source, too.
    Created,
    /// First packet of a masked flow at egress: source port chosen, source translated.
    Masked,
    /// To a frontend without backends: answered by an ICMP error in the packet's place.
    Refused,
    /// An ICMP error about a packet of a translated flow: translated as that packet was.
    IcmpTranslated,
    /// An ICMP error whose quoted packet can't be read: untouched.
    IcmpQuote,
    /// IPv6 with extension headers that can't be stepped over: untouched.
    ExtensionHeader,
    /// Translated by a known flow, and sent on past the stack.
    Fast,
    /// SCTP, whose packets are not rewritten yet: untouched.
    Sctp,
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// The frontend has no backends, or the address none at this port, and its client has been told so often enough.
    NoBackend,
    /// The service changed twice while the packet looked at it, or its rows contradict each other.
    ServiceTorn,
    /// No free source port towards the backend, neither the client's nor one of the SNAT range.
    PortsExhausted,
    /// The kernel refused a new row in the flow table.
    FlowTableFull,
    /// The flow must be masked and the node has no address of this family.
    NoMasqueradeAddress,
    /// The kernel refused to change the packet's bytes or checksum.
    RewriteFailed,
    /// An ICMP redirect about a translated flow: it would change the route to an address that the
    /// client has not dialled.
    Redirect,
    /// No route to the backend for a process of this node.
    NoRoute,
    /// The traffic policy asks for a backend on this node, and there are others only.
    NoLocalBackend,
    /// The Service does not take this client's connections at addresses of its load balancer.
    SourceNotAllowed,
    /// To an address of Services that no Service has.
    NoService,
}

/// What became of a socket's call that named a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SocketCall {
    /// It connects to a backend.
    Connected,
    /// Its datagram goes to a backend.
    Sent,
    /// There is no backend: refused, if the kernel lets us, else left to the devices.
    Refused,
    /// Left to the devices: exempt, or no room beside the socket, or its answers could be those of another
    /// frontend.
    Left,
}

/// Index into the per-CPU array `COUNTERS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counter {
    /// Let through.
    Passed(Verdict),
    /// Dropped.
    Dropped(DropReason),
    /// Of a socket.
    Socket(SocketCall),
}

impl Verdict {
    /// All of them, by index.
    pub const ALL: [Self; 15] = [
        Self::NotService,
        Self::Unsupported,
        Self::Fragment,
        Self::Malformed,
        Self::NoFlow,
        Self::OtherHook,
        Self::Established,
        Self::Created,
        Self::Masked,
        Self::Refused,
        Self::IcmpTranslated,
        Self::IcmpQuote,
        Self::ExtensionHeader,
        Self::Fast,
        Self::Sctp,
    ];

    /// The printed name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotService => "not-service",
            Self::Unsupported => "unsupported",
            Self::Fragment => "fragment",
            Self::Malformed => "malformed",
            Self::NoFlow => "no-flow",
            Self::OtherHook => "other-hook",
            Self::Established => "established",
            Self::Created => "created",
            Self::Masked => "masked",
            Self::Refused => "refused",
            Self::IcmpTranslated => "icmp-translated",
            Self::IcmpQuote => "icmp-quote",
            Self::ExtensionHeader => "extension-header",
            Self::Fast => "fast",
            Self::Sctp => "sctp",
        }
    }
}

impl DropReason {
    /// All of them, by index.
    pub const ALL: [Self; 11] = [
        Self::NoBackend,
        Self::ServiceTorn,
        Self::PortsExhausted,
        Self::FlowTableFull,
        Self::NoMasqueradeAddress,
        Self::RewriteFailed,
        Self::Redirect,
        Self::NoRoute,
        Self::NoLocalBackend,
        Self::SourceNotAllowed,
        Self::NoService,
    ];

    /// The printed name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoBackend => "no-backend",
            Self::ServiceTorn => "service-torn",
            Self::PortsExhausted => "ports-exhausted",
            Self::FlowTableFull => "flow-table-full",
            Self::NoMasqueradeAddress => "no-masquerade-address",
            Self::RewriteFailed => "rewrite-failed",
            Self::Redirect => "redirect",
            Self::NoRoute => "no-route",
            Self::NoLocalBackend => "no-local-backend",
            Self::SourceNotAllowed => "source-not-allowed",
            Self::NoService => "no-service",
        }
    }
}

impl SocketCall {
    /// All of them, by index.
    pub const ALL: [Self; 4] = [Self::Connected, Self::Sent, Self::Refused, Self::Left];

    /// The printed name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "socket-connected",
            Self::Sent => "socket-sent",
            Self::Refused => "socket-refused",
            Self::Left => "socket-left",
        }
    }
}

impl Counter {
    /// Length of `COUNTERS`.
    pub const COUNT: usize = Self::SOCKETS + SocketCall::ALL.len();
    const DROPS: usize = Verdict::ALL.len();
    const SOCKETS: usize = Self::DROPS + DropReason::ALL.len();

    /// All of them, by index.
    pub fn all() -> impl Iterator<Item = Self> {
        let passed = Verdict::ALL.into_iter().map(Self::Passed);
        let dropped = DropReason::ALL.into_iter().map(Self::Dropped);
        let sockets = SocketCall::ALL.into_iter().map(Self::Socket);
        passed.chain(dropped).chain(sockets)
    }

    /// Index into `COUNTERS`.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        match self {
            Self::Passed(verdict) => verdict as u32,
            Self::Dropped(reason) => Self::DROPS as u32 + reason as u32,
            Self::Socket(call) => Self::SOCKETS as u32 + call as u32,
        }
    }

    /// The printed name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed(verdict) => verdict.name(),
            Self::Dropped(reason) => reason.name(),
            Self::Socket(call) => call.name(),
        }
    }
}

impl From<Result<Verdict, DropReason>> for Counter {
    #[inline(always)]
    fn from(fate: Result<Verdict, DropReason>) -> Self {
        match fate {
            Ok(verdict) => Self::Passed(verdict),
            Err(reason) => Self::Dropped(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_dense_and_in_order() {
        for (expected, counter) in Counter::all().enumerate() {
            assert_eq!(counter.index() as usize, expected, "{counter:?}");
        }
        assert_eq!(Counter::all().count(), Counter::COUNT);
    }
}
