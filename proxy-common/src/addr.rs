//! Addresses, ports and protocols: network order inside, typed outside.

use bytemuck::{Pod, Zeroable};
use core::fmt::Debug;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of one IP family, usable as part of a map key.
pub trait Address: Pod + Eq + Ord + Debug {
    /// The std address of this family.
    type Std: Copy;
    /// From the std address.
    fn new(address: Self::Std) -> Self;
    /// As the std address of either family.
    fn ip(self) -> IpAddr;
    /// All of its bits, mixed into a number.
    fn fold(&self) -> u64;
    /// Its bits where the mask has ones, zeros elsewhere.
    fn masked(&self, mask: &Self) -> Self;
    /// As an IPv6 address, one of IPv4 mapped (RFC 4291, 2.5.5.2).
    fn as_v6(&self) -> AddrV6;
}

/// An IPv4 address, in network byte order in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct AddrV4 {
    be32: u32,
}

/// An IPv6 address, four words in network byte order in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct AddrV6 {
    be32: [u32; 4],
}

impl AddrV4 {
    /// From the word as it lies in a packet.
    #[inline(always)]
    pub const fn from_be(be32: u32) -> Self {
        Self { be32 }
    }

    /// The word as it lies in a packet.
    #[inline(always)]
    pub const fn be(self) -> u32 {
        self.be32
    }
}

impl AddrV6 {
    /// The third word of an IPv4-mapped address.
    pub(crate) const MAPPED: u32 = 0xffff_u32.to_be();

    /// From the words as they lie in a packet.
    #[inline(always)]
    pub const fn from_be(be32: [u32; 4]) -> Self {
        Self { be32 }
    }

    /// The words as they lie in a packet.
    #[inline(always)]
    pub const fn be(self) -> [u32; 4] {
        self.be32
    }
}

impl Address for AddrV4 {
    type Std = Ipv4Addr;

    fn new(address: Ipv4Addr) -> Self {
        Self {
            be32: u32::from_ne_bytes(address.octets()),
        }
    }

    fn ip(self) -> IpAddr {
        IpAddr::V4(self.be32.to_ne_bytes().into())
    }

    #[inline(always)]
    fn fold(&self) -> u64 {
        self.be32.into()
    }

    #[inline(always)]
    fn masked(&self, mask: &Self) -> Self {
        Self::from_be(self.be32 & mask.be32)
    }

    #[inline(always)]
    fn as_v6(&self) -> AddrV6 {
        AddrV6::from_be([0, 0, AddrV6::MAPPED, self.be32])
    }
}

impl Address for AddrV6 {
    type Std = Ipv6Addr;

    fn new(address: Ipv6Addr) -> Self {
        Self {
            be32: bytemuck::cast(address.octets()),
        }
    }

    fn ip(self) -> IpAddr {
        IpAddr::V6(bytemuck::cast::<_, [u8; 16]>(self.be32).into())
    }

    #[inline(always)]
    fn fold(&self) -> u64 {
        const ODD: u64 = 0x9fb2_1c65_1e98_df25;
        let [a, b, c, d] = self.be32.map(u64::from);
        (a << 32 | b).wrapping_mul(ODD) ^ (c << 32 | d)
    }

    #[inline(always)]
    fn masked(&self, mask: &Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.be32, mask.be32);
        Self::from_be([a & e, b & f, c & g, d & h])
    }

    #[inline(always)]
    fn as_v6(&self) -> AddrV6 {
        *self
    }
}

/// A TCP or UDP port, in network byte order in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Port {
    be16: u16,
}

impl Port {
    /// From a port number in host order.
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self {
            be16: number.to_be(),
        }
    }

    /// From the word as it lies in a packet.
    #[inline(always)]
    pub const fn from_be(be16: u16) -> Self {
        Self { be16 }
    }

    /// The word as it lies in a packet.
    #[inline(always)]
    pub const fn be(self) -> u16 {
        self.be16
    }

    /// The port number in host order.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be(self.be16)
    }
}

/// Transport protocols that can be balanced, by their IP protocol number
/// (IANA "Assigned Internet Protocol Numbers").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Proto {
    /// Transmission Control Protocol, 6.
    Tcp = 6,
    /// User Datagram Protocol, 17.
    Udp = 17,
    /// Stream Control Transmission Protocol, 132.
    Sctp = 132,
}

impl Proto {
    /// The protocol of an IP protocol number, if it is one that can be balanced.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The same, if packets of the protocol can be rewritten.
    #[inline(always)]
    pub const fn of_packet(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    /// The IP protocol number.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The name as Kubernetes writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lie_in_memory_as_in_a_packet() {
        let v4 = AddrV4::new(Ipv4Addr::new(10, 96, 0, 1));
        assert_eq!(bytemuck::bytes_of(&v4), [10, 96, 0, 1]);
        assert_eq!(v4.ip(), IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)));
        let v6 = AddrV6::new("fd00:96::1".parse().unwrap());
        assert_eq!(bytemuck::bytes_of(&v6)[..4], [0xfd, 0, 0, 0x96]);
        assert_eq!(v6.ip(), "fd00:96::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn ports_lie_in_memory_as_in_a_packet() {
        assert_eq!(bytemuck::bytes_of(&Port::new(80)), [0, 80]);
        assert_eq!(Port::new(8080).number(), 8080);
    }
}
