//! What a node's conntrack knows: netfilter's own view of the packets that cross the node.

use super::{Namespace, Protocol};
use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;

/// Source and destination.
pub type Direction = (SocketAddr, SocketAddr);

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Its protocol.
    pub protocol: Protocol,
    /// What its first packet had.
    pub original: Direction,
    /// What is expected of answers.
    pub reply: Direction,
    /// Whether there have been any.
    pub is_answered: bool,
}

/// The TCP and UDP connections of a namespace.
pub(crate) fn list(namespace: &Namespace) -> Result<Vec<Tracked>> {
    const FILE: &str = "/proc/thread-self/net/nf_conntrack";
    let text = namespace.run(|| fs::read_to_string(FILE))?;
    let text = text.with_context(|| format!("can't read {FILE}"))?;
    Ok(text.lines().filter_map(parse).collect())
}

/// Makes a namespace forget all of them (IPCTNL_MSG_CT_DELETE of nfnetlink, for both families).
pub(crate) fn forget(namespace: &Namespace) -> Result<()> {
    // struct nlmsghdr, which asks for an answer, and struct nfgenmsg of no family.
    const LENGTH: u8 = 20;
    const CT_DELETE: [u8; 2] = 0x0102_u16.to_ne_bytes();
    const REQUEST_ACK: u8 = 5;
    let mut message = [0; LENGTH as usize];
    message[0] = LENGTH;
    message[4..6].copy_from_slice(&CT_DELETE);
    message[6] = REQUEST_ACK;
    let mut answer = [0; 64];
    namespace.run(|| -> nix::Result<()> {
        let kind = (AddressFamily::Netlink, SockType::Raw);
        let netfilter = SockProtocol::NetlinkNetFilter;
        let socket = socket(kind.0, kind.1, SockFlag::SOCK_CLOEXEC, netfilter)?;
        let kernel = NetlinkAddr::new(0, 0);
        sendto(socket.as_raw_fd(), &message, &kernel, MsgFlags::empty())?;
        recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).map(drop)
    })??;
    // The number of an error, negative, follows the header of the answer.
    let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    match code {
        0 => Ok(()),
        code => Err(std::io::Error::from_raw_os_error(-code)).context("flushing conntrack"),
    }
}

/// Such as `ipv4 2 tcp 6 431999 ESTABLISHED src=.. dst=.. sport=.. dport=.. src=.. ..`.
fn parse(line: &str) -> Option<Tracked> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let protocol = match *words.get(2)? {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    let mut directions = [direction(&words, 0), direction(&words, 1)].into_iter();
    Some(Tracked {
        protocol,
        original: directions.next()??,
        reply: directions.next()??,
        is_answered: !words.contains(&"[UNREPLIED]"),
    })
}

/// The direction with this number, among the two of a line.
fn direction(words: &[&str], number: usize) -> Option<Direction> {
    let value = |key: &str| {
        let mut values = words.iter().filter_map(|word| word.strip_prefix(key));
        values.nth(number)
    };
    let end = |address: &str, port: &str| {
        let address: IpAddr = value(address)?.parse().ok()?;
        Some(SocketAddr::new(address, value(port)?.parse().ok()?))
    };
    Some((end("src=", "sport=")?, end("dst=", "dport=")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_read_from_lines_of_the_kernel() {
        let line = "ipv4     2 udp      17 28 src=10.244.1.2 dst=10.244.2.2 sport=4000 dport=53 \
                    [UNREPLIED] src=10.244.2.2 dst=172.31.1.2 sport=53 dport=9 mark=0 zone=0 use=2";
        let tracked = parse(line).unwrap();
        assert_eq!(tracked.protocol, Protocol::Udp);
        assert_eq!(tracked.original.0, "10.244.1.2:4000".parse().unwrap());
        assert_eq!(tracked.reply.1, "172.31.1.2:9".parse().unwrap());
        assert!(!tracked.is_answered);
        assert!(
            parse(&line.replace("[UNREPLIED] ", ""))
                .unwrap()
                .is_answered
        );
        assert_eq!(
            parse("ipv6 10 icmpv6 58 29 src=fd00::1 dst=fd00::2 type=128"),
            None
        );
    }
}
