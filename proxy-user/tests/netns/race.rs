//! Two first packets of one flow at the same time, on two processors: as a resolver sends its
//! questions for A and AAAA.

use crate::rows::{Ends, Translation, rows};
use crate::stage::{PATIENCE, Stage};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use proxy_common::FlowRole;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use xtask::traffic::{Datagrams, udp_open};

const SOCKETS: usize = 500;
/// What the queues of the servers have room for.
const AT_ONCE: usize = 50;
const UDP: u32 = 17;
const QUESTIONS: [&[u8]; 2] = [b"A?", b"AAAA?"];

#[test]
fn two_first_datagrams_at_once_make_one_flow_and_both_are_answered() {
    let stage = Stage::new(&[]);
    for to in stage.cluster_ips() {
        let shell = stage.shell.namespace();
        let sockets: Vec<Datagrams> = (0..SOCKETS)
            .map(|_| udp_open(shell, to, PATIENCE).expect("it opens"))
            .collect();
        for some in sockets.chunks(AT_ONCE) {
            send_at_once(some);
            some.iter().for_each(expect_two_answers);
        }
        let rows = rows(&stage.cluster.node(1).paths().bpffs);
        expect_one_flow_each(&rows, &sockets, to);
    }
    stage.assert_undisturbed();
}

/// On each socket both questions, by threads that wait for each other before each.
fn send_at_once(sockets: &[Datagrams]) {
    let arrived = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for (processor, question) in QUESTIONS.into_iter().enumerate() {
            let arrived = &arrived;
            scope.spawn(move || {
                stay_on(processor);
                for (number, socket) in sockets.iter().enumerate() {
                    arrived.fetch_add(1, Ordering::AcqRel);
                    while arrived.load(Ordering::Acquire) < 2 * (number + 1) {
                        std::hint::spin_loop();
                    }
                    socket.socket().send(question).expect("it is sent");
                }
            });
        }
    });
}

/// A veth hands a packet on where it was sent.
fn stay_on(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor).expect("a number of a processor");
    sched_setaffinity(Pid::from_raw(0), &set).expect("the test needs two processors");
}

fn expect_two_answers(socket: &Datagrams) {
    let answers = [0, 1].map(|_| socket.receive(Instant::now()).expect("both are answered"));
    let servers = [0, 1].map(|index| &answers[index].0.server);
    assert_eq!(servers[0], servers[1], "one flow has one backend");
    let mut echoes = answers.map(|(_, echo)| echo);
    echoes.sort();
    assert_eq!(echoes, QUESTIONS);
}

/// Each socket has a row for what it sends and one for what it gets, and there are no others.
fn expect_one_flow_each(rows: &BTreeMap<Ends, Translation>, sockets: &[Datagrams], to: SocketAddr) {
    let is_of_family = |ends: &Ends| ends.from.is_ipv4() == to.is_ipv4();
    let mut left = rows.clone();
    left.retain(|key, _| key.protocol == UDP && is_of_family(key));
    for socket in sockets {
        let from = socket.socket().local_addr().expect("an address");
        let protocol = UDP;
        let row = left.remove(&Ends { protocol, from, to }).expect("a row");
        assert_eq!(row.role, FlowRole::Dnat);
        let reply = left.remove(&row.target.reversed()).expect("its reply");
        assert_eq!(reply.role, FlowRole::UnDnat);
        assert_eq!(reply.target, Ends { protocol, from, to }.reversed());
    }
    assert!(left.is_empty(), "rows that belong to no socket: {left:?}");
}
