//! What differs between IPv4 and IPv6; everything else is written once.

mod ipv4;
mod ipv6;

use crate::icmp::Kind;
use crate::network::Network;
use crate::packet::{Hooked, Packet};
use crate::parse::{Headers, Place};
use proxy_common::{
    Address, Device, DropReason, NodeConfig, NodeFamily, Port, SocketAddress, Tuple, Verdict,
};

/// An IP family, named by its address type.
pub trait Family: Address {
    /// Length of a network header without options.
    const HEADER: usize;

    /// The protocol number of ICMP.
    const ICMP: u8;

    /// Whether fragments are told by an extension header.
    const FRAGMENTS_BY_EXTENSION: bool;

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

    /// How many hops the packet may still go, if it can be read.
    fn hops_left<P: Packet>(packet: &P) -> Option<u8>;

    /// Takes one off.
    fn age<P: Packet>(packet: &mut P) -> Result<(), DropReason>;

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

    /// What is known of the node in this family.
    fn of_node(config: &NodeConfig) -> &NodeFamily<Self>;

    /// The address of a device, zero if it has none that will do.
    fn of_device(device: &Device) -> Self;

    /// Whether flows can be masked by it: neither unspecified nor link-local (RFC 3927, RFC 4291).
    fn can_mask(&self) -> bool;

    /// Its words and one more, scattered over 32 bits.
    fn scattered(&self, salt: u32) -> u32;
}
