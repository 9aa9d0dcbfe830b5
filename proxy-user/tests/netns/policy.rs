//! Network policies of others, which speak of clients and backends: they hold for Services, too.
#![expect(clippy::unwrap_used, reason = "tests: to panic is to fail")]

use crate::cells::{Place, Way};
use crate::shaped::Shaped;
use crate::stage::{PATIENCE, PROTOCOLS, SHORT, ask, family};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::thread::ScopedJoinHandle;
use xtask::cluster::{Pod, PodLink, Shape};

/// What is forbidden, one at a time: a pod, the client outside, and a pod that asks itself.
const FORBIDDEN: [(Way, Place); 6] = [
    (Way::ClusterIp, Place::Local),
    (Way::ClusterIp, Place::Remote),
    (Way::OwnNodePort, Place::Local),
    (Way::NodePort, Place::Local),
    (Way::ClusterIp, Place::Hairpin),
    (Way::OwnNodePort, Place::Hairpin),
];

fn shaped(pods: PodLink) -> Shaped {
    Shaped::new(Shape {
        pods,
        ..Shape::default()
    })
}

/// Whether anybody answers, over both families and protocols; all four must agree.
fn answers(shaped: &Shaped, way: Way, place: Place) -> bool {
    let client = shaped.client(way, place);
    // At once: who waits for nothing waits for long.
    let asked: Vec<bool> = std::thread::scope(|scope| {
        let questions: Vec<_> = [false, true]
            .into_iter()
            .flat_map(|is_v6| PROTOCOLS.map(|protocol| (protocol, is_v6)))
            .map(|(protocol, is_v6)| {
                let to = shaped.frontend(way, place, is_v6);
                scope.spawn(move || ask(client, protocol, to, SHORT).is_ok())
            })
            .collect();
        let answers = questions.into_iter().map(ScopedJoinHandle::join);
        answers.map(Result::unwrap).collect()
    });
    let is_one = asked.iter().all(|it| *it == asked[0]);
    assert!(is_one, "{way:?} {place:?}: {asked:?}");
    asked[0]
}

/// A client that nothing is forbidden to reaches the same backend, which sees its own address.
fn expect_permitted(shaped: &Shaped) {
    let permitted = shaped.backend(Place::Hairpin);
    for is_v6 in [false, true] {
        let to = shaped.frontend(Way::ClusterIp, Place::Local, is_v6);
        for protocol in PROTOCOLS {
            let answer = ask(permitted, protocol, to, PATIENCE).expect("the permitted client");
            assert_eq!(answer.server, "local");
            assert_eq!(answer.seen_source.ip(), family(permitted.addresses(), to));
        }
    }
}

#[test]
fn what_netfilter_forbids_is_forbidden_through_services_on_veths() {
    expect_netfilter(PodLink::Routed);
}

#[test]
fn what_netfilter_forbids_is_forbidden_through_services_on_a_bridge() {
    expect_netfilter(PodLink::Bridge);
}

fn expect_netfilter(pods: PodLink) {
    let shaped = shaped(pods);
    let node = shaped.cluster.node(1).namespace();
    for (way, place) in FORBIDDEN {
        let (client, backend) = (shaped.client(way, place), shaped.backend(place));
        assert!(answers(&shaped, way, place), "{way:?} {place:?} without");
        node.command("nft", &[&drop_forwarded(client, backend)])
            .unwrap();
        assert!(!answers(&shaped, way, place), "{way:?} {place:?} with");
        expect_permitted(&shaped);
        node.command("nft", &["delete table inet foreign"]).unwrap();
        assert!(answers(&shaped, way, place), "{way:?} {place:?} after");
    }
}

pub(crate) fn drop_forwarded(client: &Pod, backend: &Pod) -> String {
    format!(
        "table inet foreign {{
            chain forward {{
                type filter hook forward priority 10; policy accept;
                ip saddr {} ip daddr {} drop
                ip6 saddr {} ip6 daddr {} drop
            }}
        }}",
        client.v4(),
        backend.v4(),
        client.v6(),
        backend.v6()
    )
}

/// Where somebody else's filter sits, and which end of a packet it looks at.
#[derive(Clone, Copy)]
enum Filter {
    /// On the client's device, on packets to the backend.
    AtClient,
    /// On the backend's device, on packets from the client.
    AtBackend,
}

#[test]
fn what_a_filter_drops_is_dropped_through_services_on_veths() {
    expect_filters(PodLink::Routed);
}

#[test]
fn what_a_filter_drops_is_dropped_through_services_on_a_bridge() {
    expect_filters(PodLink::Bridge);
}

fn expect_filters(pods: PodLink) {
    let shaped = shaped(pods);
    let node = shaped.cluster.node(1).namespace();
    for (way, place) in FORBIDDEN {
        let filter = match (way, place) {
            (Way::NodePort, _) => Filter::AtBackend,
            (Way::ClusterIp | Way::OwnNodePort, _) => Filter::AtClient,
        };
        let (client, backend) = (shaped.client(way, place), shaped.backend(place));
        let (pod, hook, program) = match filter {
            Filter::AtClient => (client, "ingress", drops_to(backend)),
            Filter::AtBackend => (backend, "egress", drops_from(client)),
        };
        let device = format!("pod{}", pod.v4().octets()[3]);
        // Where there is no tcx our own programs have brought one.
        let _ = node.command("tc", &["qdisc", "add", "dev", &device, "clsact"]);
        let at = ["dev", &device, hook, "pref", "77"];
        let what = ["protocol", "all", "bpf", "da", "bytecode", &program];
        let add = [&["filter", "add"], &at[..], &what[..]].concat();
        assert!(answers(&shaped, way, place), "{way:?} {place:?} without");
        node.command("tc", &add).unwrap();
        assert!(!answers(&shaped, way, place), "{way:?} {place:?} with");
        expect_permitted(&shaped);
        node.command("tc", &[&["filter", "del"], &at[..]].concat())
            .unwrap();
        assert!(answers(&shaped, way, place), "{way:?} {place:?} after");
    }
}

/// A classic BPF program that drops what is for a pod. Offsets count from the Ethernet header; of IPv6
/// addresses it looks at the last word.
fn drops_to(pod: &Pod) -> String {
    drops((30, pod.v4()), (50, pod.v6()))
}

/// As [`drops_to`], what comes from a pod.
fn drops_from(pod: &Pod) -> String {
    drops((26, pod.v4()), (34, pod.v6()))
}

fn drops((at_v4, v4): (u8, Ipv4Addr), (at_v6, v6): (u8, Ipv6Addr)) -> String {
    let v4 = u32::from(v4);
    let v6 = u128::from(v6) & u128::from(u32::MAX);
    // Is it IPv4? Then compare one word, else the other. -1 lets go on, 2 drops.
    format!(
        "8,40 0 0 12,21 0 2 2048,32 0 0 {at_v4},21 3 2 {v4},32 0 0 {at_v6},21 1 0 {v6},6 0 0 4294967295,6 0 0 2"
    )
}
