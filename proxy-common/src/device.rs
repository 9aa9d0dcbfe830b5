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
    /// 1: its packets begin with an IP header, 0: with an Ethernet header.
    pub bare: u32,
}

impl Device {
    /// Whether its packets begin with an IP header.
    #[inline(always)]
    pub const fn is_bare(&self) -> bool {
        self.bare != 0
    }
}
