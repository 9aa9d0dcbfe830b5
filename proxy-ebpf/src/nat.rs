//! A translation applied to a packet: addresses, ports, checksums. The only place that writes
//! bytes.

use crate::checksum;
use crate::family::Family;
use crate::packet::{Packet, Part};
use crate::parse::Headers;
use proxy_common::{AddrV4, AddrV6, DropReason, Flow, Port, Proto};

/// Offset of the header checksum in an IPv4 header (RFC 791 section 3.1).
const IPV4_CHECKSUM: usize = 10;
/// Offset of the source address, directly before the destination, in an IPv4 header.
const IPV4_ADDRESSES: usize = 12;
/// The same in an IPv6 header (RFC 8200 section 3).
const IPV6_ADDRESSES: usize = 8;
/// Offset of the checksum in a TCP header (RFC 9293 section 3.1).
const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum in a UDP header (RFC 768).
const UDP_CHECKSUM: usize = 6;

/// Gives the packet the addresses and ports of the flow.
///
/// Bytes are written before the first checksum is adjusted: the helpers for checksums take the
/// direct access to the packet away.
#[inline(always)]
pub fn apply<A: Family, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    flow: &Flow<A>,
) -> Result<(), DropReason> {
    let (address_delta, port_delta) = (flow.address_delta, flow.port_delta);
    packet.store::<[Port; 2]>(headers.transport, [flow.sport, flow.dport])?;
    A::store_addresses(packet, headers, [flow.src, flow.dst], address_delta)?;
    let field = headers.transport + checksum_offset(headers.proto);
    let zero = A::zero_checksum(headers.proto);
    packet.adjust_checksum(field, address_delta, Part::PseudoHeader, zero)?;
    if port_delta != 0 {
        packet.adjust_checksum(field, port_delta, Part::Payload, zero)?;
    }
    Ok(())
}

#[inline(always)]
pub(crate) fn store_ipv4_addresses<P: Packet>(
    packet: &mut P,
    header_checksum: u16,
    addresses: [AddrV4; 2],
    delta: u32,
) -> Result<(), DropReason> {
    let checksum = checksum::adjusted(header_checksum, delta);
    packet.store(P::NETWORK + IPV4_CHECKSUM, checksum)?;
    packet.store(P::NETWORK + IPV4_ADDRESSES, addresses)
}

#[inline(always)]
pub(crate) fn store_ipv6_addresses<P: Packet>(
    packet: &mut P,
    addresses: [AddrV6; 2],
) -> Result<(), DropReason> {
    packet.store_uncovered(P::NETWORK + IPV6_ADDRESSES, addresses)
}

#[inline(always)]
const fn checksum_offset(proto: Proto) -> usize {
    match proto {
        Proto::Tcp => TCP_CHECKSUM,
        Proto::Udp => UDP_CHECKSUM,
    }
}
