//! IPv6.

use super::Family;
use crate::checksum::Delta;
use crate::icmp::{self, Kind};
use crate::network::{Ipv6Header, Network};
use crate::packet::{Hooked, Packet};
use crate::parse::{self, Headers, Place};
use crate::refuse;
use crate::snat::scatter;
use crate::{extension, nat};
use proxy_common::{
    AddrV6, Device, DropReason, NodeConfig, NodeFamily, Port, SocketAddress, Tuple, Verdict,
};

impl Family for AddrV6 {
    const HEADER: usize = size_of::<Ipv6Header>();
    const ICMP: u8 = 58;
    const FRAGMENTS_BY_EXTENSION: bool = true;

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
    fn hops_left<P: Packet>(packet: &P) -> Option<u8> {
        Ipv6Header::hops_left(packet)
    }

    #[inline(always)]
    fn age<P: Packet>(packet: &mut P) -> Result<(), DropReason> {
        Ipv6Header::age(packet)
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
    fn of_node(config: &NodeConfig) -> &NodeFamily<Self> {
        &config.v6
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
}
