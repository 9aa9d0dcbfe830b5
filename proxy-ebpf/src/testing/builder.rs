//! Packets from scratch, with checksums summed over every byte.

use proxy_common::Proto;
use std::net::{IpAddr, SocketAddr};

/// FIN, as in the flags byte of a TCP header.
const FIN: u8 = 0x01;
/// RST, as in the flags byte of a TCP header.
const RST: u8 = 0x04;
/// SYN, as in the flags byte of a TCP header.
const SYN: u8 = 0x02;
/// ACK, as in the flags byte of a TCP header.
const ACK: u8 = 0x10;

/// A packet to be built; Ethernet, IPv4 or IPv6 by its addresses, TCP or UDP.
#[derive(Clone, Debug)]
pub struct PacketBuilder {
    proto: Proto,
    src: SocketAddr,
    dst: SocketAddr,
    flags: u8,
    options: Vec<u8>,
    payload: Vec<u8>,
    fragment: u16,
    id: u16,
    extensions: Vec<(u8, Vec<u8>)>,
    cut: Cut,
    summed: bool,
}

/// What is left out of a packet after its checksum was summed.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Nothing,
    /// The transport header.
    Front,
    /// Whatever comes after so many bytes of the transport header.
    After(usize),
}

/// A TCP segment of an established connection, from one socket to another.
pub fn tcp(src: &str, dst: &str) -> PacketBuilder {
    PacketBuilder::new(Proto::Tcp, src, dst)
}

/// A UDP datagram from one socket to another.
pub fn udp(src: &str, dst: &str) -> PacketBuilder {
    PacketBuilder::new(Proto::Udp, src, dst)
}

/// A first packet of SCTP (INIT), from one socket to another, whose checksum is wrong.
pub fn sctp(src: &str, dst: &str) -> PacketBuilder {
    PacketBuilder::new(Proto::Sctp, src, dst)
}

impl PacketBuilder {
    fn new(proto: Proto, src: &str, dst: &str) -> Self {
        let socket = |text: &str| text.parse().unwrap_or_else(|_| panic!("no socket: {text}"));
        Self {
            proto,
            src: socket(src),
            dst: socket(dst),
            flags: ACK,
            options: Vec::new(),
            payload: b"ferrule".to_vec(),
            fragment: 0,
            id: 0x1234,
            extensions: Vec::new(),
            cut: Cut::Nothing,
            summed: true,
        }
    }

    /// With the SYN flag, and no ACK.
    pub fn syn(self) -> Self {
        Self { flags: SYN, ..self }
    }

    /// With SYN and ACK.
    pub fn syn_ack(self) -> Self {
        Self {
            flags: SYN | ACK,
            ..self
        }
    }

    /// With FIN and ACK.
    pub fn fin(self) -> Self {
        Self {
            flags: FIN | ACK,
            ..self
        }
    }

    /// With RST.
    pub fn rst(self) -> Self {
        Self { flags: RST, ..self }
    }

    /// With this payload.
    pub fn payload(self, payload: &[u8]) -> Self {
        Self {
            payload: payload.to_vec(),
            ..self
        }
    }

    /// With IPv4 options, a multiple of four bytes.
    pub fn options(self, options: &[u8]) -> Self {
        assert!(
            options.len().is_multiple_of(4) && options.len() <= 40,
            "IPv4 options"
        );
        Self {
            options: options.to_vec(),
            ..self
        }
    }

    /// With this in the flags and fragment offset field of IPv4, in host order.
    pub fn fragment(self, fragment: u16) -> Self {
        Self { fragment, ..self }
    }

    /// As a fragment of a datagram with this id, of IPv4 or IPv6 by its addresses. One with an offset, in
    /// units of eight bytes, has no transport header.
    pub fn part(self, id: u16, offset: u16, is_last: bool) -> Self {
        let cut = if offset == 0 {
            Cut::Nothing
        } else {
            Cut::Front
        };
        let packet = Self { id, cut, ..self };
        if packet.src.is_ipv4() {
            let more = if is_last { 0 } else { 0x2000 };
            return packet.fragment(offset | more);
        }
        let mut header = vec![0, 0];
        header.extend(((offset << 3) | u16::from(!is_last)).to_be_bytes());
        header.extend([0, 0]);
        header.extend(id.to_be_bytes());
        packet.extension(44, &header)
    }

    /// With one more IPv6 extension header, whose first byte is filled in.
    pub fn extension(mut self, number: u8, header: &[u8]) -> Self {
        assert!(header.len().is_multiple_of(8), "an extension header");
        self.extensions.push((number, header.to_vec()));
        self
    }

    /// Without what comes after so many bytes of the transport header.
    pub fn cut(self, length: usize) -> Self {
        Self {
            cut: Cut::After(length),
            ..self
        }
    }

    /// Whether it is a datagram.
    pub fn is_udp(&self) -> bool {
        self.proto == Proto::Udp
    }

    /// Without a UDP checksum.
    pub fn unsummed(self) -> Self {
        Self {
            summed: false,
            ..self
        }
    }

    /// The bytes, from the Ethernet header on.
    pub fn build(&self) -> Vec<u8> {
        let mut transport = self.transport();
        let field = match self.proto {
            Proto::Tcp => Some(16),
            Proto::Udp => Some(6),
            Proto::Sctp => None,
        };
        let (src, dst) = (self.src.ip(), self.dst.ip());
        let proto = self.proto.number();
        if let Some(field) = field.filter(|_| self.summed) {
            let partial = pseudo_header(src, dst, proto, transport.len());
            let sum = internet_checksum(&transport, partial);
            let sum = if self.proto == Proto::Udp && sum == 0 {
                0xffff
            } else {
                sum
            };
            transport[field..field + 2].copy_from_slice(&sum.to_ne_bytes());
        }
        match self.cut {
            Cut::Nothing => {}
            Cut::Front => transport = self.payload.clone(),
            Cut::After(length) => transport.truncate(length),
        }
        let (proto, options) = self.between();
        let mut bytes = ethernet(src);
        let length = transport.len();
        bytes.extend(network(
            src,
            dst,
            proto,
            self.id,
            self.fragment,
            &options,
            length,
        ));
        bytes.extend(transport);
        bytes
    }

    /// The protocol that the network header names, and what comes between that and the transport header.
    fn between(&self) -> (u8, Vec<u8>) {
        let mut next = self.proto.number();
        let mut headers = Vec::new();
        for (number, header) in self.extensions.iter().rev() {
            headers.splice(0..0, header.iter().copied());
            headers[0] = next;
            next = *number;
        }
        headers.splice(0..0, self.options.iter().copied());
        (next, headers)
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.src.port().to_be_bytes());
        bytes.extend(self.dst.port().to_be_bytes());
        match self.proto {
            Proto::Tcp => {
                bytes.extend([
                    0, 0, 0, 1, 0, 0, 0, 2, 0x50, self.flags, 0x20, 0, 0, 0, 0, 0,
                ]);
            }
            Proto::Udp => {
                bytes.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                bytes.extend([0, 0]);
            }
            // No verification tag, no checksum, and a chunk without content (RFC 9260 section 3).
            Proto::Sctp => {
                bytes.extend([0; 8]);
                bytes.extend([1, 0, 0, 4]);
            }
        }
        bytes.extend(&self.payload);
        bytes
    }
}

/// An Ethernet header for packets from an address.
pub(super) fn ethernet(src: IpAddr) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    bytes.extend(if src.is_ipv4() {
        [0x08, 0x00]
    } else {
        [0x86, 0xdd]
    });
    bytes
}

/// A network header in front of so many bytes; IPv6 has neither `id` nor `fragment`, and its options are
/// extension headers, of which `proto` is the first.
pub(super) fn network(
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    id: u16,
    fragment: u16,
    options: &[u8],
    payload: usize,
) -> Vec<u8> {
    let length = (options.len() + payload) as u16;
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let ihl = 20 + options.len();
            let mut bytes = vec![0x40 | (ihl / 4) as u8, 0];
            bytes.extend((20 + length).to_be_bytes());
            bytes.extend(id.to_be_bytes());
            bytes.extend(fragment.to_be_bytes());
            bytes.extend([64, proto, 0, 0]);
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
            bytes.extend(options);
            let sum = internet_checksum(&bytes, 0);
            bytes[10..12].copy_from_slice(&sum.to_ne_bytes());
            bytes
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut bytes = vec![0x60, 0, 0, 0];
            bytes.extend(length.to_be_bytes());
            bytes.extend([proto, 64]);
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
            bytes.extend(options);
            bytes
        }
        (src, dst) => panic!("{src} and {dst} are of two families"),
    }
}

/// The one's complement sum of the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1).
pub(super) fn pseudo_header(src: IpAddr, dst: IpAddr, proto: u8, transport: usize) -> u32 {
    let mut bytes = Vec::new();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            bytes.extend([src.octets(), dst.octets()].concat());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            bytes.extend([src.octets(), dst.octets()].concat());
        }
        (src, dst) => panic!("{src} and {dst} are of two families"),
    }
    bytes.extend((transport as u32).to_be_bytes());
    bytes.extend([0, 0, 0, proto]);
    u32::from(!internet_checksum(&bytes, 0))
}

/// The Internet checksum of `bytes` (RFC 1071) on top of a partial sum, as it lies in memory.
pub fn internet_checksum(bytes: &[u8], partial: u32) -> u16 {
    let word = |pair: &[u8]| u32::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    let mut sum = bytes.chunks(2).map(word).sum::<u32>() + partial;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
