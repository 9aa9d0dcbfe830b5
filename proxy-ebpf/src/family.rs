//! What differs between IPv4 and IPv6; everything else is written once.

use crate::checksum::Delta;
use crate::extension;
use crate::icmp::{self, Kind};
use crate::nat;
use crate::network::{Ipv4Header, Ipv6Header, Network};
use crate::packet::{Hooked, Packet};
use crate::parse::{self, Headers, Place};
use crate::refuse;
use crate::snat::scatter;
use proxy_common::{
    AddrV4, AddrV6, Address, Device, DropReason, NodeConfig, Port, SocketAddress, Tuple, Verdict,
};

/// An IP family, named by its address type.
pub trait Family: Address {
    /// Length of a network header without options.
    const HEADER: usize;

    /// The protocol number of ICMP.
    const ICMP: u8;

    /// Finds addresses, ports and offsets; `Err` is why the packet is none of ours.
    fn parse<'a, P: Packet>(
        packet: &mut P,
        place: &'a mut Place<Self>,
    ) -> Result<&'a mut Headers<Self>, Verdict>;

    /// What a tuple's addresses add to a one's complement sum when they replace another's.
    fn address_delta(old: &Tuple<Self>, new: &Tuple<Self>) -> u32;

    /// Overwrites source and destination address, and fixes the network header's own checksum.
    fn store_addresses<P: Packet>(
        packet: &mut P,
        headers: &Headers<Self>,
        addresses: [Self; 2],
        delta: u32,
    ) -> Result<(), DropReason>;

    /// Overwrites the addresses of a network header whose change another checksum balances.
    fn store_covered<P: Packet>(
        packet: &mut P,
        network: usize,
        addresses: [Self; 2],
        delta: u32,
    ) -> Result<(), DropReason>;

    /// What is left of a change of addresses once the network header's own checksum is adjusted.
    fn uncovered(delta: u32) -> u32;

    /// Reads the network header at an offset, if there is one.
    fn network<P: Packet>(packet: &P, at: usize) -> Option<Network<Self>>;

    /// Makes extension headers part of a packet's network header, if that can be done.
    fn step_over<P: Packet>(packet: &mut P, found: &mut Network<Self>) -> bool;

    /// What a type of ICMP messages is, if not a message of another kind.
    fn icmp_kind(number: u8, code: u8) -> Option<Kind>;

    /// Where the packet begins that a message quotes.
    fn quote<P: Packet>(packet: &P, message: usize, kind: Kind) -> Option<usize>;

    /// Makes a packet whose transport header ends at `end` an ICMP error about itself.
    fn refuse<P: Hooked>(packet: &mut P, end: usize) -> Result<(), DropReason>;

    /// With a port, as sockets have it.
    fn at_port(self, port: Port) -> SocketAddress;

    /// Whether it is one of loopback (RFC 1122, 3.2.1.3; RFC 4291, 2.5.3).
    fn is_loopback(&self) -> bool;

    /// Whether it is an address of one host: neither unspecified nor of a group.
    fn is_one_host(&self) -> bool;

    /// The address that masks flows, if this node has one of this family.
    fn masquerade(config: &NodeConfig) -> Option<Self>;

    /// The address of a device, zero if it has none that will do.
    fn of_device(device: &Device) -> Self;

    /// Whether flows can be masked by it: neither unspecified nor link-local (RFC 3927, RFC 4291).
    fn can_mask(&self) -> bool;

    /// Its words and one more, scattered over 32 bits.
    fn scattered(&self, salt: u32) -> u32;

    /// Whether an address is inside `--cluster-cidr`; everything is where that isn't configured.
    fn in_cluster(self, config: &NodeConfig) -> bool;
}

impl Family for AddrV4 {
    const HEADER: usize = size_of::<Ipv4Header>();
    const ICMP: u8 = 1;

    #[inline(always)]
    fn parse<'a, P: Packet>(
        packet: &mut P,
        place: &'a mut Place<Self>,
    ) -> Result<&'a mut Headers<Self>, Verdict> {
        parse::ipv4(packet, place)
    }

    #[inline(always)]
    fn address_delta(old: &Tuple<Self>, new: &Tuple<Self>) -> u32 {
        Delta::default()
            .replace(old.src.be(), new.src.be())
            .replace(old.dst.be(), new.dst.be())
            .folded()
    }

    #[inline(always)]
    fn store_addresses<P: Packet>(
        packet: &mut P,
        headers: &Headers<Self>,
        addresses: [Self; 2],
        delta: u32,
    ) -> Result<(), DropReason> {
        nat::store_ipv4_addresses(
            packet,
            P::NETWORK,
            headers.header_checksum,
            addresses,
            delta,
        )
    }

    #[inline(always)]
    fn store_covered<P: Packet>(
        packet: &mut P,
        network: usize,
        addresses: [Self; 2],
        delta: u32,
    ) -> Result<(), DropReason> {
        nat::store_quoted_ipv4_addresses(packet, network, addresses, delta)
    }

    #[inline(always)]
    fn uncovered(_delta: u32) -> u32 {
        0
    }

    #[inline(always)]
    fn network<P: Packet>(packet: &P, at: usize) -> Option<Network<Self>> {
        Ipv4Header::read(packet, at)
    }

    #[inline(always)]
    fn step_over<P: Packet>(_packet: &mut P, _found: &mut Network<Self>) -> bool {
        true
    }

    #[inline(always)]
    fn icmp_kind(number: u8, code: u8) -> Option<Kind> {
        match number {
            // Fragmentation needed (RFC 792, RFC 1191).
            3 if code == 4 => Some(Kind::TooBig),
            // Unreachable, time exceeded, parameter problem.
            3 | 11 | 12 => Some(Kind::Error),
            5 => Some(Kind::Redirect),
            _ => None,
        }
    }

    #[inline(always)]
    fn quote<P: Packet>(_packet: &P, message: usize, _kind: Kind) -> Option<usize> {
        Some(message + icmp::HEADER)
    }

    #[inline(always)]
    fn refuse<P: Hooked>(packet: &mut P, end: usize) -> Result<(), DropReason> {
        refuse::ipv4(packet, end)
    }

    #[inline(always)]
    fn at_port(self, port: Port) -> SocketAddress {
        SocketAddress::v4(self, port)
    }

    #[inline(always)]
    fn is_loopback(&self) -> bool {
        u32::from_be(self.be()) >> 24 == 127
    }

    #[inline(always)]
    fn is_one_host(&self) -> bool {
        // 224.0.0.0/4: groups; 240.0.0.0/4: of no use, and broadcast (RFC 1112).
        let first = self.be().to_ne_bytes()[0];
        first != 0 && first < 224
    }

    #[inline(always)]
    fn masquerade(config: &NodeConfig) -> Option<Self> {
        Some(config.v4.masquerade).filter(|address| address.be() != 0)
    }

    #[inline(always)]
    fn of_device(device: &Device) -> Self {
        device.v4
    }

    #[inline(always)]
    fn can_mask(&self) -> bool {
        const LINK_LOCAL: u32 = 0xa9fe;
        self.be() != 0 && u32::from_be(self.be()) >> 16 != LINK_LOCAL
    }

    #[inline(always)]
    fn scattered(&self, salt: u32) -> u32 {
        scatter(self.be() ^ salt.rotate_left(16))
    }

    #[inline(always)]
    fn in_cluster(self, config: &NodeConfig) -> bool {
        self.be() & config.v4.cluster_mask.be() == config.v4.cluster_cidr.be()
    }
}

impl Family for AddrV6 {
    const HEADER: usize = size_of::<Ipv6Header>();
    const ICMP: u8 = 58;

    #[inline(always)]
    fn parse<'a, P: Packet>(
        packet: &mut P,
        place: &'a mut Place<Self>,
    ) -> Result<&'a mut Headers<Self>, Verdict> {
        parse::ipv6(packet, place)
    }

    #[inline(always)]
    fn address_delta(old: &Tuple<Self>, new: &Tuple<Self>) -> u32 {
        let mut delta = Delta::default();
        for index in 0..4 {
            delta = delta.replace(old.src.be()[index], new.src.be()[index]);
            delta = delta.replace(old.dst.be()[index], new.dst.be()[index]);
        }
        delta.folded()
    }

    #[inline(always)]
    fn store_addresses<P: Packet>(
        packet: &mut P,
        _headers: &Headers<Self>,
        addresses: [Self; 2],
        _delta: u32,
    ) -> Result<(), DropReason> {
        nat::store_ipv6_addresses(packet, addresses)
    }

    #[inline(always)]
    fn store_covered<P: Packet>(
        packet: &mut P,
        network: usize,
        addresses: [Self; 2],
        _delta: u32,
    ) -> Result<(), DropReason> {
        nat::store_covered_ipv6_addresses(packet, network, addresses)
    }

    #[inline(always)]
    fn uncovered(delta: u32) -> u32 {
        delta
    }

    #[inline(always)]
    fn network<P: Packet>(packet: &P, at: usize) -> Option<Network<Self>> {
        Ipv6Header::read(packet, at)
    }

    #[inline(always)]
    fn step_over<P: Packet>(packet: &mut P, found: &mut Network<Self>) -> bool {
        extension::step_over(packet, found)
    }

    #[inline(always)]
    fn icmp_kind(number: u8, _code: u8) -> Option<Kind> {
        match number {
            2 => Some(Kind::TooBig),
            // Unreachable, time exceeded, parameter problem (RFC 4443).
            1 | 3 | 4 => Some(Kind::Error),
            // RFC 4861 section 4.5.
            137 => Some(Kind::Redirect),
            _ => None,
        }
    }

    #[inline(always)]
    fn quote<P: Packet>(packet: &P, message: usize, kind: Kind) -> Option<usize> {
        match kind {
            Kind::Error | Kind::TooBig => Some(message + icmp::HEADER),
            Kind::Redirect => icmp::redirected(packet, message),
        }
    }

    #[inline(always)]
    fn refuse<P: Hooked>(packet: &mut P, end: usize) -> Result<(), DropReason> {
        refuse::ipv6(packet, end)
    }

    #[inline(always)]
    fn at_port(self, port: Port) -> SocketAddress {
        SocketAddress::v6(self, port)
    }

    #[inline(always)]
    fn is_loopback(&self) -> bool {
        self.be() == [0, 0, 0, 1_u32.to_be()]
    }

    #[inline(always)]
    fn is_one_host(&self) -> bool {
        self.be() != [0; 4] && self.be()[0].to_ne_bytes()[0] != 0xff
    }

    #[inline(always)]
    fn masquerade(config: &NodeConfig) -> Option<Self> {
        Some(config.v6.masquerade).filter(|address| address.be() != [0; 4])
    }

    #[inline(always)]
    fn of_device(device: &Device) -> Self {
        device.v6
    }

    #[inline(always)]
    fn can_mask(&self) -> bool {
        const LINK_LOCAL: u32 = 0xfe80 >> 6;
        let [first, rest @ ..] = self.be();
        (first != 0 || rest != [0; 3]) && u32::from_be(first) >> 22 != LINK_LOCAL
    }

    #[inline(always)]
    fn scattered(&self, salt: u32) -> u32 {
        let [a, b, c, d] = self.be();
        scatter(scatter(a ^ b.rotate_left(16)) ^ c ^ d ^ salt.rotate_left(16))
    }

    #[inline(always)]
    fn in_cluster(self, config: &NodeConfig) -> bool {
        let (words, mask) = (self.be(), config.v6.cluster_mask.be());
        let cidr = config.v6.cluster_cidr.be();
        let differ = |index: usize| (words[index] & mask[index]) ^ cidr[index];
        differ(0) | differ(1) | differ(2) | differ(3) == 0
    }
}
