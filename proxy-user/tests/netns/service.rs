//! Whoever dials a service reaches all of its backends and nobody else.

use crate::ports::tcp_ask_from;
use crate::stage::{
    self, PATIENCE, PROTOCOLS, SHORT, Stage, eventually, expect_all, expect_service, family,
};
use std::net::SocketAddr;
use xtask::cluster::{Node, Pod};
use xtask::traffic::tcp_transfer;

#[test]
fn a_service_is_reached_from_pods_and_from_outside() {
    let stage = Stage::new(&[]);
    expect_service(&stage);
    for to in stage.cluster_ips().into_iter().chain(stage.node_ports(2)) {
        let from = if to.port() == stage::PORT {
            &stage.shell
        } else {
            stage.cluster.client()
        };
        let transfer = tcp_transfer(from.namespace(), to, 10 << 20, PATIENCE);
        assert_eq!(transfer.expect("10 MB come back whole").bytes, 10 << 20);
    }
    stage.assert_undisturbed();
}

#[test]
fn direct_connections_follow_those_through_a_service_from_the_same_port() {
    expect_direct_after_service(&[]);
}

/// From the same port, with agents that have these flags.
pub(crate) fn expect_direct_after_service(flags: &[&'static str]) {
    let stage = Stage::new(flags);
    for port in 20_000..20_006 {
        for to in stage.cluster_ips() {
            tcp_ask_from(&stage.shell, port, to, PATIENCE).expect("the service answers");
            for pod in &stage.web {
                let direct = SocketAddr::new(family(pod.addresses(), to), stage::TARGET);
                // The pod takes a moment to be done with the connection that came through the service.
                eventually("the pod answers directly", || {
                    let answer = tcp_ask_from(&stage.shell, port, direct, SHORT);
                    answer.is_ok_and(|answer| answer == pod.name())
                });
            }
        }
    }
    stage.assert_undisturbed();
}

#[test]
fn checksums_hold_where_no_device_completes_them() {
    let stage = Stage::new(&[]);
    let nodes = stage.cluster.nodes().iter().map(Node::namespace);
    let pods = stage
        .web
        .iter()
        .chain([&stage.shell, stage.cluster.client()]);
    for place in nodes.chain(pods.map(Pod::namespace)) {
        place
            .command("ethtool", &["-K", "eth0", "tx", "off"])
            .unwrap();
    }
    expect_service(&stage);
    for to in stage.cluster_ips().into_iter().chain(stage.node_ports(2)) {
        let inside = to.port() == stage::PORT;
        let from = if inside {
            &stage.shell
        } else {
            stage.cluster.client()
        };
        let transfer = tcp_transfer(from.namespace(), to, 1 << 20, PATIENCE);
        assert_eq!(transfer.expect("1 MB comes back whole").bytes, 1 << 20);
    }
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let mut stage = Stage::new(&[]);
    let itself = stage.web[0].clone();
    stage.set_backends(std::slice::from_ref(&itself));
    // What the node would choose for the pod: the address of the pod's device.
    let plan = stage.cluster.node(1).plan();
    let gateway = [plan.pod_v4(1).into(), plan.pod_v6(1).into()];
    for protocol in PROTOCOLS {
        for to in stage.cluster_ips() {
            expect_all(&itself, protocol, to, std::slice::from_ref(&itself), |_| {
                family(gateway, to)
            });
        }
    }
    stage.assert_undisturbed();
}

#[test]
fn pods_in_the_hosts_network_answer_too() {
    let mut stage = Stage::new(&[]);
    let hosts: Vec<Pod> = [1, 2]
        .map(|node| stage.cluster.node(node).host_pod(&format!("host-{node}")))
        .to_vec();
    hosts.iter().for_each(|host| stage.serve(host));
    stage.set_backends(&hosts);
    let (client, node) = (stage.cluster.client(), stage.cluster.node(1));
    for protocol in PROTOCOLS {
        for to in stage.node_ports(1) {
            expect_all(client, protocol, to, &hosts, |server| {
                let is_here = server.node() == Some(&node.name());
                family(
                    if is_here {
                        client.addresses()
                    } else {
                        node.addresses()
                    },
                    to,
                )
            });
        }
    }
    stage.assert_undisturbed();
}
