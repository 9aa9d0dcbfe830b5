//! What the real kube-proxy does with packets, and what Ferrule would do: the datapath's decision on the host, asked
//! as `ferrule explain` asks it.

#[path = "conformance/cases.rs"]
mod cases;
#[path = "conformance/modes.rs"]
mod modes;

use cases::{Case, FILES, Packet, path, read};
use modes::Row;
use proxy_user::explain::{Answer, Fate, Offline};
use ring::digest::{SHA256, digest};
use std::collections::BTreeMap;
use std::fs;

#[test]
fn the_data_is_as_it_was_recorded() {
    for (name, recorded) in FILES {
        let found = digest(&SHA256, &fs::read(path(name)).unwrap());
        let found: String = found
            .as_ref()
            .iter()
            .map(|it| format!("{it:02x}"))
            .collect();
        assert_eq!(found, recorded, "{name}");
    }
}

/// How many packets there are, and how many of them agree.
#[derive(Debug, Default)]
struct Count {
    packets: usize,
    agree: usize,
}

impl Count {
    fn add(&mut self, agrees: bool) {
        self.packets += 1;
        self.agree += usize::from(agrees);
    }
}

#[test]
fn packets_fare_as_with_kube_proxy() {
    let (mut all, mut apart) = (Count::default(), BTreeMap::<Row, Count>::new());
    let mut differences = Vec::new();
    for case in read() {
        let mut node = Offline::new(case.facts(), case.objects()).unwrap();
        for packet in &case.packets {
            let answer = node.explain(&packet.query());
            let differs = differs(packet, &answer);
            if let Some(row) = modes::row(&case, packet) {
                apart.entry(row).or_default().add(differs.is_none());
                continue;
            }
            all.add(differs.is_none());
            differences.extend(differs.map(|it| described(&case, packet, &it, &answer)));
        }
    }
    for (row, count) in &apart {
        println!(
            "{row:?}: {} packets, {} as there",
            count.packets, count.agree
        );
    }
    println!("others: {} packets, {} as there", all.packets, all.agree);
    assert!(all.packets > 4500, "{all:?}");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// In what the answer differs from what was recorded.
fn differs(packet: &Packet, answer: &Answer) -> Option<String> {
    let output = packet.output.first().map_or("", String::as_str);
    let fate = match output {
        "" | "ACCEPT" => Fate::Pass,
        "DROP" => Fate::Drop,
        "REJECT" => Fate::Reject,
        _ => Fate::Forward,
    };
    if answer.verdict != fate {
        return Some(format!("{:?}, not {fate:?}", answer.verdict));
    }
    let mut backends = packet.output.clone();
    backends.sort_unstable();
    if fate == Fate::Forward && backends != answer.backends {
        return Some(format!("{:?}, not {backends:?}", answer.backends));
    }
    let masked = packet.masq.filter(|masked| *masked != answer.masquerade)?;
    Some(format!("masquerade is not {masked}"))
}

fn described(case: &Case, packet: &Packet, differs: &str, answer: &Answer) -> String {
    let steps = answer.steps.join("; ");
    format!("{}: {}: {differs} ({steps})", case.id, packet.name)
}
