//! Processes on a node that dial services, without programs on cgroups: the devices see their packets.

use crate::everywhere::addresses;
use crate::shapes::route;
use crate::stage::{PATIENCE, PROTOCOLS, Stage, TARGET, ask, eventually};
use crate::tunnel::Tunnel;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use xtask::cluster::Pod;
use xtask::traffic::tcp_transfer;

/// Asks until each of `servers` has answered. What they see is an address of the node.
fn expect_all_seen_from(host: &Pod, to: SocketAddr, servers: &[Pod]) {
    let own = addresses(host.namespace());
    for protocol in PROTOCOLS {
        let mut left: BTreeSet<&str> = servers.iter().map(Pod::name).collect();
        for _ in 0..40 {
            let answer = ask(host, protocol, to, PATIENCE)
                .unwrap_or_else(|error| panic!("{protocol} {} -> {to}: {error}", host.name()));
            let seen = answer.seen_source.ip();
            let is_server = servers.iter().any(|pod| pod.name() == answer.server);
            assert!(is_server, "{to}: {} must not answer", answer.server);
            assert!(own.contains(&seen), "{to}: {} sees {seen}", answer.server);
            left.remove(answer.server.as_str());
        }
        assert!(left.is_empty(), "{protocol} {to}: {left:?} never answer");
    }
}

/// Where a process on the first node dials the service.
fn targets(stage: &Stage) -> Vec<SocketAddr> {
    let own = stage.node_ports(1);
    stage.cluster_ips().into_iter().chain(own).collect()
}

#[test]
fn processes_on_a_node_reach_backends_here_and_there() {
    let mut stage = Stage::new(&[]);
    let host = stage.cluster.node(1).host_pod("process");
    for pods in [vec![0], vec![1], vec![0, 1, 2]] {
        let servers: Vec<Pod> = pods.iter().map(|index| stage.web[*index].clone()).collect();
        stage.set_backends(&servers);
        for to in targets(&stage) {
            expect_all_seen_from(&host, to, &servers);
        }
    }
    stage.assert_undisturbed();
}

#[test]
fn processes_on_a_node_reach_backends_in_the_network_of_nodes() {
    let mut stage = Stage::new(&[]);
    let process = stage.cluster.node(1).host_pod("process");
    for node in [1, 2] {
        let server = stage.cluster.node(node).host_pod(&format!("host-{node}"));
        stage.serve(&server);
        stage.set_backends(std::slice::from_ref(&server));
        for to in targets(&stage) {
            expect_all_seen_from(&process, to, std::slice::from_ref(&server));
        }
    }
    stage.assert_undisturbed();
}

#[test]
fn processes_on_a_node_move_much_through_services() {
    let mut stage = Stage::new(&[]);
    let host = stage.cluster.node(1).host_pod("process");
    for backend in [stage.web[0].clone(), stage.web[1].clone()] {
        stage.set_backends(std::slice::from_ref(&backend));
        for to in targets(&stage) {
            let transfer = tcp_transfer(host.namespace(), to, 10 << 20, PATIENCE);
            let transfer = transfer.unwrap_or_else(|error| panic!("{to}: {error}"));
            assert_eq!(transfer.answer.server, backend.name());
        }
    }
    stage.assert_undisturbed();
}

#[test]
fn processes_on_a_node_reach_backends_behind_a_tunnel() {
    let mut stage = Stage::new(&[]);
    let [one, two] = [1, 2].map(|number| stage.cluster.node(number));
    let _tunnel = Tunnel::lay(one.namespace(), two.namespace());
    route(&stage, 1, 2);
    route(&stage, 2, 1);
    eventually("the programs are on the tunnel", || {
        [1, 2].iter().all(|node| stage.is_attached(*node, "tun0"))
    });
    let host = one.host_pod("process");
    let far = [stage.web[1].clone()];
    stage.set_backends(&far);
    for to in targets(&stage) {
        expect_all_seen_from(&host, to, &far);
        let transfer = tcp_transfer(host.namespace(), to, 1 << 20, PATIENCE);
        assert!(transfer.is_ok(), "{to}: {transfer:?}");
    }
    stage.assert_undisturbed();
}

#[test]
fn processes_of_a_node_still_reach_what_is_no_service() {
    let stage = Stage::new(&[]);
    let host = stage.cluster.node(1).host_pod("process");
    for pod in &stage.web {
        for address in pod.addresses() {
            let to = SocketAddr::new(address, TARGET);
            for protocol in PROTOCOLS {
                let answer = ask(&host, protocol, to, PATIENCE).expect("the pod answers");
                assert_eq!(answer.server, pod.name());
            }
        }
    }
    stage.assert_undisturbed();
}
