//! Connections from a port of the caller's choice.

use std::net::SocketAddr;
use std::time::Duration;
use xtask::cluster::Pod;
use xtask::traffic::tcp_open_from;

/// Connects from one port of a pod, and returns which server answered; the port can be used again at
/// once.
pub(crate) fn tcp_ask_from(
    pod: &Pod,
    port: u16,
    to: SocketAddr,
    patience: Duration,
) -> std::io::Result<String> {
    let open = tcp_open_from(pod.namespace(), own(pod, port, to), to, patience)?;
    Ok(open.answer().server.clone())
}

/// A port of a pod, at its address of the family of `to`.
pub(crate) fn own(pod: &Pod, port: u16, to: SocketAddr) -> SocketAddr {
    SocketAddr::new(pod.addresses()[usize::from(to.is_ipv6())], port)
}
