//! Rows of the maps about fragments and refusals: what is remembered of packets, not of flows.

use crate::{Address, Port, Proto, Ticks};
use bytemuck::{Pod, Zeroable};

/// Key of `FRAGMENTS_V4` and `FRAGMENTS_V6`: what fragments of one datagram have in common (RFC 791
/// section 3.2, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FragmentKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    id: u32,
    proto: u32,
}

impl<A: Address> FragmentKey<A> {
    /// `id` as it lies in the packet; 16 bits of it for IPv4.
    #[inline(always)]
    pub fn new(src: A, dst: A, id: u32, proto: Proto) -> Self {
        Self {
            src,
            dst,
            id,
            proto: proto.number() as u32,
        }
    }
}

/// Value of `FRAGMENTS_V4` and `FRAGMENTS_V6`: the ports that only the first fragment shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentPorts {
    /// Source port.
    pub sport: Port,
    /// Destination port.
    pub dport: Port,
}

/// Value of `REFUSALS_V4` and `REFUSALS_V6`, whose key is the address of a client: how many of its
/// packets were answered by an ICMP error in one step of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Refusals {
    /// The step.
    pub during: Ticks,
    /// How many.
    pub count: u32,
}
