//! What holds in all namespaces of a cluster, or is asked of them.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::stage::Stage;
use std::net::{IpAddr, SocketAddr};
use xtask::cluster::{Namespace, Node, Pod};

/// Router, client, nodes and pods.
pub(crate) fn everywhere(stage: &Stage) -> impl Iterator<Item = &Namespace> {
    let cluster = &stage.cluster;
    let nodes = cluster.nodes().iter();
    let pods = nodes.clone().flat_map(Node::pods).map(Pod::namespace);
    [cluster.router(), cluster.client().namespace()]
        .into_iter()
        .chain(nodes.map(Node::namespace))
        .chain(pods)
}

/// Lets every host send as many ICMP errors as there is reason for.
pub(crate) fn without_icmp_limits(stage: &Stage) {
    for place in everywhere(stage) {
        let write = || {
            for name in ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"] {
                std::fs::write(format!("/proc/sys/net/{name}"), "0").unwrap();
            }
        };
        place.run(write).unwrap();
    }
}

/// Runs `ip` with words separated by single spaces; `family` is its flag.
pub(crate) fn ip(place: &Namespace, family: &str, arguments: &str) -> String {
    let words = std::iter::once(family).chain(arguments.split(' '));
    let words: Vec<&str> = words.collect();
    place.command("ip", &words).unwrap()
}

/// Where the pod answers directly, in the family of `to`.
pub(crate) fn direct(pod: &Pod, to: SocketAddr) -> SocketAddr {
    crate::ports::own(pod, crate::stage::TARGET, to)
}

/// The addresses by which others can reach a namespace.
pub(crate) fn addresses(place: &Namespace) -> Vec<IpAddr> {
    let arguments = ["-o", "address", "show", "scope", "global"];
    let text = place.command("ip", &arguments).unwrap();
    let words = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3));
    words
        .filter_map(|word| word.split('/').next()?.parse().ok())
        .collect()
}

/// Datagrams that sockets of a namespace had no room for.
pub(crate) fn overflows(place: &Namespace) -> u64 {
    let read = || std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let text = place.run(read).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let mut fields = names.split(' ').zip(numbers.split(' '));
    let (_, number) = fields.find(|(name, _)| *name == "RcvbufErrors").unwrap();
    number.parse().unwrap()
}

/// Packets that the machine's processors had no room for, from whatever device.
pub(crate) fn backlog_overflows() -> u64 {
    let text = std::fs::read_to_string("/proc/net/softnet_stat").unwrap();
    let dropped = text.lines().map(|line| line.split(' ').nth(1).unwrap());
    dropped
        .map(|number| u64::from_str_radix(number, 16).unwrap())
        .sum()
}
