//! Network headers, of packets and of what ICMP errors quote.

use crate::checksum::{self, Delta};
use crate::packet::Packet;
use bytemuck::{Pod, Zeroable};
use core::mem::offset_of;
use proxy_common::{AddrV4, AddrV6, DropReason};

/// RFC 791 section 3.1.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Ipv4Header {
    pub(crate) version_ihl: u8,
    pub(crate) tos: u8,
    pub(crate) total_length: u16,
    pub(crate) id: u16,
    pub(crate) fragment: u16,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) checksum: u16,
    pub(crate) src: AddrV4,
    pub(crate) dst: AddrV4,
}

/// RFC 8200 section 3.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Ipv6Header {
    pub(crate) version_class_flow: u32,
    pub(crate) payload_length: u16,
    pub(crate) next_header: u8,
    pub(crate) hop_limit: u8,
    pub(crate) src: AddrV6,
    pub(crate) dst: AddrV6,
}

/// The more-fragments flag and the fragment offset of `Ipv4Header::fragment`, in host order.
pub(crate) const FRAGMENT_MASK: u16 = 0x3fff;
/// The fragment offset alone, and the flag.
const OFFSET_MASK: u16 = 0x1fff;
const MORE_FRAGMENTS: u16 = 0x2000;

/// Which part of a datagram a packet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment, with the transport header or the start of one.
    First,
    /// A fragment without a transport header.
    Later,
}

/// A network header, of a packet or of what an error quotes.
///
/// In this order: see [`crate::unusual`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Network<A> {
    /// Source and destination.
    pub addresses: [A; 2],
    /// What parts of the datagram have in common, as it lies in the packet.
    pub id: u32,
    total: u32,
    /// Its checksum; 0 for IPv6, which has none.
    pub checksum: u16,
    length: u16,
    /// What follows it.
    pub proto: u8,
    /// Which part of a datagram the packet has.
    pub part: Part,
}

impl<A> Network<A> {
    /// Its length in bytes.
    #[inline(always)]
    pub fn length(&self) -> usize {
        // The bound is for the verifier: more extension headers are not stepped over.
        usize::from(self.length & 0x3fff)
    }

    /// Length of the packet, this header included.
    #[inline(always)]
    pub fn total(&self) -> usize {
        self.total as usize
    }

    /// Makes another header part of this one.
    #[inline(always)]
    pub(crate) fn extend(&mut self, length: u16, next: u8) {
        self.length += length;
        self.proto = next;
    }
}

/// A length as it lies in a header. 0 is longer than 64 KiB, on its way to be segmented (BIG TCP: IPv6 since
/// Linux 5.19, there behind a hop-by-hop header; IPv4 since 6.3).
#[inline(always)]
const fn length_of(field: u16) -> u32 {
    u16::from_be(field).wrapping_sub(1) as u32 + 1
}

impl Ipv4Header {
    /// The header at an offset, if it is one.
    #[inline(always)]
    pub(crate) fn read<P: Packet>(packet: &P, at: usize) -> Option<Network<AddrV4>> {
        let header: Self = packet.load(at)?;
        let length = usize::from(header.version_ihl & 0xf) << 2;
        if header.version_ihl >> 4 != 4 || length < size_of::<Self>() {
            return None;
        }
        Some(Network {
            addresses: [header.src, header.dst],
            proto: header.protocol,
            length: length as u16,
            total: length_of(header.total_length),
            checksum: header.checksum,
            part: part(header.fragment, OFFSET_MASK, MORE_FRAGMENTS),
            id: header.id.into(),
        })
    }

    /// How many hops the packet may still go.
    #[inline(always)]
    pub(crate) fn hops_left<P: Packet>(packet: &P) -> Option<u8> {
        packet.load(P::NETWORK + offset_of!(Self, ttl))
    }

    /// Takes one off, which the header's checksum balances.
    #[inline(always)]
    pub(crate) fn age<P: Packet>(packet: &mut P) -> Result<(), DropReason> {
        const ONE: u16 = 0x0100;
        let at = P::NETWORK + offset_of!(Self, ttl);
        let words: [u16; 2] = packet.load(at).ok_or(DropReason::RewriteFailed)?;
        let [old, checksum] = words;
        let new = u16::from_be(old).wrapping_sub(ONE).to_be();
        let delta = Delta::default().replace(old.into(), new.into());
        let checksum = checksum::adjusted(checksum, delta.folded());
        packet.store(at, [new, checksum])
    }
}

impl Ipv6Header {
    /// The header at an offset, if it is one.
    #[inline(always)]
    pub(crate) fn read<P: Packet>(packet: &P, at: usize) -> Option<Network<AddrV6>> {
        let header: Self = packet.load(at)?;
        if u32::from_be(header.version_class_flow) >> 28 != 6 {
            return None;
        }
        Some(Network {
            addresses: [header.src, header.dst],
            proto: header.next_header,
            length: size_of::<Self>() as u16,
            total: size_of::<Self>() as u32 + length_of(header.payload_length),
            checksum: 0,
            part: Part::Whole,
            id: 0,
        })
    }

    /// How many hops the packet may still go.
    #[inline(always)]
    pub(crate) fn hops_left<P: Packet>(packet: &P) -> Option<u8> {
        packet.load(P::NETWORK + offset_of!(Self, hop_limit))
    }

    /// Takes one off.
    #[inline(always)]
    pub(crate) fn age<P: Packet>(packet: &mut P) -> Result<(), DropReason> {
        let old = Self::hops_left(packet).ok_or(DropReason::RewriteFailed)?;
        let at = P::NETWORK + offset_of!(Self, hop_limit);
        packet.store_uncovered(at, old.wrapping_sub(1))
    }
}

/// Which part a field of offset and flag tells of.
#[inline(always)]
pub(crate) const fn part(field: u16, offset: u16, more: u16) -> Part {
    if field & offset.to_be() != 0 {
        Part::Later
    } else if field & more.to_be() != 0 {
        Part::First
    } else {
        Part::Whole
    }
}
