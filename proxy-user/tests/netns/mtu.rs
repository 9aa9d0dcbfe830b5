//! Links behind the translation that carry smaller packets than those before it: whoever sends too
//! much is told, about the connection that it knows.

use crate::everywhere::{ip, without_icmp_limits};
use crate::stage::{PATIENCE, SHORT, Stage, eventually};
use std::net::{IpAddr, SocketAddr};
use xtask::cluster::{Namespace, Pod};
use xtask::traffic::{Datagrams, pattern, tcp_transfer, udp_open};

/// What the first narrow link on a way carries, and the second; IPv6 needs 1280.
const NARROW: u16 = 1400;
const NARROWER: u16 = 1300;
const MEGABYTE: usize = 1 << 20;

/// From now on these routes, one of each family, carry packets of that size only.
fn narrow(place: &Namespace, routes: [&str; 2], mtu: u16) {
    for (family, to) in ["-4", "-6"].into_iter().zip(routes) {
        let route = ip(place, family, &format!("route show exact {to}"));
        let words = route.lines().next().expect("there is such a route");
        let words: Vec<&str> = words.split_whitespace().collect();
        let route = format!("route replace {} mtu lock {mtu}", words.join(" "));
        ip(place, family, &route);
    }
}

/// The router's routes to the pods of a node.
pub(crate) fn narrow_to_pods(stage: &Stage, node: u8) {
    let plan = stage.cluster.node(node).plan();
    let routes = [plan.pod_cidr_v4(), plan.pod_cidr_v6()];
    narrow(stage.cluster.router(), [&routes[0], &routes[1]], NARROWER);
}

/// What a host has been told of the way to an address, if anything.
fn learned(host: &Namespace, to: IpAddr) -> Option<u16> {
    let family = if to.is_ipv4() { "-4" } else { "-6" };
    let route = ip(host, family, &format!("route get {to}"));
    let (_, mtu) = route.split_once(" mtu ")?;
    mtu.split_whitespace().next()?.parse().ok()
}

/// The kernel refuses a datagram once it knows that the way is narrower.
fn expect_datagrams_to_be_refused(from: &Pod, to: SocketAddr) {
    let datagrams = udp_open(from.namespace(), to, SHORT).expect("it opens");
    expect_to_be_too_long(&datagrams);
}

/// The same of a socket that may have sent before.
pub(crate) fn expect_to_be_too_long(datagrams: &Datagrams) {
    let large = pattern(usize::from(NARROW) + 50);
    eventually("the socket is told that its datagram is too long", || {
        let sent = datagrams.socket().send(&large);
        sent.is_err_and(|error| error.to_string().contains("Message too long"))
    });
}

/// All that is sent arrives, and both ends know why in pieces.
pub(crate) fn expect_stream_to_adapt(
    from: &Pod,
    to: SocketAddr,
    backend: &Pod,
    seen_as: [IpAddr; 2],
) {
    let transfer = tcp_transfer(from.namespace(), to, MEGABYTE, PATIENCE);
    let transfer = transfer.unwrap_or_else(|error| panic!("{} -> {to}: {error}", from.name()));
    assert_eq!(transfer.answer.server, backend.name());
    assert_eq!(
        learned(from.namespace(), to.ip()),
        Some(NARROWER),
        "what {} knows of the way to {to}",
        from.name()
    );
    let back = seen_as[usize::from(to.is_ipv6())];
    assert_eq!(transfer.answer.seen_source.ip(), back);
    assert_eq!(
        learned(backend.namespace(), back),
        Some(NARROWER),
        "what {} knows of the way to {back}",
        backend.name()
    );
}

#[test]
fn a_pods_packets_fit_a_narrow_link_on_the_way_to_its_service_and_back() {
    expect_to_fit(&[]);
}

/// From a pod, with agents that have these flags.
pub(crate) fn expect_to_fit(flags: &[&'static str]) {
    let mut stage = Stage::new(flags);
    without_icmp_limits(&stage);
    let far = stage.web[1].clone();
    stage.set_backends(std::slice::from_ref(&far));
    let near = stage.cluster.node(1).namespace();
    narrow(near, ["default", "default"], NARROW);
    narrow_to_pods(&stage, 2);
    let [v4, v6] = stage.shell.addresses().map(|address| address.to_string());
    narrow(near, [&v4, &v6], NARROWER);
    for to in stage.cluster_ips() {
        // Another pod, because a host remembers what it was told for all of its sockets.
        expect_datagrams_to_be_refused(&stage.web[0], to);
        expect_stream_to_adapt(&stage.shell, to, &far, stage.shell.addresses());
    }
    stage.assert_undisturbed();
}

#[test]
fn packets_from_outside_fit_a_narrow_link_between_the_nodes_and_back() {
    expect_to_fit_from_outside(&[]);
}

/// From outside, with agents that have these flags.
pub(crate) fn expect_to_fit_from_outside(flags: &[&'static str]) {
    let mut stage = Stage::new(flags);
    without_icmp_limits(&stage);
    let far = stage.web[1].clone();
    stage.set_backends(std::slice::from_ref(&far));
    for node in [1, 3] {
        // Towards the other node as towards the client.
        let node = stage.cluster.node(node).namespace();
        narrow(node, ["default", "default"], NARROW);
    }
    narrow_to_pods(&stage, 2);
    let outside = ["192.0.2.0/24", "2001:db8::/64"];
    narrow(stage.cluster.router(), outside, NARROWER);
    let client = stage.cluster.client();
    for (refused, adapted) in stage.node_ports(1).into_iter().zip(stage.node_ports(3)) {
        expect_datagrams_to_be_refused(client, refused);
        expect_stream_to_adapt(client, adapted, &far, stage.cluster.node(3).addresses());
    }
    stage.assert_undisturbed();
}
