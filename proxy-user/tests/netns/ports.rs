//! Connections from a port of the caller's choice.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use socket2::{Domain, Socket, Type};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use xtask::cluster::Pod;

/// Connects from one port of a pod, and returns which server answered; the port can be used again at
/// once.
pub(crate) fn tcp_ask_from(
    pod: &Pod,
    port: u16,
    to: SocketAddr,
    patience: Duration,
) -> std::io::Result<String> {
    let from = SocketAddr::new(pod.addresses()[usize::from(to.is_ipv6())], port);
    let socket = pod.namespace().run(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&from.into()).unwrap();
        socket
    })?;
    socket.connect_timeout(&to.into(), patience)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(patience))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.split(' ').next().unwrap_or_default().to_owned())
}
