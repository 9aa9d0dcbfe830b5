//! Rows about clients: where their connections lead, and who may dial load balancers.

use crate::{AddrV6, BackendRef, Ticks};
use bytemuck::{Pod, Zeroable};

/// Key of `AFFINITIES`: whose connections lead to the same backend of which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct AffinityKey {
    client: AddrV6,
    service: u32,
}

impl AffinityKey {
    /// No source address begins so: groups are none (RFC 4291, 2.7).
    const OF_NETNS: u32 = 0xff00_0000_u32.to_be();

    /// Of a client by its address, one of IPv4 mapped into IPv6.
    #[inline(always)]
    pub const fn of_address(client: AddrV6, service: u32) -> Self {
        Self { client, service }
    }

    /// Of a client by the kernel's cookie of its network namespace: its address is not known before its
    /// socket is connected.
    #[inline(always)]
    pub const fn of_netns(cookie: u64, service: u32) -> Self {
        let words = [Self::OF_NETNS, 0, (cookie >> 32) as u32, cookie as u32];
        Self {
            client: AddrV6::from_be(words),
            service,
        }
    }
}

/// Value of `AFFINITIES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Affinity {
    /// Who answers.
    pub backend: BackendRef,
    /// When a connection last began.
    pub since: Ticks,
}

/// What stands behind the prefix length in the key of `SOURCE_RANGES_V4` and `SOURCE_RANGES_V6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct SourceRange<A> {
    /// The set that the range is in.
    pub set: u32,
    /// Its address.
    pub address: A,
}

impl<A> SourceRange<A> {
    /// Bits of the key in front of the address.
    pub const SET_BITS: u32 = u32::BITS;
}
