//! A translation applied to a packet: addresses, ports, checksums.

use crate::checksum;
use crate::family::Family;
use crate::open::Plan;
use crate::packet::{Packet, Part, Zero};
use crate::parse::Headers;
use proxy_common::{AddrV4, AddrV6, DropReason, Flow, Port, Proto, Tuple};

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

/// What a packet gets: addresses and ports, and what they add to its checksums.
#[derive(Clone, Copy, Debug)]
pub struct Translation<A> {
    addresses: [A; 2],
    ports: [Port; 2],
    address_delta: u32,
    port_delta: u32,
}

impl<A: Family> Translation<A> {
    /// As a known flow remembers it.
    #[inline(always)]
    pub fn known(flow: &Flow<A>) -> Self {
        Self {
            addresses: [flow.src, flow.dst],
            ports: [flow.sport, flow.dport],
            address_delta: flow.address_delta,
            port_delta: flow.port_delta,
        }
    }

    /// As planned for the first packet of a flow.
    #[inline(always)]
    pub fn planned(from: &Tuple<A>, plan: &Plan<A>) -> Self {
        let (address_delta, port_delta) = plan.deltas(from);
        Self {
            addresses: [plan.to.src, plan.to.dst],
            ports: [plan.to.sport, plan.to.dport],
            address_delta,
            port_delta,
        }
    }
}

/// Gives the packet its new addresses and ports.
///
/// Bytes are written before the first checksum is adjusted: the helpers for checksums take the
/// direct access to the packet away. Of a fragment that is not the first, what the first one has is not
/// changed.
#[inline(always)]
pub fn apply<A: Family, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    new: &Translation<A>,
) -> Result<(), DropReason> {
    let Some(transport) = headers.transport() else {
        return A::store_addresses(packet, headers, new.addresses, new.address_delta);
    };
    packet.store(transport, new.ports)?;
    A::store_addresses(packet, headers, new.addresses, new.address_delta)?;
    let field = transport + checksum_offset(headers.proto);
    let zero = zero_checksum(headers.proto);
    packet.adjust_checksum(field, new.address_delta, Part::PseudoHeader, zero)?;
    if checksum::is_change(new.port_delta) {
        packet.adjust_checksum(field, new.port_delta, Part::Payload, zero)?;
    }
    Ok(())
}

/// The same for a packet of a half-open flow. See [`apply_first`].
#[inline(never)]
pub fn apply_half_open<A: Family, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    flow: &Flow<A>,
) -> Result<(), DropReason> {
    apply(packet, headers, &Translation::known(flow))
}

/// The same for the first packet of a flow.
///
/// A function of its own to the verifier too: the stack it needs is needed for this call only.
#[inline(never)]
pub fn apply_first<A: Family, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    plan: &Plan<A>,
) -> Result<(), DropReason> {
    apply(packet, headers, &Translation::planned(&headers.tuple, plan))
}

#[inline(always)]
pub(crate) fn store_ipv4_addresses<P: Packet>(
    packet: &mut P,
    network: usize,
    header_checksum: u16,
    addresses: [AddrV4; 2],
    delta: u32,
) -> Result<(), DropReason> {
    let checksum = checksum::adjusted(header_checksum, delta);
    packet.store(network + IPV4_CHECKSUM, checksum)?;
    packet.store(network + IPV4_ADDRESSES, addresses)
}

#[inline(always)]
pub(crate) fn store_ipv6_addresses<P: Packet>(
    packet: &mut P,
    addresses: [AddrV6; 2],
) -> Result<(), DropReason> {
    packet.store_uncovered(P::NETWORK + IPV6_ADDRESSES, addresses)
}

/// The same where the header's checksum is still to be read.
#[inline(always)]
pub(crate) fn store_quoted_ipv4_addresses<P: Packet>(
    packet: &mut P,
    network: usize,
    addresses: [AddrV4; 2],
    delta: u32,
) -> Result<(), DropReason> {
    let checksum = packet.load(network + IPV4_CHECKSUM);
    let checksum = checksum.ok_or(DropReason::RewriteFailed)?;
    store_ipv4_addresses(packet, network, checksum, addresses, delta)
}

/// The same where another checksum balances them.
#[inline(always)]
pub(crate) fn store_covered_ipv6_addresses<P: Packet>(
    packet: &mut P,
    network: usize,
    addresses: [AddrV6; 2],
) -> Result<(), DropReason> {
    packet.store(network + IPV6_ADDRESSES, addresses)
}

/// Where a transport header has its checksum. Packets of SCTP don't come here.
#[inline(always)]
pub(crate) const fn checksum_offset(proto: Proto) -> usize {
    match proto {
        Proto::Tcp => TCP_CHECKSUM,
        Proto::Udp | Proto::Sctp => UDP_CHECKSUM,
    }
}

/// Over IPv6 no datagram is without a checksum (RFC 8200 section 8.1), so no sum may become zero there
/// either.
#[inline(always)]
pub(crate) const fn zero_checksum(proto: Proto) -> Zero {
    match proto {
        Proto::Tcp => Zero::Sum,
        Proto::Udp | Proto::Sctp => Zero::NoChecksum,
    }
}
