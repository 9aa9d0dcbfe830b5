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
    summed: bool,
}

/// A TCP segment of an established connection, from one socket to another.
pub fn tcp(src: &str, dst: &str) -> PacketBuilder {
    PacketBuilder::new(Proto::Tcp, src, dst)
}

/// A UDP datagram from one socket to another.
pub fn udp(src: &str, dst: &str) -> PacketBuilder {
    PacketBuilder::new(Proto::Udp, src, dst)
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
            Proto::Tcp => 16,
            Proto::Udp => 6,
        };
        let (src, dst) = (self.src.ip(), self.dst.ip());
        let proto = self.proto.number();
        if self.summed {
            let partial = pseudo_header(src, dst, proto, transport.len());
            let sum = internet_checksum(&transport, partial);
            let sum = if self.proto == Proto::Udp && sum == 0 {
                0xffff
            } else {
                sum
            };
            transport[field..field + 2].copy_from_slice(&sum.to_ne_bytes());
        }
        let mut bytes = ethernet(src);
        let options = &self.options;
        let length = transport.len();
        bytes.extend(network(
            src,
            dst,
            proto,
            0x1234,
            self.fragment,
            options,
            length,
        ));
        bytes.extend(transport);
        bytes
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
