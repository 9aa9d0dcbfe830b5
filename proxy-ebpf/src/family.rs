//! What differs between IPv4 and IPv6; everything else is written once.

use crate::checksum::Delta;
use crate::nat;
use crate::packet::Packet;
use crate::parse::{self, Headers};
use proxy_common::{AddrV4, AddrV6, Address, DropReason, NodeConfig, Tuple, Verdict};

/// An IP family, named by its address type.
pub trait Family: Address {
    /// Finds addresses, ports and offsets; `Err` is why the packet is none of ours.
    fn parse<P: Packet>(packet: &mut P) -> Result<Headers<Self>, Verdict>;

    /// What a tuple's addresses add to a one's complement sum when they replace another's.
    fn address_delta(old: &Tuple<Self>, new: &Tuple<Self>) -> u32;

    /// Overwrites source and destination address, and fixes the network header's own checksum.
    fn store_addresses<P: Packet>(
        packet: &mut P,
        headers: &Headers<Self>,
        addresses: [Self; 2],
        delta: u32,
    ) -> Result<(), DropReason>;

    /// The address that masks flows, if this node has one of this family.
    fn masquerade(config: &NodeConfig) -> Option<Self>;

    /// Whether an address is inside `--cluster-cidr`; everything is where that isn't configured.
    fn in_cluster(self, config: &NodeConfig) -> bool;
}

impl Family for AddrV4 {
    #[inline(always)]
    fn parse<P: Packet>(packet: &mut P) -> Result<Headers<Self>, Verdict> {
        parse::ipv4(packet)
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
        nat::store_ipv4_addresses(packet, headers.header_checksum, addresses, delta)
    }

    #[inline(always)]
    fn masquerade(config: &NodeConfig) -> Option<Self> {
        Some(config.v4.masquerade).filter(|address| address.be() != 0)
    }

    #[inline(always)]
    fn in_cluster(self, config: &NodeConfig) -> bool {
        self.be() & config.v4.cluster_mask.be() == config.v4.cluster_cidr.be()
    }
}

impl Family for AddrV6 {
    #[inline(always)]
    fn parse<P: Packet>(packet: &mut P) -> Result<Headers<Self>, Verdict> {
        parse::ipv6(packet)
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
    fn masquerade(config: &NodeConfig) -> Option<Self> {
        Some(config.v6.masquerade).filter(|address| address.be() != [0; 4])
    }

    #[inline(always)]
    fn in_cluster(self, config: &NodeConfig) -> bool {
        let (words, mask) = (self.be(), config.v6.cluster_mask.be());
        let cidr = config.v6.cluster_cidr.be();
        let differ = |index: usize| (words[index] & mask[index]) ^ cidr[index];
        differ(0) | differ(1) | differ(2) | differ(3) == 0
    }
}
