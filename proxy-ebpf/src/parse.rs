//! Bytes to headers, once per packet and hook.

use crate::extension::is_extension;
use crate::network::{FRAGMENT_MASK, Ipv4Header, Ipv6Header};
use crate::packet::Packet;
use bytemuck::{Pod, Zeroable};
use core::mem::MaybeUninit;
use proxy_common::{AddrV4, AddrV6, Address, Port, Proto, Tuple, Verdict};

/// Where headers are put: made once, and not moved.
pub type Place<A> = MaybeUninit<Headers<A>>;

/// What a packet says of itself.
///
/// In this order: the verifier keeps no bounds of what does not begin where eight bytes do, and of
/// `proto`, `flags` and `transport` it should keep none. See [`crate::unusual`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Headers<A> {
    /// Addresses, ports and protocol.
    pub tuple: Tuple<A>,
    /// The network header's checksum as it lies in the packet; any number for IPv6, which has none.
    pub header_checksum: u16,
    /// TCP or UDP.
    pub proto: Proto,
    /// What a TCP segment does to its connection; nothing for UDP.
    pub flags: TcpFlags,
    transport: u16,
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

    /// An answer to what the other side has sent, and not the end.
    #[inline(always)]
    pub const fn acknowledges(self) -> bool {
        self.0 & (Self::SYN | Self::RST | Self::ACK) == Self::ACK
    }

    /// The sender has given the connection up: nobody will answer.
    #[inline(always)]
    pub const fn resets(self) -> bool {
        self.0 & Self::RST != 0
    }
}

impl<A: Address> Headers<A> {
    /// Of a packet that holds its transport header.
    #[inline(always)]
    pub(crate) fn new(
        [src, dst]: [A; 2],
        header_checksum: u16,
        proto: Proto,
        transport: usize,
        (ports, flags): (Ports, TcpFlags),
    ) -> Self {
        Self {
            tuple: Tuple::new(proto, (src, ports.src), (dst, ports.dst)),
            header_checksum,
            proto,
            flags,
            transport: transport as u16,
        }
    }

    /// Nothing is known yet.
    #[inline(always)]
    pub fn unread() -> Self {
        let nobody = (Zeroable::zeroed(), Zeroable::zeroed());
        Self::of_later_fragment(Tuple::new(Proto::Udp, nobody, nobody), Proto::Udp, 0)
    }

    /// Of a fragment that does not hold its transport header, whose ports are known from elsewhere.
    #[inline(always)]
    pub(crate) fn of_later_fragment(tuple: Tuple<A>, proto: Proto, header_checksum: u16) -> Self {
        Self {
            tuple,
            header_checksum,
            proto,
            flags: TcpFlags(0),
            transport: 0,
        }
    }
}

impl<A> Headers<A> {
    /// Offset of the transport header in bytes, if it is in the packet.
    #[inline(always)]
    pub fn transport(&self) -> Option<usize> {
        // The bound is for the verifier: more extension headers are not stepped over.
        const BOUND: u16 = 0x3fff;
        (self.transport != 0).then_some(usize::from(self.transport & BOUND))
    }

    /// Whether the packet shows that its sender has seen an answer: any of UDP, for want of better.
    #[inline(always)]
    pub fn confirms(&self) -> bool {
        self.proto == Proto::Udp || self.flags.acknowledges()
    }

    /// Whether the packet may be the first of a flow: any of UDP, a SYN of TCP.
    #[inline(always)]
    pub fn starts_flow(&self) -> bool {
        (self.proto == Proto::Udp && self.transport != 0) || self.flags.opens()
    }
}

/// The start of both TCP (RFC 9293 section 3.1) and UDP (RFC 768).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Ports {
    pub(crate) src: Port,
    pub(crate) dst: Port,
}

pub(crate) const TCP_LENGTH: usize = 20;
const UDP_LENGTH: usize = 8;
const TCP_FLAGS: usize = 13;

/// Finds the headers of an IPv4 packet.
#[inline(always)]
pub fn ipv4<'a, P: Packet>(
    packet: &mut P,
    place: &'a mut Place<AddrV4>,
) -> Result<&'a mut Headers<AddrV4>, Verdict> {
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
    let proto = Proto::of_packet(ip.protocol).ok_or_else(|| untranslated(ip.protocol))?;
    let length = usize::from(u16::from_be(ip.total_length));
    // 0: larger than 64 KiB, on its way to be segmented (BIG TCP, Linux 6.3).
    if length != 0 && length < ihl + transport_length(proto) {
        return Err(Verdict::Malformed);
    }
    let transport = P::NETWORK + ihl;
    let header = transport_header(packet, transport, proto)?;
    let headers = Headers::new([ip.src, ip.dst], ip.checksum, proto, transport, header);
    Ok(place.write(headers))
}

/// Finds the headers of an IPv6 packet.
#[inline(always)]
pub fn ipv6<'a, P: Packet>(
    packet: &mut P,
    place: &'a mut Place<AddrV6>,
) -> Result<&'a mut Headers<AddrV6>, Verdict> {
    packet.make_readable(P::NETWORK + size_of::<Ipv6Header>() + TCP_LENGTH);
    let ip: Ipv6Header = packet.load(P::NETWORK).ok_or(Verdict::Malformed)?;
    if u32::from_be(ip.version_class_flow) >> 28 != 6 {
        return Err(Verdict::Malformed);
    }
    if is_extension(ip.next_header) {
        return Err(Verdict::ExtensionHeader);
    }
    let proto = Proto::of_packet(ip.next_header).ok_or_else(|| untranslated(ip.next_header))?;
    let length = usize::from(u16::from_be(ip.payload_length));
    // 0: a jumbogram, on its way to be segmented (BIG TCP, Linux 5.19).
    if length != 0 && length < transport_length(proto) {
        return Err(Verdict::Malformed);
    }
    let transport = P::NETWORK + size_of::<Ipv6Header>();
    // In the place of a checksum, a number that the verifier can't know.
    let any = ip.payload_length;
    let header = transport_header(packet, transport, proto)?;
    let headers = Headers::new([ip.src, ip.dst], any, proto, transport, header);
    Ok(place.write(headers))
}

/// Why packets of a protocol are not translated. Those of SCTP have a checksum of another kind.
#[inline(always)]
pub(crate) const fn untranslated(proto: u8) -> Verdict {
    if proto == Proto::Sctp.number() {
        Verdict::Sctp
    } else {
        Verdict::Unsupported
    }
}

/// Length of a transport header without options. Of SCTP it is what has the ports.
#[inline(always)]
pub(crate) const fn transport_length(proto: Proto) -> usize {
    match proto {
        Proto::Tcp => TCP_LENGTH,
        Proto::Udp | Proto::Sctp => UDP_LENGTH,
    }
}

/// Ports and flags.
#[inline(always)]
pub(crate) fn transport_header<P: Packet>(
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
        Proto::Udp | Proto::Sctp => {
            let header: [u32; UDP_LENGTH / 4] = packet.load(offset).ok_or(Verdict::Malformed)?;
            Ok((bytemuck::cast(header[0]), TcpFlags(0)))
        }
    }
}
