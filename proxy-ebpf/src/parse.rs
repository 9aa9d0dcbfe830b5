//! Bytes to headers, once per packet and hook.

use crate::network::{FRAGMENT_MASK, Ipv4Header, Ipv6Header};
use crate::packet::Packet;
use bytemuck::{Pod, Zeroable};
use proxy_common::{AddrV4, AddrV6, Port, Proto, Tuple, Verdict};

/// What a packet says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<A> {
    /// Addresses, ports and protocol.
    pub tuple: Tuple<A>,
    /// TCP or UDP.
    pub proto: Proto,
    /// Offset of the transport header in bytes.
    pub transport: usize,
    /// The network header's checksum as it lies in the packet; 0 for IPv6, which has none.
    pub header_checksum: u16,
    /// What a TCP segment does to its connection; nothing for UDP.
    pub flags: TcpFlags,
}

/// The flags of a TCP segment that matter (RFC 9293 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags(u8);

impl TcpFlags {
    const FIN: u8 = 0x01;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;

    /// The first segment of a connection.
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }

    /// The answer to the first segment.
    #[inline(always)]
    pub const fn accepts(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN | Self::ACK
    }

    /// The last segment of an orderly end.
    #[inline(always)]
    pub const fn finishes(self) -> bool {
        self.0 & Self::FIN != 0
    }

    /// Connections begin or end with it.
    #[inline(always)]
    pub const fn changes_state(self) -> bool {
        self.0 & (Self::FIN | Self::SYN | Self::RST) != 0
    }

    /// The sender has given the connection up: nobody will answer.
    #[inline(always)]
    pub const fn resets(self) -> bool {
        self.0 & Self::RST != 0
    }
}

impl<A> Headers<A> {
    /// Whether the packet may be the first of a flow: any of UDP, a SYN of TCP.
    #[inline(always)]
    pub fn starts_flow(&self) -> bool {
        self.proto == Proto::Udp || self.flags.opens()
    }
}

/// The start of both TCP (RFC 9293 section 3.1) and UDP (RFC 768).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Ports {
    pub(crate) src: Port,
    pub(crate) dst: Port,
}

/// IPv6 extension header (RFC 8200 section 4.5).
const NEXT_HEADER_FRAGMENT: u8 = 44;
const TCP_LENGTH: usize = 20;
const UDP_LENGTH: usize = 8;
const TCP_FLAGS: usize = 13;

/// Finds the headers of an IPv4 packet.
#[inline(always)]
pub fn ipv4<P: Packet>(packet: &mut P) -> Result<Headers<AddrV4>, Verdict> {
    packet.make_readable(P::NETWORK + size_of::<Ipv4Header>() + TCP_LENGTH);
    let ip: Ipv4Header = packet.load(P::NETWORK).ok_or(Verdict::Malformed)?;
    let ihl = usize::from(ip.version_ihl & 0xf) << 2;
    if ip.version_ihl >> 4 != 4 || ihl < size_of::<Ipv4Header>() {
        return Err(Verdict::Malformed);
    }
    if ihl > size_of::<Ipv4Header>() {
        packet.make_readable(P::NETWORK + ihl + TCP_LENGTH);
    }
    if ip.fragment & FRAGMENT_MASK.to_be() != 0 {
        return Err(Verdict::Fragment);
    }
    let proto = Proto::from_number(ip.protocol).ok_or(Verdict::Unsupported)?;
    let length = usize::from(u16::from_be(ip.total_length));
    // 0: larger than 64 KiB, on its way to be segmented (BIG TCP, Linux 6.3).
    if length != 0 && length < ihl + transport_length(proto) {
        return Err(Verdict::Malformed);
    }
    let transport = P::NETWORK + ihl;
    let (ports, flags) = transport_header(packet, transport, proto)?;
    let tuple = Tuple::new(proto, (ip.src, ports.src), (ip.dst, ports.dst));
    Ok(Headers {
        tuple,
        proto,
        transport,
        header_checksum: ip.checksum,
        flags,
    })
}

/// Finds the headers of an IPv6 packet.
#[inline(always)]
pub fn ipv6<P: Packet>(packet: &mut P) -> Result<Headers<AddrV6>, Verdict> {
    packet.make_readable(P::NETWORK + size_of::<Ipv6Header>() + TCP_LENGTH);
    let ip: Ipv6Header = packet.load(P::NETWORK).ok_or(Verdict::Malformed)?;
    if u32::from_be(ip.version_class_flow) >> 28 != 6 {
        return Err(Verdict::Malformed);
    }
    if ip.next_header == NEXT_HEADER_FRAGMENT {
        return Err(Verdict::Fragment);
    }
    let proto = Proto::from_number(ip.next_header).ok_or(Verdict::Unsupported)?;
    let length = usize::from(u16::from_be(ip.payload_length));
    // 0: a jumbogram, on its way to be segmented (BIG TCP, Linux 5.19).
    if length != 0 && length < transport_length(proto) {
        return Err(Verdict::Malformed);
    }
    let transport = P::NETWORK + size_of::<Ipv6Header>();
    let (ports, flags) = transport_header(packet, transport, proto)?;
    let tuple = Tuple::new(proto, (ip.src, ports.src), (ip.dst, ports.dst));
    Ok(Headers {
        tuple,
        proto,
        transport,
        header_checksum: 0,
        flags,
    })
}

/// Length of a transport header without options.
#[inline(always)]
pub(crate) const fn transport_length(proto: Proto) -> usize {
    match proto {
        Proto::Tcp => TCP_LENGTH,
        Proto::Udp => UDP_LENGTH,
    }
}

#[inline(always)]
fn transport_header<P: Packet>(
    packet: &P,
    offset: usize,
    proto: Proto,
) -> Result<(Ports, TcpFlags), Verdict> {
    match proto {
        Proto::Tcp => {
            let header: [u32; TCP_LENGTH / 4] = packet.load(offset).ok_or(Verdict::Malformed)?;
            let ports: Ports = bytemuck::cast(header[0]);
            let flags = header[TCP_FLAGS / 4].to_ne_bytes()[TCP_FLAGS % 4];
            Ok((ports, TcpFlags(flags)))
        }
        Proto::Udp => {
            let header: [u32; UDP_LENGTH / 4] = packet.load(offset).ok_or(Verdict::Malformed)?;
            Ok((bytemuck::cast(header[0]), TcpFlags(0)))
        }
    }
}
