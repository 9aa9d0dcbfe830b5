//! Sockets that get a backend when they connect or send.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::stage::{PATIENCE, Stage};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use xtask::cluster::Pod;

/// The pod of a node, with its processes in the node's cgroup, which is what the agent attaches to.
pub(crate) fn inside(stage: &Stage, node: u8, pod: &Pod) -> Pod {
    let cgroup = stage.cluster.node(node).paths().cgroup.clone();
    pod.within(&cgroup.expect("the machine has cgroup v2"))
}

/// A pod and a process of the first node's own network.
pub(crate) fn callers(stage: &Stage) -> [Pod; 2] {
    let process = stage.cluster.node(1).host_pod("process");
    [&stage.shell, &process].map(|pod| inside(stage, 1, pod))
}

/// Where the service is dialled on the first node; IPv4 addresses also as sockets of IPv6 dial them.
pub(crate) fn targets(stage: &Stage) -> Vec<SocketAddr> {
    let own = stage.node_ports(1);
    let all: Vec<SocketAddr> = stage.cluster_ips().into_iter().chain(own).collect();
    let mapped = all.iter().filter_map(|to| match to.ip() {
        IpAddr::V4(v4) => Some(SocketAddr::new(v4.to_ipv6_mapped().into(), to.port())),
        IpAddr::V6(_) => None,
    });
    all.iter().copied().chain(mapped).collect()
}

/// An answer: who gave it, and as whom the application was told.
pub(crate) struct Told {
    pub(crate) server: String,
    pub(crate) peer: SocketAddr,
}

pub(crate) fn tcp(caller: &Pod, to: SocketAddr) -> std::io::Result<Told> {
    caller.namespace().run(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = [0; 256];
        let length = stream.read(&mut text)?;
        Ok(Told {
            server: server(&text[..length]),
            peer: stream.peer_addr()?,
        })
    })?
}

/// The first word of an answer.
pub(crate) fn server(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.split(' ').next().unwrap_or_default().to_owned()
}

pub(crate) fn udp_connected(caller: &Pod, to: SocketAddr) -> std::io::Result<Told> {
    caller.namespace().run(|| {
        let socket = UdpSocket::bind(any(to))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(to)?;
        socket.send(b"hello")?;
        let mut text = [0; 256];
        let (length, from) = socket.recv_from(&mut text)?;
        assert_eq!(socket.peer_addr()?, to);
        Ok(Told {
            server: server(&text[..length]),
            peer: from,
        })
    })?
}

pub(crate) fn udp_unconnected(caller: &Pod, to: SocketAddr) -> std::io::Result<Told> {
    caller.namespace().run(|| {
        let socket = UdpSocket::bind(any(to))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(b"hello", to)?;
        let mut text = [0; 256];
        let (length, from) = socket.recv_from(&mut text)?;
        Ok(Told {
            server: server(&text[..length]),
            peer: from,
        })
    })?
}

/// Any address and port of the same family.
pub(crate) fn any(like: SocketAddr) -> SocketAddr {
    let text = if like.is_ipv6() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    text.parse().expect("an address")
}

pub(crate) type Call = fn(&Pod, SocketAddr) -> std::io::Result<Told>;

#[test]
fn sockets_get_a_backend_and_are_told_of_what_they_dialled() {
    let stage = Stage::new(&[]);
    let names: BTreeSet<&str> = stage.web.iter().map(Pod::name).collect();
    let created = stage.count(1, "passed", "created");
    let calls: [(&str, Call); 3] = [
        ("TCP", tcp),
        ("connected UDP", udp_connected),
        ("unconnected UDP", udp_unconnected),
    ];
    for caller in callers(&stage) {
        for to in targets(&stage) {
            for (what, call) in calls {
                let mut answered = BTreeSet::new();
                for _ in 0..40 {
                    let told = call(&caller, to);
                    let told = told.unwrap_or_else(|error| {
                        panic!("{what} {} -> {to}: {error}", caller.name())
                    });
                    assert_eq!(told.peer, to, "{what} {}", caller.name());
                    answered.insert(told.server);
                }
                let answered: BTreeSet<&str> = answered.iter().map(String::as_str).collect();
                assert_eq!(answered, names, "{what} {} -> {to}", caller.name());
            }
        }
    }
    assert_eq!(stage.count(1, "passed", "created"), created);
    assert_eq!(
        stage.count(1, "sockets", "socket-connected"),
        2 * 6 * 2 * 40
    );
    assert_eq!(stage.count(1, "sockets", "socket-sent"), 2 * 6 * 40);
    stage.assert_undisturbed();
}

#[test]
fn datagrams_of_a_socket_stay_with_their_backend_whatever_becomes_of_others() {
    let mut stage = Stage::new(&[]);
    let to = stage.cluster_ips()[0];
    let shell = inside(&stage, 1, &stage.shell);
    let open = || UdpSocket::bind("0.0.0.0:0").unwrap();
    let sockets: Vec<UdpSocket> = (0..8)
        .map(|_| shell.namespace().run(open).unwrap())
        .collect();
    let ask = |socket: &UdpSocket| {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"hello", to).unwrap();
        let mut text = [0; 256];
        let (length, from) = socket.recv_from(&mut text).unwrap();
        assert_eq!(from, to);
        server(&text[..length])
    };
    let before: Vec<String> = sockets.iter().map(ask).collect();
    let web = stage.web.clone();
    stage.set_backends(&web[..2]);
    let moved: Vec<String> = sockets.iter().map(ask).collect();
    stage.set_backends(&web);
    let after: Vec<String> = sockets.iter().map(ask).collect();
    for (index, name) in before.iter().enumerate() {
        if name == web[2].name() {
            assert_ne!(moved[index], *name, "it is gone");
        } else {
            assert_eq!(moved[index], *name, "it is still there");
        }
        assert_eq!(after[index], moved[index], "nothing has gone");
    }
}

#[test]
fn a_connected_socket_that_names_its_frontend_again_is_answered() {
    let stage = Stage::new(&[]);
    let shell = inside(&stage, 1, &stage.shell);
    for to in stage.cluster_ips() {
        for _ in 0..10 {
            let socket = udp_socket(&shell, to);
            socket.send_to(b"hello", to).unwrap();
            assert_eq!(socket.recv_from(&mut [0; 256]).unwrap().1, to);
        }
    }
}

/// A connected datagram socket of a caller.
pub(crate) fn udp_socket(caller: &Pod, to: SocketAddr) -> UdpSocket {
    let open = || {
        let socket = UdpSocket::bind(any(to)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(to).unwrap();
        socket
    };
    caller.namespace().run(open).unwrap()
}

pub(crate) fn tcp_stream(caller: &Pod, to: SocketAddr) -> TcpStream {
    let open = || TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    let stream = caller.namespace().run(open).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Whether an open connection still carries bytes there and back.
pub(crate) fn echoes(mut stream: &TcpStream) -> bool {
    let mut text = [0; 256];
    let (mut seen, mark) = (Vec::new(), b"still there?");
    if stream.write_all(mark).is_err() {
        return false;
    }
    while !seen.ends_with(mark) {
        match stream.read(&mut text) {
            Ok(0) | Err(_) => return false,
            Ok(length) => seen.extend(&text[..length]),
        }
    }
    true
}

pub(crate) fn answers(socket: &UdpSocket) -> std::io::Result<usize> {
    socket.send(b"hello")?;
    socket.recv(&mut [0; 256])
}
