//! Network headers, of packets and of what ICMP errors quote.

use crate::packet::Packet;
use bytemuck::{Pod, Zeroable};
use proxy_common::{AddrV4, AddrV6};

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
/// The fragment offset alone.
const OFFSET_MASK: u16 = 0x1fff;

/// A network header, of a packet or of what an error quotes.
#[derive(Clone, Copy, Debug)]
pub struct Network<A> {
    /// Source and destination.
    pub addresses: [A; 2],
    /// What follows it.
    pub proto: u8,
    /// Its length in bytes.
    pub length: usize,
    /// Length of the packet, this header included.
    pub total: usize,
    /// Whether the packet is a fragment, and not the first one.
    pub is_later_fragment: bool,
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
            length,
            total: usize::from(u16::from_be(header.total_length)),
            is_later_fragment: header.fragment & OFFSET_MASK.to_be() != 0,
        })
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
            length: size_of::<Self>(),
            total: size_of::<Self>() + usize::from(u16::from_be(header.payload_length)),
            is_later_fragment: false,
        })
    }
}
