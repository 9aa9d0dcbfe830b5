//! Traceroute, as a socket sees it: only errors that the kernel finds to be about this very socket count.

use super::{client::invalid, unspecified};
use crate::cluster::{Namespace, Protocol};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

const MAX_HOPS: u32 = 12;
/// Routers may limit what they say.
const TRIES: usize = 3;

/// The addresses that answer when packets may take one hop, two hops and so on, until `to` itself
/// does, be it by an error.
///
/// # Errors
/// When a hop stays silent, or the target is not reached.
pub fn trace(
    namespace: &Namespace,
    protocol: Protocol,
    to: SocketAddr,
    timeout: Duration,
) -> io::Result<Vec<IpAddr>> {
    let mut hops = Vec::new();
    for limit in 1..=MAX_HOPS {
        let answer = (0..TRIES).find_map(|_| probe(namespace, protocol, to, limit, timeout).ok());
        let Some(hop) = answer else {
            return Err(invalid(&format!("hop {limit} is silent, after {hops:?}")));
        };
        hops.push(hop.address);
        if hop.is_last {
            return Ok(hops);
        }
    }
    Err(invalid(&format!("not reached by {hops:?}")))
}

struct Hop {
    address: IpAddr,
    is_last: bool,
}

fn probe(
    namespace: &Namespace,
    protocol: Protocol,
    to: SocketAddr,
    limit: u32,
    timeout: Duration,
) -> io::Result<Hop> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let socket = namespace.run(|| Socket::new(Domain::for_address(to), kind, None))??;
    socket.bind(&unspecified(to).into())?;
    if to.is_ipv4() {
        socket.set_ttl_v4(limit)?;
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    } else {
        socket.set_unicast_hops_v6(limit)?;
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    }
    let answer = match protocol {
        Protocol::Tcp => socket.connect_timeout(&to.into(), timeout),
        Protocol::Udp => question(&socket.try_clone()?.into(), to, timeout),
    };
    match answer {
        Ok(()) => Ok(Hop {
            address: to.ip(),
            is_last: true,
        }),
        // A reset says who sent it by being accepted.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Hop {
            address: offender(&socket).unwrap_or(to.ip()),
            is_last: true,
        }),
        Err(_) => Ok(Hop {
            address: offender(&socket)?,
            is_last: false,
        }),
    }
}

fn question(socket: &UdpSocket, to: SocketAddr, timeout: Duration) -> io::Result<()> {
    socket.connect(to)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.send(b"how far?")?;
    socket.recv(&mut [0; 256]).map(|_| ())
}

/// Who sent the ICMP error that is first in the socket's queue.
fn offender(socket: &Socket) -> io::Result<IpAddr> {
    let (mut quote, mut control) = ([0; 256], [0; 512]);
    let mut parts = [IoSliceMut::new(&mut quote)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let found = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4RecvErr(_, Some(address)) => {
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        ControlMessageOwned::Ipv6RecvErr(_, Some(address)) => {
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    });
    found.ok_or_else(|| invalid("the error names no address"))
}
