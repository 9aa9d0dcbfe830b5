//! ICMP errors from scratch, around packets of [`PacketBuilder`].
//!
//! [`PacketBuilder`]: super::PacketBuilder

use super::builder::{ethernet, internet_checksum, network, pseudo_header};
use std::net::{IpAddr, SocketAddr};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// An ICMP error to be built; of version 6 if its addresses are.
#[derive(Clone, Debug)]
pub struct ErrorBuilder {
    src: IpAddr,
    dst: IpAddr,
    kind: u8,
    code: u8,
    /// What follows the checksum and comes before the quoted packet.
    body: Vec<u8>,
    quote: Vec<u8>,
    is_sent_back: bool,
}

/// "Port unreachable" from one address to another; ports of sockets are left out.
pub fn unreachable(src: &str, dst: &str) -> ErrorBuilder {
    let address = |text: &str| match text.parse::<SocketAddr>() {
        Ok(socket) => socket.ip(),
        Err(_) => text
            .parse()
            .unwrap_or_else(|_| panic!("no address: {text}")),
    };
    let src = address(src);
    let (kind, code) = if src.is_ipv4() { (3, 3) } else { (1, 4) };
    ErrorBuilder {
        src,
        dst: address(dst),
        kind,
        code,
        body: vec![0; 4],
        quote: Vec::new(),
        is_sent_back: false,
    }
}

impl ErrorBuilder {
    /// Of another type, with this code and these bytes before the quoted packet.
    pub fn kind(self, kind: u8, code: u8, body: &[u8]) -> Self {
        Self {
            kind,
            code,
            body: body.to_vec(),
            ..self
        }
    }

    /// About this packet, of which so many bytes are quoted from the network header on.
    pub fn quote(self, packet: impl Into<Vec<u8>>, length: usize) -> Self {
        let packet = packet.into();
        let end = packet.len().min(ETHERNET + length);
        Self {
            quote: packet[ETHERNET..end].to_vec(),
            ..self
        }
    }

    /// As a program makes it of the quoted packet.
    pub fn sent_back(self) -> Self {
        Self {
            is_sent_back: true,
            ..self
        }
    }

    /// The bytes, from the Ethernet header on.
    pub fn build(&self) -> Vec<u8> {
        let mut message = vec![self.kind, self.code, 0, 0];
        message.extend(&self.body);
        message.extend(&self.quote);
        let (proto, partial) = match self.src {
            IpAddr::V4(_) => (1, 0),
            IpAddr::V6(_) => (58, pseudo_header(self.src, self.dst, 58, message.len())),
        };
        let sum = internet_checksum(&message, partial);
        message[2..4].copy_from_slice(&sum.to_ne_bytes());
        let mut bytes = ethernet(self.src);
        let (id, fragment) = if self.is_sent_back {
            let (destination, source) = bytes[..12].split_at_mut(6);
            destination.swap_with_slice(source);
            (0, 0x4000)
        } else {
            (0x1234, 0)
        };
        bytes.extend(network(
            self.src,
            self.dst,
            proto,
            id,
            fragment,
            &[],
            message.len(),
        ));
        bytes.extend(message);
        bytes
    }
}

impl From<ErrorBuilder> for Vec<u8> {
    fn from(error: ErrorBuilder) -> Self {
        error.build()
    }
}
