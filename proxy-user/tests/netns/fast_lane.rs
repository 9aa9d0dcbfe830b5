//! The fast lane: all that works through a node's stack works past it.
#![expect(clippy::unwrap_used, reason = "tests: to panic is to fail")]

use crate::cells::{Place, Way};
use crate::everywhere::{ip, without_icmp_limits};
use crate::matrix::{BRIDGE, FLANNEL, PLAIN};
use crate::policy::drop_forwarded;
use crate::shaped::{Lane, Shaped};
use crate::stage::{PATIENCE, PROTOCOLS, SHORT, Stage, ask, expect_service, family};
use crate::{hops, mtu, refused, service};
use std::net::SocketAddr;
use xtask::cluster::{Families, Namespace, NodeLink, Offloads, Pod, Protocol, Shape, Uplink};
use xtask::traffic::{Conversation, Datagrams, tcp_open, udp_open};

const FLAGS: [&str; 2] = ["--fast-lane", "eth0,pod*"];
const OFF: [&str; 2] = ["--fast-lane", "off"];

macro_rules! fast {
    ($($test:ident: $shape:expr;)*) => {
        $(
            #[test]
            fn $test() {
                Shaped::by(Lane::Fast, $shape).expect_matrix();
            }
        )*
    };
}

fast! {
    it_carries_pods_on_routed_veths: PLAIN;
    it_carries_pods_on_a_bridge: BRIDGE;
    it_carries_beside_flannels_masquerade: FLANNEL;
    it_carries_over_ipip: Shape { nodes: NodeLink::Ipip, ..PLAIN };
    it_carries_over_wireguard: Shape { nodes: NodeLink::WireGuard, ..PLAIN };
    it_carries_on_a_vlan: Shape { uplink: Uplink::Vlan, ..PLAIN };
    it_carries_on_a_bond: Shape { uplink: Uplink::Bond, ..PLAIN };
    it_carries_with_two_uplinks: Shape { uplink: Uplink::Two, ..PLAIN };
    it_carries_where_sums_are_complete: Shape { offloads: Offloads::NoSums, ..PLAIN };
    it_carries_without_segmentation: Shape { offloads: Offloads::NoSegmentation, ..PLAIN };
    it_carries_where_packets_are_merged: Shape { offloads: Offloads::Merging, ..PLAIN };
    it_carries_without_ipv6_addresses: Shape { families: Families::V4, ..PLAIN };
}

#[test]
fn all_of_a_service_works_with_it() {
    let stage = Stage::new(&FLAGS);
    expect_service(&stage);
    assert!(fast(&stage) > 0);
    stage.assert_undisturbed();
}

#[test]
fn direct_connections_follow_those_that_it_has_carried() {
    service::expect_direct_after_service(&FLAGS);
}

#[test]
fn a_traceroute_shows_the_same_way() {
    hops::expect_hops(&FLAGS);
    hops::expect_hops_from_outside(&FLAGS);
}

#[test]
fn who_is_refused_is_told_so() {
    refused::expect_refusals(&FLAGS);
}

#[test]
fn packets_fit_a_narrow_link_that_begins_at_the_node() {
    mtu::expect_to_fit(&FLAGS);
    mtu::expect_to_fit_from_outside(&FLAGS);
}

#[test]
fn packets_fit_a_narrow_link_beyond_the_node() {
    let mut stage = Stage::new(&FLAGS);
    without_icmp_limits(&stage);
    far(&mut stage);
    mtu::narrow_to_pods(&stage, 2);
    for to in stage.cluster_ips() {
        let datagrams = open_fast_datagrams(&stage, to);
        mtu::expect_to_be_too_long(&datagrams);
    }
    stage.assert_undisturbed();
}

#[test]
fn packets_that_a_device_has_become_too_narrow_for_are_answered() {
    let mut stage = Stage::new(&FLAGS);
    without_icmp_limits(&stage);
    far(&mut stage);
    let node = stage.cluster.node(1).namespace();
    for to in stage.cluster_ips() {
        let datagrams = open_fast_datagrams(&stage, to);
        ip(node, "-4", "link set eth0 mtu 1300");
        mtu::expect_to_be_too_long(&datagrams);
        ip(node, "-4", "link set eth0 mtu 1500");
    }
}

#[test]
fn nobody_waits_for_a_neighbour_that_is_not_known() {
    let mut stage = Stage::new(&FLAGS);
    far(&mut stage);
    let node = stage.cluster.node(1).namespace();
    for to in stage.cluster_ips() {
        let forget = || {
            ip(
                node,
                if to.is_ipv4() { "-4" } else { "-6" },
                "neigh flush all",
            )
        };
        forget();
        let answer = ask(&stage.shell, Protocol::Tcp, to, PATIENCE).expect("the service answers");
        assert!(answer.elapsed < SHORT, "the first segment: {answer:?}");
        let mut known = open_fast(&stage, to);
        for _ in 0..5 {
            forget();
            let time = known.echo(b"are you there?").expect("it goes on");
            assert!(time < SHORT, "a later segment: {time:?}");
        }
    }
    stage.assert_undisturbed();
}

#[test]
fn connections_follow_a_route_that_changes() {
    let shaped = Shaped::by(
        Lane::Fast,
        Shape {
            uplink: Uplink::Two,
            ..PLAIN
        },
    );
    let (node, router) = (shaped.cluster.node(1).namespace(), shaped.cluster.router());
    let (near, far) = (shaped.cluster.node(1).plan(), shaped.cluster.node(2).plan());
    // From the second uplink to the first, both ways: routers are strict.
    let there = [
        format!("route add {} via {}", far.pod_cidr_v4(), near.subnet_v4(1)),
        format!("route add {} via {}", far.pod_cidr_v6(), near.subnet_v6(1)),
    ];
    let back = [
        format!(
            "route replace {} via {}",
            near.pod_cidr_v4(),
            near.subnet_v4(2)
        ),
        format!(
            "route replace {} via {}",
            near.pod_cidr_v6(),
            near.subnet_v6(2)
        ),
    ];
    for (is_v6, version) in [(false, "-4"), (true, "-6")] {
        let to = shaped.frontend(Way::ClusterIp, Place::Remote, is_v6);
        ask(&shaped.shell, Protocol::Tcp, to, PATIENCE).expect("the service answers");
        let open = tcp_open(shaped.shell.namespace(), to, PATIENCE);
        let mut conversation = open.expect("the service answers");
        assert!(comes_by(router, "node1b", &mut conversation));
        ip(node, version, &there[usize::from(is_v6)]);
        ip(router, version, &back[usize::from(is_v6)]);
        assert!(comes_by(router, "node1", &mut conversation));
    }
}

#[test]
fn connections_go_on_when_it_is_switched_off_and_on() {
    let mut stage = Stage::new(&FLAGS);
    far(&mut stage);
    let to = stage.cluster_ips()[0];
    let mut begun_fast = open_fast(&stage, to);
    stage.restart_agent(1, &OFF);
    let mut begun_slow = tcp_open(stage.shell.namespace(), to, PATIENCE).expect("it answers");
    let before = fast(&stage);
    begun_slow.echo(b"are you there?").expect("it goes on");
    assert_eq!(fast(&stage), before, "it was opened through the stack");
    begun_fast.echo(b"are you there?").expect("it goes on");
    assert_eq!(fast(&stage), before, "now all goes through the stack");
    stage.restart_agent(1, &FLAGS);
    let before = fast(&stage);
    begun_slow.echo(b"are you there?").expect("it goes on");
    assert_eq!(fast(&stage), before, "it was opened through the stack");
    begun_fast.echo(b"are you there?").expect("it goes on");
    assert!(fast(&stage) > before, "it was opened past the stack");
    stage.assert_undisturbed();
}

/// What the documents warn of.
#[test]
fn it_passes_rules_of_the_nodes_firewall_by() {
    let mut stage = Stage::new(&FLAGS);
    let far = far(&mut stage);
    let to = stage.cluster_ips()[0];
    drop(open_fast(&stage, to));
    let rules = drop_forwarded(&stage.shell, &far);
    stage
        .cluster
        .node(1)
        .namespace()
        .command("nft", &[&rules])
        .unwrap();
    for protocol in PROTOCOLS {
        ask(&stage.shell, protocol, to, PATIENCE).expect("the rules are not asked");
    }
    stage.restart_agent(1, &OFF);
    for protocol in PROTOCOLS {
        let forbidden = ask(&stage.shell, protocol, to, SHORT);
        assert!(forbidden.is_err(), "the rules are asked: {forbidden:?}");
    }
}

/// Makes a pod of another node the only backend, and its neighbours known.
fn far(stage: &mut Stage) -> Pod {
    let far = stage.web[1].clone();
    stage.set_backends(std::slice::from_ref(&far));
    for to in stage.cluster_ips() {
        let answer = ask(&stage.shell, Protocol::Tcp, to, PATIENCE).expect("the service answers");
        assert_eq!(answer.seen_source.ip(), family(stage.shell.addresses(), to));
    }
    far
}

/// Packets that have passed the stack of the first node by.
fn fast(stage: &Stage) -> u64 {
    stage.count(1, "passed", "fast")
}

/// A connection that does, from the first node's pod.
fn open_fast(stage: &Stage, to: SocketAddr) -> Conversation {
    let before = fast(stage);
    let open = tcp_open(stage.shell.namespace(), to, PATIENCE);
    let mut conversation = open.expect("the service answers");
    conversation.echo(b"are you there?").expect("it goes on");
    assert!(fast(stage) >= before + 3, "{to}: it goes past the stack");
    conversation
}

/// The same of datagrams.
fn open_fast_datagrams(stage: &Stage, to: SocketAddr) -> Datagrams {
    let before = fast(stage);
    let datagrams = udp_open(stage.shell.namespace(), to, PATIENCE).unwrap();
    for _ in 0..2 {
        datagrams.ask(b"who are you?").expect("the service answers");
    }
    assert!(fast(stage) > before, "{to}: it goes past the stack");
    datagrams
}

/// Whether what is said comes to the router by a device.
fn comes_by(router: &Namespace, device: &str, conversation: &mut Conversation) -> bool {
    const OFTEN: u64 = 100;
    let before = received(router, device);
    for _ in 0..OFTEN {
        conversation.echo(b"which way?").expect("it goes on");
    }
    received(router, device) - before >= OFTEN
}

/// Packets that a device has received: the second number of its line.
fn received(place: &Namespace, device: &str) -> u64 {
    let read = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let text = place.run(read).unwrap();
    let mut lines = text.lines().filter_map(|line| line.trim().split_once(':'));
    let (_, numbers) = lines.find(|(name, _)| *name == device).unwrap();
    numbers.split_whitespace().nth(1).unwrap().parse().unwrap()
}
