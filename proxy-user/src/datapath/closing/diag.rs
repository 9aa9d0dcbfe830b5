//! Closing sockets by sock_diag (SOCK_DESTROY, Linux 4.9 with CONFIG_INET_DIAG_DESTROY).

use bytemuck::{Pod, Zeroable};
use rtnetlink::sys::protocols::NETLINK_SOCK_DIAG;
use rtnetlink::sys::{Socket, SocketAddr};
use std::collections::BTreeSet;
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
/// Closed and listening sockets have no peer. The numbers are those of TCP, also for UDP.
const CONNECTED: u32 = !(1 << TCP_CLOSE | 1 << TCP_LISTEN);
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;

impl SocketId {
    const fn cookie(&self) -> u64 {
        (self.cookie[1] as u64) << 32 | self.cookie[0] as u64
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

/// Closes the sockets with these cookies in the network namespace of the thread; returns how many there were.
/// The kernel closes a socket only if its cookie is the one that is named.
pub(super) fn close(cookies: &BTreeSet<u64>) -> io::Result<u64> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    let mut closed = 0;
    for family in [libc::AF_INET, libc::AF_INET6].map(|it| it as u8) {
        for protocol in [libc::IPPROTO_UDP, libc::IPPROTO_TCP].map(|it| it as u8) {
            for found in list(&socket, family, protocol)? {
                if cookies.contains(&found.id.cookie()) {
                    closed += u64::from(destroy(&socket, found, protocol)?);
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
                NLMSG_DONE => return Ok(all),
                // This kernel has no sockets of this kind, or no such family.
                NLMSG_ERROR if is_absent(code(body)) => return Ok(all),
                NLMSG_ERROR => return Err(error(body)),
                _ => all.extend(read::<Found>(body)),
            }
        }
    }
}

const fn is_absent(code: i32) -> bool {
    matches!(
        code,
        libc::ENOENT | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT
    )
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
}
