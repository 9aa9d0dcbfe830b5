//! The fixture table: packets, and what must become of them, on the host and in the kernel.

mod confirmed;
mod endings;
mod fragments;
mod icmp;
mod ipv4;
mod journeys;
mod oddities;
mod policies;
mod refusals;

use crate::testing::{PacketBuilder, Step, World, tcp, udp};
use proxy_common::{FrontendKind, Locality, Proto};

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
    /// A router on the way to somewhere.
    router: &'static str,
    pod: &'static str,
    /// The same pod with the only port of a range of one.
    pod_2000: &'static str,
    /// The same pod where it listens.
    itself: &'static str,
    frontend: &'static str,
    other_frontend: &'static str,
    node_port: &'static str,
    outside: &'static str,
    other_outside: &'static str,
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
        router: "198.51.100.1",
        pod: "10.244.1.9:20000",
        pod_2000: "10.244.1.9:2000",
        itself: "10.244.1.9:8080",
        frontend: "10.96.0.10:80",
        other_frontend: "10.96.0.11:80",
        node_port: "172.31.1.2:30080",
        outside: "192.0.2.10:20000",
        other_outside: "192.0.2.11:20000",
        local: "10.244.1.5:8080",
        remote: "10.244.2.6:8080",
        masked: "172.31.1.2:20000",
        masked_2000: "172.31.1.2:2000",
    },
    Places {
        family: "IPv6",
        router: "2001:db8:ffff::1",
        pod: "[fd00:10:244:1::9]:20000",
        pod_2000: "[fd00:10:244:1::9]:2000",
        itself: "[fd00:10:244:1::9]:8080",
        frontend: "[fd00:10:96::10]:80",
        other_frontend: "[fd00:10:96::11]:80",
        node_port: "[fd00:172:31:1::2]:30080",
        outside: "[2001:db8::10]:20000",
        other_outside: "[2001:db8::11]:20000",
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
            for (name, world, steps) in journeys::journeys(places, proto, make)
                .into_iter()
                .chain(icmp::errors(places, proto, make))
                .chain(refusals::refusals(places, proto, make))
                .chain(policies::policies(places, proto, make))
                .chain(fragments::fragments(places, proto, make))
            {
                all.push(Fixture {
                    name: format!("{name}, {title}"),
                    world,
                    steps,
                });
            }
        }
        for (name, world, steps) in oddities::oddities(places)
            .into_iter()
            .chain(endings::endings(places))
            .chain(confirmed::confirmed(places))
            .chain(icmp::oddities(places))
            .chain(refusals::oddities(places))
            .chain(policies::oddities(places))
            .chain(fragments::oddities(places))
        {
            all.push(Fixture {
                name: format!("{name}, {}", places.family),
                world,
                steps,
            });
        }
    }
    for (name, world, steps) in ipv4::oddities().into_iter().chain(fragments::extensions()) {
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
