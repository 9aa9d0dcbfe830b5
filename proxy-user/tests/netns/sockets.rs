//! Sockets that get a backend when they connect or send.

use crate::stage::{PATIENCE, Stage, TARGET, eventually};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use xtask::cluster::Pod;

/// The pod of a node, with its processes in the node's cgroup, which is what the agent attaches to.
pub(crate) fn inside(stage: &Stage, node: u8, pod: &Pod) -> Pod {
    let cgroup = stage.cluster.node(node).paths().cgroup.clone();
    pod.within(&cgroup.expect("the machine has cgroup v2"))
}

/// A pod and a process of the first node's own network.
fn callers(stage: &Stage) -> [Pod; 2] {
    let process = stage.cluster.node(1).host_pod("process");
    [&stage.shell, &process].map(|pod| inside(stage, 1, pod))
}

/// Where the service is dialled on the first node.
fn targets(stage: &Stage) -> Vec<SocketAddr> {
    let own = stage.node_ports(1);
    stage.cluster_ips().into_iter().chain(own).collect()
}

/// An answer: who gave it, and as whom the application was told.
struct Told {
    server: String,
    peer: SocketAddr,
}

fn tcp(caller: &Pod, to: SocketAddr) -> std::io::Result<Told> {
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
fn server(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn udp_connected(caller: &Pod, to: SocketAddr) -> std::io::Result<Told> {
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

fn udp_unconnected(caller: &Pod, to: SocketAddr) -> std::io::Result<Told> {
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
fn any(like: SocketAddr) -> SocketAddr {
    let text = if like.is_ipv6() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    text.parse().expect("an address")
}

type Call = fn(&Pod, SocketAddr) -> std::io::Result<Told>;

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
        2 * 4 * 2 * 40
    );
    assert_eq!(stage.count(1, "sockets", "socket-sent"), 2 * 4 * 40);
    stage.assert_undisturbed();
}

/// A connected datagram socket of a caller.
fn udp_socket(caller: &Pod, to: SocketAddr) -> UdpSocket {
    let open = || {
        let socket = UdpSocket::bind(any(to)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(to).unwrap();
        socket
    };
    caller.namespace().run(open).unwrap()
}

fn tcp_stream(caller: &Pod, to: SocketAddr) -> TcpStream {
    let open = || TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    let stream = caller.namespace().run(open).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Whether an open connection still carries bytes there and back.
fn echoes(mut stream: &TcpStream) -> bool {
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

fn answers(socket: &UdpSocket) -> std::io::Result<usize> {
    socket.send(b"hello")?;
    socket.recv(&mut [0; 256])
}

/// Closing sockets in the namespaces of a machine is tried where all of them are of this test: each caller is
/// in its own.
fn closing(options: &[&'static str], closes_tcp: bool) {
    let mut stage = Stage::new(options);
    let servers = [stage.web[1].clone()];
    stage.set_backends(&servers);
    let cluster_ips = stage.cluster_ips();
    for caller in callers(&stage) {
        let direct = SocketAddr::new(servers[0].v4().into(), TARGET);
        let listener = caller
            .namespace()
            .run(|| TcpListener::bind("0.0.0.0:0").unwrap())
            .unwrap();
        let listening = SocketAddr::new(caller.v4().into(), listener.local_addr().unwrap().port());
        let unrelated = (udp_socket(&caller, direct), tcp_stream(&caller, direct));
        let datagrams: Vec<_> = cluster_ips
            .iter()
            .map(|to| udp_socket(&caller, *to))
            .collect();
        let streams: Vec<_> = cluster_ips
            .iter()
            .map(|to| tcp_stream(&caller, *to))
            .collect();
        datagrams
            .iter()
            .for_each(|socket| assert!(answers(socket).is_ok()));
        assert!(streams.iter().all(echoes));
        let next = [stage.web[2].clone()];
        stage.set_backends(&next);
        for socket in &datagrams {
            eventually("the socket is closed", || {
                answers(socket).is_err_and(|it| {
                    it.kind() == ErrorKind::ConnectionAborted
                        || it.kind() == ErrorKind::NotConnected
                        || it.raw_os_error() == Some(89)
                })
            });
        }
        for stream in &streams {
            if closes_tcp {
                eventually("the stream is closed", || !echoes(stream));
            } else {
                assert!(echoes(stream), "{} closed", caller.name());
            }
        }
        assert!(
            answers(&unrelated.0).is_ok() && echoes(&unrelated.1),
            "{}: unrelated sockets",
            caller.name()
        );
        assert!(
            TcpStream::connect_timeout(&listening, PATIENCE).is_ok()
                || caller
                    .namespace()
                    .run(|| TcpStream::connect_timeout(&listening, PATIENCE))
                    .unwrap()
                    .is_ok()
        );
        stage.set_backends(&servers);
    }
    stage.assert_undisturbed();
}

#[test]
fn connected_datagram_sockets_are_closed_when_their_backend_goes_and_no_others() {
    closing(&[], false);
}

#[test]
fn streams_are_closed_when_their_backend_goes_if_that_is_wanted() {
    closing(&["--close-tcp"], true);
}
