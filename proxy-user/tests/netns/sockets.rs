//! Sockets that get a backend when they connect or send.

use crate::stage::{PATIENCE, Stage, TARGET};
use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};
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
    let _ = TARGET;
    assert_eq!(stage.count(1, "passed", "created"), created);
    assert_eq!(
        stage.count(1, "sockets", "socket-connected"),
        2 * 4 * 2 * 40
    );
    assert_eq!(stage.count(1, "sockets", "socket-sent"), 2 * 4 * 40);
    stage.assert_undisturbed();
}
