//! The fixture table: packets, and what must become of them, on the host and in the kernel.

use crate::testing::{PacketBuilder, Step, World, at, change, tcp, udp};
use crate::{DropReason, Verdict};
use proxy_common::Hook::{Egress, Ingress};
use proxy_common::{FrontendKind, Locality, Proto, ServiceWord};

/// A world, and the life of some packets in it.
pub struct Fixture {
    /// A sentence.
    pub name: String,
    /// The maps at the start.
    pub world: World,
    /// What happens.
    pub steps: Vec<Step>,
}

/// The sockets that the journeys of one family start from and lead to.
struct Places {
    family: &'static str,
    pod: &'static str,
    /// The same pod with the only port of a range of one.
    pod_2000: &'static str,
    /// The same pod where it listens.
    itself: &'static str,
    frontend: &'static str,
    other_frontend: &'static str,
    node_port: &'static str,
    outside: &'static str,
    local: &'static str,
    remote: &'static str,
    /// The node's address and the client's port.
    masked: &'static str,
    /// The node's address and the only port of a range of one.
    masked_2000: &'static str,
}

const PLACES: [Places; 2] = [
    Places {
        family: "IPv4",
        pod: "10.244.1.9:20000",
        pod_2000: "10.244.1.9:2000",
        itself: "10.244.1.9:8080",
        frontend: "10.96.0.10:80",
        other_frontend: "10.96.0.11:80",
        node_port: "172.31.1.2:30080",
        outside: "192.0.2.10:20000",
        local: "10.244.1.5:8080",
        remote: "10.244.2.6:8080",
        masked: "172.31.1.2:20000",
        masked_2000: "172.31.1.2:2000",
    },
    Places {
        family: "IPv6",
        pod: "[fd00:10:244:1::9]:20000",
        pod_2000: "[fd00:10:244:1::9]:2000",
        itself: "[fd00:10:244:1::9]:8080",
        frontend: "[fd00:10:96::10]:80",
        other_frontend: "[fd00:10:96::11]:80",
        node_port: "[fd00:172:31:1::2]:30080",
        outside: "[2001:db8::10]:20000",
        local: "[fd00:10:244:1::5]:8080",
        remote: "[fd00:10:244:2::6]:8080",
        masked: "[fd00:172:31:1::2]:20000",
        masked_2000: "[fd00:172:31:1::2]:2000",
    },
];

type Make = fn(&str, &str) -> PacketBuilder;

/// The whole table.
pub fn fixtures() -> Vec<Fixture> {
    let mut all = Vec::new();
    for places in &PLACES {
        for (proto, make) in [(Proto::Tcp, tcp as Make), (Proto::Udp, udp as Make)] {
            let title = format!("{} over {}", proto.name(), places.family);
            for (name, world, steps) in journeys(places, proto, make) {
                all.push(Fixture {
                    name: format!("{name}, {title}"),
                    world,
                    steps,
                });
            }
        }
        for (name, world, steps) in oddities(places) {
            all.push(Fixture {
                name: format!("{name}, {}", places.family),
                world,
                steps,
            });
        }
    }
    for (name, world, steps) in ipv4_oddities() {
        all.push(Fixture {
            name: name.into(),
            world,
            steps,
        });
    }
    all
}

type Case = (&'static str, World, Vec<Step>);

fn cluster_ip(proto: Proto, places: &Places, backend: &str, locality: Locality) -> World {
    let backends = [(backend, locality)];
    World::default().service(proto, places.frontend, FrontendKind::ClusterIp, &backends)
}

fn node_port(proto: Proto, places: &Places, backend: &str, locality: Locality) -> World {
    let backends = [(backend, locality)];
    World::default().service(proto, places.node_port, FrontendKind::NodePort, &backends)
}

/// Whole connections, first packet to reply, by every way through a node.
fn journeys(places: &Places, proto: Proto, make: Make) -> Vec<Case> {
    use Locality::{Local, Remote};
    let Places {
        pod,
        itself,
        frontend,
        outside,
        local,
        remote,
        ..
    } = *places;
    let Places {
        node_port: np,
        masked: node,
        ..
    } = *places;
    vec![
        (
            "a pod reaches a remote backend by the cluster address",
            cluster_ip(proto, places, remote, Remote),
            unmasked(make, pod, frontend, remote),
        ),
        (
            "a pod reaches a local backend by the cluster address",
            cluster_ip(proto, places, local, Local),
            unmasked(make, pod, frontend, local),
        ),
        (
            "a client outside reaches a local backend and keeps its address",
            node_port(proto, places, local, Local),
            unmasked(make, outside, np, local),
        ),
        (
            "a client outside reaches a remote backend masked",
            node_port(proto, places, remote, Remote),
            masked(make, outside, np, remote, node),
        ),
        (
            "a client outside of the cluster is masked at a cluster address too",
            cluster_ip(proto, places, remote, Remote),
            masked(make, outside, frontend, remote, node),
        ),
        (
            "a client whose port is outside of the range gets another",
            node_port(proto, places, remote, Remote).with_snat_port(2000),
            masked(make, outside, np, remote, places.masked_2000),
        ),
        (
            "a pod that reaches itself is masked",
            cluster_ip(proto, places, itself, Local),
            masked(make, pod, frontend, itself, node),
        ),
    ]
}

/// Client and backend see each other's addresses; the reply is translated on its way out.
fn unmasked(make: Make, client: &str, frontend: &str, backend: &str) -> Vec<Step> {
    let between = make(client, backend);
    vec![
        at(Ingress, make(client, frontend).syn()).becomes(Verdict::Created, between.clone().syn()),
        at(Egress, between.clone().syn()).passes(Verdict::NotService),
        at(Ingress, make(backend, client).syn_ack()).passes(Verdict::OtherHook),
        at(Egress, make(backend, client).syn_ack())
            .becomes(Verdict::Established, make(frontend, client).syn_ack()),
        at(Ingress, make(client, frontend)).becomes(Verdict::Established, between),
    ]
}

/// The backend sees the node's address; the reply finds the client again at ingress.
fn masked(make: Make, client: &str, frontend: &str, backend: &str, node: &str) -> Vec<Step> {
    let (between, outside) = (make(client, backend), make(node, backend));
    vec![
        at(Ingress, make(client, frontend).syn()).becomes(Verdict::Created, between.clone().syn()),
        at(Egress, between.clone().syn()).becomes(Verdict::Masked, outside.clone().syn()),
        at(Ingress, make(backend, node).syn_ack())
            .becomes(Verdict::Established, make(backend, client).syn_ack()),
        at(Egress, make(backend, client).syn_ack())
            .becomes(Verdict::Established, make(frontend, client).syn_ack()),
        at(Ingress, make(client, frontend)).becomes(Verdict::Established, between.clone()),
        at(Egress, between).becomes(Verdict::Established, outside),
    ]
}

/// What is not a whole connection, in either family.
fn oddities(places: &Places) -> Vec<Case> {
    use Locality::{Local, Remote};
    let Places {
        pod,
        frontend,
        other_frontend,
        node_port: np,
        outside,
        local,
        remote,
        ..
    } = *places;
    vec![
        (
            "a frontend without backends drops",
            World::default().service(Proto::Tcp, frontend, FrontendKind::ClusterIp, &[]),
            vec![at(Ingress, tcp(pod, frontend).syn()).drops(DropReason::NoBackend)],
        ),
        (
            "another port, another protocol and another address are none of ours",
            cluster_ip(Proto::Tcp, places, local, Local),
            vec![
                at(Ingress, tcp(pod, np).syn()).passes(Verdict::NotService),
                at(Ingress, udp(pod, frontend)).passes(Verdict::NotService),
                at(Ingress, tcp(pod, remote).syn()).passes(Verdict::NotService),
                at(Egress, tcp(pod, frontend)).passes(Verdict::NotService),
            ],
        ),
        (
            "a segment of an unknown connection is not balanced",
            cluster_ip(Proto::Tcp, places, local, Local),
            vec![
                at(Ingress, tcp(pod, frontend)).passes(Verdict::NoFlow),
                at(Ingress, tcp(pod, frontend).syn_ack()).passes(Verdict::NoFlow),
            ],
        ),
        (
            "two frontends, one backend, one client port: the second gets another port",
            two_frontends(places, local),
            clash(places),
        ),
        (
            "a datagram and a new connection leave a backend that is gone, a known one stays",
            World::default()
                .service(
                    Proto::Udp,
                    frontend,
                    FrontendKind::ClusterIp,
                    &[(local, Local)],
                )
                .service(Proto::Tcp, np, FrontendKind::NodePort, &[(local, Local)]),
            vec![
                at(Ingress, udp(pod, frontend)).becomes(Verdict::Created, udp(pod, local)),
                at(Ingress, tcp(outside, np).syn())
                    .becomes(Verdict::Created, tcp(outside, local).syn()),
                change(match places.family {
                    "IPv4" => |world| replace_backends(world, &PLACES[0]),
                    _ => |world| replace_backends(world, &PLACES[1]),
                }),
                at(Ingress, udp(pod, frontend)).becomes(Verdict::Created, udp(pod, remote)),
                at(Ingress, tcp(outside, np)).becomes(Verdict::Established, tcp(outside, local)),
                at(Ingress, tcp(outside, np).syn())
                    .becomes(Verdict::Created, tcp(outside, remote).syn()),
            ],
        ),
        (
            "a node without an address of the family can't mask",
            {
                let mut world = node_port(Proto::Tcp, places, remote, Remote);
                world.config.v4 = bytemuck::Zeroable::zeroed();
                world.config.v6 = bytemuck::Zeroable::zeroed();
                world
            },
            vec![
                at(Ingress, tcp(outside, np).syn())
                    .becomes(Verdict::Created, tcp(outside, remote).syn()),
                at(Egress, tcp(outside, remote).syn()).drops(DropReason::NoMasqueradeAddress),
            ],
        ),
        (
            "a region of another generation is never used",
            {
                let mut world = cluster_ip(Proto::Tcp, places, local, Local);
                world.services.insert(1, ServiceWord::new(64, 7));
                world
            },
            vec![at(Ingress, tcp(pod, frontend).syn()).drops(DropReason::ServiceTorn)],
        ),
        (
            "cut-off headers are the stack's business",
            {
                let world = cluster_ip(Proto::Tcp, places, local, Local);
                world.service(Proto::Udp, other_frontend, FrontendKind::ClusterIp, &[])
            },
            [
                tcp(pod, frontend).syn().build(),
                udp(pod, other_frontend).build(),
            ]
            .into_iter()
            .flat_map(|packet| truncations(&packet))
            .collect(),
        ),
    ]
}

fn two_frontends(places: &Places, backend: &str) -> World {
    let backends = [(backend, Locality::Local)];
    let world = World::default().with_snat_port(2000);
    let world = world.service(
        Proto::Tcp,
        places.frontend,
        FrontendKind::ClusterIp,
        &backends,
    );
    world.service(
        Proto::Tcp,
        places.other_frontend,
        FrontendKind::ClusterIp,
        &backends,
    )
}

fn clash(places: &Places) -> Vec<Step> {
    let Places {
        pod,
        pod_2000,
        frontend,
        other_frontend,
        local,
        ..
    } = *places;
    vec![
        at(Ingress, tcp(pod, frontend).syn()).becomes(Verdict::Created, tcp(pod, local).syn()),
        at(Ingress, tcp(pod, other_frontend).syn())
            .becomes(Verdict::Created, tcp(pod_2000, local).syn()),
        at(Egress, tcp(local, pod).syn_ack())
            .becomes(Verdict::Established, tcp(frontend, pod).syn_ack()),
        at(Egress, tcp(local, pod_2000).syn_ack())
            .becomes(Verdict::Established, tcp(other_frontend, pod).syn_ack()),
        at(Ingress, tcp(pod, other_frontend)).becomes(Verdict::Established, tcp(pod_2000, local)),
    ]
}

/// Both services get a remote backend in the place of the local one, under the same ids.
fn replace_backends(world: &mut World, places: &Places) {
    world.put_backend(16, places.remote, Locality::Remote, 2);
    world.put_backend(32, places.remote, Locality::Remote, 2);
}

/// The packet cut off at every length from an Ethernet header to one byte short of its transport
/// header.
fn truncations(packet: &[u8]) -> Vec<Step> {
    let headers = packet.len() - b"ferrule".len();
    // Shorter than a network header the kernel's test run refuses.
    let network = if packet[12] == 0x08 { 34 } else { 54 };
    let cut = |length: usize| at(Ingress, &packet[..length]).passes(Verdict::Malformed);
    (network..headers).map(cut).collect()
}

/// What IPv6 has not.
fn ipv4_oddities() -> Vec<Case> {
    let places = &PLACES[0];
    let Places {
        pod,
        frontend,
        local,
        ..
    } = *places;
    let tcp_world = || cluster_ip(Proto::Tcp, places, local, Locality::Local);
    let udp_world = || cluster_ip(Proto::Udp, places, local, Locality::Local);
    let changed = |index: usize, value: u8| {
        let mut packet = tcp(pod, frontend).syn().build();
        packet[index] = value;
        packet
    };
    let options = [1, 1, 1, 1, 1, 1, 1, 0];
    vec![
        (
            "a datagram without a checksum stays without one",
            udp_world(),
            vec![
                at(Ingress, udp(pod, frontend).unsummed())
                    .becomes(Verdict::Created, udp(pod, local).unsummed()),
                at(Egress, udp(local, pod).unsummed())
                    .becomes(Verdict::Established, udp(frontend, pod).unsummed()),
            ],
        ),
        (
            "IPv4 options are stepped over",
            tcp_world(),
            vec![
                at(Ingress, tcp(pod, frontend).syn().options(&options))
                    .becomes(Verdict::Created, tcp(pod, local).syn().options(&options)),
            ],
        ),
        (
            "fragments pass",
            tcp_world(),
            vec![
                at(Ingress, tcp(pod, frontend).syn().fragment(0x2000)).passes(Verdict::Fragment),
                at(Ingress, tcp(pod, frontend).fragment(0x0010)).passes(Verdict::Fragment),
                at(Ingress, tcp(pod, frontend).syn().fragment(0x4000))
                    .becomes(Verdict::Created, tcp(pod, local).syn().fragment(0x4000)),
            ],
        ),
        (
            "contradicting lengths and versions are the stack's business",
            tcp_world(),
            vec![
                at(Ingress, changed(14, 0x44)).passes(Verdict::Malformed),
                at(Ingress, changed(14, 0x65)).passes(Verdict::Malformed),
                at(Ingress, changed(17, 39)).passes(Verdict::Malformed),
            ],
        ),
        (
            "other protocols are none of ours",
            tcp_world(),
            vec![
                at(Ingress, changed(23, 1)).passes(Verdict::Unsupported),
                at(Ingress, changed(13, 0x06)).passes(Verdict::Unsupported),
            ],
        ),
    ]
}
