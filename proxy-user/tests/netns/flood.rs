//! A flood of connections that nobody means, beside those that somebody does. Conntrack forgets half-open
//! ones, too, and then calls what comes of them INVALID: that is not looked at here.

use crate::everywhere::ip;
use crate::stage::{NODE_PORT, PATIENCE, Stage};
use std::net::{IpAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use xtask::traffic::{Conversation, FLOOD_SOURCES, syn_flood, tcp_open};

/// Few enough for a flood to fill them many times, enough for all that is established.
const FLOWS: [&str; 2] = ["--max-flows", "8192"];
const ESTABLISHED: usize = 1000;
const SEGMENTS: u32 = 1_000_000;
const LIMIT: Duration = Duration::from_secs(60);
/// What a slow machine sends in that time is still a flood: the tables are filled ten times.
const ENOUGH: u32 = 50_000;

/// Answers to the sources of the flood come back to the client, which ignores them.
fn lead_answers_away(stage: &Stage) {
    let client = stage.cluster.client();
    let route = format!("route add {FLOOD_SOURCES} via {}", client.v4());
    ip(stage.cluster.router(), "-4", &route);
    let ignore = format!("route add blackhole {FLOOD_SOURCES}");
    ip(client.namespace(), "-4", &ignore);
}

/// From inside and outside, over both families, to all backends.
fn establish(stage: &Stage) -> Vec<Conversation> {
    let inside = stage.cluster_ips().into_iter();
    let inside = inside.map(|to| (stage.shell.namespace(), to));
    let client = stage.cluster.client().namespace();
    let outside = stage.node_ports(1).map(|to| (client, to));
    let ways: Vec<_> = inside.chain(outside).collect();
    let numbers = 0..ESTABLISHED;
    numbers
        .map(|number| {
            let (place, to) = ways[number % ways.len()];
            let mut stream = tcp_open(place, to, PATIENCE).expect("it opens");
            stream.echo(b"established").expect("it works");
            stream
        })
        .collect()
}

/// By two threads; returns how many segments were sent.
fn flood(stage: &Stage, to: SocketAddrV4) -> u32 {
    let client = stage.cluster.client().namespace();
    let halves = [0..SEGMENTS / 2, SEGMENTS / 2..SEGMENTS];
    std::thread::scope(|scope| {
        let senders = halves.map(|half| scope.spawn(|| syn_flood(client, to, half, LIMIT)));
        let sent = senders.map(|sender| sender.join().expect("no panic"));
        sent.into_iter().map(|sent| sent.expect("it is sent")).sum()
    })
}

/// New connections, one after the other, until the flood is over; returns how many.
fn open_until(stage: &Stage, over: &AtomicBool) -> usize {
    let mut opened = 0;
    while !over.load(Ordering::Acquire) {
        for to in stage.cluster_ips() {
            let stream = tcp_open(stage.shell.namespace(), to, PATIENCE);
            stream.expect("a new connection during the flood");
            opened += 1;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    opened
}

#[test]
fn a_flood_of_half_open_connections_costs_no_established_one() {
    let stage = Stage::new(&FLOWS);
    lead_answers_away(&stage);
    let mut open = establish(&stage);
    let IpAddr::V4(node) = stage.cluster.node(1).addresses()[0] else {
        panic!("IPv4 comes first");
    };
    let (start, over) = (Instant::now(), AtomicBool::new(false));
    let (sent, opened) = std::thread::scope(|scope| {
        let opener = scope.spawn(|| open_until(&stage, &over));
        let sent = flood(&stage, SocketAddrV4::new(node, NODE_PORT));
        over.store(true, Ordering::Release);
        (sent, opener.join().expect("the flood refuses nobody"))
    });
    println!("{sent} segments in {:?}, {opened} opened", start.elapsed());
    assert!(sent >= ENOUGH && opened > 0, "{sent} sent, {opened} opened");
    for (number, stream) in open.iter_mut().enumerate() {
        let goes_on = stream.echo(b"still");
        assert!(goes_on.is_ok(), "connection {number}: {goes_on:?}");
    }
    let client = stage.cluster.client().namespace();
    for to in stage.node_ports(1) {
        tcp_open(client, to, PATIENCE).expect("a new connection after the flood");
    }
}

/// Fewer than the half-open flows that the tables hold.
const FEW_PORTS: [&str; 2] = ["--snat-ports", "20000-23999"];

#[test]
fn a_flood_of_half_open_connections_does_not_use_up_the_ports_of_masked_ones() {
    let mut stage = Stage::new(&FEW_PORTS);
    lead_answers_away(&stage);
    let far = stage.web[1].clone();
    stage.set_backends(&[far]);
    let client = stage.cluster.client().namespace();
    let IpAddr::V4(node) = stage.cluster.node(1).addresses()[0] else {
        panic!("IPv4 comes first");
    };
    let to = SocketAddrV4::new(node, NODE_PORT);
    let sent = syn_flood(client, to, 0..ENOUGH, LIMIT).expect("it is sent");
    assert!(sent > 4000, "{sent} sent");
    for _ in 0..10 {
        tcp_open(client, to.into(), PATIENCE).expect("a new connection finds a port");
    }
}
