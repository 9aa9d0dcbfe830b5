//! `DEVICES`: what the programs must know of the node's devices.

use crate::{AddrV4, AddrV6};
use bytemuck::{Pod, Zeroable};

/// An Ethernet address, as it lies in a packet; all zero: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Mac {
    words: [u16; 3],
}

impl Mac {
    /// From its six bytes, in their order.
    pub const fn new(bytes: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = bytes;
        Self {
            words: [
                u16::from_ne_bytes([a, b]),
                u16::from_ne_bytes([c, d]),
                u16::from_ne_bytes([e, f]),
            ],
        }
    }
}

/// Value of `DEVICES`, whose key is the index of an interface (`u32`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Device {
    /// Source of masked flows that leave by it; all zero: it has no address that will do.
    pub v4: AddrV4,
    /// The same for IPv6.
    pub v6: AddrV6,
    /// Its own address; zero where packets have no Ethernet header.
    pub mac: Mac,
    /// Address of the bridge that it is a port of; zero: of none.
    pub bridge: Mac,
    /// Index by which routes name it: that of its bridge, else its own.
    pub routed_as: u32,
    /// The longest packet that it takes, in bytes from the network header on.
    pub mtu: u32,
    /// What else it is.
    pub traits: DeviceTraits,
}

impl Device {
    /// Whether it is so.
    #[inline(always)]
    pub const fn is(&self, what: DeviceTrait) -> bool {
        self.traits.has(what)
    }

    /// Whether its packets begin with an IP header.
    #[inline(always)]
    pub const fn is_bare(&self) -> bool {
        self.is(DeviceTrait::Bare)
    }
}

/// Something that a device may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DeviceTrait {
    /// Its packets begin with an IP header, not with an Ethernet header.
    Bare = 1 << 0,
    /// Flows between it and another such device may take the fast lane.
    Fast = 1 << 1,
    /// What leaves by it can be handed to its other end, which is in another network namespace.
    Peered = 1 << 2,
    /// What comes in by it is from pods.
    OfPods = 1 << 3,
}

/// What a device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct DeviceTraits {
    bits: u32,
}

impl DeviceTraits {
    /// Whether it is so.
    #[inline(always)]
    pub const fn has(self, what: DeviceTrait) -> bool {
        self.bits & what as u32 != 0
    }

    /// These, and another one if it is true.
    #[must_use]
    pub const fn with(self, what: DeviceTrait, is_true: bool) -> Self {
        let bit = if is_true { what as u32 } else { 0 };
        Self {
            bits: self.bits | bit,
        }
    }
}
