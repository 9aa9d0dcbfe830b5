//! What a node's conntrack knows: netfilter's own view of the packets that cross the node.

use super::{Namespace, Protocol};
use anyhow::{Context, Result};
use std::fs;
use std::net::{IpAddr, SocketAddr};

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
