//! Sockets whose backend goes, and those that have nothing to do with it.
//!
//! Closing sockets in the namespaces of a machine is tried where all of them are of this test: each caller is in
//! its own.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::sockets::{answers, any, callers, echoes, tcp_stream, udp_socket};
use crate::stage::{PATIENCE, Stage, TARGET, eventually};
use proxy_user::datapath::kernel::Kernel;
use proxy_user::datapath::pins::Pins;
use proxy_user::datapath::{Datapath as _, FamilyOp, Op};
use rustix::net::connect_unspec;
use socket2::{Domain, Socket, Type};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use xtask::cluster::Pod;

/// Sockets that are connected to a frontend, one of each family.
struct Meant {
    datagrams: Vec<UdpSocket>,
    streams: Vec<TcpStream>,
}

impl Meant {
    fn open(stage: &Stage, caller: &Pod) -> Self {
        let frontends = stage.cluster_ips();
        let datagrams = frontends.iter().map(|to| udp_socket(caller, *to));
        let streams = frontends.iter().map(|to| tcp_stream(caller, *to));
        let meant = Self {
            datagrams: datagrams.collect(),
            streams: streams.collect(),
        };
        let mut datagrams = meant.datagrams.iter();
        assert!(datagrams.all(|socket| answers(socket).is_ok()));
        assert!(meant.streams.iter().all(echoes));
        meant
    }

    fn expect_closed(&self, closes_tcp: bool) {
        for socket in &self.datagrams {
            eventually("the socket is closed", || {
                answers(socket).is_err_and(|error| {
                    let kinds = [ErrorKind::ConnectionAborted, ErrorKind::NotConnected];
                    kinds.contains(&error.kind())
                        || error.raw_os_error() == Some(libc::EDESTADDRREQ)
                })
            });
        }
        for stream in &self.streams {
            match closes_tcp {
                true => eventually("the stream is closed", || !echoes(stream)),
                false => assert!(echoes(stream), "closed"),
            }
        }
    }
}

/// Sockets of the same namespace that stay as they are.
struct Others {
    backend: SocketAddr,
    connected: (UdpSocket, TcpStream),
    listeners: [(TcpListener, SocketAddr); 2],
    /// It was connected to the frontend.
    disconnected: UdpSocket,
}

impl Others {
    fn open(stage: &Stage, caller: &Pod, backend: &Pod) -> Self {
        let backend = SocketAddr::new(backend.v4().into(), TARGET);
        let frontend = stage.cluster_ips()[0];
        let disconnected = udp_socket(caller, frontend);
        connect_unspec(&disconnected).unwrap();
        let place = caller.namespace();
        let listener = place.run(|| TcpListener::bind("0.0.0.0:0").unwrap());
        let second_life = place.run(|| second_life(frontend));
        let listeners = [listener, second_life].map(|it| {
            let it = it.unwrap();
            let port = it.local_addr().unwrap().port();
            (it, SocketAddr::new(caller.v4().into(), port))
        });
        Self {
            backend,
            connected: (udp_socket(caller, backend), tcp_stream(caller, backend)),
            listeners,
            disconnected,
        }
    }

    fn expect_open(&self, caller: &Pod) {
        let name = caller.name();
        assert!(answers(&self.connected.0).is_ok(), "{name}: datagrams");
        assert!(echoes(&self.connected.1), "{name}: the stream");
        for (_, address) in &self.listeners {
            let connect = || TcpStream::connect_timeout(address, PATIENCE);
            let connected = caller.namespace().run(connect).unwrap();
            assert!(connected.is_ok(), "{name}: {address} does not listen");
        }
        self.disconnected.send_to(b"hello", self.backend).unwrap();
        let (_, from) = self.disconnected.recv_from(&mut [0; 256]).unwrap();
        assert_eq!(from, self.backend);
    }
}

/// A socket that was connected to a frontend, and listens now.
fn second_life(frontend: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(frontend), Type::STREAM, None).unwrap();
    socket.bind(&any(frontend).into()).unwrap();
    socket.connect_timeout(&frontend.into(), PATIENCE).unwrap();
    connect_unspec(&socket).unwrap();
    socket.listen(8).unwrap();
    socket.into()
}

fn close_and_expect(options: &[&'static str], closes_tcp: bool) {
    let mut stage = Stage::new(options);
    let [before, after] = [1, 2].map(|index| vec![stage.web[index].clone()]);
    stage.set_backends(&before);
    for caller in callers(&stage) {
        let others = Others::open(&stage, &caller, &before[0]);
        let meant = Meant::open(&stage, &caller);
        stage.set_backends(&after);
        meant.expect_closed(closes_tcp);
        others.expect_open(&caller);
        stage.set_backends(&before);
    }
    // Two callers, each with one of a family.
    let wanted = if closes_tcp { 8 } else { 4 };
    eventually("they are counted", || {
        let status = stage.agent(1).status().unwrap();
        status["agent"]["closed_sockets"]["closed"] == wanted
    });
    stage.assert_undisturbed();
}

#[test]
fn connected_datagram_sockets_are_closed_when_their_backend_goes_and_no_others() {
    close_and_expect(&[], false);
}

#[test]
fn streams_are_closed_when_their_backend_goes_if_that_is_wanted() {
    close_and_expect(&["--close-tcp"], true);
}

/// As an agent leaves it that is killed between taking a backend away and closing its sockets.
#[test]
fn an_agent_closes_what_the_one_before_it_has_not() {
    let mut stage = Stage::new(&[]);
    let callers = callers(&stage);
    let meant = callers.each_ref().map(|it| Meant::open(&stage, it));
    stage.take_agent(1).kill().unwrap();
    let pins = Pins::new(&stage.cluster.node(1).paths().bpffs);
    let ids = 0..32;
    let v4 = ids.clone().map(|id| Op::V4(FamilyOp::ClearBackend { id }));
    let v6 = ids.map(|id| Op::V6(FamilyOp::ClearBackend { id }));
    let clear: Vec<Op> = v4.chain(v6).collect();
    Kernel::open(&pins).unwrap().apply(&clear).1.unwrap();
    stage.start_agent(1);
    for sockets in meant {
        sockets.expect_closed(false);
    }
    stage.assert_undisturbed();
}
