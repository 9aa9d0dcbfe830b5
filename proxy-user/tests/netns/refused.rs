//! Who can't be served is told so at once.

use crate::stage::{PATIENCE, PROTOCOLS, Stage, ask};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use xtask::cluster::{Pod, Protocol};
use xtask::traffic::udp_open;

/// A stream over IPv6 needs two tries: an error that comes before `connect` has let go of the socket is
/// lost to it, and a veth brings it that fast. Netfilter's REJECT fares the same.
const AT_ONCE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

pub(crate) fn expect_refused(from: &Pod, protocol: Protocol, to: SocketAddr) {
    let start = Instant::now();
    let error = ask(from, protocol, to, PATIENCE).expect_err("nobody is there to answer");
    let what = format!("{protocol} {} -> {to}: {error}", from.name());
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{what}");
    let limit = AT_ONCE[usize::from(to.is_ipv6())];
    assert!(
        start.elapsed() < limit,
        "{what} after {:?}",
        start.elapsed()
    );
}

#[test]
fn a_datagram_to_a_backend_that_does_not_listen_is_refused_in_the_services_name() {
    expect_refusals(&[]);
}

/// In the name of the Service, with agents that have these flags.
pub(crate) fn expect_refusals(flags: &[&'static str]) {
    let mut stage = Stage::new(flags);
    for node in [1, 2] {
        let deaf = stage.cluster.add_pod(node, &format!("deaf-{node}"));
        stage.set_backends(&[deaf.expect("the pod is laid out")]);
        for protocol in PROTOCOLS {
            for to in stage.cluster_ips() {
                expect_refused(&stage.shell, protocol, to);
            }
            for to in stage.node_ports(1) {
                expect_refused(stage.cluster.client(), protocol, to);
            }
        }
    }
    stage.assert_undisturbed();
}

#[test]
fn pods_and_hosts_outside_are_refused_where_there_is_no_backend() {
    let mut stage = Stage::new(&[]);
    stage.set_backends(&[]);
    for protocol in PROTOCOLS {
        for to in stage.cluster_ips() {
            expect_refused(&stage.shell, protocol, to);
        }
        for node in 1..=3 {
            for to in stage.node_ports(node) {
                expect_refused(stage.cluster.client(), protocol, to);
                expect_refused(&stage.shell, protocol, to);
            }
        }
    }
    assert!(stage.count(1, "passed", "refused") > 0);
    stage.assert_undisturbed();
}

#[test]
fn processes_on_a_node_are_refused_where_there_is_no_backend() {
    let mut stage = Stage::new(&[]);
    stage.set_backends(&[]);
    let host = stage.cluster.node(1).host_pod("host-1");
    for protocol in PROTOCOLS {
        for to in stage.cluster_ips().into_iter().chain(stage.node_ports(1)) {
            expect_refused(&host, protocol, to);
        }
    }
    stage.assert_undisturbed();
}

/// Far more than are refused in two seconds.
const FLOOD: usize = 6000;

#[test]
fn one_source_that_asks_too_often_does_not_silence_what_others_are_told() {
    let mut stage = Stage::new(&[]);
    stage.set_backends(&[]);
    let other = stage.web[0].clone();
    for to in stage.cluster_ips() {
        let before = ["refused", "no-backend"].map(|name| count(&stage, name));
        let socket = udp_open(stage.shell.namespace(), to, PATIENCE).expect("it opens");
        for _ in 0..FLOOD {
            // That the one before was refused is said here, instead of sending.
            let _ = socket
                .socket()
                .send(b"?")
                .or_else(|_| socket.socket().send(b"?"));
        }
        for protocol in PROTOCOLS {
            expect_refused(&other, protocol, to);
        }
        let after = ["refused", "no-backend"].map(|name| count(&stage, name));
        let [refused, dropped] = [0, 1].map(|index| after[index] - before[index]);
        assert!(refused >= 1024, "{to}: {refused} refused");
        assert!(dropped > 0, "{to}: none dropped of {refused}");
    }
}

/// The first is a verdict, the second a reason to drop.
fn count(stage: &Stage, name: &str) -> u64 {
    let kind = if name == "refused" { "passed" } else { "drops" };
    stage.count(1, kind, name)
}
