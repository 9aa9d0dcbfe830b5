//! Clients of UDP.

use super::client::{Answer, invalid, parse};
use super::{bind, unspecified};
use crate::cluster::Namespace;
use socket2::Type;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// A UDP socket that stays open. It is connected, so what another address than its peer's sends does
/// not arrive, and ICMP errors are seen.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
}

/// Sends one datagram and waits for the answer; nothing is sent twice.
///
/// # Errors
/// As [`tcp_ask`](super::tcp_ask).
pub fn udp_ask(namespace: &Namespace, to: SocketAddr, timeout: Duration) -> io::Result<Answer> {
    udp_open(namespace, to, timeout)?.ask(b"who are you?")
}

/// A socket towards `to`; nothing is sent yet. `timeout` holds for each answer.
///
/// # Errors
/// When the namespace can't be entered, or no route leads there.
pub fn udp_open(namespace: &Namespace, to: SocketAddr, timeout: Duration) -> io::Result<Datagrams> {
    udp_open_from(namespace, unspecified(to), to, timeout)
}

/// As [`udp_open`], from an address and port of the caller's choice.
///
/// # Errors
/// As [`udp_open`], and when the port can't be had.
pub fn udp_open_from(
    namespace: &Namespace,
    from: SocketAddr,
    to: SocketAddr,
    timeout: Duration,
) -> io::Result<Datagrams> {
    let socket: UdpSocket = bind(namespace, Type::DGRAM, from)?.into();
    socket.connect(to)?;
    socket.set_read_timeout(Some(timeout))?;
    Ok(Datagrams { socket })
}

impl Datagrams {
    /// Sends one datagram and waits for the answer, which has to carry the same bytes.
    ///
    /// # Errors
    /// As [`tcp_ask`](super::tcp_ask).
    pub fn ask(&self, bytes: &[u8]) -> io::Result<Answer> {
        let start = Instant::now();
        self.socket.send(bytes)?;
        let (answer, echo) = self.receive(start)?;
        if echo == bytes {
            Ok(answer)
        } else {
            Err(invalid("the datagram does not come back whole"))
        }
    }

    /// Waits for an answer to what was sent at `start`, and returns what it echoes, too.
    ///
    /// # Errors
    /// As [`tcp_ask`](super::tcp_ask).
    pub fn receive(&self, start: Instant) -> io::Result<(Answer, Vec<u8>)> {
        let mut buffer = vec![0; 64 << 10];
        let length = self.socket.recv(&mut buffer)?;
        let end = buffer[..length].iter().position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| invalid("not an answer"))?;
        let line = String::from_utf8_lossy(&buffer[..end]);
        let answer = parse(&line, start.elapsed(), self.socket.local_addr()?)?;
        Ok((answer, buffer[end + 1..length].to_vec()))
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }
}
