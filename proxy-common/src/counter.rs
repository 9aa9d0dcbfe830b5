//! What happens to packets, counted: every packet that a program runs on adds to one counter.

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// The frontend has no backends.
    NoBackend,
    /// The service changed twice while the packet looked at it.
    ServiceTorn,
    /// No free source port towards the backend, neither the client's nor one of the SNAT range.
    PortsExhausted,
    /// The kernel refused a new row in the flow table.
    FlowTableFull,
    /// The flow must be masked and the node has no address of this family.
    NoMasqueradeAddress,
    /// The kernel refused to change the packet's bytes or checksum.
    RewriteFailed,
}

/// Index into the per-CPU array `COUNTERS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counter {
    /// No frontend and no flow of ours: passed untouched.
    NotService,
    /// Neither IPv4 nor IPv6, or neither TCP nor UDP: passed untouched.
    Unsupported,
    /// A fragment: passed untouched.
    Fragment,
    /// Too short or with contradicting lengths: passed untouched, the stack judges it.
    Malformed,
    /// To a frontend, no flow, and not the start of one: passed untouched.
    NoFlow,
    /// Of a known flow that is translated at the other hook: passed untouched.
    OtherHook,
    /// Translated by a known flow.
    Established,
    /// First packet of a flow: backend chosen and translated.
    Created,
    /// First packet of a flow at egress: source masked.
    Masked,
    /// Dropped.
    Dropped(DropReason),
}

impl DropReason {
    /// All of them, by index.
    pub const ALL: [Self; 6] = [
        Self::NoBackend,
        Self::ServiceTorn,
        Self::PortsExhausted,
        Self::FlowTableFull,
        Self::NoMasqueradeAddress,
        Self::RewriteFailed,
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
        }
    }
}

const PASSED: [Counter; 9] = [
    Counter::NotService,
    Counter::Unsupported,
    Counter::Fragment,
    Counter::Malformed,
    Counter::NoFlow,
    Counter::OtherHook,
    Counter::Established,
    Counter::Created,
    Counter::Masked,
];

impl Counter {
    /// Length of `COUNTERS`.
    pub const COUNT: usize = PASSED.len() + DropReason::ALL.len();

    /// All of them, by index.
    pub fn all() -> impl Iterator<Item = Self> {
        PASSED
            .into_iter()
            .chain(DropReason::ALL.into_iter().map(Self::Dropped))
    }

    /// Index into `COUNTERS`.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        match self {
            Self::NotService => 0,
            Self::Unsupported => 1,
            Self::Fragment => 2,
            Self::Malformed => 3,
            Self::NoFlow => 4,
            Self::OtherHook => 5,
            Self::Established => 6,
            Self::Created => 7,
            Self::Masked => 8,
            Self::Dropped(reason) => 9 + reason as u32,
        }
    }

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
            Self::Dropped(reason) => reason.name(),
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
