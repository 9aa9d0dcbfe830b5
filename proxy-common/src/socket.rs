//! Rows about sockets: what an application has dialled, and who answers instead.

use crate::{AddrV4, AddrV6, Address as _, BackendRef, Port};
use bytemuck::{Pod, Zeroable};
use core::net::{IpAddr, SocketAddr};

/// An address and port as a socket may have them: IPv4 as an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SocketAddress {
    address: AddrV6,
    /// The port.
    pub port: Port,
    unused: u16,
}

const MAPPED: u32 = AddrV6::MAPPED;

impl SocketAddress {
    /// Of an IPv4 address.
    #[inline(always)]
    pub const fn v4(address: AddrV4, port: Port) -> Self {
        Self::v6(AddrV6::from_be([0, 0, MAPPED, address.be()]), port)
    }

    /// Of an IPv6 address, which may be an IPv4-mapped one.
    #[inline(always)]
    pub const fn v6(address: AddrV6, port: Port) -> Self {
        Self {
            address,
            port,
            unused: 0,
        }
    }

    /// Whether both are the same. One comparison, which is one way less for the verifier to follow than four.
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.address.be(), other.address.be());
        let ports = (self.port.be() ^ other.port.be()) as u32;
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) | ports == 0
    }

    /// The IPv4 address, if it is one.
    #[inline(always)]
    pub const fn as_v4(&self) -> Option<AddrV4> {
        match self.address.be() {
            [0, 0, MAPPED, word] => Some(AddrV4::from_be(word)),
            _ => None,
        }
    }

    /// The address as sockets of IPv6 have it.
    #[inline(always)]
    pub const fn as_v6(&self) -> AddrV6 {
        self.address
    }

    /// As std has it; never an IPv4-mapped address.
    pub fn std(&self) -> SocketAddr {
        let address = match self.as_v4() {
            Some(v4) => v4.ip(),
            None => self.address.ip(),
        };
        SocketAddr::new(address, self.port.number())
    }
}

impl From<SocketAddr> for SocketAddress {
    fn from(address: SocketAddr) -> Self {
        let port = Port::new(address.port());
        match address.ip() {
            IpAddr::V4(v4) => Self::v4(AddrV4::new(v4), port),
            IpAddr::V6(v6) => Self::v6(AddrV6::new(v6), port),
        }
    }
}

/// A frontend that a socket has dialled, and the backend that it talks to instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Peer {
    /// What the application has dialled.
    pub frontend: SocketAddress,
    /// Where its packets go.
    pub backend: SocketAddress,
    /// The service that the frontend belonged to; [`Peer::LEFT`]: datagrams to it are left to devices.
    pub service: u32,
    /// The backend; generation 0: there is no peer in this place.
    pub reference: BackendRef,
}

impl Peer {
    /// No service has this id.
    pub const LEFT: u32 = 0;

    /// Whether there is one in this place.
    #[inline(always)]
    pub const fn is_some(&self) -> bool {
        self.reference.generation != 0
    }
}

/// Value of `CONNECTED_SOCKETS`, storage of each socket that has connected to a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Connected {
    /// Where it leads.
    pub peer: Peer,
    /// IP protocol number.
    pub proto: u16,
    /// 1: it is closed when its backend goes.
    pub closes: u16,
    /// The kernel's cookie of the network namespace that the socket belongs to.
    pub netns: u64,
    /// The kernel's cookie of the socket (SO_COOKIE).
    pub cookie: u64,
}

/// Stands in the object for the number of the kernel's bpf_sock_destroy, which only a running kernel tells.
pub const SOCK_DESTROY: i32 = 0x7eee_0001;

/// Value of `UNCONNECTED_SOCKETS`, storage of each socket that has sent a datagram to a frontend without
/// being connected to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Peers {
    /// In no order, with gaps.
    pub peers: [Peer; Peers::MOST],
}

impl Peers {
    /// So many frontends have a backend of their own at one socket; datagrams to more of them are
    /// translated at devices.
    pub const MOST: usize = 8;
}

/// The only row of `EXEMPT_BY`: what of a caller can be in `EXEMPT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ExemptBy {
    /// Not 0: its network namespace.
    pub netns: u32,
    /// Bit N: its cgroup N levels below the root.
    pub levels: u32,
}

/// What does not want its clients' sockets to be translated: key of `EXEMPT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct ExemptKey {
    id: u64,
    kind: u64,
}

impl ExemptKey {
    /// A network namespace, by the kernel's cookie.
    #[inline(always)]
    pub const fn netns(cookie: u64) -> Self {
        Self {
            id: cookie,
            kind: 0,
        }
    }

    /// A cgroup and all below it, by its id.
    #[inline(always)]
    pub const fn cgroup(id: u64) -> Self {
        Self { id, kind: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_are_told_apart() {
        let std: SocketAddr = "10.96.0.1:80".parse().unwrap();
        let v4 = SocketAddress::from(std);
        assert_eq!(v4.as_v4(), Some(AddrV4::new([10, 96, 0, 1].into())));
        assert_eq!(v4.as_v6(), AddrV6::new("::ffff:10.96.0.1".parse().unwrap()));
        assert_eq!(v4.std(), std);
        let std: SocketAddr = "[fd00::1]:53".parse().unwrap();
        let v6 = SocketAddress::from(std);
        assert_eq!(v6.as_v4(), None);
        assert_eq!(v6.std(), std);
    }
}
