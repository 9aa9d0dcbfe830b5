//! IPv4.

use super::Family;
use crate::checksum::Delta;
use crate::icmp::{self, Kind};
use crate::nat;
use crate::network::{Ipv4Header, Network};
use crate::packet::{Hooked, Packet};
use crate::parse::{self, Headers, Place};
use crate::refuse;
use crate::snat::scatter;
use proxy_common::{
    AddrV4, Device, DropReason, NodeConfig, NodeFamily, Port, SocketAddress, Tuple, Verdict,
};

impl Family for AddrV4 {
    const HEADER: usize = size_of::<Ipv4Header>();
    const ICMP: u8 = 1;
    const FRAGMENTS_BY_EXTENSION: bool = false;

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
    fn hops_left<P: Packet>(packet: &P) -> Option<u8> {
        Ipv4Header::hops_left(packet)
    }

    #[inline(always)]
    fn age<P: Packet>(packet: &mut P) -> Result<(), DropReason> {
        Ipv4Header::age(packet)
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
    fn of_node(config: &NodeConfig) -> &NodeFamily<Self> {
        &config.v4
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
}
