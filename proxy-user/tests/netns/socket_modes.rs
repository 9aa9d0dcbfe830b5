//! What flags make of sockets, and what becomes of them without a backend or an agent.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::sockets::{echoes, inside, tcp, tcp_stream, udp_connected, udp_socket, udp_unconnected};
use crate::stage::{NODE_PORT, PATIENCE, Stage, TARGET, eventually};
use proxy_user::datapath::features::{Feature, Features};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Instant;
use xtask::cluster::Pod;

/// A process of the first node's own network.
fn process(stage: &Stage) -> Pod {
    inside(stage, 1, &stage.cluster.node(1).host_pod("process"))
}

fn shell(stage: &Stage) -> Pod {
    inside(stage, 1, &stage.shell)
}

fn connected(stage: &Stage) -> u64 {
    stage.count(1, "sockets", "socket-connected")
}

#[test]
fn sockets_are_refused_at_once_where_there_is_no_backend() {
    let mut stage = Stage::new(&[]);
    stage.set_backends(&[]);
    let features = Features::probe_used().unwrap();
    for caller in [shell(&stage), process(&stage)] {
        for to in stage.cluster_ips() {
            let start = Instant::now();
            let refused = |outcome: std::io::Result<_>| match outcome {
                Ok(_) => false,
                Err(error) => std::io::Error::kind(&error) == ErrorKind::ConnectionRefused,
            };
            assert!(refused(tcp(&caller, to)), "TCP {} {to}", caller.name());
            assert!(
                refused(udp_connected(&caller, to)),
                "UDP {} {to}",
                caller.name()
            );
            // Else there is nobody whom the devices' answer would reach.
            if features.has(Feature::ReturnValue) {
                assert!(
                    refused(udp_unconnected(&caller, to)),
                    "unconnected UDP {} {to}",
                    caller.name()
                );
            }
            assert!(start.elapsed() < PATIENCE, "at once");
        }
    }
}

#[test]
fn only_sockets_of_the_node_or_none_are_served_if_that_is_wanted() {
    let mut stage = Stage::new(&["--socket-lb", "host-only"]);
    let to = stage.cluster_ips()[0];
    let (shell, process) = (shell(&stage), process(&stage));
    assert_eq!(tcp(&shell, to).unwrap().peer, to);
    assert_eq!(connected(&stage), 0, "a pod's socket");
    assert_eq!(tcp(&process, to).unwrap().peer, to);
    assert_eq!(connected(&stage), 1, "the node's socket");
    stage.restart_agent(1, &["--socket-lb", "off"]);
    assert_eq!(tcp(&process, to).unwrap().peer, to);
    assert_eq!(connected(&stage), 1, "off");
}

#[test]
fn sockets_keep_their_backend_when_others_of_their_kind_are_served_no_more() {
    let mut stage = Stage::new(&[]);
    let to = stage.cluster_ips()[0];
    let shell = shell(&stage);
    let (stream, datagrams) = (tcp_stream(&shell, to), udp_socket(&shell, to));
    let unconnected = shell.namespace().run(|| UdpSocket::bind("0.0.0.0:0"));
    let unconnected = unconnected.unwrap().unwrap();
    let goes_on = || {
        assert!(echoes(&stream));
        assert_eq!(stream.peer_addr().unwrap(), to);
        datagrams.send(b"hello").unwrap();
        assert_eq!(datagrams.recv_from(&mut [0; 256]).unwrap().1, to);
        unconnected.send_to(b"hello", to).unwrap();
        assert_eq!(unconnected.recv_from(&mut [0; 256]).unwrap().1, to);
    };
    goes_on();
    for mode in ["host-only", "off", "full"] {
        stage.restart_agent(1, &["--socket-lb", mode]);
        goes_on();
    }
    stage.assert_undisturbed();
}

#[test]
fn node_ports_answer_on_loopback_for_processes_of_the_node_alone() {
    let stage = Stage::new(&["--localhost-nodeports"]);
    let (shell, process) = (shell(&stage), process(&stage));
    for ip in ["127.0.0.1", "::1"] {
        let to = SocketAddr::new(ip.parse().unwrap(), NODE_PORT);
        for _ in 0..5 {
            assert_eq!(tcp(&process, to).unwrap().peer, to);
            assert_eq!(udp_connected(&process, to).unwrap().peer, to);
            assert_eq!(udp_unconnected(&process, to).unwrap().peer, to);
        }
        assert!(tcp(&shell, to).is_err(), "a pod's loopback is its own");
        let own = shell.namespace().run(|| TcpListener::bind(to)).unwrap();
        own.expect("a pod binds what it likes");
    }
    stage.assert_undisturbed();
}

#[test]
fn node_ports_can_not_be_bound_on_the_node_if_that_is_wanted() {
    let mut stage = Stage::new(&[]);
    let ips = ["0.0.0.0", "::", "172.31.1.2"].map(|ip| ip.parse().unwrap());
    let taken = ips.map(|ip| SocketAddr::new(ip, NODE_PORT));
    let free = ips.map(|ip| SocketAddr::new(ip, NODE_PORT + 1));
    let (shell, process) = (shell(&stage), process(&stage));
    for at in taken {
        bind(&process, at).expect("without the flag");
    }
    stage.restart_agent(1, &["--bind-protection"]);
    for at in taken {
        let kind = bind(&process, at).expect_err("it is a NodePort").kind();
        // EPERM before Linux 6.1.
        let kinds = [ErrorKind::AddrInUse, ErrorKind::PermissionDenied];
        assert!(kinds.contains(&kind), "{kind:?}");
    }
    for at in free {
        bind(&process, at).expect("it is none");
    }
    for at in &taken[..2] {
        bind(&shell, *at).expect("it is none in a pod");
    }
    stage.restart_agent(1, &[]);
    for at in taken {
        bind(&process, at).expect("without the flag again");
    }
}

fn bind(pod: &Pod, at: SocketAddr) -> std::io::Result<()> {
    let both = || {
        TcpListener::bind(at)?;
        UdpSocket::bind(at).map(drop)
    };
    pod.namespace().run(both).unwrap()
}

#[test]
fn sockets_go_on_without_an_agent_and_with_the_next_one() {
    let mut stage = Stage::new(&[]);
    let to = stage.cluster_ips()[0];
    let shell = shell(&stage);
    let (stream, datagrams) = (tcp_stream(&shell, to), udp_socket(&shell, to));
    let told = |datagrams: &UdpSocket| {
        datagrams.send(b"hello").unwrap();
        datagrams.recv_from(&mut [0; 256]).unwrap().1
    };
    assert!(echoes(&stream));
    assert_eq!(told(&datagrams), to);
    stage.take_agent(1).kill().unwrap();
    assert!(echoes(&stream));
    assert_eq!(stream.peer_addr().unwrap(), to);
    assert_eq!(told(&datagrams), to);
    assert_eq!(tcp(&shell, to).unwrap().peer, to);
    stage.start_agent(1);
    assert!(echoes(&stream));
    assert_eq!(stream.peer_addr().unwrap(), to);
    assert_eq!(told(&datagrams), to);
    // The next agent knows whom the sockets of the one before have.
    let is_server = |pod: &Pod| is_connected(&shell, SocketAddr::new(pod.v4().into(), TARGET));
    let gone = stage.web.iter().position(is_server);
    let gone = gone.expect("it is connected to one of them");
    let mut left = stage.web.clone();
    left.remove(gone);
    stage.set_backends(&left);
    eventually("the socket is closed", || {
        datagrams
            .send(b"hello")
            .and_then(|_| datagrams.recv(&mut [0; 256]))
            .is_err()
    });
}

/// What the kernel remembers of each would be more than 150 bytes.
#[test]
fn a_million_short_sockets_leave_nothing_behind() {
    const SOCKETS: u32 = 1_000_000;
    const LEAK: u64 = 80 << 20;
    let stage = Stage::new(&[]);
    let shell = shell(&stage);
    let to = stage.cluster_ips()[0];
    let before = unreclaimable();
    let dial = |number: u32| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        match number % 8 {
            0 => socket.send_to(b"hello", to).map(drop),
            _ => socket.connect(to),
        }
        .unwrap();
    };
    shell
        .namespace()
        .run(|| (0..SOCKETS).for_each(dial))
        .unwrap();
    eventually("the kernel's memory is free again", || {
        unreclaimable() < before + LEAK
    });
    assert!(connected(&stage) >= u64::from(SOCKETS / 8 * 7));
}

/// Bytes of the kernel's small objects.
fn unreclaimable() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("SUnreclaim:"))
        .unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes << 10
}

/// Whether a datagram socket of a pod has this peer, as the kernel has it.
fn is_connected(pod: &Pod, to: SocketAddr) -> bool {
    let text = std::fs::read_to_string;
    let table = pod
        .namespace()
        .run(|| text("/proc/thread-self/net/udp").unwrap())
        .unwrap();
    let SocketAddr::V4(to) = to else {
        return false;
    };
    let peer = format!(
        "{:08X}:{:04X}",
        u32::from_ne_bytes(to.ip().octets()),
        to.port()
    );
    table
        .lines()
        .any(|line| line.split_whitespace().nth(2) == Some(&peer))
}
