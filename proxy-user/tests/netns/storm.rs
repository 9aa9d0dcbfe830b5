//! An agent that is killed and started again a hundred times, and traffic that notices nothing.

use crate::everywhere::{backlog_overflows, everywhere, overflows};
use crate::stage::{PATIENCE, Stage};
use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use xtask::traffic::{Conversation, tcp_open, udp_open};

const RESTARTS: u32 = 100;
const STREAMS: usize = 200;
/// 5,000 datagrams a second, as fine as a sleeping thread can portion them.
const PORTION: u32 = 5;
const PAUSE: Duration = Duration::from_millis(1);
const CONTROL: Duration = Duration::from_secs(10);
/// How long the last answers may take.
const LAST: Duration = Duration::from_millis(500);

/// Traffic through the first node: one numbered series of datagrams, and streams from inside and
/// outside over both families.
struct Traffic {
    datagrams: UdpSocket,
    streams: Vec<Conversation>,
}

/// What became of it.
#[derive(Debug)]
struct Record {
    sent: u32,
    answered: u32,
    /// Who answered datagrams.
    servers: BTreeSet<String>,
    /// Streams that have ended.
    broken: Vec<String>,
}

impl Traffic {
    fn open(stage: &Stage) -> Self {
        let inside = stage.cluster_ips().into_iter();
        let inside = inside.map(|to| (stage.shell.namespace(), to));
        let client = stage.cluster.client().namespace();
        let outside = stage.node_ports(1).map(|to| (client, to));
        let ways: Vec<_> = inside.chain(outside).collect();
        let streams = ways.iter().cycle().take(STREAMS);
        let streams = streams.map(|(from, to)| tcp_open(from, *to, PATIENCE).expect("it opens"));
        let to = stage.cluster_ips()[0];
        let datagrams = udp_open(stage.shell.namespace(), to, LAST).expect("it opens");
        Self {
            datagrams: datagrams.socket().try_clone().expect("a second handle"),
            streams: streams.collect(),
        }
    }

    /// Sends all the time while `work` goes on.
    fn during(&mut self, work: impl FnOnce()) -> Record {
        let over = AtomicBool::new(false);
        let (datagrams, streams) = (&self.datagrams, &mut self.streams);
        std::thread::scope(|scope| {
            let over = &over;
            let sender = scope.spawn(|| send(datagrams, over));
            let receiver = scope.spawn(|| receive(datagrams, over));
            let talker = scope.spawn(|| talk(streams, over));
            work();
            over.store(true, Ordering::Release);
            let sent = sender.join().expect("no panic");
            let (numbers, servers) = receiver.join().expect("no panic");
            Record {
                sent,
                answered: u32::try_from(numbers.len()).expect("few enough"),
                servers,
                broken: talker.join().expect("no panic"),
            }
        })
    }
}

impl Record {
    /// No stream has ended, one backend answered datagrams, and what is missing found a full queue.
    fn expect_whole(&self, overflowed: u64) {
        assert!(self.broken.is_empty(), "{self:?}");
        assert_eq!(self.servers.len(), 1, "{self:?}");
        let missing = u64::from(self.sent - self.answered);
        assert!(
            missing <= overflowed,
            "{overflowed} in full queues, {self:?}"
        );
        println!("{missing} of {} in full queues", self.sent);
    }
}

/// Numbers, a portion at a time; returns how many.
fn send(socket: &UdpSocket, over: &AtomicBool) -> u32 {
    let (start, mut number) = (Instant::now(), 0u32);
    while !over.load(Ordering::Acquire) {
        for _ in 0..PORTION {
            socket.send(&number.to_be_bytes()).expect("it is sent");
            number += 1;
        }
        let next = PAUSE * (number / PORTION);
        std::thread::sleep(next.saturating_sub(start.elapsed()));
    }
    number
}

/// The numbers that come back, and from whom.
fn receive(socket: &UdpSocket, over: &AtomicBool) -> (BTreeSet<Vec<u8>>, BTreeSet<String>) {
    let (mut numbers, mut servers) = (BTreeSet::new(), BTreeSet::new());
    let mut buffer = [0; 256];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let (line, number) = buffer[..length].split_at(length - size_of::<u32>());
                let name = line.split(|byte| *byte == b' ').next().unwrap_or(line);
                servers.insert(String::from_utf8_lossy(name).into_owned());
                numbers.insert(number.to_vec());
            }
            Err(_) if over.load(Ordering::Acquire) => return (numbers, servers),
            Err(_) => {}
        }
    }
}

/// A few bytes on one stream after the other; returns why streams ended.
fn talk(streams: &mut [Conversation], over: &AtomicBool) -> Vec<String> {
    let mut broken = Vec::new();
    while !over.load(Ordering::Acquire) {
        for (number, stream) in streams.iter_mut().enumerate() {
            if let Err(error) = stream.echo(b"still there?") {
                broken.push(format!("stream {number}: {error}"));
            }
        }
        if !broken.is_empty() {
            break;
        }
        std::thread::sleep(PAUSE * 10);
    }
    broken
}

/// Datagrams that found a full queue. A start of the agent takes a processor's time from those that
/// send and receive.
fn overflowed(stage: &Stage) -> u64 {
    backlog_overflows() + everywhere(stage).map(overflows).sum::<u64>()
}

#[test]
fn traffic_does_not_notice_that_the_agent_is_killed_a_hundred_times() {
    let mut stage = Stage::new(&[]);
    let mut traffic = Traffic::open(&stage);
    let before = overflowed(&stage);
    let control = traffic.during(|| std::thread::sleep(CONTROL));
    let between = overflowed(&stage);
    let start = Instant::now();
    let storm = traffic.during(|| {
        for _ in 0..RESTARTS {
            stage.take_agent(1).kill().expect("it ends");
            stage.start_agent(1);
        }
    });
    println!("{RESTARTS} restarts in {:?}", start.elapsed());
    control.expect_whole(between - before);
    storm.expect_whole(overflowed(&stage) - between);
    assert_eq!(control.servers, storm.servers);
    stage.assert_undisturbed();
}
