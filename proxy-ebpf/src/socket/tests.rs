use super::*;
use crate::testing::{FIRST_NETNS, MemorySocket, World, run_hook, tcp, udp};
use proxy_common::{FrontendKind, Hook, Locality, NodeConfig, NodeOptions, Verdict};
use std::collections::BTreeSet;

const DNS: &str = "10.96.0.10:53";
const DNS_V6: &str = "[fd00:10:96::10]:53";
const WEB: &str = "10.96.0.20:80";
const NODE_PORT: &str = "172.31.1.2:30080";
const POD: (&str, Locality) = ("10.244.1.3:8080", Locality::Local);
const OTHER: (&str, Locality) = ("10.244.2.3:8080", Locality::Remote);
const POD_V6: (&str, Locality) = ("[fd00:10:244:1::3]:8080", Locality::Local);

const CALLED: Option<SocketCall> = Some(SocketCall::Connected);
const SENT: Option<SocketCall> = Some(SocketCall::Sent);
const LEFT: Option<SocketCall> = Some(SocketCall::Left);

fn dns(backends: &[(&str, Locality)]) -> World {
    World::default().service(Proto::Udp, DNS, FrontendKind::ClusterIp, backends)
}

fn web(kind: FrontendKind, at: &str) -> World {
    World::default().service(Proto::Tcp, at, kind, &[POD])
}

/// NodePorts of the node's own address answer on loopback.
fn with_loopback(mut world: World) -> World {
    world.config.v4.loopback = world.config.v4.masquerade;
    world
}

fn with(mut world: World, option: NodeOption) -> World {
    world.config = NodeConfig {
        options: NodeOptions::default().with(option, true),
        ..world.config
    };
    world
}

fn tcp_socket() -> MemorySocket {
    MemorySocket::new(Some(Proto::Tcp))
}

fn udp_socket() -> MemorySocket {
    MemorySocket::new(Some(Proto::Udp))
}

/// A socket of the node's own network namespace.
fn host_socket(world: &World) -> MemorySocket {
    MemorySocket {
        netns: world.config.host_netns,
        ..tcp_socket()
    }
}

#[test]
fn connected_sockets_go_to_a_backend_and_name_the_frontend() {
    let world = web(FrontendKind::ClusterIp, WEB);
    let mut socket = tcp_socket();
    assert_eq!(socket.connect(&world, WEB), (CALLED, POD.0.into()));
    assert_eq!(socket.name_peer(POD.0), WEB);
    assert_eq!(socket.receive(POD.0), WEB);
    assert_eq!(socket.receive(OTHER.0), OTHER.0);
}

#[test]
fn what_is_no_frontend_is_left_untouched_and_forgets_the_one_before() {
    let world = web(FrontendKind::ClusterIp, WEB);
    let mut socket = tcp_socket();
    socket.connect(&world, WEB);
    for to in [
        POD.0,
        "10.96.0.20:81",
        "[::ffff:10.96.0.20]:81",
        "127.0.0.1:80",
    ] {
        let to: std::net::SocketAddr = to.parse().unwrap();
        let to = SocketAddress::from(to).std().to_string();
        assert_eq!(socket.connect(&world, &to), (None, to));
        assert_eq!(socket.name_peer(POD.0), POD.0);
    }
    let mut sctp = MemorySocket::new(None);
    assert_eq!(sctp.connect(&world, WEB), (None, WEB.into()));
}

#[test]
fn datagrams_of_a_socket_stay_with_their_backend_as_long_as_it_exists() {
    let mut world = dns(&[POD, OTHER]);
    let mut socket = udp_socket();
    let (call, first) = socket.send(&world, DNS);
    assert_eq!(call, SENT);
    for _ in 0..50 {
        assert_eq!(socket.send(&world, DNS), (SENT, first.clone()));
    }
    assert_eq!(socket.receive(&first), DNS);
    let [gone, stays] = match first == POD.0 {
        true => [16, 17],
        false => [17, 16],
    };
    let id = |id| world.v4.backends[&id];
    let (other, old) = (id(stays), id(gone));
    assert_ne!(old.address, other.address);
    world.v4.backends.remove(&gone);
    world.slots.insert(64 + 1, 1);
    world.slots.insert(64 + 2, stays);
    let moved = other.address.at_port(other.port).std().to_string();
    assert_eq!(socket.send(&world, DNS), (SENT, moved.clone()));
    assert_eq!(socket.receive(&moved), DNS);
    assert_eq!(socket.receive(&first), first, "an answer that comes late");
}

#[test]
fn one_socket_asks_frontends_of_both_families() {
    let world = dns(&[POD]).service(Proto::Udp, DNS_V6, FrontendKind::ClusterIp, &[POD_V6]);
    let mut socket = udp_socket();
    assert_eq!(socket.send(&world, DNS), (SENT, POD.0.into()));
    assert_eq!(socket.send(&world, DNS_V6), (SENT, POD_V6.0.into()));
    assert_eq!(socket.receive(POD.0), DNS);
    assert_eq!(socket.receive(POD_V6.0), DNS_V6);
}

#[test]
fn two_frontends_of_a_socket_have_two_backends_where_that_can_be() {
    let second = "10.96.0.11:53";
    let both = [POD, OTHER];
    let world = dns(&both).service(Proto::Udp, second, FrontendKind::ClusterIp, &both);
    let mut socket = udp_socket();
    let (call, first) = socket.send(&world, DNS);
    assert_eq!(call, SENT);
    let (call, other) = socket.send(&world, second);
    assert_eq!(call, SENT);
    assert_ne!(first, other);
    assert_eq!(
        (socket.receive(&first), socket.receive(&other)),
        (DNS.into(), second.into())
    );
}

#[test]
fn frontends_whose_answers_can_not_be_told_apart_are_all_left_to_devices() {
    let second = "10.96.0.11:53";
    let world = dns(&[POD]).service(Proto::Udp, second, FrontendKind::ClusterIp, &[POD]);
    let mut socket = udp_socket();
    assert_eq!(socket.send(&world, DNS).0, SENT);
    assert_eq!(socket.send(&world, second), (LEFT, second.into()));
    assert_eq!(
        socket.send(&world, DNS),
        (LEFT, DNS.into()),
        "devices must know of both"
    );
    assert_eq!(socket.receive(second), second);
    assert_eq!(socket.receive(DNS), DNS);
}

#[test]
fn who_talks_to_a_backend_itself_hears_from_the_backend_itself() {
    let world = dns(&[POD]);
    let mut socket = udp_socket();
    socket.send(&world, DNS);
    assert_eq!(socket.send(&world, POD.0), (None, POD.0.into()));
    assert_eq!(socket.receive(POD.0), POD.0);
    assert_eq!(socket.send(&world, DNS), (LEFT, DNS.into()));
    let mut socket = udp_socket();
    socket.send(&world, DNS);
    assert_eq!(socket.connect(&world, POD.0), (None, POD.0.into()));
    assert_eq!(socket.receive(POD.0), POD.0, "connected to it");
}

#[test]
fn a_connected_socket_that_names_its_frontend_again_has_one_backend() {
    let world = dns(&[POD, OTHER]);
    for _ in 0..20 {
        let mut socket = udp_socket();
        let (_, backend) = socket.connect(&world, DNS);
        for _ in 0..5 {
            assert_eq!(socket.send(&world, DNS), (SENT, backend.clone()));
        }
        assert_eq!(socket.receive(&backend), DNS);
    }
}

#[test]
fn a_connected_socket_does_not_take_answers_to_others_for_its_own() {
    let second = "10.96.0.11:53";
    let world = dns(&[POD]).service(Proto::Udp, second, FrontendKind::ClusterIp, &[POD]);
    let mut socket = udp_socket();
    assert_eq!(socket.connect(&world, DNS).0, CALLED);
    assert_eq!(socket.send(&world, second), (LEFT, second.into()));
    assert_eq!(socket.name_peer(POD.0), DNS);
    let mut socket = udp_socket();
    socket.connect(&world, DNS);
    socket.disconnect();
    assert_eq!(socket.send(&world, second), (SENT, POD.0.into()));
    assert_eq!(socket.receive(POD.0), second);
}

#[test]
fn a_socket_whose_next_frontend_refuses_keeps_the_one_before() {
    let refusing = "10.96.0.11:53";
    let world = dns(&[POD]).service(Proto::Udp, refusing, FrontendKind::ClusterIp, &[]);
    let mut socket = udp_socket();
    socket.connect(&world, DNS);
    assert_eq!(
        socket.connect(&world, refusing).0,
        Some(SocketCall::Refused)
    );
    assert_eq!(socket.name_peer(POD.0), DNS);
}

#[test]
fn a_socket_has_room_for_eight_frontends_and_devices_take_all_if_there_are_more() {
    let mut world = World::default();
    for number in 0..10 {
        let frontend = format!("10.96.1.{number}:53");
        let backend = format!("10.244.1.{number}:53");
        let backend = [(backend.as_str(), Locality::Local)];
        world = world.service(Proto::Udp, &frontend, FrontendKind::ClusterIp, &backend);
    }
    let mut socket = udp_socket();
    let calls: Vec<_> = (0..10)
        .map(|number| socket.send(&world, &format!("10.96.1.{number}:53")).0)
        .collect();
    assert_eq!(calls[..8], [SENT; 8]);
    assert_eq!(calls[8..], [LEFT; 2]);
    let first = socket.send(&world, "10.96.1.0:53").0;
    assert_eq!(first, LEFT, "devices know of all");
    world.v4.backends.remove(&(4 * 16));
    assert_eq!(
        socket.send(&world, "10.96.1.9:53").0,
        SENT,
        "in the place of one that is gone"
    );
}

#[test]
fn a_frontend_without_backends_refuses() {
    let world = dns(&[]);
    let refused = (Some(SocketCall::Refused), DNS.to_owned());
    assert_eq!(udp_socket().connect(&world, DNS), refused);
    assert_eq!(udp_socket().send(&world, DNS), refused);
}

#[test]
fn sockets_that_can_not_be_helped_are_left_to_devices() {
    let world = web(FrontendKind::ClusterIp, WEB);
    let host_only = with(world.clone(), NodeOption::HostOnly);
    let forgetful = MemorySocket {
        has_memory: false,
        ..tcp_socket()
    };
    let bound = MemorySocket {
        is_tied: true,
        ..tcp_socket()
    };
    let path = MemorySocket {
        is_path: true,
        ..tcp_socket()
    };
    let left = MemorySocket {
        is_exempt: true,
        ..tcp_socket()
    };
    for (mut socket, world) in [
        (forgetful.clone(), &world),
        (bound, &world),
        (path, &world),
        (left, &world),
        (tcp_socket(), &host_only),
    ] {
        assert_eq!(socket.connect(world, WEB), (LEFT, WEB.into()));
        assert_eq!(socket.name_peer(POD.0), POD.0);
    }
    assert_eq!(host_socket(&host_only).connect(&host_only, WEB).0, CALLED);
    let dns = dns(&[POD]);
    assert_eq!(
        forgetful.clone().send(&dns, DNS).0,
        None,
        "it is a TCP socket"
    );
    let mut forgetful = MemorySocket {
        has_memory: false,
        ..udp_socket()
    };
    assert_eq!(forgetful.send(&dns, DNS), (LEFT, DNS.into()));
}

#[test]
fn a_node_that_does_not_know_its_namespace_has_the_machines_first_one() {
    let mut world = with(web(FrontendKind::ClusterIp, WEB), NodeOption::HostOnly);
    world.config.host_netns = 0;
    let call = |netns| {
        let mut socket = MemorySocket {
            netns,
            ..tcp_socket()
        };
        socket.connect(&world, WEB).0
    };
    assert_eq!(call(FIRST_NETNS), CALLED);
    assert_eq!(call(FIRST_NETNS + 1), LEFT);
}

#[test]
fn node_ports_answer_on_loopback_where_that_is_wanted_and_for_the_node_only() {
    let closed = web(FrontendKind::NodePort, NODE_PORT);
    let open = with_loopback(closed.clone());
    let at = "127.0.0.1:30080";
    assert_eq!(
        host_socket(&open).connect(&open, at),
        (CALLED, POD.0.into())
    );
    assert_eq!(host_socket(&closed).connect(&closed, at), (None, at.into()));
    assert_eq!(
        tcp_socket().connect(&open, at),
        (None, at.into()),
        "a pod's own loopback"
    );
    let cluster = web(FrontendKind::ClusterIp, NODE_PORT);
    let cluster = with_loopback(cluster);
    assert_eq!(
        host_socket(&cluster).connect(&cluster, at).0,
        None,
        "no NodePort"
    );
}

#[test]
fn node_ports_can_be_protected_from_being_bound() {
    let world = web(FrontendKind::NodePort, NODE_PORT);
    let own = world.config.host_netns;
    let may = |netns, at: &str| {
        let at: std::net::SocketAddr = at.parse().unwrap();
        may_bind(&world, [netns, FIRST_NETNS], Proto::Tcp, &at.into())
    };
    for at in ["0.0.0.0:30080", "[::]:30080", NODE_PORT] {
        assert!(!may(own, at), "{at}");
        assert!(may(own + 1, at), "{at} of a pod");
    }
    for at in ["0.0.0.0:30081", "127.0.0.1:30080", "[::1]:30080"] {
        assert!(may(own, at), "{at}");
    }
    let at: std::net::SocketAddr = NODE_PORT.parse().unwrap();
    let netns = [own, FIRST_NETNS];
    assert!(may_bind(&world, netns, Proto::Udp, &at.into()), "UDP");
}

/// What may answer, by both ways: as calls of many sockets and as many first packets have it.
fn answers(world: &World, proto: Proto, to: &str) -> [BTreeSet<String>; 2] {
    let client = if to.starts_with('[') {
        "[fd00:10:244:1::9]"
    } else {
        "10.244.1.9"
    };
    let by_socket = (0..100).map(|_| {
        let (call, to) = MemorySocket::new(Some(proto)).connect(world, to);
        match call {
            Some(SocketCall::Connected) => to,
            other => format!("{other:?}"),
        }
    });
    let by_packet = (0..100).map(|number| {
        let from = format!("{client}:{}", 40000 + number);
        let packet = match proto {
            Proto::Tcp => tcp(&from, to).syn(),
            Proto::Udp => udp(&from, to),
            Proto::Sctp => unreachable!("no sockets of SCTP are asked about"),
        };
        let mut world = world.clone();
        // Else each would draw the same.
        (0..number).for_each(|_| _ = Services::<AddrV4>::random(&world));
        let (fate, bytes) = run_hook(&mut world, Hook::Ingress, &packet.build());
        match fate {
            Ok(Verdict::Created) => destination(&bytes),
            Ok(Verdict::Refused) => format!("{:?}", Some(SocketCall::Refused)),
            Ok(_) => format!("{:?}", None::<SocketCall>),
            Err(reason) => format!("{reason:?}"),
        }
    });
    [by_socket.collect(), by_packet.collect()]
}

/// Destination of an Ethernet frame.
fn destination(frame: &[u8]) -> String {
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    match frame[12] {
        0x08 => {
            let address: [u8; 4] = frame[30..34].try_into().unwrap();
            std::net::SocketAddr::from((address, port(36))).to_string()
        }
        _ => {
            let address: [u8; 16] = frame[38..54].try_into().unwrap();
            std::net::SocketAddr::from((address, port(56))).to_string()
        }
    }
}

#[test]
fn sockets_and_packets_get_the_same_answers() {
    use FrontendKind::{ClusterIp, NodePort};
    const OTHER_V6: (&str, Locality) = ("[fd00:10:244:2::3]:8080", Locality::Remote);
    const NODE_PORT_V6: &str = "[fd00:172:31:1::2]:30080";
    type Row<'a> = (&'a str, FrontendKind, &'a [(&'a str, Locality)]);
    let rows: [Row<'_>; 8] = [
        (WEB, ClusterIp, &[POD]),
        (WEB, ClusterIp, &[POD, OTHER]),
        (WEB, ClusterIp, &[]),
        (NODE_PORT, NodePort, &[POD, OTHER]),
        (NODE_PORT, NodePort, &[]),
        ("[fd00:10:96::20]:80", ClusterIp, &[POD_V6, OTHER_V6]),
        ("[fd00:10:96::20]:80", ClusterIp, &[]),
        (NODE_PORT_V6, NodePort, &[POD_V6, OTHER_V6]),
    ];
    for (at, kind, backends) in rows {
        for (proto, other) in [(Proto::Tcp, Proto::Udp), (Proto::Udp, Proto::Tcp)] {
            let world = World::default().service(proto, at, kind, backends);
            let [by_socket, by_packet] = answers(&world, proto, at);
            assert_eq!(by_socket, by_packet, "{proto:?} {at} {backends:?}");
            assert_eq!(by_socket.len(), backends.len().max(1), "{at} {by_socket:?}");
            let [by_socket, by_packet] = answers(&world, other, at);
            assert_eq!(by_socket, by_packet, "{other:?} {at}");
        }
    }
}
