//! `CONFIG`: what the programs must know about their node.

use crate::{AddrV4, AddrV6, Address, Port};
use bytemuck::{Pod, Zeroable};

/// The only row of `CONFIG`, written by the agent before the programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct NodeConfig {
    /// [`crate::ABI_VERSION`] of the agent that wrote the maps.
    pub abi_version: u32,
    /// First port that masked flows may use as their source.
    pub snat_port_min: Port,
    /// Last port that masked flows may use as their source, not below the first.
    pub snat_port_max: Port,
    /// The kernel's cookie of the node's own network namespace; 0: not known, the machine's first one is meant.
    pub host_netns: u64,
    /// What differs by family: IPv4.
    pub v4: NodeFamily<AddrV4>,
    /// What differs by family: IPv6.
    pub v6: NodeFamily<AddrV6>,
    /// What the programs do, besides what they always do.
    pub options: NodeOptions,
    /// Nothing; the row's length is one of whole 64-bit words.
    pub unused: u32,
}

impl NodeConfig {
    /// Whether a network namespace is the node's own.
    #[inline(always)]
    pub fn is_host_netns(&self, cookie: u64, first: impl FnOnce() -> u64) -> bool {
        match self.host_netns {
            0 => cookie == first(),
            known => cookie == known,
        }
    }
}

/// Something that the programs may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NodeOption {
    /// Only sockets of the node's own network namespace are translated when they connect.
    HostOnly = 1 << 0,
    /// TCP sockets are closed when their backend goes, whatever their Service says.
    CloseTcp = 1 << 1,
    /// Whoever dials a cluster address is masked.
    MasqueradeAll = 1 << 2,
    /// Clients of backends on this node are masked like others.
    MasqueradeLocal = 1 << 3,
}

/// Those that are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct NodeOptions {
    bits: u32,
}

impl NodeOptions {
    /// Whether an option is on.
    #[inline(always)]
    pub const fn has(self, option: NodeOption) -> bool {
        self.bits & option as u32 != 0
    }

    /// These, and another one if it is wanted.
    #[must_use]
    pub const fn with(self, option: NodeOption, is_wanted: bool) -> Self {
        let bit = if is_wanted { option as u32 } else { 0 };
        Self {
            bits: self.bits | bit,
        }
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self {
            bits: self.bits | others.bits,
        }
    }
}

/// How packets of pods are told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Detection {
    /// Not at all.
    None = 0,
    /// By their source, which is in a range.
    BySource = 1,
    /// By the device that they come in by.
    ByDevice = 2,
}

/// The part of one family of [`NodeConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NodeFamily<A> {
    /// Source address of masked flows; all zero: flows of this family cannot be masked.
    pub masquerade: A,
    /// The address whose NodePorts processes of this node find on loopback, too; all zero: there are none.
    pub loopback: A,
    detection: u32,
    /// Where pods have their addresses, if they are told by that.
    pub pods: Range<A>,
    /// `--cluster-cidr`: where all pods of the cluster have theirs; a zero mask: not known.
    pub cluster: Range<A>,
    /// Where Services have their cluster addresses.
    pub services: ServiceRanges<A>,
}

impl<A: Address> NodeFamily<A> {
    /// Of a node with this address, of which nothing else is known.
    pub fn new(masquerade: A) -> Self {
        Self {
            masquerade,
            loopback: A::zeroed(),
            detection: Detection::None as u32,
            pods: Range::zeroed(),
            cluster: Range::zeroed(),
            services: ServiceRanges {
                count: 0,
                ranges: [Range::zeroed(); MOST_SERVICE_RANGES],
            },
        }
    }

    /// The same, and pods are told from others in this way.
    #[must_use]
    pub const fn detecting(self, how: Detection, pods: Range<A>) -> Self {
        Self {
            detection: how as u32,
            pods,
            ..self
        }
    }

    /// How pods are told from others.
    #[inline(always)]
    pub const fn detection(&self) -> Detection {
        match self.detection {
            1 => Detection::BySource,
            2 => Detection::ByDevice,
            _ => Detection::None,
        }
    }
}

/// An address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Range<A> {
    /// Its first address.
    pub address: A,
    /// Ones where all of its addresses are the same.
    pub mask: A,
}

impl<A: Address> Range<A> {
    /// Nothing.
    fn zeroed() -> Self {
        Self {
            address: A::zeroed(),
            mask: A::zeroed(),
        }
    }

    /// Whether an address is in it.
    #[inline(always)]
    pub fn contains(&self, address: &A) -> bool {
        address.masked(&self.mask) == self.address
    }

    /// Whether it is more than the range of all addresses, which also stands for none.
    #[inline(always)]
    pub fn is_known(&self) -> bool {
        self.mask != A::zeroed()
    }
}

/// So many ranges of Services are told apart in each family; addresses of others are routed on.
pub const MOST_SERVICE_RANGES: usize = 4;

/// The ranges that Services have their cluster addresses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceRanges<A> {
    count: u32,
    ranges: [Range<A>; MOST_SERVICE_RANGES],
}

impl<A: Address> ServiceRanges<A> {
    /// The first of these.
    pub fn new(ranges: impl IntoIterator<Item = Range<A>>) -> Self {
        let mut all = [Range::zeroed(); MOST_SERVICE_RANGES];
        let mut count = 0;
        for (place, range) in all.iter_mut().zip(ranges) {
            *place = range;
            count += 1;
        }
        Self { count, ranges: all }
    }

    /// Whether an address is in one of them.
    #[inline(always)]
    pub fn contain(&self, address: &A) -> bool {
        let mut is_in = false;
        for (index, range) in self.ranges.iter().enumerate() {
            is_in |= (index as u32) < self.count && range.contains(address);
        }
        is_in
    }
}
