//! Clients: one question each, asked from inside a namespace.

use super::bind;
use crate::cluster::Namespace;
use socket2::Type;
use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// So many bytes fit into the buffers of both sockets.
const AT_ONCE: usize = 4096;

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The name of the server that answered.
    pub server: String,
    /// The source address and port that the server saw.
    pub seen_source: SocketAddr,
    /// From the first packet to the answer.
    pub elapsed: Duration,
    /// The client's own address and port.
    pub local_addr: SocketAddr,
}

/// An open TCP connection.
#[derive(Debug)]
pub struct Conversation {
    answer: Answer,
    stream: BufReader<TcpStream>,
}

/// What came of a large transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// What the server said first.
    pub answer: Answer,
    /// Bytes that went there and came back unchanged.
    pub bytes: usize,
    /// From the connection's first packet to the last byte.
    pub elapsed: Duration,
}

/// Connects, reads who answered, disconnects. `timeout` holds for each of the steps.
///
/// # Errors
/// Of kind `ConnectionRefused`, `TimedOut` or `WouldBlock` as the socket has it; `UnexpectedEof` when
/// the other side closes without an answer; `InvalidData` when the answer is not one of
/// [`Server`](super::Server)'s.
pub fn tcp_ask(namespace: &Namespace, to: SocketAddr, timeout: Duration) -> io::Result<Answer> {
    Ok(tcp_open(namespace, to, timeout)?.answer)
}

/// Connects and reads who answered; the connection stays open. `timeout` also holds for whatever is
/// said later.
///
/// # Errors
/// As [`tcp_ask`].
pub fn tcp_open(
    namespace: &Namespace,
    to: SocketAddr,
    timeout: Duration,
) -> io::Result<Conversation> {
    let start = Instant::now();
    let stream = namespace.run(|| TcpStream::connect_timeout(&to, timeout))??;
    converse(stream, start, timeout)
}

/// As [`tcp_open`], from an address and port of the caller's choice. Other connections may use the same
/// port at the same time, to other peers.
///
/// # Errors
/// As [`tcp_ask`]; `AddrInUse` when a connection of the same two ends exists.
pub fn tcp_open_from(
    namespace: &Namespace,
    from: SocketAddr,
    to: SocketAddr,
    timeout: Duration,
) -> io::Result<Conversation> {
    let start = Instant::now();
    let socket = bind(namespace, Type::STREAM, from)?;
    socket.connect_timeout(&to.into(), timeout)?;
    converse(socket.into(), start, timeout)
}

/// Reads who answered.
fn converse(stream: TcpStream, start: Instant, timeout: Duration) -> io::Result<Conversation> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let local_addr = stream.local_addr()?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let answer = parse(&line, start.elapsed(), local_addr)?;
    Ok(Conversation { answer, stream })
}

/// Sends `bytes` bytes over one connection, reads them back and compares each.
///
/// # Errors
/// As [`tcp_ask`]; `InvalidData` also when a byte comes back changed.
pub fn tcp_transfer(
    namespace: &Namespace,
    to: SocketAddr,
    bytes: usize,
    timeout: Duration,
) -> io::Result<Transfer> {
    let start = Instant::now();
    let mut conversation = tcp_open(namespace, to, timeout)?;
    conversation.echo(&pattern(bytes))?;
    Ok(Transfer {
        answer: conversation.answer,
        bytes,
        elapsed: start.elapsed(),
    })
}

impl Conversation {
    /// What the server said first.
    #[must_use]
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Sends bytes and checks that they come back; returns how long that took.
    ///
    /// # Errors
    /// Of kind `TimedOut` or `WouldBlock` when nothing comes in time, `UnexpectedEof` when the other
    /// side closes, `InvalidData` when a byte comes back changed.
    pub fn echo(&mut self, bytes: &[u8]) -> io::Result<Duration> {
        let start = Instant::now();
        let mut back = vec![0; bytes.len()];
        if bytes.len() <= AT_ONCE {
            self.stream.get_ref().write_all(bytes)?;
            self.stream.read_exact(&mut back)?;
        } else {
            self.exchange(bytes, &mut back)?;
        }
        match bytes
            .iter()
            .zip(&back)
            .position(|(one, other)| one != other)
        {
            None => Ok(start.elapsed()),
            Some(place) => Err(invalid(&format!("byte {place} comes back changed"))),
        }
    }

    /// Both ways at once: the server stops reading while its answers are not read.
    fn exchange(&mut self, bytes: &[u8], back: &mut [u8]) -> io::Result<()> {
        let mut writer = self.stream.get_ref().try_clone()?;
        thread::scope(|scope| {
            let sent = scope.spawn(move || writer.write_all(bytes));
            self.stream.read_exact(back)?;
            sent.join()
                .map_err(|_| Error::other("the sending thread panicked"))?
        })
    }
}

/// Bytes in which a shift, a swap or a repetition shows: a multiplicative sequence, top byte only.
#[must_use]
pub fn pattern(length: usize) -> Vec<u8> {
    let next = |word: &u32| Some(word.wrapping_mul(747_796_405).wrapping_add(2_891_336_453));
    std::iter::successors(Some(1), next)
        .map(|word| word.to_be_bytes()[0])
        .take(length)
        .collect()
}

pub(super) fn parse(line: &str, elapsed: Duration, local_addr: SocketAddr) -> io::Result<Answer> {
    let (server, source) = line
        .trim_end()
        .split_once(' ')
        .ok_or_else(|| invalid(&format!("not an answer: {line:?}")))?;
    Ok(Answer {
        server: server.to_owned(),
        seen_source: source
            .parse()
            .map_err(|_| invalid(&format!("not an address: {source:?}")))?,
        elapsed,
        local_addr,
    })
}

pub(super) fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn an_answer_names_the_server_and_the_source_it_saw() {
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let answer = parse("web-1 [fd00::1]:77\n", Duration::ZERO, own).unwrap();
        assert_eq!(answer.server, "web-1");
        assert_eq!(answer.seen_source, "[fd00::1]:77".parse().unwrap());
        assert!(parse("nonsense", Duration::ZERO, own).is_err());
    }

    #[test]
    fn the_pattern_does_not_repeat_within_a_segment() {
        let bytes = pattern(100_000);
        assert_ne!(bytes[..1000], bytes[1448..2448]);
        assert_ne!(bytes[..1000], bytes[65536..66536]);
    }
}
