//! Real connections through a cluster: servers that say whom they saw, clients that check it.
//!
//! A server answers a connection, or a datagram, with one line `name address:port`: its own name and
//! the source it saw. Then it echoes. Nothing here waits for ever.

mod client;
mod datagram;
mod flood;
mod ping;
mod server;
mod trace;

pub use client::{
    Answer, Conversation, Transfer, pattern, tcp_ask, tcp_open, tcp_open_from, tcp_transfer,
};
pub use datagram::{Datagrams, udp_ask, udp_open, udp_open_from};
pub use flood::{FLOOD_SOURCES, syn_flood};
pub use ping::ping;
pub use server::Server;
pub use trace::trace;

use crate::cluster::Namespace;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// How often a waiting thread looks whether it has to stop.
const TICK: Duration = Duration::from_millis(100);

/// A socket of a namespace, bound; others can have the same port, towards other peers.
///
/// # Errors
/// When the namespace can't be entered, or the address and port can't be had.
pub fn bind(namespace: &Namespace, kind: Type, from: SocketAddr) -> io::Result<Socket> {
    namespace.run(|| {
        let socket = Socket::new(Domain::for_address(from), kind, None)?;
        // With it the kernel may choose a port that another such socket has.
        socket.set_reuse_address(from.port() != 0)?;
        socket.bind(&from.into())?;
        Ok(socket)
    })?
}

/// Any address and port of the family of `like`.
fn unspecified(like: SocketAddr) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}
