//! Datagrams that do not fit into a packet.

use crate::stage::{PATIENCE, Stage};
use std::net::SocketAddr;
use xtask::cluster::Pod;
use xtask::traffic::{pattern, udp_open};

const LENGTHS: [usize; 3] = [1473, 4000, 20_000];

/// Several of each length over one socket, and a short one before and after.
fn expect_datagrams(from: &Pod, to: SocketAddr, server: &Pod) {
    let datagrams = udp_open(from.namespace(), to, PATIENCE).expect("it opens");
    for length in [10].iter().chain(&LENGTHS).chain(&[10]) {
        for _ in 0..5 {
            let answer = datagrams.ask(&pattern(*length));
            let answer = answer
                .unwrap_or_else(|error| panic!("{} -> {to}, {length} bytes: {error}", from.name()));
            assert_eq!(answer.server, server.name());
        }
    }
}

#[test]
fn long_datagrams_reach_a_service_and_come_back() {
    let mut stage = Stage::new(&[]);
    let [near, far] = [0, 1].map(|index| stage.web[index].clone());
    for backend in [near, far] {
        stage.set_backends(std::slice::from_ref(&backend));
        for to in stage.cluster_ips() {
            expect_datagrams(&stage.shell, to, &backend);
        }
        for to in stage.node_ports(1) {
            expect_datagrams(stage.cluster.client(), to, &backend);
        }
    }
    stage.assert_undisturbed();
}

#[test]
fn a_socket_may_begin_with_a_long_datagram() {
    let mut stage = Stage::new(&[]);
    let far = stage.web[1].clone();
    stage.set_backends(std::slice::from_ref(&far));
    let (shell, client) = (&stage.shell, stage.cluster.client());
    let inside = stage.cluster_ips().into_iter().map(|to| (shell, to));
    for (from, to) in inside.chain(stage.node_ports(1).map(|to| (client, to))) {
        for length in LENGTHS {
            let datagrams = udp_open(from.namespace(), to, PATIENCE).expect("it opens");
            let answer = datagrams.ask(&pattern(length));
            assert!(
                answer.is_ok(),
                "{} -> {to}, {length} bytes: {answer:?}",
                from.name()
            );
        }
    }
}
