//! Source ports of masked flows: enough of them, none twice, none of somebody else's.

use crate::everywhere::direct;
use crate::ports::own;
use crate::stage::{PATIENCE, PROTOCOLS, SHORT, Stage, ask};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use xtask::cluster::{Pod, Protocol};
use xtask::traffic::{
    Answer, Conversation, Datagrams, tcp_open, tcp_open_from, udp_open, udp_open_from,
};

const FEW_PORTS: [&str; 2] = ["--snat-ports", "20000-20199"];
const FIRST: u16 = 20_000;
const LAST: u16 = 20_199;
const NUMBER: usize = 200;
/// More than enough to look at all ports, some at a time.
const TRIES: u32 = 40;

/// All nodes mask with few ports, and the service is on the second node only.
fn stage() -> Stage {
    let mut stage = Stage::new(&FEW_PORTS);
    let far = stage.web[1].clone();
    stage.set_backends(&[far]);
    stage
}

/// An open flow of either protocol.
enum Flow {
    Stream(Conversation),
    Datagrams(Datagrams, Answer),
}

impl Flow {
    fn open(from: &Pod, protocol: Protocol, to: SocketAddr) -> std::io::Result<Self> {
        let place = from.namespace();
        match protocol {
            Protocol::Tcp => tcp_open(place, to, PATIENCE).map(Self::Stream),
            Protocol::Udp => Self::first(udp_open(place, to, SHORT)?),
        }
    }

    fn open_from(
        from: &Pod,
        port: u16,
        protocol: Protocol,
        to: SocketAddr,
    ) -> std::io::Result<Self> {
        let (place, own) = (from.namespace(), own(from, port, to));
        match protocol {
            Protocol::Tcp => tcp_open_from(place, own, to, PATIENCE).map(Self::Stream),
            Protocol::Udp => Self::first(udp_open_from(place, own, to, SHORT)?),
        }
    }

    fn first(datagrams: Datagrams) -> std::io::Result<Self> {
        // As resolvers do: where ports are scarce one datagram may not come to a free one.
        let answer = (0..TRIES).find_map(|_| datagrams.ask(b"first").ok());
        let answer = answer.ok_or(std::io::ErrorKind::TimedOut)?;
        Ok(Self::Datagrams(datagrams, answer))
    }

    /// What the backend saw as the source.
    fn source(&self) -> SocketAddr {
        match self {
            Self::Stream(stream) => stream.answer().seen_source,
            Self::Datagrams(_, answer) => answer.seen_source,
        }
    }

    /// Its own bytes come back, and the backend still sees the same source.
    fn expect_own(&mut self, bytes: &[u8]) {
        let source = self.source();
        match self {
            Self::Stream(stream) => assert!(stream.echo(bytes).is_ok(), "{source} goes on"),
            Self::Datagrams(datagrams, _) => {
                let answer = datagrams.ask(bytes).expect("the flow goes on");
                assert_eq!(answer.seen_source, source);
            }
        }
    }
}

/// As many flows as there are ports, each with one of its own.
fn fill(stage: &Stage, protocol: Protocol, to: SocketAddr) -> Vec<Flow> {
    let client = stage.cluster.client();
    let mut open: Vec<Flow> = (1..=NUMBER)
        .map(|number| {
            let flow = Flow::open(client, protocol, to);
            flow.unwrap_or_else(|error| panic!("{protocol} {to}, flow {number}: {error}"))
        })
        .collect();
    let ports: BTreeSet<u16> = open.iter().map(|flow| flow.source().port()).collect();
    assert_eq!(ports.len(), NUMBER, "{protocol} {to}: {ports:?}");
    assert!(ports.iter().all(|port| (FIRST..=LAST).contains(port)));
    expect_each_its_own(&mut open);
    open
}

fn expect_each_its_own(open: &mut [Flow]) {
    for (number, flow) in open.iter_mut().enumerate() {
        flow.expect_own(format!("flow {number}").as_bytes());
    }
}

fn expect_no_room(stage: &Stage, protocol: Protocol, to: SocketAddr) {
    let dropped = || stage.count(1, "drops", "ports-exhausted");
    let before = dropped();
    let one_more = ask(stage.cluster.client(), protocol, to, SHORT);
    assert!(one_more.is_err(), "{protocol} {to}: {one_more:?}");
    assert!(dropped() > before, "{protocol} {to}: it is counted");
}

#[test]
fn all_ports_of_streams_are_used_refused_when_none_is_left_and_free_once_closed() {
    let stage = stage();
    for to in stage.node_ports(1) {
        for _ in 0..2 {
            let mut open = fill(&stage, Protocol::Tcp, to);
            expect_no_room(&stage, Protocol::Tcp, to);
            expect_each_its_own(&mut open);
        }
    }
    stage.assert_undisturbed();
}

#[test]
fn all_ports_of_datagrams_are_used_and_refused_when_none_is_left() {
    let stage = stage();
    for to in stage.node_ports(1) {
        let mut open = fill(&stage, Protocol::Udp, to);
        expect_no_room(&stage, Protocol::Udp, to);
        expect_each_its_own(&mut open);
    }
    stage.assert_undisturbed();
}

#[test]
fn a_process_of_the_node_keeps_the_port_that_it_had_before_masked_flows() {
    let stage = stage();
    let (client, host) = (
        stage.cluster.client(),
        stage.cluster.node(1).host_pod("host"),
    );
    for protocol in PROTOCOLS {
        for to in stage.node_ports(1) {
            let direct = direct(&stage.web[1], to);
            let mut own = Flow::open_from(&host, FIRST, protocol, direct).expect("it opens");
            assert_eq!(own.source().port(), FIRST);
            let masked = Flow::open_from(client, FIRST, protocol, to);
            let mut masked = masked.unwrap_or_else(|error| panic!("{protocol} {to}: {error}"));
            assert_ne!(masked.source().port(), FIRST);
            own.expect_own(b"of the node");
            masked.expect_own(b"of the client");
            own.expect_own(b"of the node again");
        }
    }
    stage.assert_undisturbed();
}

#[test]
fn a_process_of_the_node_may_use_a_port_that_a_masked_flow_has_already() {
    let stage = stage();
    let (client, host) = (
        stage.cluster.client(),
        stage.cluster.node(1).host_pod("host"),
    );
    for protocol in PROTOCOLS {
        for to in stage.node_ports(1) {
            let direct = direct(&stage.web[1], to);
            let mut masked = Flow::open_from(client, LAST, protocol, to).expect("it opens");
            assert_eq!(masked.source().port(), LAST, "it is kept while it is free");
            let own = Flow::open_from(&host, LAST, protocol, direct);
            let mut own = own.unwrap_or_else(|error| panic!("{protocol} {to}: {error}"));
            assert_ne!(own.source(), masked.source());
            masked.expect_own(b"of the client");
            own.expect_own(b"of the node");
            masked.expect_own(b"of the client again");
        }
    }
    stage.assert_undisturbed();
}
