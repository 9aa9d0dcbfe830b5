//! Applications that connect and send in unusual ways.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::sockets::{inside, server, tcp, tcp_stream};
use crate::stage::{PATIENCE, Stage, TARGET};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use rustix::net::connect_unspec;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{ErrorKind, IoSlice, Read as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use xtask::cluster::Pod;

/// A stage and its pod `shell`, in whose namespace the work is done.
fn with_shell(work: impl Fn(&Stage, &Pod) + Sync) {
    let stage = Stage::new(&[]);
    let shell = inside(&stage, 1, &stage.shell);
    work(&stage, &shell);
    assert_eq!(stage.count(1, "sockets", "socket-left"), 0);
    stage.assert_undisturbed();
}

fn udp(pod: &Pod) -> UdpSocket {
    let bind = || UdpSocket::bind("0.0.0.0:0").unwrap();
    let socket = pod.namespace().run(bind).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Who answers, and as whom.
fn heard(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut text = [0; 256];
    let (length, from) = socket.recv_from(&mut text).unwrap();
    (server(&text[..length]), from)
}

/// That the server of a stream greets, and who the application takes it for.
fn expect_greeting(mut stream: TcpStream, to: SocketAddr) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = [0; 256];
    let length = stream.read(&mut text).unwrap();
    assert!(server(&text[..length]).starts_with("web-"));
    assert_eq!(stream.peer_addr().unwrap(), to);
}

#[test]
fn datagrams_that_are_sent_together_go_to_one_backend() {
    with_shell(|stage, shell| {
        let to = stage.cluster_ips()[0];
        let socket = udp(shell);
        const COUNT: usize = 8;
        let payload = [IoSlice::new(b"hello")];
        let payloads = [payload; COUNT];
        let addresses = [Some(SockaddrStorage::from(to)); COUNT];
        let mut headers = MultiHeaders::preallocate(COUNT, None);
        let sent = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &payloads,
            addresses,
            [],
            MsgFlags::empty(),
        );
        assert_eq!(sent.unwrap().count(), COUNT);
        let answers: Vec<_> = (0..COUNT).map(|_| heard(&socket)).collect();
        assert!(
            answers
                .iter()
                .all(|(name, from)| *name == answers[0].0 && *from == to),
            "{answers:?}"
        );
    });
}

#[test]
fn a_socket_that_is_disconnected_talks_to_others_as_themselves() {
    with_shell(|stage, shell| {
        let to = stage.cluster_ips()[0];
        let socket = udp(shell);
        socket.connect(to).unwrap();
        socket.send(b"hello").unwrap();
        let (name, from) = heard(&socket);
        assert_eq!(from, to);
        connect_unspec(&socket).unwrap();
        assert!(socket.peer_addr().is_err());
        let pod = stage.web.iter().find(|pod| pod.name() == name).unwrap();
        let direct = SocketAddr::new(pod.v4().into(), TARGET);
        socket.send_to(b"hello", direct).unwrap();
        assert_eq!(heard(&socket), (name, direct));
        socket.connect(to).unwrap();
        socket.send(b"hello").unwrap();
        assert_eq!(heard(&socket).1, to);
    });
}

#[test]
fn a_stream_that_is_half_closed_has_the_peer_that_it_dialled() {
    with_shell(|stage, shell| {
        for to in stage.cluster_ips() {
            let stream = tcp_stream(shell, to);
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), to, "ours is closed");
            // The server closes when it has read to the end.
            (&stream).read_to_end(&mut Vec::new()).unwrap();
            match stream.peer_addr() {
                Ok(peer) => assert_eq!(peer, to, "both are closed"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotConnected),
            }
        }
    });
}

/// A socket of IPv6 takes IPv4 addresses as they are, and tells of them as mapped ones.
#[test]
fn a_socket_of_ipv6_may_name_ipv4_addresses() {
    with_shell(|stage, shell| {
        let to = stage.cluster_ips()[0];
        let IpAddr::V4(address) = to.ip() else {
            panic!("{to} is not the IPv4 address");
        };
        let mapped = SocketAddr::new(address.to_ipv6_mapped().into(), to.port());
        let open = || Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
        let socket = shell.namespace().run(open).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"hello", &to.into()).unwrap();
        let socket: UdpSocket = socket.into();
        assert_eq!(heard(&socket).1, mapped, "unconnected");
        socket2::SockRef::from(&socket).connect(&to.into()).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), mapped);
        socket.send(b"hello").unwrap();
        assert_eq!(heard(&socket).1, mapped, "connected");
    });
}

#[test]
fn streams_that_open_with_data_have_the_peer_that_they_dialled() {
    with_shell(|stage, shell| {
        for to in stage.cluster_ips() {
            let open = || {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
                // TCP Fast Open (RFC 7413): sendto instead of connect.
                socket
                    .send_to_with_flags(b"hello", &to.into(), libc::MSG_FASTOPEN)
                    .unwrap();
                socket.into()
            };
            expect_greeting(shell.namespace().run(open).unwrap(), to);
        }
    });
}

/// Devices translate its packets: the socket that the application has is not the one that connects.
#[test]
fn streams_over_many_paths_have_the_peer_that_they_dialled() {
    let stage = Stage::new(&[]);
    let shell = inside(&stage, 1, &stage.shell);
    for to in stage.cluster_ips() {
        let connect = || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::MPTCP));
            // Before Linux 5.6 or without CONFIG_MPTCP there is no such protocol.
            let Ok(socket) = socket else {
                assert!(!std::fs::exists("/proc/sys/net/mptcp/enabled").unwrap());
                return None;
            };
            socket.connect_timeout(&to.into(), PATIENCE).unwrap();
            Some(socket.into())
        };
        if let Some(stream) = shell.namespace().run(connect).unwrap() {
            expect_greeting(stream, to);
        }
    }
    stage.assert_undisturbed();
}

#[test]
fn connections_that_the_kernel_makes_by_itself_are_like_others() {
    with_shell(|stage, shell| {
        for to in stage.cluster_ips() {
            let connect = || {
                let runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new();
                let mut runtime = runtime.build().unwrap();
                runtime.block_on(async {
                    let stream = monoio::net::TcpStream::connect(to).await.unwrap();
                    stream.peer_addr().unwrap()
                })
            };
            assert_eq!(shell.namespace().run(connect).unwrap(), to);
        }
        assert!(stage.count(1, "sockets", "socket-connected") >= 2);
    });
}

#[test]
fn a_socket_belongs_to_where_it_was_made_and_keeps_its_own_address() {
    with_shell(|stage, shell| {
        let to = stage.cluster_ips()[0];
        let own = SocketAddr::new(shell.v4().into(), 45_000);
        let make = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&own.into()).unwrap();
            socket
        };
        let socket = shell.namespace().run(make).unwrap();
        // This thread is in none of the stage's namespaces and cgroups.
        socket.connect_timeout(&to.into(), PATIENCE).unwrap();
        let stream: TcpStream = socket.into();
        assert_eq!(stream.local_addr().unwrap(), own);
        expect_greeting(stream, to);
        assert_eq!(stage.count(1, "sockets", "socket-connected"), 1);
        assert_eq!(tcp(shell, to).unwrap().peer, to);
    });
}
