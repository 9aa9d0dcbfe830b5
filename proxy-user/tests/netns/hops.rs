//! What traceroute and ping show of a service.

use crate::everywhere::{direct, ip, without_icmp_limits};
use crate::stage::{PATIENCE, PROTOCOLS, SHORT, Stage, ask, family};
use std::net::IpAddr;
use xtask::cluster::Namespace;
use xtask::traffic::{ping, trace};

#[test]
fn a_traceroute_to_a_service_shows_the_way_to_its_backend() {
    expect_hops(&[]);
}

/// From a pod, with agents that have these flags.
pub(crate) fn expect_hops(flags: &[&'static str]) {
    let mut stage = Stage::new(flags);
    without_icmp_limits(&stage);
    let [near, far] = [0, 1].map(|index| stage.web[index].clone());
    for backend in [near, far] {
        stage.set_backends(std::slice::from_ref(&backend));
        for protocol in PROTOCOLS {
            for to in stage.cluster_ips() {
                let shell = stage.shell.namespace();
                let hops = |to| trace(shell, protocol, to, SHORT).expect("every hop answers");
                let mut expected = hops(direct(&backend, to));
                assert_eq!(expected.pop(), Some(direct(&backend, to).ip()));
                expected.push(to.ip());
                assert_eq!(hops(to), expected, "{protocol} {to}: {}", backend.name());
            }
        }
    }
    stage.assert_undisturbed();
}

/// What a router says of a masked packet comes back to it on the way to the client, from its own
/// address: a strict one drops that. With several routers between nodes and client this is another.
fn let_own_addresses_pass(router: &Namespace) {
    let write = || {
        for (name, value) in [("accept_local", "1"), ("rp_filter", "0")] {
            for device in ["all", "node1"] {
                let path = format!("/proc/sys/net/ipv4/conf/{device}/{name}");
                std::fs::write(path, value).expect("it can be set");
            }
        }
    };
    router.run(write).expect("the router can be entered");
}

#[test]
fn a_traceroute_from_outside_shows_the_node_and_the_way_to_its_backend() {
    expect_hops_from_outside(&[]);
}

/// From outside, with agents that have these flags.
pub(crate) fn expect_hops_from_outside(flags: &[&'static str]) {
    let mut stage = Stage::new(flags);
    without_icmp_limits(&stage);
    let_own_addresses_pass(stage.cluster.router());
    let far = stage.web[1].clone();
    stage.set_backends(std::slice::from_ref(&far));
    let client = stage.cluster.client();
    let [one, two] = [1, 2].map(|node| stage.cluster.node(node));
    for protocol in PROTOCOLS {
        for to in stage.node_ports(1) {
            let plan = one.plan();
            let router = family([plan.subnet_v4(1).into(), plan.subnet_v6(1).into()], to);
            let outer: [IpAddr; 2] =
                ["192.0.2.1", "2001:db8::1"].map(|it| it.parse().expect("an address"));
            let expected = [
                family(outer, to),
                family(one.addresses(), to),
                router,
                family(two.addresses(), to),
                to.ip(),
            ];
            let hops = trace(client.namespace(), protocol, to, SHORT);
            assert_eq!(
                hops.expect("every hop answers"),
                expected,
                "{protocol} {to}"
            );
        }
    }
    stage.assert_undisturbed();
}

#[test]
fn ping_is_none_of_a_services_business() {
    let stage = Stage::new(&[]);
    let (shell, client) = (&stage.shell, stage.cluster.client());
    for outside in client.addresses() {
        ping(shell.namespace(), outside, PATIENCE).expect("a pod's ping to outside");
    }
    for node in stage.cluster.node(1).addresses() {
        ping(client.namespace(), node, PATIENCE).expect("a ping to a node");
    }
    for to in stage.cluster_ips() {
        let silent = ping(shell.namespace(), to.ip(), SHORT);
        assert!(silent.is_err(), "no route leads to {}", to.ip());
        // Somebody has the address after all, and routes lead to it.
        let family = if to.is_ipv4() { "-4" } else { "-6" };
        let add = format!("address add {} dev lo", to.ip());
        ip(stage.cluster.router(), family, &add);
        ping(shell.namespace(), to.ip(), PATIENCE).expect("who has the address answers");
        for protocol in PROTOCOLS {
            let answer = ask(shell, protocol, to, PATIENCE).expect("the service answers");
            assert!(answer.server.starts_with("web-"), "{answer:?}");
        }
    }
    stage.assert_undisturbed();
}
