//! ICMP echo.

use super::client::invalid;
use crate::cluster::Namespace;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

const PAYLOAD: &[u8; 24] = b"are you there, they say?";

/// Sends one echo request and waits for its answer; returns how long that took.
///
/// # Errors
/// When no answer comes in time, or its bytes are not those of the question.
pub fn ping(namespace: &Namespace, to: IpAddr, timeout: Duration) -> io::Result<Duration> {
    let protocol = if to.is_ipv4() {
        Protocol::ICMPV4
    } else {
        Protocol::ICMPV6
    };
    let domain = Domain::for_address((to, 0).into());
    let mut socket = namespace.run(|| Socket::new(domain, Type::RAW, Some(protocol)))??;
    socket.connect(&SocketAddr::new(to, 0).into())?;
    socket.set_read_timeout(Some(timeout))?;
    let start = Instant::now();
    let (request, reply) = (message(kinds(to).0), message(kinds(to).1));
    socket.send(&request)?;
    while start.elapsed() < timeout {
        let mut buffer = [0; 256];
        let length = socket.read(&mut buffer)?;
        let found = payload(to, &buffer[..length]);
        // The same socket may be shown other messages, such as those of neighbour discovery.
        if found.first() == reply.first() {
            let same = found.get(4..) == reply.get(4..);
            let error = invalid("the answer's bytes are others");
            return same.then(|| start.elapsed()).ok_or(error);
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Types of request and answer.
fn kinds(to: IpAddr) -> (u8, u8) {
    match to {
        IpAddr::V4(_) => (8, 0),
        IpAddr::V6(_) => (128, 129),
    }
}

/// What follows the IP header, which only raw sockets of IPv4 are shown.
fn payload(from: IpAddr, packet: &[u8]) -> &[u8] {
    match from {
        IpAddr::V4(_) => {
            let header = packet.first().map_or(0, |byte| usize::from(byte & 15) * 4);
            packet.get(header..).unwrap_or_default()
        }
        IpAddr::V6(_) => packet,
    }
}

/// With a checksum that is right for IPv4; for ICMPv6 the kernel writes it.
fn message(kind: u8) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0, 0x4f, 0x65, 0, 1];
    bytes.extend_from_slice(PAYLOAD);
    let sum = super::flood::checksum(&bytes).to_be_bytes();
    bytes[2..4].copy_from_slice(&sum);
    bytes
}
