//! Closing sockets by sock_diag (SOCK_DESTROY, Linux 4.9 with CONFIG_INET_DIAG_DESTROY).

use bytemuck::{Pod, Zeroable};
use proxy_common::{AddrV4, AddrV6, Connected, Port, SocketAddress};
use rtnetlink::sys::protocols::NETLINK_SOCK_DIAG;
use rtnetlink::sys::{Socket, SocketAddr};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

/// The kernel's `struct nlmsghdr`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// The kernel's `struct inet_diag_sockid`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct SocketId {
    source_port: u16,
    port: u16,
    source: [u32; 4],
    destination: [u32; 4],
    device: u32,
    cookie: [u32; 2],
}

/// A header and the kernel's `struct inet_diag_req_v2`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Request {
    header: Header,
    family: u8,
    protocol: u8,
    extensions: u8,
    unused: u8,
    states: u32,
    id: SocketId,
}

/// The kernel's `struct inet_diag_msg`, as far as it is read.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Found {
    family: u8,
    state: u8,
    timer: u8,
    retransmissions: u8,
    id: SocketId,
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// Closed and listening sockets have no peer, and what waits for late packets has no application. The numbers
/// are those of TCP, also for UDP.
const CONNECTED: u32 = !(1 << TCP_TIME_WAIT | 1 << TCP_CLOSE | 1 << TCP_LISTEN);
const TCP_TIME_WAIT: u32 = 6;
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;

impl SocketId {
    const fn cookie(&self) -> u64 {
        (self.cookie[1] as u64) << 32 | self.cookie[0] as u64
    }

    /// Where it is connected to, as in a socket's storage.
    fn peer(&self, family: u8) -> SocketAddress {
        let port = Port::from_be(self.port);
        match i32::from(family) {
            libc::AF_INET => SocketAddress::v4(AddrV4::from_be(self.destination[0]), port),
            _ => SocketAddress::v6(AddrV6::from_be(self.destination), port),
        }
    }
}

impl Request {
    fn new(kind: u16, flags: u16, family: u8, protocol: u8, id: SocketId) -> Self {
        Self {
            header: Header {
                length: size_of::<Self>() as u32,
                kind,
                flags: NLM_F_REQUEST | flags,
                sequence: 0,
                port: 0,
            },
            family,
            protocol,
            extensions: 0,
            unused: 0,
            states: CONNECTED,
            id,
        }
    }
}

/// What has become of sockets.
#[derive(Debug, Default)]
pub(super) struct Closed {
    /// So many were closed.
    pub(super) count: u64,
    /// Why one was not, the last of those.
    pub(super) problem: Option<io::Error>,
}

impl Closed {
    /// Nothing stood in the way.
    pub(super) const fn all(count: u64) -> Self {
        Self {
            count,
            problem: None,
        }
    }
}

/// Closes these sockets in the network namespace of the thread, as far as they are there and still have this
/// peer. The kernel compares the cookie once more.
pub(super) fn close(wanted: &[Connected]) -> io::Result<Closed> {
    let backends = wanted.iter().map(|row| (row.cookie, row.peer.backend));
    let backends: BTreeMap<u64, SocketAddress> = backends.collect();
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    let mut closed = Closed::default();
    for family in [libc::AF_INET, libc::AF_INET6].map(|it| it as u8) {
        for protocol in [libc::IPPROTO_UDP, libc::IPPROTO_TCP].map(|it| it as u8) {
            let found = list(&socket, family, protocol);
            let found = found.unwrap_or_else(|error| {
                closed.problem = Some(error);
                Vec::new()
            });
            let is_wanted =
                |it: &&Found| backends.get(&it.id.cookie()) == Some(&it.id.peer(it.family));
            for found in found.iter().filter(is_wanted) {
                match destroy(&socket, *found, protocol) {
                    Ok(is_closed) => closed.count += u64::from(is_closed),
                    Err(error) => closed.problem = Some(error),
                }
            }
        }
    }
    Ok(closed)
}

/// All connected sockets of a kind.
fn list(socket: &Socket, family: u8, protocol: u8) -> io::Result<Vec<Found>> {
    let request = Request::new(
        SOCK_DIAG_BY_FAMILY,
        NLM_F_DUMP,
        family,
        protocol,
        SocketId::zeroed(),
    );
    send(socket, &request)?;
    let mut all = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        for (header, body) in messages(&datagram) {
            match header.kind {
                // This kernel has no such family.
                NLMSG_DONE | NLMSG_ERROR if matches!(code(body), 0 | libc::EAFNOSUPPORT) => {
                    return Ok(all);
                }
                NLMSG_DONE | NLMSG_ERROR => return Err(error(body)),
                _ => all.extend(read::<Found>(body)),
            }
        }
    }
}

/// Closes one, if it is still there.
fn destroy(socket: &Socket, found: Found, protocol: u8) -> io::Result<bool> {
    let request = Request::new(SOCK_DESTROY, NLM_F_ACK, found.family, protocol, found.id);
    send(socket, &request)?;
    let (datagram, _) = socket.recv_from_full()?;
    let answer = messages(&datagram).next();
    let (_, body) = answer.ok_or(ErrorKind::InvalidData)?;
    match code(body) {
        0 => Ok(true),
        libc::ENOENT | libc::ESTALE => Ok(false),
        _ => Err(error(body)),
    }
}

fn send(socket: &Socket, request: &Request) -> io::Result<()> {
    socket.send_to(bytemuck::bytes_of(request), &SocketAddr::new(0, 0), 0)?;
    Ok(())
}

/// The messages of a datagram; what is cut off is left out.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let header: Header = read(datagram)?;
        let length = header.length as usize;
        let body = datagram.get(size_of::<Header>()..length)?;
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some((header, body))
    })
}

fn read<T: Pod>(bytes: &[u8]) -> Option<T> {
    Some(bytemuck::pod_read_unaligned(bytes.get(..size_of::<T>())?))
}

/// The number of an error, positive; 0: none.
fn code(body: &[u8]) -> i32 {
    read::<i32>(body).map_or(libc::EBADMSG, i32::wrapping_neg)
}

fn error(body: &[u8]) -> io::Error {
    io::Error::from_raw_os_error(code(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_one_after_the_other_and_damaged_ones_are_not() {
        let header = |length, kind| Header {
            length,
            kind,
            flags: 0,
            sequence: 0,
            port: 0,
        };
        let mut bytes = bytemuck::bytes_of(&header(20, NLMSG_ERROR)).to_vec();
        bytes.extend((-libc::ENOENT).to_ne_bytes());
        bytes.extend(bytemuck::bytes_of(&header(400, NLMSG_DONE)));
        let mut found = messages(&bytes);
        let (first, body) = found.next().unwrap();
        assert_eq!((first.kind, code(body)), (NLMSG_ERROR, libc::ENOENT));
        assert!(found.next().is_none(), "longer than what there is");
    }

    #[test]
    fn cookies_are_two_words() {
        let id = SocketId {
            cookie: [7, 1],
            ..SocketId::zeroed()
        };
        assert_eq!(id.cookie(), 1 << 32 | 7);
    }

    #[test]
    fn peers_are_those_of_storage() {
        let id = SocketId {
            port: 80_u16.to_be(),
            destination: [u32::from_ne_bytes([10, 0, 0, 1]), 0, 0, 0],
            ..SocketId::zeroed()
        };
        let peer = id.peer(libc::AF_INET as u8).std();
        assert_eq!(peer.to_string(), "10.0.0.1:80");
    }
}
