//! A flood of connections that nobody means.

use crate::cluster::Namespace;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Where the segments claim to come from: addresses for benchmarks (RFC 2544). Whoever is flooded
/// needs a route there, and whoever floods must not answer.
pub const FLOOD_SOURCES: &str = "198.18.0.0/15";
const FIRST_SOURCE: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// Ports that are used of each address.
const PORTS: u32 = 16;

/// Sends the first segment of a TCP connection from each of the sources with these numbers, up to two
/// million; returns how many were sent when all were, or `limit` was over.
///
/// # Errors
/// When there can be no raw socket, or no route leads there.
pub fn syn_flood(
    namespace: &Namespace,
    to: SocketAddrV4,
    numbers: Range<u32>,
    limit: Duration,
) -> io::Result<u32> {
    let socket = namespace
        .run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW))))??;
    socket.set_header_included_v4(true)?;
    socket.connect(&to.into())?;
    let (start, mut sent) = (Instant::now(), 0);
    for number in numbers {
        if start.elapsed() > limit {
            break;
        }
        // A full queue loses segments, as a flood may.
        if socket.send(&segment(source(number), to)).is_ok() {
            sent += 1;
        }
    }
    Ok(sent)
}

const IPPROTO_RAW: i32 = 255;

fn source(number: u32) -> SocketAddrV4 {
    let address = Ipv4Addr::from(FIRST_SOURCE + number / PORTS);
    let port = u16::try_from(1024 + number % PORTS).unwrap_or(u16::MAX);
    SocketAddrV4::new(address, port)
}

/// IP header, whose checksum the kernel writes, and TCP header with SYN.
fn segment(from: SocketAddrV4, to: SocketAddrV4) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[..12].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    bytes[12..16].copy_from_slice(&from.ip().octets());
    bytes[16..20].copy_from_slice(&to.ip().octets());
    bytes[20..22].copy_from_slice(&from.port().to_be_bytes());
    bytes[22..24].copy_from_slice(&to.port().to_be_bytes());
    // Header of 20 bytes, SYN, a window.
    bytes[32..36].copy_from_slice(&[0x50, 0x02, 0xff, 0xff]);
    // Of the pseudo header only protocol and length are missing.
    let sum = fold(sum(&bytes[12..]) + 6 + 20);
    bytes[36..38].copy_from_slice(&(!sum).to_be_bytes());
    bytes
}

/// The Internet checksum (RFC 1071).
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    words
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)))
        .sum()
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_rfc() {
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
        assert_eq!(checksum(&[0xff]), 0x00ff);
    }

    #[test]
    fn sources_differ() {
        let all: std::collections::BTreeSet<_> = (0..100_000).map(source).collect();
        assert_eq!(all.len(), 100_000);
    }
}
