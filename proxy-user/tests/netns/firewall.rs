//! Firewalls that forbid what nobody has allowed, and other people's translations.

use crate::cells::{Place, Way};
use crate::shaped::Shaped;
use crate::stage::{PATIENCE, PROTOCOLS, SHORT, TARGET, ask, family};
use std::net::SocketAddr;
use xtask::cluster::{CLUSTER_CIDR_V4, CLUSTER_CIDR_V6, Pod, PodLink, Shape};

/// The port of a pod on its node, as the portmap plugin publishes it.
const HOST_PORT: u16 = 18_080;

#[test]
fn a_firewall_that_denies_forwarding_has_to_allow_pods_and_nothing_of_services() {
    let shaped = Shaped::new(Shape::default());
    let deny = "table inet firewall {
        chain forward {
            type filter hook forward priority 10; policy drop;
            ct state established,related accept
        }
    }";
    // Pods in the network of a node are reached by its address.
    let host = shaped.backend(Place::RemoteHost);
    let (v4, v6) = (host.v4(), host.v6());
    let allow = format!(
        "table inet firewall {{
            chain forward {{
                ip saddr {CLUSTER_CIDR_V4} accept
                ip daddr {CLUSTER_CIDR_V4} accept
                ip6 saddr {CLUSTER_CIDR_V6} accept
                ip6 daddr {CLUSTER_CIDR_V6} accept
                ip daddr {v4} tcp dport {TARGET} accept
                ip daddr {v4} udp dport {TARGET} accept
                ip6 daddr {v6} tcp dport {TARGET} accept
                ip6 daddr {v6} udp dport {TARGET} accept
            }}
        }}"
    );
    for node in shaped.cluster.nodes() {
        node.namespace().command("nft", &[deny]).unwrap();
    }
    for (way, place) in [
        (Way::ClusterIp, Place::Local),
        (Way::ClusterIp, Place::Remote),
        (Way::NodePort, Place::Local),
        (Way::NodePort, Place::Remote),
    ] {
        let client = shaped.client(way, place);
        let to = shaped.frontend(way, place, false);
        for protocol in PROTOCOLS {
            let answer = ask(client, protocol, to, SHORT);
            assert!(answer.is_err(), "{protocol} {way:?} {place:?} is denied");
        }
    }
    for node in shaped.cluster.nodes() {
        node.namespace().command("nft", &[&allow]).unwrap();
    }
    shaped.expect_matrix();
}

#[test]
fn ports_that_another_plugin_publishes_on_the_node_go_on_working() {
    for pods in [PodLink::Routed, PodLink::FilteredBridge] {
        let shaped = Shaped::new(Shape {
            pods,
            ..Shape::default()
        });
        let pod = shaped.backend(Place::Local);
        let node = shaped.cluster.node(1);
        node.namespace().command("nft", &[&publish(pod)]).unwrap();
        for client in [&shaped.shell, shaped.cluster.client(), pod] {
            expect_published(&shaped, client);
        }
        shaped.disturbed().unwrap();
    }
}

/// The backend sees the client, unless that is itself: then the plugin puts the node in its place.
fn expect_published(shaped: &Shaped, client: &Pod) {
    let pod = shaped.backend(Place::Local);
    for address in shaped.cluster.node(1).addresses() {
        let to = SocketAddr::new(address, HOST_PORT);
        for protocol in PROTOCOLS {
            let answer = ask(client, protocol, to, PATIENCE)
                .unwrap_or_else(|error| panic!("{protocol} {} -> {to}: {error}", client.name()));
            assert_eq!(answer.server, pod.name());
            let is_own = answer.seen_source.ip() == family(client.addresses(), to);
            assert_eq!(is_own, client != pod, "{answer:?}");
        }
    }
}

/// The rules of the portmap plugin.
fn publish(pod: &Pod) -> String {
    let (v4, v6) = (pod.v4(), pod.v6());
    format!(
        "table inet portmap {{
            chain prerouting {{
                type nat hook prerouting priority dstnat;
                meta nfproto ipv4 fib daddr type local meta l4proto {{ tcp, udp }} th dport {HOST_PORT} dnat ip to {v4}:{TARGET}
                meta nfproto ipv6 fib daddr type local meta l4proto {{ tcp, udp }} th dport {HOST_PORT} dnat ip6 to [{v6}]:{TARGET}
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                ct status dnat ip saddr {v4} ip daddr {v4} masquerade
                ct status dnat ip6 saddr {v6} ip6 daddr {v6} masquerade
            }}
        }}"
    )
}
