//! What the real kube-proxy does with packets, and what the programs do in the kernel: every backend that it may
//! choose must be reached, and none else.

use crate::cases::{self, Case, Packet};

use crate::loaded::{Judge, Loaded};
use crate::modes;
use proxy_common::{DropReason, Hook, Mark, Verdict};
use proxy_ebpf::Fate;
use proxy_ebpf::testing::{PacketBuilder, sctp, tcp, udp};
use proxy_user::datapath::kernel::Kernel;
use proxy_user::source::Event;
use proxy_user::sync::{Followed, Settings, Sync};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;

/// What has become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Refused,
    Dropped(DropReason),
    /// To this backend; whether the client is masked, if that can be told.
    Forwarded(SocketAddr, Option<bool>),
}

#[test]
fn packets_fare_as_with_kube_proxy_in_the_kernel() {
    let mut loaded = Loaded::drawing_from_packets("conformance");
    let mut judge = loaded.judge();
    network();
    let (mut packets, mut differences) = (0, Vec::new());
    for case in cases::read() {
        let mut sync = filled(&loaded, &case);
        for packet in &case.packets {
            if modes::row(&case, packet).is_none() {
                packets += 1;
                let differs = differs(&mut loaded, &mut judge, &case, packet);
                differences.extend(differs.map(|it| format!("{}: {}: {it}", case.id, packet.name)));
            }
        }
        let keys = case.objects().into_iter().map(|object| object.key());
        sync.apply(keys.map(Event::Delete).collect());
        loaded.forget_refusals();
    }
    println!("{packets} packets");
    assert!(packets > 4500, "{packets}");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// A device by which everything leaves, for what the node itself sends.
fn network() {
    let commands = [
        "link set lo up",
        "link add out type veth peer name other",
        "link set other up",
        "link set out up",
        "address add 192.168.0.2/24 dev out",
        "address add 2001:db8::1/64 dev out nodad",
        "route add default dev out",
        "-6 route add default dev out",
    ];
    for command in commands {
        let words = command.split(' ');
        let status = Command::new("ip").args(words).status();
        assert!(status.expect("ip is there").success(), "{command}");
    }
    // Without it the kernel tells programs of no route.
    for family in ["ipv4", "ipv6"] {
        let file = format!("/proc/sys/net/{family}/conf/all/forwarding");
        std::fs::write(file, "1").expect("it can be set");
    }
}

/// The maps as the agent fills them. Local backends are masked as by kube-proxy, so that all can be compared.
fn filled(loaded: &Loaded, case: &Case) -> Sync<Kernel> {
    let facts = case.facts();
    let settings = facts.settings();
    let settings = Settings {
        followed: Followed {
            masquerade_local_backends: true,
            ..settings.followed
        },
        ..settings
    };
    let mut sync = Sync::new(settings, loaded.open_maps()).expect("the maps can be read");
    let local = case.node.addresses().into_iter();
    sync.set_local_addresses(local.map(|ip| (ip, "out".to_owned())).collect());
    let mut events: Vec<Event> = case.objects().into_iter().map(Event::Apply).collect();
    events.push(Event::Synced);
    sync.apply(events);
    assert!(!sync.needs_retry(), "{}", case.id);
    sync
}

/// In what the programs differ from what was recorded.
fn differs(loaded: &mut Loaded, judge: &mut Judge, case: &Case, packet: &Packet) -> Option<String> {
    let expected: Vec<&str> = packet.output.iter().map(String::as_str).collect();
    let outcomes = outcomes(loaded, judge, case, packet, expected.len() as u32);
    let is_as_expected = match expected[..] {
        [] | ["ACCEPT"] => outcomes.iter().all(|it| *it == Outcome::Passed),
        ["REJECT"] => outcomes.iter().all(|it| *it == Outcome::Refused),
        ["DROP"] => outcomes.iter().all(|it| matches!(it, Outcome::Dropped(_))),
        _ => is_led(&outcomes, &expected, packet.masq),
    };
    (!is_as_expected).then(|| {
        let masked = packet.masq;
        format!("{outcomes:?}, not {expected:?}, masked: {masked:?}")
    })
}

/// Whether all of these backends have been reached, and no others, masked as expected.
fn is_led(outcomes: &[Outcome], backends: &[&str], masked: Option<bool>) -> bool {
    let wanted: BTreeSet<SocketAddr> = backends
        .iter()
        .map(|it| it.parse().expect("a socket"))
        .collect();
    let mut reached = BTreeSet::new();
    for outcome in outcomes {
        let Outcome::Forwarded(backend, is_masked) = outcome else {
            return false;
        };
        reached.insert(*backend);
        let agrees = is_masked.is_none() || masked.is_none() || *is_masked == masked;
        if !agrees {
            return false;
        }
    }
    reached == wanted
}

/// What comes of each draw of one of so many, and of the lowest and the highest word.
fn outcomes(
    loaded: &mut Loaded,
    judge: &mut Judge,
    case: &Case,
    packet: &Packet,
    of: u32,
) -> Vec<Outcome> {
    let of = of.max(1);
    let word = |nth: u32| ((u64::from(nth) << 32).div_ceil(of.into())) as u32;
    let words = (0..of).map(word).chain([0, u32::MAX]);
    let words: BTreeSet<u32> = words.collect();
    let outcomes = words.into_iter().map(|word| {
        let outcome = outcome(loaded, judge, case, packet, word);
        loaded.forget_flows();
        outcome
    });
    outcomes.collect()
}

fn outcome(
    loaded: &mut Loaded,
    judge: &mut Judge,
    case: &Case,
    packet: &Packet,
    word: u32,
) -> Outcome {
    let from = SocketAddr::new(packet.source, 40000).to_string();
    let to = SocketAddr::new(packet.dest, packet.dest_port).to_string();
    let is_host = packet.source.is_loopback() || case.node.addresses().contains(&packet.source);
    let make: fn(&str, &str) -> PacketBuilder = match packet.protocol.as_str() {
        "TCP" => tcp,
        "UDP" => udp,
        _ => return judged(judge, &sctp(&from, &to).build(), word, is_host),
    };
    let bytes = make(&from, &to).syn().build();
    let hook = if is_host { Hook::Egress } else { Hook::Ingress };
    let (mut fate, mut output) = loaded.run_drawing(hook, &bytes, word);
    if fate == Ok(Verdict::NotService) {
        // It goes on through the node.
        (fate, output) = loaded.run_drawing(Hook::Egress, &bytes, word);
    }
    let masked = (!is_host).then(|| loaded.has_half_open(Mark::Masked));
    Outcome::of(fate, || Outcome::Forwarded(destination(&output), masked))
}

impl Outcome {
    fn of(fate: Fate, forwarded: impl FnOnce() -> Self) -> Self {
        match fate {
            Ok(Verdict::NotService) => Self::Passed,
            Ok(Verdict::Refused) => Self::Refused,
            Ok(Verdict::Created) => forwarded(),
            Ok(verdict) => panic!("{verdict:?}"),
            Err(reason) => Self::Dropped(reason),
        }
    }
}

/// What is decided about a packet that is not rewritten by those that are attached.
fn judged(judge: &mut Judge, packet: &[u8], word: u32, is_host: bool) -> Outcome {
    const DROPPED: u32 = 100;
    let (code, output) = judge.run(packet, word, is_host);
    match code {
        0 => Outcome::Passed,
        1 | 2 => {
            let masked = (!is_host).then_some(code == 2);
            Outcome::Forwarded(destination(&output), masked)
        }
        code => match DropReason::ALL[(code - DROPPED) as usize] {
            DropReason::NoBackend => Outcome::Refused,
            reason => Outcome::Dropped(reason),
        },
    }
}

/// The address and port that a packet is sent to.
fn destination(packet: &[u8]) -> SocketAddr {
    let is_v6 = packet[12..14] == [0x86, 0xdd];
    let (address, port) = if is_v6 {
        (14 + 24, 14 + 42)
    } else {
        (14 + 16, 14 + 22)
    };
    let number = u16::from_be_bytes([packet[port], packet[port + 1]]);
    if is_v6 {
        let octets: [u8; 16] = packet[address..address + 16].try_into().expect("16 bytes");
        (octets, number).into()
    } else {
        let octets: [u8; 4] = packet[address..address + 4].try_into().expect("4 bytes");
        (octets, number).into()
    }
}
